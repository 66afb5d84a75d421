//! That one agent alone speaks for a node: a copy of the data folder (a cloned guest, a folder that was
//! put back) is found out. Owns the file; the reasons are in docs/adr/0028-one-agent-a-node.md.
//!
//! Each life of the agent draws a number, its seat, and takes it over from the life before with the
//! servers. Who shows neither the seat in force nor the one before it is a copy.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skep_identity::{random, secret_file};
use skep_model::machine::{Guest, Machine};
use tokio::sync::watch;

/// The file in the data folder.
const FILE: &str = "seat.json";

/// The folder cannot be used by this agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was copied.
    #[error(
        "the data folder {} belongs to another machine ({theirs}), this one is {ours}: it was copied. \
         Remove it and join with a token; where the node itself has moved here, start once with --moved",
        folder.display()
    )]
    Copied {
        /// The folder.
        folder: PathBuf,
        /// What the folder says.
        theirs: String,
        /// What this machine is.
        ours: String,
    },
    /// The disk.
    #[error("the node's seat")]
    File(#[from] secret_file::Error),
}

/// What is on disk. What cannot be read is as good as missing: the servers will say.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// Of the last life that was admitted; 0: none was.
    held: u128,
    /// Drawn, and not known to be admitted yet; 0: to be drawn.
    next: u128,
    /// The last word of a server was that another agent speaks for this node.
    refused: bool,
    /// The incarnation of the node for which everything was dropped last; 0: it never had to be.
    incarnation: u64,
    /// SMBIOS uuid of the machine that the folder is of.
    uuid: Option<String>,
    /// Its MAC addresses, where it is a container.
    macs: Vec<String>,
}

/// The seat of this life. Shared by whoever asks for it.
#[derive(Debug)]
pub(crate) struct Seat {
    folder: PathBuf,
    /// Of the life before.
    held: u128,
    mine: u128,
    record: Mutex<Record>,
    admitted: watch::Sender<bool>,
}

impl Seat {
    /// Draws the seat of this life and writes it down. `moved`: the folder is this machine's from now
    /// on, whoever's it was. Blocks on the disk.
    ///
    /// # Errors
    /// The folder is another machine's, or cannot be written.
    pub(crate) fn draw(folder: &Path, machine: &Machine, moved: bool) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let mut record: Record = match secret_file::read_private(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.is_not_found() => Record::default(),
            Err(error) => return Err(error.into()),
        };
        if !moved && let Some((theirs, ours)) = differs(&record, machine) {
            return Err(Error::Copied {
                folder: folder.to_owned(),
                theirs,
                ours,
            });
        }
        if moved {
            record.refused = false;
        }
        if record.next == 0 {
            record.next = random::new_id();
        }
        record.uuid.clone_from(&machine.uuid);
        record.macs = match machine.guest {
            Some(Guest::Lxc) => machine.macs.clone(),
            _ => Vec::new(),
        };
        write(&path, &record)?;
        Ok(Self {
            folder: folder.to_owned(),
            held: record.held,
            mine: record.next,
            record: Mutex::new(record),
            admitted: watch::Sender::new(false),
        })
    }

    /// What a session begins with: the seat of the life before, and this one's.
    pub(crate) fn shown(&self) -> (u128, u128) {
        (self.held, self.mine)
    }

    /// A server has taken a session of this life. Blocks on the disk the first time.
    pub(crate) fn admit(&self) {
        if *self.admitted.borrow() {
            return;
        }
        let mut record = self.record.lock();
        (record.held, record.next, record.refused) = (self.mine, 0, false);
        self.keep(&record);
        self.admitted.send_replace(true);
    }

    /// The incarnation of the node for which everything was dropped last; 0: it never had to be.
    pub(crate) fn incarnation(&self) -> u64 {
        self.record.lock().incarnation
    }

    /// Everything was dropped for this incarnation; whether that is on the disk. Blocks on it.
    pub(crate) fn begin_incarnation(&self, incarnation: u64) -> bool {
        let mut record = self.record.lock();
        record.incarnation = incarnation;
        let written = write(&self.folder.join(FILE), &record);
        if let Err(error) = &written {
            let why = crate::error_chain(error);
            tracing::error!(%why, "the node's incarnation could not be written");
        }
        written.is_ok()
    }

    /// A server says that another agent speaks for this node. Blocks on the disk.
    pub(crate) fn refuse(&self) {
        let mut record = self.record.lock();
        record.refused = true;
        self.keep(&record);
    }

    /// Whether the last word of a server was that another agent speaks for this node.
    pub(crate) fn is_refused(&self) -> bool {
        self.record.lock().refused
    }

    /// Waits until a server has taken a session of this life.
    pub(crate) async fn admitted(&self) {
        // Fails only when the seat is gone, and whoever waits here holds it.
        let _ = self.admitted.subscribe().wait_for(|is| *is).await;
    }

    /// What is not kept costs a refusal after the next start at worst.
    fn keep(&self, record: &Record) {
        if let Err(error) = write(&self.folder.join(FILE), record) {
            let why = crate::error_chain(&error);
            tracing::error!(%why, "the node's seat could not be written");
        }
    }
}

