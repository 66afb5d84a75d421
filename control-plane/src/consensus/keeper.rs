//! When to take a snapshot and what may be forgotten after it.
//!
//! Owns the snapshot thread, on which states are encoded and written and log files purged, so
//! that applying never waits for them. Never reads the state itself: it is handed a view.

use super::handle::Event;
use super::log::LogStore;
use super::machine::StateMachine;
use super::snapshot::{KEPT, Meta, Snapshots};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// How much may be applied between two snapshots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

enum Job<M: StateMachine> {
    Write(Meta, M::View),
    Purge,
}

pub(super) struct Keeper<M: StateMachine> {
    policy: Policy,
    entries: u64,
    bytes: u64,
    is_writing: bool,
    /// Newest first, at most [`KEPT`].
    kept: Vec<Meta>,
    jobs: Option<Sender<Job<M>>>,
    thread: Option<JoinHandle<()>>,
}

impl<M: StateMachine> Keeper<M> {
    pub(super) fn start(
        policy: Policy,
        kept: Vec<Meta>,
        snapshots: Snapshots,
        store: Arc<dyn LogStore>,
        events: Sender<Event<M>>,
    ) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new()
            .name("skep-snapshot".to_owned())
            .spawn(move || work(&queue, &snapshots, &*store, &events))?;
        Ok(Self {
            policy,
            entries: 0,
            bytes: 0,
            is_writing: false,
            kept,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    pub(super) fn count(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes as u64;
    }

    pub(super) fn is_due(&self) -> bool {
        let enough = self.entries >= self.policy.entries || self.bytes >= self.policy.bytes;
        enough && !self.is_writing
    }

    /// Whether the thread has ended, which only a panic in it can do.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    pub(super) fn begin(&mut self, meta: Meta, view: M::View) {
        self.entries = 0;
        self.bytes = 0;
        self.is_writing = true;
        self.send(Job::Write(meta, view));
    }

    /// Notes that the snapshot under way has ended.
    pub(super) fn finish(&mut self, written: Option<Meta>) {
        self.is_writing = false;
        if let Some(meta) = written {
            self.kept.insert(0, meta);
            self.kept.truncate(KEPT);
        }
    }

    /// What the log on disk may forget: it reaches back to the oldest kept snapshot, so that a
    /// damaged newest one costs nothing.
    pub(super) fn forgettable(&self) -> Option<&Meta> {
        self.kept.get(KEPT - 1)
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
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
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
        match job {
            Job::Write(meta, view) => {
                let state = M::encode(&view);
                drop(view);
                let result = snapshots.write(&meta, &state).map(|()| meta);
                if events.send(Event::SnapshotDone(result)).is_err() {
                    return;
                }
            }
            Job::Purge => {
                if let Err(error) = store.purge() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot purge the Raft log"
                    );
                }
            }
        }
    }
}
