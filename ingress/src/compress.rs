//! Answers made smaller on their way, where a route says so and the client takes it. Owns which are, and
//! the body that does it; never holds back what has arrived.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};

use crate::body::{ReplyBody, ReplyError};

/// Smaller answers, in bytes, hardly shrink: they fit into a packet anyway.
const MIN_BYTES: u64 = 1024;
/// Text shrinks to about what the highest level makes of it, at a third of the time.
const LEVEL: u32 = 5;
/// Compressed at a time: about a millisecond of a core, then others have their turn.
const PIECE: usize = 64 << 10;
/// What goes out at a time while more is there.
const ENOUGH: usize = 16 << 10;
/// What shrinks beside `text/`: everything else is compressed already, or nobody knows what it is.
const KINDS: [&str; 12] = [
    "application/javascript",
    "application/json",
    "application/manifest+json",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/xml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/vnd.microsoft.icon",
    "image/x-icon",
];
/// Each event is for this moment, and some readers of streams expect what the service wrote.
const EVENTS: &str = "text/event-stream";

/// How a proxy in front says that its route is compressed: addresses of backends are of many routes.
pub(crate) static BY_HEADER: HeaderName = HeaderName::from_static("x-skep-compress");

/// Whether the proxy in front asks for it; no service sees that it does.
pub(crate) fn is_asked(headers: &mut HeaderMap) -> bool {
    headers.remove(&BY_HEADER).is_some()
}

/// Whether an answer to this request may be compressed, as far as the client is concerned.
pub(crate) fn is_taken<B>(request: &Request<B>) -> bool {
    *request.method() != Method::HEAD && accepts_gzip(request.headers())
}

/// Compresses `response`, unless there is a reason not to.
pub(crate) fn compress(is_taken: bool, response: Response<ReplyBody>) -> Response<ReplyBody> {
    if !is_worth_it(response.status(), response.headers()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let headers = &mut parts.headers;
    // Also where this client gets it as it is: the next one behind a cache may take it compressed.
    if !says(headers, &VARY, |it| it == "accept-encoding" || it == "*") {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
    if !is_taken {
        return Response::from_parts(parts, body);
    }
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    weaken(headers);
    Response::from_parts(parts, ReplyBody::Gzip(Box::new(Gzip::new(body))))
}

/// Of several lines the last word of a coding counts, as with most servers; `*` is all that is not named.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any) = (None, None);
    for value in headers.get_all(ACCEPT_ENCODING) {
        for part in value.to_str().unwrap_or_default().split(',') {
            let (name, said) = part.split_once(';').unwrap_or((part, ""));
            let is_wanted = !is_zero(said);
            match name.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => gzip = Some(is_wanted),
                "*" => any = Some(is_wanted),
                _ => {}
            }
        }
    }
    gzip.or(any).unwrap_or(false)
}

/// `q=0` in any of its forms.
fn is_zero(parameter: &str) -> bool {
    let weight = parameter.trim().strip_prefix(['q', 'Q']);
    let weight = weight.and_then(|rest| rest.trim_start().strip_prefix('='));
    weight.is_some_and(|weight| weight.trim().parse() == Ok(0.0_f32))
}

fn is_worth_it(status: StatusCode, headers: &HeaderMap) -> bool {
    let has_body = !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT
    );
    let length = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok());
    let length = length.and_then(|text| text.parse().ok());
    has_body
        && !status.is_informational()
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && length.is_none_or(|length: u64| length >= MIN_BYTES)
        && !says(headers, &CACHE_CONTROL, |it| it == "no-transform")
        && headers.get(CONTENT_TYPE).is_some_and(is_text)
}

fn is_text(kind: &HeaderValue) -> bool {
    let kind = kind.to_str().unwrap_or_default();
    let (kind, _) = kind.split_once(';').unwrap_or((kind, ""));
    let kind = kind.trim().to_ascii_lowercase();
    let is_known = || {
        kind.starts_with("text/")
            || kind.ends_with("+xml")
            || (kind.ends_with("+json") && !kind.starts_with("application/grpc"))
            || KINDS.contains(&&*kind)
    };
    kind != EVENTS && is_known()
}

/// Whether a header's list has a member.
fn says(headers: &HeaderMap, name: &HeaderName, is_it: impl Fn(&str) -> bool) -> bool {
    let values = headers.get_all(name).into_iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|part| is_it(&part.trim().to_ascii_lowercase()))
}

/// Byte for byte it is another answer from here on, but it means the same (RFC 9110, 8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let tag = headers.get(ETAG).map(HeaderValue::as_bytes);
    let Some(tag) = tag.filter(|tag| tag.starts_with(b"\"")) else {
        return;
    };
    match HeaderValue::from_bytes(&[b"W/", tag].concat()) {
        Ok(weak) => headers.insert(ETAG, weak),
        Err(_) => headers.remove(ETAG),
    };
}

/// A body that is compressed while it comes.
#[derive(Debug)]
pub(crate) struct Gzip {
    inner: ReplyBody,
    encoder: GzEncoder<Vec<u8>>,
    /// Arrived, not yet compressed.
    rest: Bytes,
    /// The encoder keeps something back.
    is_dirty: bool,
    trailers: Option<HeaderMap>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Coming,
    /// All that comes is in the encoder.
    Ending,
    Ended,
}

