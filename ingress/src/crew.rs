//! The threads that serve clients, each with a runtime of its own: a connection stays where it was given,
//! and what it waits for wakes that thread and no other. Knows nothing of requests.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

thread_local! {
    /// Which of the crew's threads this is; 0 on any other.
    static SEAT: Cell<usize> = const { Cell::new(0) };
}

/// Which of the crew's threads this is; 0 on any other.
pub(crate) fn seat() -> usize {
    SEAT.get()
}

/// Threads that end when this is dropped.
#[derive(Debug, Default)]
pub struct Crew {
    members: Vec<Member>,
    _end: Option<DropGuard>,
}

#[derive(Debug)]
struct Member {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// A connection's place on a thread, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crew {
    /// So many threads. Of none (the default), connections are served where their listener is.
    ///
    /// # Errors
    /// The kernel gives no thread or no file descriptor.
    pub fn new(size: usize) -> io::Result<Self> {
        let end = CancellationToken::new();
        let members: io::Result<_> = (0..size).map(|seat| Member::new(seat, &end)).collect();
        let end = end.drop_guard();
        Ok(Self {
            members: members?,
            _end: Some(end),
        })
    }

    /// In how many places what belongs to one thread is kept.
    pub(crate) fn seats(&self) -> usize {
        self.members.len().max(1)
    }

    /// The thread that has the fewest connections, and a place there; without threads where this is called.
    pub(crate) fn place(&self) -> (Handle, Option<Place>) {
        let load = |member: &&Member| member.connections.load(Ordering::Relaxed);
        let Some(member) = self.members.iter().min_by_key(load) else {
            return (Handle::current(), None);
        };
        member.connections.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&member.connections));
        (member.runtime.clone(), Some(place))
    }
}

impl Member {
    fn new(seat: usize, end: &CancellationToken) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let end = end.clone();
        std::thread::Builder::new()
            .name(format!("ingress-{seat}"))
            .spawn(move || {
                SEAT.set(seat);
                runtime.block_on(end.cancelled());
            })?;
        Ok(Self {
            runtime: handle,
            connections: Arc::default(),
        })
    }
}
