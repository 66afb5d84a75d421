//! When to take a snapshot and what may be forgotten after it.
//!
//! Owns the snapshot thread, on which states are encoded and written and log files purged, so
//! that applying never waits for them. Never reads the state itself: it is handed a view.

use super::handle::Event;
use super::log::LogStore;
use super::machine::StateMachine;
use super::service;
use super::snapshot::{KEPT, Snapshots, Sum, Taken};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a command costs in the log beside its bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// How much may be applied between two snapshots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

enum Job<M: StateMachine> {
    Write(Taken, M::View),
    /// Replace the machine's state by the snapshot at this index.
    Restore(u64, Box<M>),
    Purge,
}

/// A snapshot on disk. What is read or written by this process has a sum, and can be sent.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) taken: Taken,
    pub(super) sum: Option<Sum>,
}

pub(super) struct Keeper<M: StateMachine> {
    policy: Policy,
    entries: u64,
    bytes: u64,
    is_writing: bool,
    /// Newest first: [`KEPT`], and those that are being sent.
    kept: Vec<Kept>,
    snapshots: Snapshots,
    jobs: Option<Sender<Job<M>>>,
    thread: Option<JoinHandle<()>>,
    ended: Receiver<()>,
    stop_deadline: Duration,
}

/// What the snapshot thread works with.
pub(super) struct Tools {
    pub(super) snapshots: Snapshots,
    pub(super) store: Arc<dyn LogStore>,
    /// The directory stays locked for as long as the thread may write.
    pub(super) lock: Arc<File>,
    pub(super) stop_deadline: Duration,
}

impl<M: StateMachine> Keeper<M> {
    pub(super) fn start(
        policy: Policy,
        kept: Vec<Kept>,
        tools: Tools,
        events: Sender<Event<M>>,
    ) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let (end, ended) = channel();
        let (snapshots, stop_deadline) = (tools.snapshots.clone(), tools.stop_deadline);
        let thread = std::thread::Builder::new()
            .name("skep-snapshot".to_owned())
            .spawn(move || {
                let Tools {
                    snapshots,
                    store,
                    lock,
                    ..
                } = tools;
                work(&queue, &snapshots, &*store, &events);
                drop((store, lock, end));
            })?;
        Ok(Self {
            policy,
            entries: 0,
            bytes: 0,
            is_writing: false,
            kept,
            snapshots,
            jobs: Some(jobs),
            thread: Some(thread),
            ended,
            stop_deadline,
        })
    }

    pub(super) fn count(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes as u64 + ENTRY_OVERHEAD_BYTES;
    }

    pub(super) fn is_due(&self) -> bool {
        self.entries >= self.policy.entries || self.bytes >= self.policy.bytes
    }

    pub(super) fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// Whether the thread has ended, which only a panic in it can do.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    pub(super) fn begin(&mut self, taken: Taken, view: M::View) {
        self.entries = 0;
        self.bytes = 0;
        self.is_writing = true;
        self.send(Job::Write(taken, view));
    }

    /// Gives a snapshot that has just been restored from its sum: from now on it can be sent.
    pub(super) fn restored(&mut self, index: u64, sum: Sum) {
        for kept in &mut self.kept {
            if kept.taken.position.index == index {
                kept.sum = Some(sum);
            }
        }
    }

    /// Notes that the snapshot under way has ended.
    pub(super) fn finish(&mut self, written: Option<Kept>) {
        self.is_writing = false;
        if let Some(written) = written {
            let index = written.taken.position.index;
            self.kept.retain(|kept| kept.taken.position.index != index);
            self.kept.insert(0, written);
        }
    }

    /// The state, and with it the log, begins anew behind this one.
    pub(super) fn restart(&mut self, taken: Taken, machine: Box<M>) {
        self.entries = 0;
        self.bytes = 0;
        self.send(Job::Restore(taken.position.index, machine));
        self.kept = vec![Kept { taken, sum: None }];
    }

    /// The file of the snapshot at `index`, if it can be sent.
    pub(super) fn find(&self, index: u64) -> Option<(Taken, Sum)> {
        let kept = self
            .kept
            .iter()
            .find(|kept| kept.taken.position.index == index)?;
        Some((kept.taken.clone(), kept.sum?))
    }

    /// Says which snapshots are being sent, so that they stay.
    pub(super) fn pin(&mut self, indexes: BTreeSet<u64>) {
        let mut place = 0;
        self.kept.retain(|kept| {
            place += 1;
            place <= KEPT || indexes.contains(&kept.taken.position.index)
        });
        self.snapshots.pin(indexes);
    }

    /// What the log on disk may forget: it reaches back to the oldest kept snapshot, so that a
    /// damaged newest one costs nothing.
    pub(super) fn forgettable(&self) -> Option<&Taken> {
        self.kept.get(KEPT - 1).map(|kept| &kept.taken)
    }

    pub(super) fn purge(&self) {
        self.send(Job::Purge);
    }

    fn send(&self, job: Job<M>) {
        let is_sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        if !is_sent {
            tracing::error!("the snapshot thread has ended");
        }
    }
}

impl<M: StateMachine> Drop for Keeper<M> {
    /// A snapshot under way is finished, if that does not take too long: the log holds all of it.
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
        if self.ended.recv_timeout(self.stop_deadline) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("stopping without the snapshot that is being written");
            self.snapshots.stop();
            return;
        }
        if thread.join().is_err() {
            tracing::error!("the snapshot thread panicked");
        }
    }
}

fn work<M: StateMachine>(
    queue: &Receiver<Job<M>>,
    snapshots: &Snapshots,
    store: &dyn LogStore,
    events: &Sender<Event<M>>,
) {
    for job in queue {
        let event = match job {
            Job::Write(taken, view) => {
                let state = M::encode(&view);
                drop(view);
                let result = snapshots.write(&taken, &state);
                Event::SnapshotDone(result.map(|sum| (taken, sum)))
            }
            Job::Restore(index, machine) => Event::Restored(restore(snapshots, index, machine)),
            Job::Purge => {
                if let Err(error) = store.purge() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot purge the Raft log"
                    );
                }
                continue;
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

fn restore<M: StateMachine>(
    snapshots: &Snapshots,
    index: u64,
    mut machine: Box<M>,
) -> Result<(Box<M>, Sum), service::Error> {
    let loaded = snapshots.read(index)?;
    machine
        .restore(&loaded.state)
        .map_err(|reason| service::Error::State {
            path: snapshots.path(index),
            reason,
        })?;
    Ok((machine, loaded.sum))
}
