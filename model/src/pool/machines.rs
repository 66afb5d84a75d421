//! Where machines come from that no Proxmox makes: a program of an operator's, or a list of those that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Longest that a program may take for one answer.
const DEADLINE_MAX_S: u32 = 3_600;

/// A program that makes and removes machines. It is asked one thing at a time, and each of them may be asked again: its
/// protocol is in the documentation of pools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Where it is, on every server: `/usr/local/lib/skep/machines`.
    pub path: String,
    /// Arguments before what is asked.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// What it is told of each machine, as it understands it. No secrets: servers show them.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// How long it may take for one answer, seconds.
    pub deadline_s: u32,
}

/// A machine that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name, among those of its pool.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The address of its first network card, by which its agent is recognised.
    pub mac: String,
}

impl Program {
    /// Refuses what could not be started.
    ///
    /// # Errors
    /// Names the field, and says what is accepted.
    pub fn check(&self) -> Result<(), Problem> {
        if !self.path.starts_with('/') || self.path.contains('\0') {
            return Err(Problem::invalid("program.path", "it is no whole path")
                .hint("where the program is on every server: /usr/local/lib/skep/machines"));
        }
        if self.deadline_s == 0 || self.deadline_s > DEADLINE_MAX_S {
            let text = format!("{} s is no deadline", self.deadline_s);
            return Err(Problem::invalid("program.deadline_s", text)
                .hint(format!("seconds for one answer, 1 to {DEADLINE_MAX_S}")));
        }
        Ok(())
    }
}

impl Machine {
    /// Refuses a list in which machines could be taken for each other.
    ///
    /// # Errors
    /// Names the field, and says what is accepted.
    pub fn check_all(machines: &[Self]) -> Result<(), Problem> {
        let (mut names, mut macs, mut addresses) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for machine in machines {
            let name = &machine.name;
            if name.is_empty() || !is_mac(&machine.mac) {
                let text = format!(
                    "`{name}` has no name, or `{}` is no MAC address",
                    machine.mac
                );
                return Err(Problem::invalid("machines", text).hint(
                    "name, address and MAC of each: six pairs of hex digits between colons",
                ));
            }
            let is_new = names.insert(name)
                && macs.insert(machine.mac.to_ascii_uppercase())
                && addresses.insert(machine.address);
            if !is_new {
                let text = format!("`{name}` has the name, MAC or address of another");
                return Err(
                    Problem::invalid("machines", text).hint("each of them is one machine's")
                );
            }
        }
        match machines.is_empty() {
            true => Err(Problem::invalid("machines", "there is none")
                .hint("name, address and MAC of each machine")),
            false => Ok(()),
        }
    }
}

fn is_mac(text: &str) -> bool {
    let is_pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
    text.split(':').count() == 6 && text.split(':').all(is_pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, address: &str, mac: &str) -> Machine {
        Machine {
            name: name.to_owned(),
            address: address.parse().expect("an address"),
            mac: mac.to_owned(),
        }
    }

    #[test]
    fn machines_are_told_apart_by_all_that_they_have() {
        let one = machine("a", "10.0.0.1", "bc:24:11:00:00:01");
        let two = machine("b", "10.0.0.2", "BC:24:11:00:00:02");
        Machine::check_all(&[one.clone(), two]).expect("fine");
        for other in [
            machine("a", "10.0.0.2", "BC:24:11:00:00:02"),
            machine("b", "10.0.0.1", "BC:24:11:00:00:02"),
            machine("b", "10.0.0.2", "BC:24:11:00:00:01"),
            machine("", "10.0.0.2", "BC:24:11:00:00:02"),
            machine("b", "10.0.0.2", "BC:24:11:00:00"),
        ] {
            let both = [one.clone(), other];
            let problem = Machine::check_all(&both).expect_err("refused");
            assert_eq!(problem.field.as_deref(), Some("machines"), "{both:?}");
        }
        Machine::check_all(&[]).expect_err("none");
    }

    #[test]
    fn a_program_is_a_whole_path_with_a_deadline() {
        let program = |path: &str, deadline_s| Program {
            path: path.to_owned(),
            arguments: Vec::new(),
            parameters: BTreeMap::new(),
            deadline_s,
        };
        program("/a", 60).check().expect("fine");
        for (field, refused) in [
            ("program.path", program("a", 60)),
            ("program.path", program("", 60)),
            ("program.deadline_s", program("/a", 0)),
            ("program.deadline_s", program("/a", 3_601)),
        ] {
            let problem = refused.check().expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field));
        }
    }
}
