//! One guest of a pool, and how far it has come.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{GuestSize, Recipe, Resizing, Restoring};
use crate::id::GuestId;

/// What proves that a guest is the one that was made: numbers are used again, and names can be given twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The address of its first interface, in capitals. Proxmox makes it up when it clones.
    pub mac: String,
    /// The id in its SMBIOS, in small letters; a container has none.
    pub smbios: Option<String>,
}

/// How far a guest has come. It only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = GuestPhase))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is to be made, and nothing was asked for.
    Planned,
    /// Host and number are chosen: from now on it may exist.
    Cloning,
    /// It exists, and it is known by what it is recognised.
    Configuring,
    /// It has started at least once.
    Starting,
    /// Its agent has joined, from the guest that was made.
    Ready,
    /// It is to go: its node is drained, then it is shut down and removed.
    Leaving,
    /// It is not there, and never comes back.
    Gone,
}

impl Phase {
    /// Every phase, in the order of the stored format: append only. How far one is says its place in the type, not here.
    pub const ALL: [Self; 7] = [
        Self::Planned,
        Self::Cloning,
        Self::Configuring,
        Self::Starting,
        Self::Ready,
        Self::Leaving,
        Self::Gone,
    ];
}

/// A guest of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Which.
    pub id: GuestId,
    /// How far it has come.
    pub phase: Phase,
    /// The Proxmox host that it was made on. Where it is now, the hosts know.
    pub host: Option<String>,
    /// Its number.
    pub vmid: Option<u32>,
    /// When it was asked for under that number, ms since 1970: an answer that was lost may still be on its way.
    pub asked_ms: Option<u64>,
    /// What proves that it is it.
    pub identity: Option<Identity>,
    /// The address that it was given together with its number; none: a DHCP server gives one.
    #[serde(default)]
    pub given: Option<IpAddr>,
    /// Its address, as it was seen.
    pub address: Option<IpAddr>,
    /// When it was told last how to join, ms since 1970. Written down before it is told: the token of an introduction is
    /// for that one alone, and one that nobody has heard of is made again.
    #[serde(default)]
    pub introduced_ms: Option<u64>,
    /// What keeps it from going on.
    pub problem: Option<String>,
    /// The copy that it becomes.
    #[serde(default)]
    pub restoring: Option<Restoring>,
    /// The size that it was given apart from the recipe; none: it is as large as others that were made with it.
    #[serde(default)]
    pub size: Option<GuestSize>,
    /// It is becoming that large.
    #[serde(default)]
    pub resizing: Option<Resizing>,
}

/// What is written down about a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// Where it is to be made, under which number, and when that was decided. Before it may exist, and again when the number
    /// turned out to be somebody's.
    Chosen {
        /// The host.
        host: String,
        /// The number.
        vmid: u32,
        /// The address, where the recipe has a range of them.
        address: Option<IpAddr>,
        /// Now, ms since 1970.
        now_ms: u64,
    },
    /// The same where machines go by names and no numbers: whoever gives them is about to be asked for one.
    Asked {
        /// Which machine, where that is known before.
        machine: Option<String>,
        /// Its address, where that is.
        address: Option<IpAddr>,
        /// Now, ms since 1970.
        now_ms: u64,
    },
    /// It exists, and this proves it.
    Identified(Identity),
    /// It was started.
    Started,
    /// It is about to be told how to join.
    Introduced {
        /// Now, ms since 1970.
        now_ms: u64,
    },
    /// It is at this address.
    Found(IpAddr),
    /// Its node has joined.
    Joined,
    /// It is to go.
    Leave,
    /// It is not there.
    Gone,
    /// Its disks are those of this copy, which it is to become.
    BroughtBack(String),
    /// They are not, after all: a restore of another copy that was on its way has come about since.
    NotBack(String),
    /// It is this copy, and runs.
    Restored(String),
    /// It was shut down to become another size.
    Down,
    /// Proxmox leaves what is to change to its next start: it has to be shut down.
    MustStop,
    /// It has its size, and runs.
    Resized {
        /// Now, ms since 1970.
        now_ms: u64,
    },
    /// It cannot go on, as this says; none: it can.
    Stuck(Option<String>),
}

