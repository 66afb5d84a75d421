//! From what is on disk to a member that can go on.
//!
//! Owns the rules of which snapshot and which log belong together, and refuses to guess when
//! they do not. Never writes, except to create an empty log.

use super::keeper::Kept;
use super::log::{self, LogStore, Origin};
use super::machine::StateMachine;
use super::service::{Error, Options};
use super::snapshot::{self, Found, Loaded, Snapshots, Taken};
use skep_raft_core::{ConfState, Config, Core, HardState, Position, Restored};

/// Where every log begins. Not at 0: a server that joins with an empty log then always takes the
/// founders' state over before it takes entries.
pub(super) const GENESIS: Position = Position { index: 1, term: 1 };

/// Where the log of a server begins that joins: it knows nothing, not even the members.
const NOWHERE: Position = Position { index: 0, term: 0 };

pub(super) struct Recovered {
    pub(super) core: Core,
    pub(super) base: Taken,
    /// Snapshots on disk, newest first.
    pub(super) kept: Vec<Kept>,
    /// Where the log on disk begins.
    pub(super) origin: Origin,
}

/// Restores `machine` from the newest sound snapshot and puts the log behind it.
pub(super) fn recover<M: StateMachine>(
    options: &Options,
    store: &dyn LogStore,
    snapshots: &Snapshots,
    machine: &mut M,
) -> Result<Recovered, Error> {
    let log = store.load()?;
    if let Some(log) = &log {
        snapshots.settle_staged(log.origin.position.index)?;
    }
    let found = snapshots.load()?;
    let log = match log {
        Some(log) => log,
        None => create(options, store, &found)?,
    };
    if log.origin.server != options.id {
        return Err(Error::WrongServer {
            dir: options.dir.clone(),
            found: log.origin.server,
            expected: options.id,
        });
    }
    let Found {
        newest,
        older,
        damaged,
    } = found;
    let begins = log.origin.position;
    let (base, kept) = match newest {
        Some(loaded) if loaded.taken.position.index >= begins.index => {
            let Loaded { taken, state, sum } = loaded;
            let path = snapshots.path(taken.position.index);
            machine
                .restore(&state)
                .map_err(|reason| Error::State { path, reason })?;
            let sum = Some(sum);
            let newest = Kept {
                taken: taken.clone(),
                sum,
            };
            let older = older.map(|taken| Kept { taken, sum: None });
            (taken, std::iter::once(newest).chain(older).collect())
        }
        None if begins == GENESIS || begins == NOWHERE => (
            Taken {
                position: begins,
                members: log.origin.members.clone(),
            },
            Vec::new(),
        ),
        unusable => {
            return Err(no_base(
                options,
                unusable.map(|loaded| loaded.taken),
                begins,
                damaged,
            ));
        }
    };
    let origin = log.origin.clone();
    let core = restore_core(options, &base, !kept.is_empty(), log)?;
    for error in damaged {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            from = base.position.index,
            "going on from an older snapshot and the log"
        );
        if let snapshot::Error::Damaged { path, .. } = &error {
            snapshots.set_aside(path)?;
        }
    }
    Ok(Recovered {
        core,
        base,
        kept,
        origin,
    })
}

fn create(options: &Options, store: &dyn LogStore, found: &Found) -> Result<log::Loaded, Error> {
    if found.newest.is_some() || !found.damaged.is_empty() {
        return Err(Error::LogMissing {
            dir: options.dir.clone(),
        });
    }
    if !options.create {
        return Err(Error::NoData {
            dir: options.dir.clone(),
        });
    }
    let (position, founders) = match options.join {
        true => (NOWHERE, &[][..]),
        false => (GENESIS, &options.founders[..]),
    };
    let origin = Origin {
        server: options.id,
        position,
        members: ConfState {
            voters: founders.to_vec(),
            ..ConfState::default()
        },
    };
    let hard_state = HardState {
        term: position.term,
        commit: position.index,
        ..HardState::default()
    };
    store.compact(&origin, &hard_state)?;
    tracing::info!(server = options.id, ?founders, "created an empty Raft log");
    Ok(log::Loaded {
        origin,
        hard_state,
        entries: Vec::new(),
    })
}

fn no_base(
    options: &Options,
    newest: Option<Taken>,
    begins: Position,
    damaged: Vec<snapshot::Error>,
) -> Error {
    Error::NoSnapshot {
        dir: options.dir.clone(),
        begins: begins.index + 1,
        newest: newest.map_or_else(
            || "there is none".to_owned(),
            |taken| format!("the newest readable one ends at {}", taken.position.index),
        ),
        damaged: damaged.iter().map(|error| format!("; {error}")).collect(),
    }
}

fn restore_core(
    options: &Options,
    base: &Taken,
    is_snapshot: bool,
    log: log::Loaded,
) -> Result<Core, Error> {
    let config = Config {
        id: options.id,
        seed: options.seed,
        election_ticks: options.election_ticks,
        heartbeat_ticks: options.heartbeat_ticks,
        tail_entries: options.tail_entries,
        max_append_bytes: skep_raft_core::MAX_APPEND_BYTES,
    };
    let parts = parts(base, is_snapshot, log);
    Core::new(config, parts).map_err(|source| Error::Restore {
        dir: options.dir.clone(),
        source,
    })
}

/// A log and the state before it, as the core takes them.
pub(super) fn parts(base: &Taken, is_snapshot: bool, log: log::Loaded) -> Restored {
    Restored {
        origin: log.origin.position,
        entries: log.entries,
        hard_state: log.hard_state,
        applied: base.position,
        members: base.members.clone(),
        is_snapshot,
    }
}
