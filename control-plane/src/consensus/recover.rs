//! From what is on disk to a member that can go on.
//!
//! Owns the rules of which snapshot and which log belong together, and refuses to guess when
//! they do not. Never writes, except to create an empty log.

use super::log::{Loaded, LogStore, Origin};
use super::machine::StateMachine;
use super::service::{Error, Options};
use super::snapshot::{self, Found, Meta, Snapshots};
use skep_raft_core::{ConfState, Config, Core, HardState, Position, Restored};

/// Where every log begins. Not at 0: a server that joins with an empty log then always takes the
/// founders' state over before it takes entries.
pub(super) const GENESIS: Position = Position { index: 1, term: 1 };

pub(super) struct Recovered {
    pub(super) core: Core,
    pub(super) base: Meta,
    /// Snapshots on disk, newest first.
    pub(super) kept: Vec<Meta>,
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
    let found = snapshots.load()?;
    let log = match store.load()? {
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
        Some((meta, state)) if meta.position.index >= begins.index => {
            let path = snapshots.path(meta.position.index);
            machine
                .restore(&state)
                .map_err(|reason| Error::State { path, reason })?;
            (meta.clone(), std::iter::once(meta).chain(older).collect())
        }
        None if begins == GENESIS => (
            Meta {
                position: GENESIS,
                members: log.origin.members.clone(),
            },
            Vec::new(),
        ),
        unusable => {
            return Err(no_base(
                options,
                unusable.map(|(meta, _)| meta),
                begins,
                damaged,
            ));
        }
    };
    let origin = log.origin.clone();
    let core = restore_core(options, &base, log)?;
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

fn create(options: &Options, store: &dyn LogStore, found: &Found) -> Result<Loaded, Error> {
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
    let members = ConfState {
        voters: options.founders.clone(),
        ..ConfState::default()
    };
    let origin = Origin {
        server: options.id,
        position: GENESIS,
        members,
    };
    let hard_state = HardState {
        term: GENESIS.term,
        commit: GENESIS.index,
        ..HardState::default()
    };
    store.compact(&origin, &hard_state)?;
    tracing::info!(server = options.id, founders = ?options.founders, "created an empty Raft log");
    Ok(Loaded {
        origin,
        hard_state,
        entries: Vec::new(),
    })
}

fn no_base(
    options: &Options,
    newest: Option<Meta>,
    begins: Position,
    damaged: Vec<snapshot::Error>,
) -> Error {
    Error::NoSnapshot {
        dir: options.dir.clone(),
        begins: begins.index + 1,
        newest: newest.map_or_else(
            || "there is none".to_owned(),
            |meta| format!("the newest readable one ends at {}", meta.position.index),
        ),
        damaged: damaged.iter().map(|error| format!("; {error}")).collect(),
    }
}

fn restore_core(options: &Options, base: &Meta, log: Loaded) -> Result<Core, Error> {
    let config = Config {
        id: options.id,
        seed: options.seed,
        election_ticks: options.election_ticks,
        heartbeat_ticks: options.heartbeat_ticks,
    };
    let parts = Restored {
        origin: log.origin.position,
        entries: log.entries,
        hard_state: log.hard_state,
        applied: base.position,
        members: base.members.clone(),
    };
    Core::new(config, parts).map_err(|source| Error::Restore {
        dir: options.dir.clone(),
        source,
    })
}