/// The name of a guest: nobody else's, as it has all of its id in it.
pub fn name_of(id: GuestId) -> String {
    format!("skep-{id}")
}

impl Guest {
    /// One that is to be made.
    pub fn planned(id: GuestId) -> Self {
        Self {
            id,
            phase: Phase::Planned,
            host: None,
            vmid: None,
            asked_ms: None,
            identity: None,
            given: None,
            address: None,
            introduced_ms: None,
            problem: None,
            restoring: None,
            size: None,
            resizing: None,
        }
    }

    /// How large it is to be.
    pub fn size(&self, recipe: &Recipe) -> GuestSize {
        self.size.unwrap_or(recipe.size())
    }

    /// It is being resized, and its provider still has something to do with that.
    pub fn is_changing(&self) -> bool {
        self.resizing
            .as_ref()
            .is_some_and(|it| it.done_ms.is_none())
    }

    /// Its name.
    pub fn name(&self) -> String {
        name_of(self.id)
    }

    /// Writes down what happened. What makes no sense any more changes nothing: a note may come late.
    pub fn take(&mut self, note: Note) {
        if self.phase == Phase::Gone {
            return;
        }
        match note {
            Note::Chosen {
                host,
                vmid,
                address,
                now_ms,
            } => {
                if self.is_asked_for(address, now_ms) {
                    self.host = Some(host);
                    self.vmid = Some(vmid);
                }
            }
            Note::Asked {
                machine,
                address,
                now_ms,
            } => {
                if self.is_asked_for(address, now_ms) {
                    self.host = machine;
                }
            }
            Note::Identified(identity) => {
                self.identity.get_or_insert(identity);
                self.reach(Phase::Configuring);
            }
            Note::Started => self.reach(Phase::Starting),
            Note::Introduced { now_ms } => self.introduced_ms = Some(now_ms),
            Note::Found(address) => self.address = Some(address),
            Note::Joined => self.reach(Phase::Ready),
            Note::Leave => self.reach(Phase::Leaving),
            Note::Gone => self.reach(Phase::Gone),
            Note::BroughtBack(archive) => self.is_back(&archive, true),
            Note::NotBack(archive) => self.is_back(&archive, false),
            Note::Restored(archive) => {
                let is_it = |it: &Restoring| it.is_back && it.archive == archive;
                if self.restoring.as_ref().is_some_and(is_it) {
                    (self.restoring, self.problem) = (None, None);
                }
            }
            Note::Down => {
                if let Some(resizing) = &mut self.resizing {
                    resizing.down.get_or_insert_default();
                }
            }
            Note::MustStop => {
                if let Some(resizing) = &mut self.resizing {
                    resizing.stops = true;
                }
            }
            Note::Resized { now_ms } => self.is_resized(now_ms),
            Note::Stuck(why) => self.problem = why,
        }
    }

    /// Of a copy that it is no more to become nothing is heard: another one was named meanwhile.
    fn is_back(&mut self, archive: &str, is_back: bool) {
        let restoring = self.restoring.as_mut();
        if let Some(restoring) = restoring.filter(|it| it.archive == archive) {
            restoring.is_back = is_back;
            self.problem = None;
        }
    }

    /// Where its node was left alone nothing is left to do.
    fn is_resized(&mut self, now_ms: u64) {
        let Some(resizing) = &mut self.resizing else {
            return;
        };
        self.problem = None;
        resizing.done_ms.get_or_insert(now_ms);
        if resizing.held.is_none() && resizing.down.is_none() {
            self.resizing = None;
        }
    }

