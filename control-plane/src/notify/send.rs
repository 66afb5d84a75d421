//! One attempt at a receiver: a signed POST.

use std::collections::BTreeMap;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};
use skep_model::notify::{Event, MAX_ANSWER};

use crate::outgoing::{Allowed, Outgoing, Reply};

/// What goes to a receiver.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) url: String,
    pub(crate) id: String,
    pub(crate) event: Event,
    /// When it is sent, s since the epoch.
    pub(crate) at_s: u64,
    pub(crate) signature: String,
    /// The receiver's own.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Letter {
    fn request(self) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::post(self.url);
        if !self.headers.contains_key(CONTENT_TYPE.as_str()) {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in &self.headers {
            let mut value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let request = request
            .header("webhook-id", &self.id)
            .header("webhook-timestamp", self.at_s)
            .header("webhook-signature", &self.signature)
            .header("idempotency-key", &self.id)
            .header("x-skep-event", self.event.as_str())
            .body(Full::from(self.body));
        request.map_err(|error| error.to_string())
    }
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

    fn of(reply: &Reply) -> Self {
        Self {
            status: Some(reply.status.as_u16()),
            problem: problem(reply.status),
            retry_after_ms: reply.retry_after_ms,
        }
    }
}

fn problem(status: StatusCode) -> Option<String> {
    match () {
        () if status.is_success() => None,
        () if status.is_redirection() => Some(format!(
            "{status}: nobody is followed elsewhere, change the URL"
        )),
        () => Some(status.to_string()),
    }
}

/// Sends notifications.
#[derive(Debug)]
pub(crate) struct Sender {
    outgoing: Outgoing,
}

impl Sender {
    pub(crate) fn new(allowed: Allowed) -> Self {
        let outgoing = Outgoing::new(allowed);
        Self { outgoing }
    }

    /// Sends one. What goes wrong is an answer, too.
    pub(crate) async fn send(&self, letter: Letter) -> Answer {
        let request = match letter.request() {
            Ok(request) => request,
            Err(why) => return Answer::silent(&why),
        };
        match self.outgoing.send(request, None).await {
            Ok(reply) => Answer::of(&reply),
            Err(why) => Answer::silent(&why),
        }
    }
}
