//! A connection to a backend. Whoever waits for its answer carries it: one task reads from the client,
//! writes to the backend and back, and wakes no other for it. Never dials, never chooses.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;

use crate::body::RequestBody;
use crate::reach::Stream;
use crate::table::Place;

/// The size of a backend's head, in bytes; also what is read of a body at a time.
const MAX_BACKEND_BUFFER_BYTES: usize = 64 * 1024;

/// A connection to a backend. Dropped, it is closed.
pub(crate) struct Link {
    requests: SendRequest<RequestBody>,
    carrier: Carrier,
    /// Cancelled where whoever brings it asks for its end; none: it is the backend's own.
    leaving: Option<CancellationToken>,
}

/// Who moves its bytes.
enum Carrier {
    /// Whoever holds it.
    Holder(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// A task, until the link is dropped or the backend closes.
    Task,
    /// Nobody: it is over.
    Nobody,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    /// Speaks HTTP/1 on `stream`.
    ///
    /// # Errors
    /// It is closed.
    pub(crate) async fn new(
        stream: impl Stream,
        place: Place,
        leaving: Option<CancellationToken>,
    ) -> hyper::Result<Self> {
        let (requests, connection) = http1::Builder::new()
            .max_buf_size(MAX_BACKEND_BUFFER_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        let carried = async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%place, %error, "a connection to a backend broke");
            }
        };
        Ok(Self {
            requests,
            carrier: Carrier::Holder(Box::pin(carried)),
            leaving,
        })
    }

    /// The head of the answer to `request`. Dropped before that, the link can only be closed.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        // Outside of the budget that tasks have: it is asked without anybody to wake.
        let mut answer = pin!(unconstrained(self.requests.try_send_request(request)));
        let carrier = &mut self.carrier;
        poll_fn(|cx| {
            let waker = carrier.carry(cx);
            answer.as_mut().poll(&mut Context::from_waker(waker))
        })
        .await
    }

    /// What comes next of the answer's body.
    pub(crate) fn poll_answer(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if matches!(self.carrier, Carrier::Holder(_)) {
            // Often it came with the head; and it is read on only when asked for.
            let polled = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop()));
            if polled.is_ready() {
                return polled;
            }
        }
        let waker = self.carrier.carry(cx);
        Pin::new(body).poll_frame(&mut Context::from_waker(waker))
    }

    /// A task carries it from now on, whoever waits: for an upload that goes on beside the answer, for
    /// an upgrade.
    pub(crate) fn detach(&mut self) {
        if let Carrier::Holder(carried) = std::mem::replace(&mut self.carrier, Carrier::Task) {
            tokio::spawn(carried);
        }
    }

    /// Nothing more is to be sent on it.
    pub(crate) fn is_over(&mut self) -> bool {
        let is_leaving = |it: &CancellationToken| it.is_cancelled();
        if self.leaving.as_ref().is_some_and(is_leaving) {
            return true;
        }
        self.carrier.carry(&Context::from_waker(Waker::noop()));
        self.requests.is_closed()
    }

    /// It takes a request.
    pub(crate) fn is_ready(&self) -> bool {
        self.requests.is_ready()
    }
}

impl Carrier {
    /// Moves what can be moved. Who waits for what comes of it is to be woken by the answer: the holder's
    /// own carrying wakes it already, and twice would be once for nothing.
    fn carry<'a>(&mut self, cx: &Context<'a>) -> &'a Waker {
        let Self::Holder(carried) = self else {
            return cx.waker();
        };
        match carried.as_mut().poll(&mut Context::from_waker(cx.waker())) {
            Poll::Pending => Waker::noop(),
            Poll::Ready(()) => {
                *self = Self::Nobody;
                cx.waker()
            }
        }
    }
}
