//! The question whether a request may pass, put to whom a route names, and what comes of the answer.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::Empty;
use skep_model::routing::ForwardAuth;

use crate::asker::Asker;
use crate::body::ReplyBody;
use crate::headers;
use crate::origin::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO};
use crate::reply::Refusal;
use crate::request_id::X_REQUEST_ID;

static X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
static X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Of the request itself and of its connection: the question has no body and another host.
const NOT_ALONG: [HeaderName; 6] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What one route asks.
#[derive(Debug)]
pub(super) struct Question {
    url: Uri,
    /// Empty: all.
    along: Vec<HeaderName>,
    back: Vec<HeaderName>,
}

impl Question {
    /// None where the address cannot be read; the check left such a route out.
    pub(super) fn new(said: &ForwardAuth) -> Option<Self> {
        let names = |all: &[String]| all.iter().filter_map(|name| name.parse().ok()).collect();
        Some(Self {
            url: said.uri()?,
            along: names(&said.request_headers),
            back: names(&said.response_headers),
        })
    }

    /// Lets the request through, with what the answer says of it, or has the answer for its client.
    pub(super) async fn ask(
        &self,
        asker: &Asker,
        parts: &mut Parts,
    ) -> Result<Option<Response<ReplyBody>>, Refusal> {
        let answer = asker.ask(self.request(parts)).await;
        let answer = answer.map_err(|error| {
            tracing::warn!(url = %self.url, %error, "nobody says whether a request may pass");
            Refusal::AuthUnreachable
        })?;
        let status = answer.status();
        if status.is_success() {
            self.take_over(answer.headers(), &mut parts.headers);
            return Ok(None);
        }
        if status.is_informational() {
            return Err(Refusal::AuthUnreachable);
        }
        let mut response = answer.map(ReplyBody::bytes);
        headers::prepare_response(response.headers_mut(), None);
        response.headers_mut().remove(CONTENT_LENGTH);
        Ok(Some(response))
    }

    fn request(&self, parts: &Parts) -> Request<Empty<bytes::Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.url.clone();
        let mut headers = match self.along.is_empty() {
            true => parts.headers.clone(),
            false => copy(&self.along, &parts.headers),
        };
        for name in &NOT_ALONG {
            headers.remove(name);
        }
        // Ours by now, whatever the client said.
        for name in [
            &X_FORWARDED_FOR,
            &X_FORWARDED_HOST,
            &X_FORWARDED_PORT,
            &X_FORWARDED_PROTO,
            &X_REQUEST_ID,
        ] {
            if let Some(value) = parts.headers.get(name) {
                headers.insert(name, value.clone());
            }
        }
        let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
        for (name, value) in [
            (&X_FORWARDED_METHOD, parts.method.as_str()),
            (&X_FORWARDED_URI, target),
        ] {
            // A method and a target that came in a head are visible ASCII, or the head was refused.
            let value = HeaderValue::from_str(value);
            headers.insert(name, value.unwrap_or(HeaderValue::from_static("")));
        }
        *request.headers_mut() = headers;
        request
    }

    /// Those headers are the answer's alone: what the client said under their names goes, also where some
    /// services would take another name for the same.
    fn take_over(&self, answer: &HeaderMap, headers: &mut HeaderMap) {
        let is_taken = |name: &&HeaderName| {
            let plain = name.as_str().replace(['_', '.'], "-");
            self.back
                .iter()
                .any(|it| it.as_str().replace(['_', '.'], "-") == plain)
        };
        let doomed: Vec<_> = headers.keys().filter(is_taken).cloned().collect();
        for name in doomed {
            headers.remove(name);
        }
        headers.extend(copy(&self.back, answer));
    }
}

fn copy(names: &[HeaderName], from: &HeaderMap) -> HeaderMap {
    let all = names.iter().flat_map(|name| {
        let values = from.get_all(name).into_iter();
        values.map(|value| (name.clone(), value.clone()))
    });
    let mut copied = HeaderMap::new();
    for (name, value) in all {
        copied.append(name, value);
    }
    copied
}
