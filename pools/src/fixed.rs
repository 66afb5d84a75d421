//! Machines that exist: a guest takes one of a list, and gives it back. Nothing is asked of anybody, so all of it is a
//! decision. People tell the machine how to join, and make an end to its agent: as long as a guest is written down its machine is
//! nobody else's.

use std::collections::BTreeSet;

use skep_model::pool::{Guest, Identity, Machine, Note, Phase};

use crate::driver::Turn;
use crate::provider::{Provider, Trouble};

/// What drives guests of a pool of such machines.
#[derive(Debug, Clone, Copy)]
pub struct Fixed<'a> {
    /// The machines.
    pub machines: &'a [Machine],
}

impl Fixed<'_> {
    /// Decides.
    pub fn next(&self, guest: &Guest, others: &[Guest], now_ms: u64) -> Turn {
        let machine = guest.host.as_ref();
        let machine = machine.and_then(|name| self.machines.iter().find(|it| it.name == *name));
        match (guest.phase, machine) {
            (Phase::Gone, _) => Turn::Done,
            // It is left as it is: people end its agent, and then the guest is forgotten with its node.
            (Phase::Leaving, _) => Turn::Note(Note::Gone),
            (Phase::Planned, _) => self.take(guest, others, now_ms),
            // It was taken out of the list before anything ran there.
            (Phase::Cloning, None) => self.take(guest, others, now_ms),
            (_, None) => Turn::Wait(format!(
                "the list has no machine `{}` any more: put it back, or let the guest go",
                guest.host.as_deref().unwrap_or_default()
            )),
            (Phase::Cloning, Some(machine)) => Turn::Note(Note::Identified(Identity {
                mac: machine.mac.to_ascii_uppercase(),
                smbios: None,
            })),
            (Phase::Configuring, Some(_)) => Turn::Note(Note::Started),
            (Phase::Starting, Some(machine)) if guest.address != Some(machine.address) => {
                Turn::Note(Note::Found(machine.address))
            }
            (Phase::Starting, Some(machine)) => Turn::Wait(format!(
                "somebody tells `{}` how to join: `skep node introduction {}` shows the text for {} there",
                machine.name,
                guest.name(),
                crate::ENV_FILE
            )),
            (Phase::Ready, Some(_)) => Turn::Done,
        }
    }

    fn take(&self, guest: &Guest, others: &[Guest], now_ms: u64) -> Turn {
        let taken: BTreeSet<&str> = others
            .iter()
            .filter(|other| other.id != guest.id)
            .filter_map(|other| other.host.as_deref())
            .collect();
        let free = self.machines.iter();
        let free = free.filter(|machine| !taken.contains(machine.name.as_str()));
        match free.min_by_key(|machine| &machine.name) {
            Some(machine) => Turn::Note(Note::Asked {
                machine: Some(machine.name.clone()),
                address: Some(machine.address),
                now_ms,
            }),
            None => Turn::Wait(format!(
                "all {} machines of the list are taken: `skep provider set` names more, `skep node remove` gives one back",
                self.machines.len()
            )),
        }
    }
}

impl Provider for Fixed<'_> {
    async fn turn(&self, guest: &Guest, others: &[Guest], now_ms: u64) -> Result<Turn, Trouble> {
        Ok(self.next(guest, others, now_ms))
    }

    async fn introduce(&self, _: &Guest, _: &str) -> Result<Turn, Trouble> {
        Err(Trouble::Refused(
            "nobody but people can tell this machine how to join".to_owned(),
        ))
    }

    fn is_told_by_people(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