fn write(path: &Path, record: &Record) -> Result<(), secret_file::Error> {
    let bytes = serde_json::to_vec(record).expect("numbers and texts");
    secret_file::write_private(path, &bytes)
}

/// How the folder's machine and this one are told apart; none: they may be the same.
fn differs(record: &Record, machine: &Machine) -> Option<(String, String)> {
    if let (Some(theirs), Some(ours)) = (&record.uuid, &machine.uuid) {
        return (theirs != ours).then(|| (format!("SMBIOS uuid {theirs}"), format!("uuid {ours}")));
    }
    let is_known = machine.guest == Some(Guest::Lxc) && !record.macs.is_empty();
    let shares_none = record.macs.iter().all(|mac| !machine.macs.contains(mac));
    (is_known && !machine.macs.is_empty() && shares_none).then(|| {
        let list = |macs: &[String]| format!("MAC {}", macs.join(", "));
        (list(&record.macs), list(&machine.macs))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(uuid: &str) -> Machine {
        Machine {
            guest: Some(Guest::Vm),
            uuid: Some(uuid.to_owned()),
            ..Machine::default()
        }
    }

    fn lxc(mac: &str) -> Machine {
        Machine {
            guest: Some(Guest::Lxc),
            macs: vec![mac.to_owned()],
            ..Machine::default()
        }
    }

    #[test]
    fn a_life_shows_its_own_seat_and_the_one_before() {
        let folder = tempfile::tempdir().expect("folder");
        let draw = || Seat::draw(folder.path(), &Machine::default(), false).expect("drawn");
        let (held, first) = draw().shown();
        assert!(held == 0 && first != 0);
        // Killed before anybody heard of it: the same seat again.
        let second = draw();
        assert_eq!(second.shown(), (0, first));
        second.admit();
        let (held, third) = draw().shown();
        assert!(held == first && third != first && third != 0);
    }

    #[test]
    fn what_was_dropped_for_an_incarnation_is_remembered() {
        let folder = tempfile::tempdir().expect("folder");
        let draw = || Seat::draw(folder.path(), &Machine::default(), false).expect("drawn");
        let seat = draw();
        assert_eq!(seat.incarnation(), 0);
        assert!(seat.begin_incarnation(3));
        seat.admit();
        assert_eq!((seat.incarnation(), draw().incarnation()), (3, 3));
    }

    #[tokio::test]
    async fn a_refusal_is_remembered_until_somebody_admits() {
        let folder = tempfile::tempdir().expect("folder");
        let draw = || Seat::draw(folder.path(), &Machine::default(), false).expect("drawn");
        draw().refuse();
        let seat = draw();
        assert!(seat.is_refused());
        seat.admit();
        seat.admitted().await;
        assert!(!seat.is_refused() && !draw().is_refused());
    }

    #[test]
    fn a_copied_folder_is_known_by_the_machine() {
        let folder = tempfile::tempdir().expect("folder");
        let draw = |machine: &Machine, moved| Seat::draw(folder.path(), machine, moved);
        draw(&vm("a"), false).expect("the first");
        draw(&vm("a"), false).expect("started again");
        let error = draw(&vm("b"), false).expect_err("a clone").to_string();
        assert!(
            error.contains("uuid a") && error.contains("--moved"),
            "{error}"
        );
        draw(&vm("b"), true).expect("moved");
        draw(&vm("b"), false).expect("and stays");

        let folder = tempfile::tempdir().expect("folder");
        let draw = |mac: &str| Seat::draw(folder.path(), &lxc(mac), false);
        draw("bc:01").expect("the first");
        assert!(draw("bc:02").is_err());
        draw("bc:01").expect("started again");
        // A machine that says less than before is no other one.
        Seat::draw(folder.path(), &Machine::default(), false).expect("nothing to compare");
    }
}
