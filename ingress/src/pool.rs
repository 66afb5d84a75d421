//! Idle connections to one backend, newest first. Dropping a link closes it, so a
//! closed pool holds no socket open. Never dials.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::crew::seat;
use crate::link::Link;

/// A place for each thread of the crew: who made a connection wakes nobody else by using it.
#[derive(Debug)]
pub(crate) struct Pool {
    places: Box<[Mutex<Idle>]>,
}

#[derive(Debug, Default)]
struct Idle {
    closed: bool,
    /// In the order of `since`.
    connections: Vec<IdleConnection>,
}

#[derive(Debug)]
struct IdleConnection {
    link: Link,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(seats: usize) -> Self {
        Self {
            places: (0..seats).map(|_| Mutex::default()).collect(),
        }
    }

    fn own(&self) -> &Mutex<Idle> {
        &self.places[seat() % self.places.len()]
    }

    /// The connection that was used last, if it has been idle for at most `max_idle`.
    pub(crate) fn take(&self, max_idle: Duration) -> Option<Link> {
        let mut idle = self.own().lock();
        let mut place = idle.connections.len();
        while place > 0 {
            place -= 1;
            let connection = &mut idle.connections[place];
            if connection.link.is_over() {
                idle.connections.remove(place);
            } else if connection.since.elapsed() > max_idle {
                break;
            } else if connection.link.is_ready() {
                return Some(idle.connections.remove(place).link);
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end; drops it if there are `limit`
    /// already or the pool is closed.
    pub(crate) fn put(&self, mut link: Link, limit: usize) {
        if link.is_over() {
            return;
        }
        let mut idle = self.own().lock();
        if !idle.closed && idle.connections.len() < limit {
            idle.connections.push(IdleConnection {
                link,
                since: Instant::now(),
            });
        }
    }

    /// Closes what has been idle for longer than `max_idle`.
    pub(crate) fn sweep(&self, max_idle: Duration) {
        for place in &self.places {
            let mut idle = place.lock();
            (idle.connections)
                .retain_mut(|it| !it.link.is_over() && it.since.elapsed() <= max_idle);
        }
    }

    /// Closes every connection and takes none any more.
    pub(crate) fn close(&self) {
        for place in &self.places {
            let mut idle = place.lock();
            idle.closed = true;
            idle.connections = Vec::new();
        }
    }
}