    /// Whether it still can be: what is recognised is what it is for good.
    fn is_asked_for(&mut self, address: Option<IpAddr>, now_ms: u64) -> bool {
        let can_be = self.identity.is_none() && self.phase <= Phase::Cloning;
        if can_be {
            self.phase = Phase::Cloning;
            self.given = address;
            self.asked_ms = Some(now_ms);
            self.problem = None;
        }
        can_be
    }

    fn reach(&mut self, phase: Phase) {
        if phase > self.phase {
            self.phase = phase;
            self.problem = None;
            // Who leaves becomes nothing any more.
            self.restoring = self.restoring.take().filter(|_| phase < Phase::Leaving);
            self.resizing = self.resizing.take().filter(|_| phase < Phase::Leaving);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(vmid: u32) -> Note {
        Note::Chosen {
            host: "pve1".to_owned(),
            vmid,
            address: None,
            now_ms: 5,
        }
    }

    fn identity(mac: &str) -> Note {
        Note::Identified(Identity {
            mac: mac.to_owned(),
            smbios: None,
        })
    }

    #[test]
    fn it_goes_forward_only_and_what_proves_it_never_changes() {
        let mut guest = Guest::planned(GuestId::from_u128(7));
        guest.take(chosen(5000));
        guest.take(chosen(5001));
        assert_eq!((guest.vmid, guest.phase), (Some(5001), Phase::Cloning));
        guest.take(identity("A"));
        guest.take(identity("B"));
        guest.take(chosen(5002));
        assert_eq!(guest.vmid, Some(5001));
        assert_eq!(guest.identity.as_ref().expect("known").mac, "A");
        guest.take(Note::Stuck(Some("no room".to_owned())));
        guest.take(Note::Leave);
        assert_eq!(
            (guest.phase, guest.problem.as_deref()),
            (Phase::Leaving, None)
        );
        guest.take(Note::Joined);
        assert_eq!(guest.phase, Phase::Leaving);
        guest.take(Note::Gone);
        guest.take(chosen(5003));
        assert_eq!((guest.phase, guest.vmid), (Phase::Gone, Some(5001)));
    }

    #[test]
    fn what_is_said_of_a_copy_counts_while_that_is_the_one() {
        let mut guest = Guest::planned(GuestId::from_u128(7));
        let to = |archive: &str, is_back| {
            Some(Restoring {
                archive: archive.to_owned(),
                asked_ms: 5,
                is_back,
            })
        };
        let (x, y) = ("nas:x".to_owned(), "nas:y".to_owned());
        guest.restoring = to("nas:y", false);
        guest.problem = Some("no room".to_owned());
        // Whoever was at the first one still speaks of it.
        for late in [
            Note::BroughtBack(x.clone()),
            Note::Restored(x.clone()),
            Note::Restored(y.clone()),
        ] {
            guest.take(late.clone());
            assert_eq!(guest.restoring, to("nas:y", false), "{late:?}");
        }
        assert!(guest.problem.is_some());
        guest.take(Note::BroughtBack(y.clone()));
        assert_eq!(
            (&guest.restoring, &guest.problem),
            (&to("nas:y", true), &None)
        );
        guest.take(Note::NotBack(x.clone()));
        guest.take(Note::Restored(x));
        assert_eq!(guest.restoring, to("nas:y", true));
        guest.take(Note::NotBack(y.clone()));
        guest.take(Note::Restored(y.clone()));
        assert_eq!(guest.restoring, to("nas:y", false));
        guest.take(Note::BroughtBack(y.clone()));
        guest.take(Note::Restored(y));
        assert_eq!(guest.restoring, None);
    }

    #[test]
    fn a_name_is_one_that_proxmox_takes() {
        let name = name_of(GuestId::from_u128(u128::MAX));
        assert!(name.len() <= 63, "{name}");
        let is_label =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(name.bytes().all(is_label), "{name}");
    }
}
