//! The body of an answer, with the line that is written when it has gone out.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Line;
use crate::body::{ReplyBody, ReplyError};

/// A body whose bytes are counted into its line, if there is a log.
#[derive(Debug)]
pub(crate) struct Logged {
    inner: ReplyBody,
    line: Option<Box<Line>>,
}

impl Logged {
    pub(crate) fn new(inner: ReplyBody, mut line: Option<Box<Line>>) -> Self {
        // Bodies without a byte are never asked for one.
        if inner.is_end_stream()
            && let Some(line) = &mut line
        {
            line.completed();
        }
        Self { inner, line }
    }
}

impl Body for Logged {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        let Self { inner, line } = self.get_mut();
        let polled = Pin::new(&mut *inner).poll_frame(cx);
        if let Some(line) = line {
            if let Poll::Ready(Some(Ok(frame))) = &polled
                && let Some(data) = frame.data_ref()
            {
                line.add_bytes(data.len());
            }
            let ended = match &polled {
                Poll::Ready(None) => true,
                Poll::Ready(Some(Ok(_))) => inner.is_end_stream(),
                _ => false,
            };
            if ended {
                line.completed();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
