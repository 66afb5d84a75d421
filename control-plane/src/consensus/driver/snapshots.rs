//! Snapshots taken, sent and installed.
//!
//! Owns what is durable before what: a snapshot is taken only of what the disk knows to be
//! committed, and an arrived one gets its name only when the log begins behind it. Never encodes
//! or decodes a state: that is done on the snapshot thread.

use super::{Arrival, Driver};
use crate::consensus::incoming;
use crate::consensus::keeper::Kept;
use crate::consensus::log::Origin;
use crate::consensus::machine::StateMachine;
use crate::consensus::metrics::{add, set};
use crate::consensus::service::Error;
use crate::consensus::snapshot::{self, Sum, Taken};
use crate::consensus::transport::SnapshotSend;
use skep_raft_core::{Input, SnapshotOut};

impl<M: StateMachine> Driver<M> {
    pub(super) fn snapshot_if_due(&mut self) -> Result<(), Error> {
        if self.keeper.has_failed() {
            return Err(Error::SnapshotThread);
        }
        let is_wanted = self.pending.is_snapshot_wanted || self.keeper.is_due();
        if !is_wanted || self.keeper.is_writing() || self.machine.is_none() {
            return Ok(());
        }
        self.pending.is_snapshot_wanted = false;
        // A snapshot must never be ahead of the commit index on disk.
        self.save_commit()?;
        let taken = Taken {
            position: self.applied,
            members: self.members.clone(),
        };
        let (_, view) = self.shared.published.read().clone();
        self.keeper.begin(taken, view);
        Ok(())
    }

    pub(super) fn snapshot_done(
        &mut self,
        result: Result<(Taken, Sum), snapshot::Error>,
    ) -> Result<Option<Input>, Error> {
        let (taken, sum) = match result {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no snapshot was written"
                );
                add(&self.shared.counters.snapshot_failures, 1);
                self.keeper.finish(None);
                return Ok(None);
            }
        };
        let index = taken.position.index;
        if index < self.disk_origin {
            // A leader's snapshot has replaced the log meanwhile: none leads on from this one.
            self.keeper.finish(None);
            self.snapshots.remove(index)?;
            return Ok(None);
        }
        set(&self.shared.counters.last_snapshot_index, index);
        let input = Input::SnapshotTaken(taken.clone());
        let sum = Some(sum);
        self.keeper.finish(Some(Kept { taken, sum }));
        self.keeper.pin(self.core.offered_snapshots());
        self.compact_disk()?;
        Ok(Some(input))
    }

    fn compact_disk(&mut self) -> Result<(), Error> {
        let Some(Taken { position, members }) = self.keeper.forgettable().cloned() else {
            return Ok(());
        };
        if position.index <= self.disk_origin {
            return Ok(());
        }
        let origin = Origin {
            server: self.server,
            position,
            members,
        };
        self.store.compact(&origin, &self.core.hard_state())?;
        add(&self.shared.counters.fsyncs, 1);
        self.pending.is_commit_unsaved = false;
        self.disk_origin = position.index;
        self.keeper.purge();
        Ok(())
    }

    pub(super) fn send_snapshot(&mut self, snapshot: SnapshotOut) {
        let SnapshotOut {
            to,
            position,
            bytes: message,
        } = snapshot;
        self.keeper.pin(self.core.offered_snapshots());
        let Some((meta, sum)) = self.keeper.find(position.index) else {
            // It was read by an earlier process, or is being decoded: the next attempt finds a
            // newer one.
            self.pending.unsent.push(to);
            return;
        };
        tracing::info!(
            member = to,
            index = position.index,
            bytes = sum.bytes,
            "sending a snapshot"
        );
        add(&self.shared.counters.snapshots_sent, 1);
        self.transport.send_snapshot(SnapshotSend {
            to,
            message,
            path: self.snapshots.path(position.index),
            meta,
            bytes: sum.bytes,
            crc32: sum.crc32,
        });
    }

    /// Takes a snapshot in that has wholly arrived. `None` when it has been refused.
    pub(super) fn arrive(
        &mut self,
        message: Vec<u8>,
        staged: Option<Taken>,
        reply: incoming::Answer,
    ) -> Result<Option<Input>, Error> {
        if self.machine.is_none() {
            if let Some(taken) = staged {
                self.snapshots.discard_staged(taken.position.index)?;
            }
            let _gone = reply.send(Err(incoming::Error::Busy));
            return Ok(None);
        }
        self.pending.arrival = Some(Arrival { staged, reply });
        Ok(Some(Input::Snapshot(message)))
    }

    /// Raft wants it: the log begins anew behind it, on disk first. The machine goes away to be
    /// restored; until it is back, the old view is what others see.
    pub(super) fn install(&mut self, taken: Taken) -> Result<(), Error> {
        let index = taken.position.index;
        let has_file = self.pending.arrival.as_mut().is_some_and(|arrival| {
            let staged = arrival.staged.take();
            staged.is_some_and(|staged| staged.position == taken.position)
        });
        let machine = self.machine.take().filter(|_| has_file);
        let machine = machine.ok_or(Error::NoArrival { index })?;
        let origin = Origin {
            server: self.server,
            position: taken.position,
            members: taken.members.clone(),
        };
        self.store.reset(&origin, &self.core.hard_state())?;
        self.snapshots.adopt(index)?;
        add(&self.shared.counters.fsyncs, 1);
        add(&self.shared.counters.snapshots_installed, 1);
        set(&self.shared.counters.last_snapshot_index, index);
        self.pending.is_commit_unsaved = false;
        self.disk_origin = index;
        self.proposals.give_up();
        self.keeper.restart(taken.clone(), Box::new(machine));
        self.keeper.purge();
        self.pending.restoring = Some(taken);
        Ok(())
    }

    /// What arrived in this step is either installed by now, or Raft had no use for it.
    pub(super) fn end_arrival(&mut self) -> Result<(), Error> {
        let Some(Arrival { staged, reply }) = self.pending.arrival.take() else {
            return Ok(());
        };
        if let Some(taken) = staged {
            self.snapshots.discard_staged(taken.position.index)?;
        }
        let _gone = reply.send(Ok(()));
        Ok(())
    }
}
