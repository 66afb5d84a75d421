//! Idle connections to one backend, newest first. Dropping a connection's sender closes it, so
//! a closed pool holds no socket open. Never dials.

use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::body::RequestBody;

/// A connection to a backend.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) requests: SendRequest<RequestBody>,
    /// Cancelled where whoever carries it asks for its end; none: it is the backend's own.
    pub(crate) leaving: Option<CancellationToken>,
}

impl Sender {
    /// Nothing more is to be sent on it.
    fn is_over(&self) -> bool {
        let is_leaving = |it: &CancellationToken| it.is_cancelled();
        self.requests.is_closed() || self.leaving.as_ref().is_some_and(is_leaving)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    closed: bool,
    /// In the order of `since`.
    connections: Vec<IdleConnection>,
}

#[derive(Debug)]
struct IdleConnection {
    sender: Sender,
    since: Instant,
}

impl Pool {
    /// The connection that was used last, if it has been idle for at most `max_idle`.
    pub(crate) fn take(&self, max_idle: Duration) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let mut place = idle.connections.len();
        while place > 0 {
            place -= 1;
            let connection = &idle.connections[place];
            if connection.sender.is_over() {
                idle.connections.remove(place);
            } else if connection.since.elapsed() > max_idle {
                break;
            } else if connection.sender.requests.is_ready() {
                return Some(idle.connections.remove(place).sender);
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end; drops it if there are `limit`
    /// already or the pool is closed.
    pub(crate) fn put(&self, sender: Sender, limit: usize) {
        if sender.is_over() {
            return;
        }
        let mut idle = self.idle.lock();
        if !idle.closed && idle.connections.len() < limit {
            idle.connections.push(IdleConnection {
                sender,
                since: Instant::now(),
            });
        }
    }

    /// Closes what has been idle for longer than `max_idle`.
    pub(crate) fn sweep(&self, max_idle: Duration) {
        self.idle
            .lock()
            .connections
            .retain(|it| !it.sender.is_over() && it.since.elapsed() <= max_idle);
    }

    /// Closes every connection and takes none any more.
    pub(crate) fn close(&self) {
        let mut idle = self.idle.lock();
        idle.closed = true;
        idle.connections = Vec::new();
    }
}
