//! A server's data while no server runs on it: looked at, or made a group of its own.
//!
//! Owns the way out when most servers of a group are lost for good. Never runs Raft: whoever
//! calls [`make_sole_member`] has decided that nobody else is left to ask.

use super::log::{self, LogStore, Origin};
use super::recover::{GENESIS, parts};
use super::service::{self, Error};
use super::snapshot::Taken;
use protobuf::Message as _;
use skep_raft_core::{
    ConfChangeV2, ConfState, Config, Core, Entry, EntryType, HardState, Input, Position, members,
};
use std::path::Path;

/// What a server's data directory holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The member whose data it is.
    pub member: u64,
    /// Its term.
    pub term: u64,
    /// Index of the last entry that it knows to be committed.
    pub commit: u64,
    /// The last entry of its log; what is behind `commit` may have been acknowledged or not.
    pub last: Position,
    /// The newest snapshot.
    pub snapshot: Option<Position>,
    /// The membership after the last entry of the log.
    pub members: ConfState,
}

/// Looks at the data in `dir`, which no server may be running on. Changes nothing, except that
/// what a crash has cut short is finished or forgotten as at a start.
///
/// # Errors
/// See [`Error`].
pub fn inspect(dir: &Path) -> Result<Inspection, Error> {
    let _lock = service::lock(dir)?;
    let store = service::open_log(dir)?;
    look(dir, &store)
}

/// Makes the server of `dir` the only member of its group. Everything in its log counts as
/// committed from then on; what only the lost servers had is lost. None of those may ever run on
/// its old data again: it would be a second group under the same name.
///
/// # Errors
/// See [`Error`]; then nothing has changed.
pub fn make_sole_member(dir: &Path) -> Result<Inspection, Error> {
    let _lock = service::lock(dir)?;
    let store = service::open_log(dir)?;
    let found = look(dir, &store)?;
    // A term of its own: no entry of a lost server can be taken for one of these.
    let term = found.term + 1;
    let changes = members::make_sole(found.member, &found.members);
    let entries: Vec<Entry> = changes
        .iter()
        .zip(found.last.index + 1..)
        .map(|(change, index)| entry(change, Position { index, term }))
        .collect();
    let hard_state = HardState {
        term,
        commit: found.last.index + entries.len() as u64,
        ..HardState::default()
    };
    store.append(&entries, &hard_state)?;
    look(dir, &store)
}

/// Makes the data of a group whose only member is `member`, out of a state as it was at `index`: what a
/// backup is restored to. `dir` must hold none; where it does, it stays as it is.
///
/// # Errors
/// See [`Error`].
pub fn begin_from(dir: &Path, (member, index): (u64, u64), state: &[u8]) -> Result<(), Error> {
    let _lock = service::lock(dir)?;
    let store = service::open_log(dir)?;
    if let Some(log) = store.load()? {
        return Err(Error::WrongServer {
            dir: dir.to_owned(),
            found: log.origin.server,
            expected: member,
        });
    }
    let members = ConfState {
        voters: vec![member],
        ..ConfState::default()
    };
    let position = Position {
        index: index.max(GENESIS.index + 1),
        term: GENESIS.term,
    };
    let taken = Taken {
        position,
        members: members.clone(),
    };
    service::open_snapshots(dir)?.write(&taken, state)?;
    let origin = Origin {
        server: member,
        position,
        members,
    };
    let hard_state = HardState {
        term: position.term,
        commit: position.index,
        ..HardState::default()
    };
    Ok(store.compact(&origin, &hard_state)?)
}

fn entry(change: &ConfChangeV2, position: Position) -> Entry {
    let data = change
        .write_to_bytes()
        .expect("a change of members has all its required fields");
    let mut entry = Entry {
        index: position.index,
        term: position.term,
        data: data.into(),
        ..Entry::default()
    };
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    entry
}

fn look(dir: &Path, store: &dyn LogStore) -> Result<Inspection, Error> {
    let no_data = || Error::NoData {
        dir: dir.to_owned(),
    };
    let log = store.load()?.ok_or_else(no_data)?;
    let snapshots = service::open_snapshots(dir)?;
    snapshots.settle_staged(log.origin.position.index)?;
    let newest = snapshots.load()?.newest.map(|loaded| loaded.taken);
    let base = newest.clone().unwrap_or_else(|| Taken {
        position: log.origin.position,
        members: log.origin.members.clone(),
    });
    let last = log
        .entries
        .last()
        .map_or(log.origin.position, |entry| Position {
            index: entry.index,
            term: entry.term,
        });
    let (member, hard_state) = (log.origin.server, log.hard_state.clone());
    Ok(Inspection {
        member,
        term: hard_state.term,
        commit: hard_state.commit,
        last,
        snapshot: newest.map(|taken| taken.position),
        members: members_at_end(dir, member, &base, log)?,
    })
}

/// Goes through the whole log as if all of it were committed.
fn members_at_end(
    dir: &Path,
    member: u64,
    base: &Taken,
    mut log: log::Loaded,
) -> Result<ConfState, Error> {
    let last = log
        .entries
        .last()
        .map_or(base.position.index, |entry| entry.index);
    log.hard_state.commit = last;
    let options = service::Options::new(member, dir);
    let config = Config {
        id: member,
        seed: options.seed,
        election_ticks: options.election_ticks,
        heartbeat_ticks: options.heartbeat_ticks,
        tail_entries: options.tail_entries,
        max_append_bytes: skep_raft_core::MAX_APPEND_BYTES,
    };
    let mut core = Core::new(config, parts(base, false, log)).map_err(|source| Error::Restore {
        dir: dir.to_owned(),
        source,
    })?;
    let mut output = core.step([])?;
    let mut members = base.members.clone();
    loop {
        for committed in output.committed {
            if let skep_raft_core::Body::Members(changed) = committed.body
                && committed.index <= last
            {
                members = changed;
            }
        }
        let Some(number) = output.number else {
            return Ok(members);
        };
        output = core.step([Input::Persisted { number }])?;
    }
}