impl Gzip {
    fn new(inner: ReplyBody) -> Self {
        Self {
            inner,
            encoder: GzEncoder::new(Vec::new(), Compression::new(LEVEL)),
            rest: Bytes::new(),
            is_dirty: false,
            trailers: None,
            state: State::Coming,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// What is compressed by now; none: nothing.
    fn take(&mut self) -> Option<Frame<Bytes>> {
        let made = std::mem::take(self.encoder.get_mut());
        (!made.is_empty()).then(|| Frame::data(Bytes::from(made)))
    }

    /// Asks for more until there is enough to send, nothing comes at the moment, or it is others' turn.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        while self.state == State::Coming {
            if !self.rest.is_empty() {
                let piece = self.rest.split_to(self.rest.len().min(PIECE));
                self.encoder.write_all(&piece).expect(IN_MEMORY);
                self.is_dirty = true;
                if self.encoder.get_ref().len() >= ENOUGH {
                    return Poll::Ready(self.take().map(Ok));
                }
                if !self.rest.is_empty() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => {
                    if std::mem::take(&mut self.is_dirty) {
                        self.encoder.flush().expect(IN_MEMORY);
                    }
                    let made = self.take().map(Ok);
                    return made.map_or(Poll::Pending, |frame| Poll::Ready(Some(frame)));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.state = State::Ended;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Poll::Ready(None) => {
                    self.encoder.try_finish().expect(IN_MEMORY);
                    self.state = State::Ending;
                }
            }
        }
        if let Some(last) = self.take() {
            if self.trailers.is_none() {
                self.state = State::Ended;
            }
            return Poll::Ready(Some(Ok(last)));
        }
        self.state = State::Ended;
        Poll::Ready(self.trailers.take().map(Frame::trailers).map(Ok))
    }
}

/// Why an encoder never fails.
const IN_MEMORY: &str = "memory takes every write";

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn who_takes_gzip() {
        for (said, expected) in [
            ("gzip", true),
            ("GZip", true),
            ("deflate, x-gzip;q=0.1, br", true),
            ("gzip;q=0", false),
            ("gzip; q = 0.000", false),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0, *", false),
            ("br, *;q=0, gzip", true),
            ("br", false),
            ("identity", false),
            ("gzipped", false),
            ("", false),
        ] {
            let found = accepts_gzip(&head(&[("accept-encoding", said)]));
            assert_eq!(found, expected, "{said}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
        let request = Request::head("/").header("accept-encoding", "gzip");
        assert!(!is_taken(&request.body(()).expect("a request")));
    }

    #[test]
    fn which_answers_are_worth_it() {
        let text = ("content-type", "text/html; charset=utf-8");
        for (status, lines, expected) in [
            (200, vec![text], true),
            (404, vec![text, ("content-length", "1024")], true),
            (200, vec![text, ("content-length", "1023")], false),
            (200, vec![], false),
            (204, vec![text], false),
            (304, vec![text], false),
            (206, vec![text], false),
            (416, vec![text, ("content-range", "bytes */9")], false),
            (200, vec![text, ("content-encoding", "br")], false),
            (
                200,
                vec![text, ("cache-control", "max-age=1, No-Transform")],
                false,
            ),
            (200, vec![text, ("cache-control", "no-transform-x")], true),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(
                is_worth_it(status, &head(&lines)),
                expected,
                "{status} {lines:?}"
            );
        }
        for (kind, expected) in [
            ("text/plain", true),
            ("Application/JSON", true),
            ("application/problem+json", true),
            ("image/svg+xml", true),
            ("application/wasm", true),
            ("text/event-stream", false),
            ("text/event-stream; charset=utf-8", false),
            ("application/grpc", false),
            ("application/grpc+json", false),
            ("application/grpc-web+proto", false),
            ("image/png", false),
            ("video/mp4", false),
            ("font/woff2", false),
            ("application/zip", false),
            ("application/octet-stream", false),
            ("", false),
        ] {
            assert_eq!(is_text(&HeaderValue::from_static(kind)), expected, "{kind}");
        }
    }

    #[test]
    fn heads_say_that_the_answer_is_another_one() {
        let answer = |taken, lines: &[(&'static str, &'static str)]| {
            let mut response = Response::new(ReplyBody::text(""));
            *response.headers_mut() = head(lines);
            compress(taken, response)
        };
        let lines = [
            ("content-type", "text/plain"),
            ("content-length", "5000"),
            ("accept-ranges", "bytes"),
            ("etag", "\"a\""),
            ("vary", "Origin"),
        ];
        let response = answer(true, &lines);
        let headers = response.headers();
        assert_eq!(headers["content-encoding"], "gzip");
        assert_eq!(headers["etag"], "W/\"a\"");
        assert!(!headers.contains_key("content-length") && !headers.contains_key("accept-ranges"));
        let vary: Vec<_> = headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Origin", "accept-encoding"]);
        let plain = answer(false, &lines);
        assert_eq!(plain.headers()["etag"], "\"a\"");
        assert_eq!(plain.headers().get_all("vary").iter().count(), 2);
        let weak = answer(
            true,
            &[
                ("content-type", "text/a"),
                ("etag", "W/\"a\""),
                ("vary", "*"),
            ],
        );
        assert_eq!(weak.headers()["etag"], "W/\"a\"");
        assert_eq!(weak.headers().get_all("vary").iter().count(), 1);
    }
}
