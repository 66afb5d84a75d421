//! A blob as an HTTP answer: all of it, or the part that was asked for.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE,
};
use axum::http::{HeaderValue, Method, Response, StatusCode};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::task::spawn_blocking;

use super::fetch::{Coming, PIECE_BYTES, piece};

/// Where the bytes are.
pub(super) enum Source {
    /// Here.
    Whole {
        /// Its file.
        file: File,
        /// Its size in bytes.
        size: u64,
    },
    /// On their way.
    Coming(Coming),
}

impl Source {
    fn size(&self) -> Option<u64> {
        match self {
            Self::Whole { size, .. } => Some(*size),
            Self::Coming(coming) => coming.size(),
        }
    }
}

/// The answer to a GET or HEAD; `given` hears of every byte.
pub(super) async fn blob(
    source: Source,
    method: &Method,
    headers: &HeaderMap,
    given: impl Fn(u64) + Send + Sync + 'static,
) -> Response<Body> {
    let size = source.size();
    let (first, last, is_part) = match (range(headers, size), size) {
        (Some(Ok((first, last))), _) => (first, last, true),
        (Some(Err(())), Some(size)) => {
            let whole = format!("bytes */{size}");
            return (StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, whole)]).into_response();
        }
        (_, Some(size)) => (0, size.saturating_sub(1), false),
        (_, None) => (0, u64::MAX - 1, false),
    };
    let length = size.map(|size| (last + 1).min(size).saturating_sub(first));
    let body = if *method == Method::HEAD {
        Body::empty()
    } else {
        match bytes(source, first, length.unwrap_or(u64::MAX)).await {
            Ok(stream) => Body::from_stream(stream.inspect(move |piece| {
                if let Ok(piece) = piece {
                    given(piece.len() as u64);
                }
            })),
            Err(error) => {
                tracing::warn!(%error, "a blob cannot be read");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        }
    };
    let mut answer = Response::new(body);
    let own = answer.headers_mut();
    own.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    own.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(length) = length {
        own.insert(CONTENT_LENGTH, length.into());
    }
    if let (true, Some(size)) = (is_part, size) {
        let range = format!("bytes {first}-{last}/{size}");
        own.insert(
            CONTENT_RANGE,
            HeaderValue::from_str(&range).expect("digits"),
        );
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    answer
}

/// The part that was asked for, where that is one part and its whole is known; else all is given.
fn range(headers: &HeaderMap, size: Option<u64>) -> Option<Result<(u64, u64), ()>> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let size = size?;
    let parsed = http_range_header::parse_range_header(text).ok()?;
    let ranges = match parsed.validate(size) {
        Ok(ranges) => ranges,
        Err(_) => return Some(Err(())),
    };
    match &ranges[..] {
        [one] => Some(Ok((*one.start(), *one.end()))),
        _ => None,
    }
}

async fn bytes(
    source: Source,
    first: u64,
    length: u64,
) -> std::io::Result<futures_util::stream::BoxStream<'static, std::io::Result<Bytes>>> {
    match source {
        Source::Whole { mut file, .. } => {
            file.seek(SeekFrom::Start(first))?;
            let pieces = try_unfold((file, length), |(file, left)| async move {
                let room = left.min(PIECE_BYTES as u64) as usize;
                let (file, bytes) = spawn_blocking(move || piece(file, room)).await??;
                let left = left - bytes.len() as u64;
                Ok((!bytes.is_empty()).then_some((bytes, (file, left))))
            });
            Ok(pieces.boxed())
        }
        Source::Coming(coming) => {
            let pieces = coming.bytes(first).boxed();
            // Over with its last byte: not once the disk has it, too.
            let left = try_unfold((pieces, length), |(mut pieces, left)| async move {
                if left == 0 {
                    return Ok(None);
                }
                let Some(mut piece) = pieces.try_next().await? else {
                    return Ok(None);
                };
                piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - piece.len() as u64;
                Ok(Some((piece, (pieces, left))))
            });
            Ok(left.boxed())
        }
    }
}
