//! What a client's connection is doing, and when it has been doing it for too long. The
//! connection's task asks now and then; requests and reads only note times.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::options::Options;

/// Never, as a time in milliseconds after birth.
const NEVER: u64 = u64::MAX;

/// The state of one connection. Times are in milliseconds after `born`.
#[derive(Debug)]
pub(crate) struct Activity {
    born: Instant,
    requests: AtomicU32,
    idle_since: AtomicU64,
    /// The first byte of a head that is not complete.
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    /// HTTP/2 sends frames that are no request at any time.
    is_http2: AtomicBool,
}

/// What is to be done with a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// Nothing is under way: close it politely.
    Idle,
    /// The client is stalling: cut it.
    Stalled,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            requests: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(NEVER),
            blocked_since: AtomicU64::new(NEVER),
            is_http2: AtomicBool::new(false),
        })
    }

    /// How often to ask for a verdict: deadlines are kept within half of the shortest.
    pub(crate) fn check_every(options: &Options) -> Duration {
        let shortest = options
            .header_read_timeout
            .min(options.idle_timeout)
            .min(options.write_stall_timeout);
        (shortest / 2).max(Duration::from_millis(1))
    }

    /// A request begins; it lasts until the answer is dropped.
    pub(crate) fn begin(self: &Arc<Self>, is_http2: bool) -> Active {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(NEVER, Ordering::Relaxed);
        if is_http2 {
            self.is_http2.store(true, Ordering::Relaxed);
        }
        Active(Arc::clone(self))
    }

    /// `idle` is how long it may be without a request.
    pub(crate) fn verdict(&self, options: &Options, idle: Duration) -> Verdict {
        let now = self.now();
        let longer = |since: &AtomicU64, limit: Duration| {
            let since = since.load(Ordering::Relaxed);
            since != NEVER && u128::from(now.saturating_sub(since)) >= limit.as_millis()
        };
        if longer(&self.blocked_since, options.write_stall_timeout) {
            Verdict::Stalled
        } else if self.requests.load(Ordering::Relaxed) > 0 {
            Verdict::Keep
        } else if longer(&self.head_since, options.header_read_timeout)
            && !self.is_http2.load(Ordering::Relaxed)
        {
            Verdict::Stalled
        } else if longer(&self.idle_since, idle) {
            Verdict::Idle
        } else {
            Verdict::Keep
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    fn noted_read(&self) {
        if self.requests.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == NEVER
        {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn noted_write(&self, blocked: bool) {
        let was_blocked = self.blocked_since.load(Ordering::Relaxed) != NEVER;
        if blocked != was_blocked {
            self.blocked_since
                .store(if blocked { self.now() } else { NEVER }, Ordering::Relaxed);
        }
    }
}

/// A request under way on a connection.
#[derive(Debug)]
pub(crate) struct Active(Arc<Activity>);

impl Drop for Active {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        }
    }
}

/// A stream that notes reads and blocked writes in an [`Activity`].
#[derive(Debug)]
pub(crate) struct Watched<I> {
    io: I,
    activity: Arc<Activity>,
}

impl<I> Watched<I> {
    pub(crate) fn new(io: I, activity: Arc<Activity>) -> Self {
        Self { io, activity }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.noted_read();
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.activity.noted_write(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.activity.noted_write(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
