//! One line: what is known when a request begins, and what when its answer ends.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Version};
use serde::Serialize;

use super::AccessLog;
use crate::origin::Origin;

/// Longer ones are cut, in bytes: whoever sends them does so to fill disks.
const MAX_PATH_BYTES: usize = 2048;
const MAX_HOST_BYTES: usize = 256;
const MAX_AGENT_BYTES: usize = 512;
/// What most lines take: one allocation a request.
const USUAL_BYTES: usize = 512;
/// Of a request whose client went before there was an answer: what nginx writes.
const LEFT: u16 = 499;

/// The line of a request under way. It is written when it is dropped, however the request ended.
#[derive(Debug)]
pub(crate) struct Line {
    log: AccessLog,
    began: Instant,
    /// The first half, rendered at once: headers would keep the whole buffer that they were read into.
    text: Vec<u8>,
    is_head: bool,
    status: Option<StatusCode>,
    /// The ingress itself answered, and why.
    error: Option<&'static str>,
    service: Option<Arc<str>>,
    bytes: u64,
    complete: bool,
}

/// What is known at the beginning. Together with [`End`] one object of JSON.
#[derive(Serialize)]
struct Start<'a> {
    /// When the request's head had come, in UTC.
    time: String,
    client: IpAddr,
    scheme: &'static str,
    method: &'a str,
    host: Cow<'a, str>,
    path: Cow<'a, str>,
    version: &'static str,
    user_agent: Option<Cow<'a, str>>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct End<'a> {
    status: u16,
    /// Of the answer's body.
    bytes: u64,
    /// From the request's head to the last byte of the answer, as far as it was taken from us.
    ms: f64,
    /// Whether the answer's body came to its end.
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

impl Line {
    pub(crate) fn begin<B>(
        log: &AccessLog,
        request: &Request<B>,
        origin: &Origin,
        id: &HeaderValue,
    ) -> Box<Self> {
        let (headers, uri) = (request.headers(), request.uri());
        let path = match uri.path_and_query() {
            Some(both) if log.with_query => both.as_str(),
            _ => uri.path(),
        };
        let host = headers.get(HOST).map(|host| text_of(host, MAX_HOST_BYTES));
        let host = host.or_else(|| {
            uri.authority()
                .map(|it| cut(it.as_str(), MAX_HOST_BYTES).into())
        });
        let start = Start {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            client: origin.client,
            scheme: origin.scheme.as_str(),
            method: request.method().as_str(),
            host: host.unwrap_or_default(),
            path: cut(path, MAX_PATH_BYTES).into(),
            version: version_of(request.version()),
            user_agent: headers
                .get(USER_AGENT)
                .map(|it| text_of(it, MAX_AGENT_BYTES)),
            request_id: id.to_str().unwrap_or_default(),
        };
        let mut text = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut text, &start).expect("plain values into memory");
        Box::new(Self {
            log: log.clone(),
            began: Instant::now(),
            text,
            is_head: request.method() == Method::HEAD,
            status: None,
            error: None,
            service: None,
            bytes: 0,
            complete: false,
        })
    }

    /// The head of the answer is known.
    pub(crate) fn answered(
        &mut self,
        status: StatusCode,
        service: Option<Arc<str>>,
        error: Option<&'static str>,
    ) {
        (self.status, self.service, self.error) = (Some(status), service, error);
        self.complete = self.is_head;
    }

    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The answer's body came to its end.
    pub(super) fn completed(&mut self) {
        self.complete = true;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let end = End {
            status: self.status.map_or(LEFT, |status| status.as_u16()),
            bytes: self.bytes,
            ms: (self.began.elapsed().as_micros() as f64) / 1000.0,
            complete: self.complete,
            service: self.service.as_deref(),
            error: self.error,
        };
        // Two objects become one: `{a}` and `{b}` are `{a,b}`.
        let joint = self.text.len() - 1;
        serde_json::to_writer(&mut self.text, &end).expect("plain values into memory");
        self.text[joint] = b',';
        self.text.remove(joint + 1);
        let _ = self.text.write_all(b"\n");
        self.log.queue.push(&self.text);
    }
}

fn version_of(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

fn text_of(value: &HeaderValue, limit: usize) -> Cow<'_, str> {
    match String::from_utf8_lossy(value.as_bytes()) {
        Cow::Borrowed(text) => cut(text, limit).into(),
        Cow::Owned(text) => cut(&text, limit).to_owned().into(),
    }
}

fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("aéc", 2), "a");
        let value = HeaderValue::from_bytes(b"a\xffb").expect("a value");
        assert_eq!(text_of(&value, 8), "a\u{fffd}b");
    }
}
