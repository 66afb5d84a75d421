//! Machines that a program of an operator's gives: it is asked for the state of one, to make it, to tell it how to join, to
//! remove it, by the guest's id. Nothing is remembered of what it was asked before: what it says of the state now decides, and
//! making and removing may be asked for again. What it says is not believed beyond that: a machine that is another one than
//! before is never removed.

mod file;
mod program;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;
use skep_model::guest_pool::GuestPool;
use skep_model::pool::{Guest, Identity, Note, Phase, Program};

use crate::driver::Turn;
use crate::introduce;
use crate::next::{Ask, INTRODUCED_MS, LOST_ANSWER_MS, Step};
use crate::provider::{Provider, Trouble};

pub use file::{Misplaced, find};

/// The version of what is said on standard input and output.
const VERSION: u32 = 1;

/// How a machine stands, as the program says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// There is none.
    Absent,
    /// It is being made, started, stopped or removed.
    Busy,
    /// It is there, and does not run.
    Stopped,
    /// It runs.
    Running,
}

/// What the program says of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// How it stands.
    pub state: State,
    /// The address of its first network card: once it is there, it is what proves it.
    #[serde(default)]
    pub mac: Option<String>,
    /// The id in its SMBIOS.
    #[serde(default)]
    pub uuid: Option<String>,
    /// Its address.
    #[serde(default)]
    pub address: Option<std::net::IpAddr>,
    /// What keeps it from going on, for people.
    #[serde(default)]
    pub why: Option<String>,
}

impl Status {
    fn identity(&self) -> Option<Identity> {
        Some(Identity {
            mac: self.mac.as_ref()?.to_ascii_uppercase(),
            smbios: self.uuid.as_ref().map(|uuid| uuid.to_ascii_lowercase()),
        })
    }
}

/// Decides.
pub fn next(guest: &Guest, status: &Status, now_ms: u64) -> Step {
    let wait = |why: &str| Step::Wait(status.why.clone().unwrap_or_else(|| why.to_owned()));
    let since = |then: Option<u64>| then.map(|then| now_ms.saturating_sub(then));
    let was_seen = guest.identity.is_some();
    match (guest.phase, status.state) {
        (Phase::Gone, _) => return Step::Done,
        (Phase::Planned, _) => {
            return Step::Record(Note::Asked {
                machine: None,
                address: None,
                now_ms,
            });
        }
        (_, State::Busy) => return wait("the program is at it"),
        (Phase::Leaving, State::Absent) => {
            let is_late = since(guest.asked_ms).is_none_or(|ms| ms >= LOST_ANSWER_MS);
            return match was_seen || is_late {
                true => Step::Record(Note::Gone),
                false => wait("it may still be made: what was asked for it was not heard"),
            };
        }
        (_, State::Absent) if was_seen => return Step::Record(Note::Gone),
        (_, State::Absent) => return Step::Ask(Ask::Clone),
        (_, State::Stopped | State::Running) => {}
    }
    match (&guest.identity, status.identity()) {
        (Some(known), Some(found)) if *known != found => {
            return Step::Wait(format!(
                "the program shows another machine than before, {} in place of {}: neither is touched",
                found.mac, known.mac
            ));
        }
        (Some(_), None) => return wait("the program shows no MAC address of it any more"),
        (None, None) => return wait("the program shows no MAC address of it yet"),
        (None, Some(found)) => return Step::Record(Note::Identified(found)),
        (Some(_), Some(_)) => {}
    }
    let is_told = since(guest.introduced_ms).is_some_and(|ms| ms < INTRODUCED_MS);
    match (guest.phase, status.state) {
        (Phase::Leaving, _) => Step::Ask(Ask::Remove),
        (Phase::Ready, _) => Step::Done,
        // What makes it starts it, too.
        (_, State::Stopped) => Step::Ask(Ask::Clone),
        (Phase::Cloning | Phase::Configuring, _) => Step::Record(Note::Started),
        _ if !is_told => Step::Introduce,
        _ => match status.address {
            Some(address) if guest.address != Some(address) => Step::Record(Note::Found(address)),
            _ => wait("its agent has not joined yet"),
        },
    }
}

/// What drives guests that a program gives.
#[derive(Debug, Clone, Copy)]
pub struct Exec<'a> {
    /// The program.
    pub program: &'a Program,
    /// The folder that this server has for such programs; none: it runs none.
    pub folder: Option<&'a Path>,
    /// The pool that the guests are of.
    pub pool: &'a GuestPool,
}

/// What a program is told on its standard input.
#[derive(Serialize)]
struct Told<'a> {
    version: u32,
    id: String,
    name: String,
    pool: &'a str,
    machine: Size,
    parameters: &'a std::collections::BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<serde_json::Value>,
}

/// How large a machine is to be.
#[derive(Serialize)]
struct Size {
    cores: u32,
    memory_mib: u32,
    disk_gib: u32,
}

impl Exec<'_> {
    fn told(&self, guest: &Guest, file: Option<serde_json::Value>) -> Vec<u8> {
        let told = Told {
            version: VERSION,
            id: guest.id.to_string(),
            name: guest.name(),
            pool: &self.pool.name,
            machine: Size {
                cores: self.pool.recipe.cores,
                memory_mib: self.pool.recipe.memory_mib,
                disk_gib: self.pool.recipe.disk_gib,
            },
            parameters: &self.program.parameters,
            file,
        };
        serde_json::to_vec(&told).expect("names and texts are always JSON")
    }

    async fn status(&self, guest: &Guest) -> Result<Status, Trouble> {
        let said = program::ask(self, "status", &self.told(guest, None)).await?;
        serde_json::from_slice(&said).map_err(|error| {
            Trouble::Refused(format!(
                "what the program says of the state cannot be read: {error}"
            ))
        })
    }
}

impl Provider for Exec<'_> {
    async fn turn(&self, guest: &Guest, _: &[Guest], now_ms: u64) -> Result<Turn, Trouble> {
        if matches!(guest.phase, Phase::Gone) {
            return Ok(Turn::Done);
        }
        let status = match guest.phase {
            // Nobody has been asked for it yet.
            Phase::Planned => Status {
                state: State::Absent,
                mac: None,
                uuid: None,
                address: None,
                why: None,
            },
            _ => self.status(guest).await?,
        };
        let (verb, ask) = match next(guest, &status, now_ms) {
            Step::Record(note) => return Ok(Turn::Note(note)),
            Step::Wait(why) => return Ok(Turn::Wait(why)),
            Step::Done => return Ok(Turn::Done),
            Step::Introduce => return Ok(Turn::Introduce),
            Step::Ask(Ask::Remove) => ("remove", Ask::Remove),
            Step::Ask(ask) => ("create", ask),
            Step::Choose => return Ok(Turn::Wait("there is nothing to choose".to_owned())),
        };
        program::ask(self, verb, &self.told(guest, None)).await?;
        Ok(Turn::Did(ask))
    }

    async fn introduce(&self, guest: &Guest, text: &str) -> Result<Turn, Trouble> {
        introduce::check(text).map_err(Trouble::Refused)?;
        let status = self.status(guest).await?;
        if status.state != State::Running || status.identity() != guest.identity {
            return Ok(Turn::Wait("it does not run any more".to_owned()));
        }
        let file = json!({"path": introduce::ENV_FILE, "content": text});
        let told = self.told(guest, Some(file));
        program::ask_secretly(self, "introduce", &told).await?;
        Ok(Turn::Did(Ask::Introduce))
    }
}

#[cfg(test)]
mod tests;
