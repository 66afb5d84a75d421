//! One backend in use: requests in flight, idle connections, recent failures. Lives as long as
//! a table names it or a request is on it; never comes back once removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::drain::Drains;
use crate::metrics::TriedMetrics;
use crate::pool::Pool;
use crate::table::Backend;

/// Set in `state` when no table names the backend any more; the other bits count requests.
const REMOVED: u64 = 1 << 63;

#[derive(Debug)]
pub(crate) struct LiveBackend {
    pub(crate) backend: Backend,
    pub(crate) pool: Pool,
    state: AtomicU64,
    /// The publication that removed it, and its revision; written before `REMOVED` is set.
    removed_in: AtomicU64,
    removed_at: AtomicU64,
    born: Instant,
    /// Milliseconds after `born`.
    failing_until_ms: AtomicU64,
    drains: Arc<Drains>,
    /// Says that there is something below, so that nobody else waits for it.
    is_tried: AtomicBool,
    tried: Mutex<Option<Arc<TriedMetrics>>>,
}

impl LiveBackend {
    /// Its connections are kept in so many places: see [`Pool`].
    pub(crate) fn new(backend: Backend, seats: usize, drains: Arc<Drains>) -> Arc<Self> {
        Arc::new(Self {
            backend,
            pool: Pool::new(seats),
            state: AtomicU64::new(0),
            removed_in: AtomicU64::new(0),
            removed_at: AtomicU64::new(0),
            born: Instant::now(),
            failing_until_ms: AtomicU64::new(0),
            drains,
            is_tried: AtomicBool::new(false),
            tried: Mutex::new(None),
        })
    }

    /// Its requests are counted here, too, from now on; none: not any more.
    pub(crate) fn try_out(&self, tried: Option<Arc<TriedMetrics>>) {
        if tried.is_none() && !self.is_tried.load(Ordering::Relaxed) {
            return;
        }
        self.is_tried.store(tried.is_some(), Ordering::Relaxed);
        *self.tried.lock() = tried;
    }

    /// Where its requests are counted, too.
    pub(crate) fn tried(&self) -> Option<Arc<TriedMetrics>> {
        let is_tried = self.is_tried.load(Ordering::Relaxed);
        is_tried.then(|| self.tried.lock().clone()).flatten()
    }

    /// Counts a request in. Only while the table that names this backend is locked: nothing
    /// enters a removed backend.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.state.fetch_add(1, Ordering::AcqRel);
        InFlight {
            backend: Arc::clone(self),
        }
    }

    /// Counts a request in, though no table may name the backend any more: whoever sent it had an older
    /// one. Nothing is drained while it lasts.
    pub(crate) fn enter_late(self: &Arc<Self>) -> InFlight {
        let one_more = |state: u64| (state & REMOVED == 0).then_some(state + 1);
        let entered = (self.state).fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        if entered.is_err() {
            let removal = (
                self.removed_in.load(Ordering::Acquire),
                self.removed_at.load(Ordering::Acquire),
            );
            let enter = || self.state.fetch_add(1, Ordering::AcqRel) == REMOVED;
            self.drains.entered_late(removal, enter);
        }
        InFlight {
            backend: Arc::clone(self),
        }
    }

    /// Requests in flight.
    pub(crate) fn load(&self) -> u64 {
        self.state.load(Ordering::Relaxed) & !REMOVED
    }

    /// No table names it any more. True if requests are still in flight: the last of them will
    /// tell [`Drains::emptied`].
    pub(crate) fn remove(&self, publication: u64, revision: u64) -> bool {
        self.removed_in.store(publication, Ordering::Release);
        self.removed_at.store(revision, Ordering::Release);
        let before = self.state.fetch_or(REMOVED, Ordering::AcqRel);
        self.pool.close();
        before > 0
    }

    /// A connection failed: pass it over for `pause` if there is another.
    pub(crate) fn failed(&self, pause: Duration) {
        let until = self.born.elapsed() + pause;
        self.failing_until_ms.store(
            u64::try_from(until.as_millis()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    /// A connection was made.
    pub(crate) fn connected(&self) {
        self.failing_until_ms.store(0, Ordering::Relaxed);
    }

    pub(crate) fn is_failing(&self) -> bool {
        let until = self.failing_until_ms.load(Ordering::Relaxed);
        until != 0 && self.born.elapsed().as_millis() < u128::from(until)
    }
}

/// Enters the backend with fewer requests of two random ones. Passes over those in `tried` always, and over
/// failing ones while there is another. `random` is any 64 bits.
pub(crate) fn enter(
    backends: &[Arc<LiveBackend>],
    random: u64,
    tried: &[Arc<LiveBackend>],
) -> Option<InFlight> {
    let fresh =
        |backend: &&Arc<LiveBackend>| !tried.iter().any(|known| Arc::ptr_eq(known, backend));
    let usable = |backend: &&Arc<LiveBackend>| fresh(backend) && !backend.is_failing();
    let count = backends.len();
    let pair = match count {
        0 => return None,
        1 => [0, 0],
        _ => {
            let first = (random >> 32) as usize % count;
            // A step of at least one: never the same backend twice.
            let step = 1 + (random as u32) as usize % (count - 1);
            [first, (first + step) % count]
        }
    };
    let best_of_two = pair
        .map(|place| &backends[place])
        .into_iter()
        .filter(usable)
        .min_by_key(|backend| backend.load());
    best_of_two
        .or_else(|| backends.iter().find(usable))
        .or_else(|| backends.iter().find(fresh))
        .map(LiveBackend::enter)
}

/// A request on a backend. Counted until it is dropped, so it lives as long as the answer's body
/// or the upgraded connection.
#[derive(Debug)]
pub(crate) struct InFlight {
    backend: Arc<LiveBackend>,
}

impl InFlight {
    pub(crate) fn backend(&self) -> &Arc<LiveBackend> {
        &self.backend
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let before = self.backend.state.fetch_sub(1, Ordering::AcqRel);
        if before == REMOVED | 1 {
            self.backend
                .drains
                .emptied(self.backend.removed_in.load(Ordering::Acquire));
        }
    }
}
