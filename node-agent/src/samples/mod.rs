//! What this node uses: reads the CPU time and memory of its containers and of the machine every
//! period, and gathers what the data plane has counted. Owns how it is read; says it through the
//! outbox, and judges nothing. Asks Docker for nothing: that takes seconds.

mod cgroup;
mod extra;
mod ingress;
mod machine;
mod reader;
mod running;
mod scrape;

use std::sync::Arc;
use std::time::Duration;

use skep_identity::random;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::session::Outbox;

pub(crate) use ingress::follow;
use reader::Reader;
pub(crate) use running::Board;
pub(crate) use scrape::Scrape;

/// Between two readings. An autoscaler decides every ten seconds or so, on several of them; reading
/// one container costs some tens of microseconds.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);

/// Reads and says it until `cancel`. While there is no session nothing is read: nobody hears it.
pub(crate) async fn keep(board: Board, outbox: Arc<Outbox>, cancel: CancellationToken) {
    let life = u64::from_be_bytes(random::bytes());
    let began = Instant::now();
    let mut reader = Reader::default();
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = tick.tick() => {}
        }
        if !outbox.wants_samples() {
            continue;
        }
        let turn = board.turn();
        let at_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // The kernel may take its time to sum up a large group's memory.
        let read = spawn_blocking(move || {
            let (node, allocations) = (reader.machine(), reader.containers(&turn));
            (reader, node, allocations)
        });
        let Ok((same, node, allocations)) = read.await else {
            tracing::error!("reading samples panicked: there will be none");
            return;
        };
        reader = same;
        outbox.sample((life, at_ms), node, allocations);
    }
}
