//! Where machines come from that no Proxmox makes: a program of an operator's, or a list of those that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Longest that a program may take for one answer, seconds.
const DEADLINE_MAX_S: u32 = 3_600;
/// How long it may take where nobody says otherwise, seconds: most clouds make a machine in that time.
const DEADLINE_S: u32 = 300;
/// Longest name of a program's file, in bytes.
const MAX_FILE: usize = 128;
/// Most parameters of a program.
const MAX_PARAMETERS: usize = 64;
/// Longest name of one, in bytes.
const MAX_PARAMETER: usize = 64;
/// Longest value of one, in bytes: all of them stay well below what one command may hold.
const MAX_VALUE: usize = 1_024;
/// Most machines of a list.
pub const MAX_MACHINES: usize = 1_000;
/// Longest name of a machine, in bytes.
const MAX_MACHINE: usize = 63;

/// A program that makes and removes machines. It is asked one thing at a time, and each of them may be asked again: its
/// protocol is in the documentation of pools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ProviderProgram))]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The name of its file in the folder that each server's operator has set aside for such programs. Never a path:
    /// whoever may set providers may not thereby run whatever is on a server.
    pub file: String,
    /// What it is told of each machine, as it understands it. No secrets: servers show them.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// How long it may take for one answer, seconds.
    #[serde(default = "deadline_s")]
    pub deadline_s: u32,
}

const fn deadline_s() -> u32 {
    DEADLINE_S
}

impl Default for Program {
    fn default() -> Self {
        Self {
            file: String::new(),
            parameters: BTreeMap::new(),
            deadline_s: DEADLINE_S,
        }
    }
}

/// A machine that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ProviderMachine))]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name, among those of its list.
    pub name: String,
    /// Its address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
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
        let is_name = |text: &str, most: usize| {
            let mut bytes = text.bytes();
            let begins = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
            begins && text.len() <= most && bytes.all(is_plain)
        };
        if !is_name(&self.file, MAX_FILE) {
            let text = format!("`{}` is no name of a program", self.file.escape_debug());
            return Err(Problem::invalid("program.file", text).hint(
                "the name of a file in the folder of `skep server --provider-programs`, without a path: \
                 letters, digits, `.`, `_`, `-`",
            ));
        }
        if self.deadline_s == 0 || self.deadline_s > DEADLINE_MAX_S {
            let text = format!("{} s is no deadline", self.deadline_s);
            return Err(Problem::invalid("program.deadline_s", text)
                .hint(format!("seconds for one answer, 1 to {DEADLINE_MAX_S}")));
        }
        if self.parameters.len() > MAX_PARAMETERS {
            let text = format!("{} parameters are too many", self.parameters.len());
            return Err(Problem::invalid("program.parameters", text)
                .hint(format!("at most {MAX_PARAMETERS}")));
        }
        let is_odd = |(key, value): &(&String, &String)| {
            !is_name(key, MAX_PARAMETER)
                || value.len() > MAX_VALUE
                || value.chars().any(char::is_control)
        };
        if let Some((key, _)) = self.parameters.iter().find(is_odd) {
            let text = format!("the parameter `{}` is not accepted", key.escape_debug());
            return Err(Problem::invalid("program.parameters", text).hint(format!(
                "a name of letters, digits, `.`, `_`, `-`, and one line of at most {MAX_VALUE} bytes"
            )));
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
            let is_name = (1..=MAX_MACHINE).contains(&name.len()) && name.bytes().all(is_plain);
            if !is_name || !is_mac(&machine.mac) {
                let text = format!(
                    "`{}` is no name of a machine, or `{}` is no MAC address",
                    name.escape_debug(),
                    machine.mac.escape_debug()
                );
                return Err(Problem::invalid("machines", text).hint(
                    "name (letters, digits, `.`, `_`, `-`), address and MAC of each: six pairs of hex digits between \
                     colons, as `ip link` shows it",
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
        match machines.len() {
            0 => Err(Problem::invalid("machines", "there is none")
                .hint("name, address and MAC of each machine")),
            count if count > MAX_MACHINES => {
                let text = format!("{count} machines are too many");
                Err(Problem::invalid("machines", text).hint(format!("at most {MAX_MACHINES}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether it is the one with this MAC address, however either is written.
    pub fn has_mac(&self, mac: &str) -> bool {
        self.mac.eq_ignore_ascii_case(mac)
    }
}

/// What names may be of: nothing that means something to a shell, a path or a file of settings.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
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
            machine("b c", "10.0.0.2", "BC:24:11:00:00:02"),
            machine("b", "10.0.0.2", "BC:24:11:00:00"),
        ] {
            let both = [one.clone(), other];
            let problem = Machine::check_all(&both).expect_err("refused");
            assert_eq!(problem.field.as_deref(), Some("machines"), "{both:?}");
        }
        Machine::check_all(&[]).expect_err("none");
    }

    #[test]
    fn a_program_is_a_bare_name_with_a_deadline() {
        let program = |file: &str, deadline_s| Program {
            file: file.to_owned(),
            parameters: [("size".to_owned(), "cx22".to_owned())].into(),
            deadline_s,
        };
        program("machines.sh", 60).check().expect("fine");
        let with = |key: &str, value: &str| Program {
            parameters: [(key.to_owned(), value.to_owned())].into(),
            ..program("a", 60)
        };
        for (field, refused) in [
            ("program.file", program("", 60)),
            ("program.file", program("/bin/sh", 60)),
            ("program.file", program("a/b", 60)),
            ("program.file", program("..", 60)),
            ("program.file", program(".hidden", 60)),
            ("program.file", program("-x", 60)),
            ("program.file", program("a b", 60)),
            ("program.file", program("a\0", 60)),
            ("program.file", program(&"a".repeat(129), 60)),
            ("program.deadline_s", program("a", 0)),
            ("program.deadline_s", program("a", 3_601)),
            ("program.parameters", with("", "x")),
            ("program.parameters", with("a=b", "x")),
            ("program.parameters", with("a", "x\ny")),
            ("program.parameters", with("a", &"x".repeat(1_025))),
        ] {
            let problem = refused.check().expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field), "{refused:?}");
        }
    }
}
