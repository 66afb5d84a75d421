//! Which allocations have connections open, and since which table one of them is not wanted any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use skep_model::id::AllocationId;
use tokio::sync::watch;

#[derive(Debug, Default)]
struct Entry {
    open: usize,
    /// Sequence of the first table that lacks it; none: it is in the newest.
    lacking: Option<u64>,
}

#[derive(Debug, Default)]
struct Book {
    sequence: u64,
    named: BTreeSet<AllocationId>,
    entries: HashMap<AllocationId, Entry>,
}

impl Book {
    fn drained(&self) -> u64 {
        let lacking = self.entries.values().filter_map(|entry| entry.lacking);
        lacking.min().map_or(self.sequence, |first| first - 1)
    }
}

/// The open connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams {
    book: Arc<Mutex<Book>>,
    drained: watch::Sender<u64>,
    open: watch::Sender<usize>,
}

impl Streams {
    /// A new table, in which these are.
    pub(super) fn publish(&self, sequence: u64, named: &BTreeSet<AllocationId>) {
        let mut book = self.book.lock();
        book.sequence = sequence;
        for (allocation, entry) in &mut book.entries {
            entry.lacking = match named.contains(allocation) {
                true => None,
                false => Some(entry.lacking.unwrap_or(sequence)),
            };
        }
        book.named = named.clone();
        self.tell(&book);
    }

    /// A connection to an allocation; none: the newest table lacks it, whatever the caller has read.
    pub(super) fn open(&self, allocation: AllocationId) -> Option<Open> {
        let mut book = self.book.lock();
        if !book.named.contains(&allocation) {
            return None;
        }
        book.entries.entry(allocation).or_default().open += 1;
        self.open.send_modify(|open| *open += 1);
        Some(Open {
            streams: self.clone(),
            allocation,
        })
    }

    pub(super) fn drained(&self) -> watch::Receiver<u64> {
        self.drained.subscribe()
    }

    pub(super) async fn idle(&self) {
        // The sender lives as long as this.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    fn close(&self, allocation: AllocationId) {
        let mut book = self.book.lock();
        if let Some(entry) = book.entries.get_mut(&allocation) {
            entry.open -= 1;
            if entry.open == 0 {
                book.entries.remove(&allocation);
            }
        }
        self.open.send_modify(|open| *open -= 1);
        self.tell(&book);
    }

    fn tell(&self, book: &Book) {
        let drained = book.drained();
        self.drained.send_if_modified(|told| {
            let is_other = *told != drained;
            *told = drained;
            is_other
        });
    }
}

/// Holds an allocation for as long as it lives.
#[derive(Debug)]
pub(super) struct Open {
    streams: Streams,
    allocation: AllocationId,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.close(self.allocation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_drained_when_what_it_lacks_has_nothing_open() {
        let streams = Streams::default();
        let [one, two] = [1, 2].map(AllocationId::from_u128);
        let drained = || *streams.drained().borrow();
        assert!(streams.open(one).is_none());
        streams.publish(5, &[one, two].into());
        assert_eq!(drained(), 5);
        let (first, second) = (streams.open(one), streams.open(one));
        streams.publish(6, &[two].into());
        assert!(streams.open(one).is_none());
        assert_eq!(drained(), 5);
        streams.publish(7, &[two].into());
        drop(first);
        assert_eq!(drained(), 5);
        drop(second);
        assert_eq!(drained(), 7);
        let again = streams.open(two);
        streams.publish(8, &BTreeSet::new());
        assert_eq!(drained(), 7);
        streams.publish(9, &[two].into());
        assert_eq!(drained(), 9);
        drop(again);
    }
}
