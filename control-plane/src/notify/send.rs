//! One attempt: a POST that is over in some seconds, follows nobody elsewhere, and reads little of an answer.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use skep_model::notify::{Event, MAX_ANSWER, address_of, check_url};
use tokio::time::timeout;

use super::guard::{Allowed, Guarded};

/// All of an attempt. Whoever needs longer takes it first and works on it afterwards.
const DEADLINE: Duration = Duration::from_secs(10);
/// What is read of an answer's body, so that a receiver is not cut off while it writes a page.
const MAX_BODY: usize = 64 << 10;

type Client = legacy::Client<HttpsConnector<HttpConnector<Guarded>>, Full<Bytes>>;

/// What goes to a receiver.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) url: String,
    pub(crate) id: String,
    pub(crate) event: Event,
    /// When it is sent, s since the epoch.
    pub(crate) at_s: u64,
    pub(crate) signature: String,
    pub(crate) body: Vec<u8>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// None: nobody answered.
    pub(crate) status: Option<u16>,
    /// Why it was not taken.
    pub(crate) problem: Option<String>,
    /// When to come again, in the receiver's words.
    pub(crate) retry_after_ms: Option<u64>,
}

impl Answer {
    /// There was none, and why.
    pub(crate) fn silent(why: &str) -> Self {
        let why = &why[..why.floor_char_boundary(MAX_ANSWER)];
        Self {
            status: None,
            problem: Some(why.to_owned()),
            retry_after_ms: None,
        }
    }

    fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        let problem = match () {
            () if status.is_success() => None,
            () if status.is_redirection() => Some(format!(
                "{status}: nobody is followed elsewhere, change the URL"
            )),
            () => Some(status.to_string()),
        };
        Self {
            status: Some(status.as_u16()),
            problem,
            retry_after_ms: retry_after_ms(headers, SystemTime::now()),
        }
    }
}

fn retry_after_ms(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let pause = at.duration_since(now).ok()?;
    u64::try_from(pause.as_millis()).ok()
}

/// Sends notifications.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) allowed: Allowed,
    /// Made for the first one: reading what this machine trusts takes its time.
    client: OnceLock<Result<Client, String>>,
}

impl Sender {
    pub(crate) fn new(allowed: Allowed) -> Self {
        Self {
            allowed,
            client: OnceLock::new(),
        }
    }

    /// Sends one. What goes wrong is an answer, too.
    pub(crate) async fn send(&self, letter: Letter) -> Answer {
        match timeout(DEADLINE, self.post(letter)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => Answer::silent(&why),
            Err(_) => Answer::silent("no answer within 10 s"),
        }
    }

    async fn post(&self, letter: Letter) -> Result<Answer, String> {
        let uri = check_url(&letter.url).map_err(|problem| problem.message)?;
        // The resolver is not asked for these.
        if let Some(address) = address_of(&uri) {
            let allowed = self.allowed.check(address);
            allowed.map_err(|problem| problem.message)?;
        }
        let made = self.client.get_or_init(|| client(self.allowed.clone()));
        let client = made.as_ref().map_err(Clone::clone)?;
        let request = Request::post(uri)
            .header(USER_AGENT, concat!("skep/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &letter.id)
            .header("webhook-timestamp", letter.at_s)
            .header("webhook-signature", &letter.signature)
            .header("idempotency-key", &letter.id)
            .header("x-skep-event", letter.event.as_str())
            .body(Full::from(letter.body));
        let request = request.map_err(|error| error.to_string())?;
        let answer = client.request(request).await;
        let answer = answer.map_err(|error| chain(&error))?;
        let (parts, body) = answer.into_parts();
        // It has said what it says: what follows is read only so that it can write it.
        let _ = Limited::new(body, MAX_BODY).collect().await;
        Ok(Answer::of(parts.status, &parts.headers))
    }
}

/// Connections are not kept: the next notification for a receiver may come in a week.
fn client(allowed: Allowed) -> Result<Client, String> {
    let mut tcp = HttpConnector::new_with_resolver(Guarded::new(allowed));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let builder = HttpsConnectorBuilder::new().with_native_roots();
    let builder = builder.map_err(|error| {
        format!("this server trusts no certificate ({error}): install ca-certificates")
    })?;
    let https = builder.https_or_http().enable_http1().wrap_connector(tcp);
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(https))
}

/// An error with what is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_says_in_two_ways_when_to_come_again() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let heard = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a value"));
            retry_after_ms(&headers, now)
        };
        assert_eq!(heard("60"), Some(60_000));
        assert_eq!(heard("Thu, 01 Jan 1970 01:00:00 GMT"), Some(2_600_000));
        assert_eq!(heard("Thu, 01 Jan 1970 00:00:00 GMT"), None, "past");
        assert_eq!(heard("soon"), None);
    }

    #[tokio::test]
    async fn what_is_off_limits_is_not_connected_to_by_number_or_name() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let sender = Sender::new(Allowed::new(&[]));
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let letter = Letter {
                url: format!("http://{host}:{port}/"),
                id: "id".into(),
                event: Event::Test,
                at_s: 1,
                signature: "v1,".into(),
                body: Vec::new(),
            };
            let answer = sender.send(letter).await;
            let why = answer.problem.expect("not taken");
            assert!(why.contains("--notify-allow"), "{host}: {why}");
        }
        let came = timeout(Duration::ZERO, listener.accept()).await;
        assert!(came.is_err(), "somebody connected");
    }
}
