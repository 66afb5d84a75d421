//! Bodies on their way: what is sent to backends and what is answered to clients. They carry
//! what must live as long as they do; nothing is buffered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use crate::backend::InFlight;
use crate::compress::Gzip;
use crate::connection::Active;
use crate::files;
use crate::headers;
use crate::link::Link;
use crate::metrics::{Meter, ServiceMetrics};

/// Why a request's body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the client did not send the whole body")]
    Client(#[source] hyper::Error),
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: u64 },
}

/// The body of a request to a backend.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    Upload(Upload),
}

/// A body that comes from the client.
#[derive(Debug)]
pub(crate) struct Upload {
    inner: Incoming,
    limit: Option<u64>,
    sent: u64,
    progress: Arc<Progress>,
    service: Arc<ServiceMetrics>,
}

/// How far an upload is; shared with whoever waits for the answer.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    /// Milliseconds after `began`.
    moved_at_ms: AtomicU64,
    waits_for_client: AtomicBool,
    too_large: AtomicBool,
    ended: AtomicBool,
}

impl Progress {
    /// All of it was sent, or no more will be.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// How long ago the upload moved.
    pub(crate) fn stalled_for(&self) -> Duration {
        let moved_at = Duration::from_millis(self.moved_at_ms.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(moved_at)
    }

    /// It is the client and not the backend that keeps the upload waiting.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.waits_for_client.load(Ordering::Relaxed)
    }

    pub(crate) fn is_too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    fn moved(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_at_ms.store(now, Ordering::Relaxed);
    }
}

impl RequestBody {
    /// The client's body, and how to follow it if there is one.
    pub(crate) fn new(
        inner: Incoming,
        limit: Option<u64>,
        service: &Arc<ServiceMetrics>,
    ) -> (Self, Option<Arc<Progress>>) {
        if inner.is_end_stream() {
            return (Self::Empty, None);
        }
        let progress = Arc::new(Progress {
            began: Instant::now(),
            moved_at_ms: AtomicU64::new(0),
            waits_for_client: AtomicBool::new(false),
            too_large: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let upload = Upload {
            inner,
            limit,
            sent: 0,
            progress: Arc::clone(&progress),
            service: Arc::clone(service),
        };
        (Self::Upload(upload), Some(progress))
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Upload(upload) => upload.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload(upload) => upload.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload(upload) => upload.inner.size_hint(),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.progress.ended.store(true, Ordering::Relaxed);
    }
}

impl Upload {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.progress
            .waits_for_client
            .store(polled.is_pending(), Ordering::Relaxed);
        let Poll::Ready(mut next) = polled else {
            return Poll::Pending;
        };
        self.progress.moved();
        if let Some(Ok(frame)) = &mut next
            && let Some(trailers) = frame.trailers_mut()
        {
            headers::prepare_trailers(trailers);
        }
        if let Some(Ok(frame)) = &next
            && let Some(data) = frame.data_ref()
        {
            self.service.add_request_bytes(data.len());
            self.sent += data.len() as u64;
            if let Some(limit) = self.limit.filter(|limit| self.sent > *limit) {
                self.progress.too_large.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(Error::TooLarge { limit })));
            }
        }
        Poll::Ready(next.map(|result| result.map_err(Error::Client)))
    }
}

/// What an answer holds until its last byte: the count on the backend, the connection to it,
/// the meter, the client's connection being busy.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Kept for the next request when the answer was read to its end, closed otherwise.
    pub(crate) link: Option<Link>,
    pub(crate) max_idle_per_backend: usize,
    pub(crate) meter: Meter,
    /// After `link`: a backend counts as drained only when its connections are closed.
    pub(crate) in_flight: InFlight,
    pub(crate) active: Option<Active>,
    /// Among those that its route lets in at the same time.
    #[expect(dead_code, reason = "held, and given back when the answer has ended")]
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

impl Lease {
    fn finish(mut self) {
        if let Some(link) = self.link.take() {
            self.in_flight
                .backend()
                .pool
                .put(link, self.max_idle_per_backend);
        }
    }
}

/// Why an answer's body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    #[error("the backend did not send the whole body")]
    Backend(#[from] hyper::Error),
    #[error("the disk did not give the whole file")]
    Disk(#[from] io::Error),
}

/// The body of a backend's answer.
#[derive(Debug)]
pub(crate) enum Came {
    /// Over a connection.
    Link(Incoming),
    /// A file of this node.
    Disk(files::Body),
}

impl Came {
    fn poll(
        &mut self,
        link: Option<&mut Link>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        let frame = match (self, link) {
            (Self::Disk(body), _) => ready!(Pin::new(body).poll_frame(cx)?),
            (Self::Link(body), Some(link)) => ready!(link.poll_answer(body, cx)?),
            (Self::Link(body), None) => ready!(Pin::new(body).poll_frame(cx)?),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Link(body) => body.is_end_stream(),
            Self::Disk(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Link(body) => body.size_hint(),
            Self::Disk(body) => body.size_hint(),
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// Ours.
    Text(Full<Bytes>),
    /// A backend's.
    Stream {
        /// What comes.
        inner: Came,
        /// Until the end was seen.
        lease: Option<Box<Lease>>,
    },
    /// A backend's, compressed on its way.
    Gzip(Box<Gzip>),
}

impl ReplyBody {
    pub(crate) fn text(text: &'static str) -> Self {
        Self::Text(Full::new(Bytes::from_static(text.as_bytes())))
    }

    pub(crate) fn owned(text: String) -> Self {
        Self::bytes(Bytes::from(text))
    }

    pub(crate) fn bytes(bytes: Bytes) -> Self {
        Self::Text(Full::new(bytes))
    }

    pub(crate) fn stream(inner: Came, lease: Lease) -> Self {
        if inner.is_end_stream() {
            lease.finish();
            return Self::Stream { inner, lease: None };
        }
        Self::Stream {
            inner,
            lease: Some(Box::new(lease)),
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        let (inner, lease) = match self.get_mut() {
            Self::Text(text) => {
                return Pin::new(text)
                    .poll_frame(cx)
                    .map_err(|never| match never {});
            }
            Self::Gzip(gzip) => return gzip.poll_frame(cx),
            Self::Stream { inner, lease } => (inner, lease),
        };
        let link = lease.as_mut().and_then(|lease| lease.link.as_mut());
        let polled = inner.poll(link, cx);
        let ended = match &polled {
            Poll::Pending => false,
            Poll::Ready(None) => true,
            Poll::Ready(Some(Err(_))) => {
                *lease = None;
                false
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(data), Some(lease)) = (frame.data_ref(), lease.as_ref()) {
                    lease.meter.service().add_response_bytes(data.len());
                }
                inner.is_end_stream()
            }
        };
        if ended && let Some(lease) = lease.take() {
            lease.finish();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::Stream { inner, .. } => inner.is_end_stream(),
            Self::Gzip(gzip) => gzip.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::Gzip(_) => SizeHint::default(),
            Self::Stream { inner, .. } => inner.size_hint(),
        }
    }
}
