//! Docker's raw streams: a request whose connection becomes the stream. Read here and not by bollard,
//! which takes what a terminal writes for headers where it begins with a byte below 3.

use std::collections::VecDeque;

use bollard::BollardRequest;
use bollard::errors::Error;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Limited};
use hyper::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, ReadHalf, WriteHalf};

use crate::runtime::transport::Socket;

/// Most that is read at a time.
const READ_BYTES: usize = 32 << 10;
/// Longest refusal that is read.
const REFUSAL_MAX_BYTES: usize = 64 << 10;
/// Docker's frames of a stream without a terminal: stream, three zeros, length.
const HEADER_BYTES: usize = 8;
const STDERR: u8 = 2;

/// What the container writes.
pub(super) struct Output {
    from: ReadHalf<TokioIo<Upgraded>>,
    buffer: BytesMut,
    /// None: a terminal's, which has no frames.
    frames: Option<Frames>,
}

/// The way to the container's input.
pub(super) type Input = WriteHalf<TokioIo<Upgraded>>;

/// Asks for a stream.
///
/// # Errors
/// Docker refuses, or is not there.
pub(super) async fn open(
    socket: &Socket,
    (path, body): (&str, Vec<u8>),
    is_terminal: bool,
) -> Result<(Output, Input), Error> {
    let request: BollardRequest = Request::post(path)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .header(CONTENT_TYPE, "application/json")
        .body(bollard::body_full(body.into()))?;
    let answer = socket.send(request).await?;
    let status = answer.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = Limited::new(answer.into_body(), REFUSAL_MAX_BYTES).collect();
        let bytes = body.await.map(|body| body.to_bytes()).unwrap_or_default();
        return Err(Error::DockerResponseServerError {
            status_code: status.as_u16(),
            message: said(&bytes),
        });
    }
    let stream = TokioIo::new(hyper::upgrade::on(answer).await?);
    let (from, to) = tokio::io::split(stream);
    let output = Output {
        from,
        buffer: BytesMut::with_capacity(READ_BYTES),
        frames: (!is_terminal).then(Frames::default),
    };
    Ok((output, to))
}

/// Docker's own words in a refusal.
fn said(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| json["message"].as_str());
    message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}

impl Output {
    /// The next bytes, and whether they are of stderr; none: it has ended.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<(Bytes, bool)>> {
        loop {
            if let Some(part) = self
                .frames
                .as_mut()
                .and_then(|frames| frames.ready.pop_front())
            {
                return Ok(Some(part));
            }
            self.buffer.reserve(READ_BYTES);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
            let read = self.buffer.split();
            match &mut self.frames {
                Some(frames) => frames.push(read.freeze()),
                None => return Ok(Some((read.freeze(), false))),
            }
        }
    }
}

/// Takes frames apart, however they are cut.
#[derive(Debug, Default)]
struct Frames {
    header: Vec<u8>,
    /// What is left of the frame at hand.
    left: usize,
    is_stderr: bool,
    ready: VecDeque<(Bytes, bool)>,
}

impl Frames {
    fn push(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let missing = HEADER_BYTES - self.header.len();
                let part = bytes.split_to(missing.min(bytes.len()));
                self.header.extend_from_slice(&part);
                if self.header.len() == HEADER_BYTES {
                    self.is_stderr = self.header[0] == STDERR;
                    self.left = (&self.header[4..]).get_u32() as usize;
                    self.header.clear();
                }
                continue;
            }
            let part = bytes.split_to(self.left.min(bytes.len()));
            self.left -= part.len();
            self.ready.push_back((part, self.is_stderr));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).expect("short").to_be_bytes();
        [&[stream, 0, 0, 0], &length[..], text.as_bytes()].concat()
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let all = [
            frame(1, "out"),
            frame(2, "\u{1}\u{2}error"),
            frame(1, ""),
            frame(1, "more"),
        ]
        .concat();
        for size in 1..=all.len() {
            let mut frames = Frames::default();
            for part in all.chunks(size) {
                frames.push(Bytes::copy_from_slice(part));
            }
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for (part, is_stderr) in frames.ready {
                match is_stderr {
                    true => err.extend_from_slice(&part),
                    false => out.extend_from_slice(&part),
                }
            }
            assert_eq!(out, b"outmore", "in parts of {size}");
            assert_eq!(err, b"\x01\x02error", "in parts of {size}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_dockers_words() {
        assert_eq!(said(br#"{"message":"no such exec"}"#), "no such exec");
        assert_eq!(said(b"oops"), "oops");
    }
}
