//! Who makes the guests of pools: a Proxmox cluster, and how it is reached; a program of an operator's; or nobody, where the
//! machines exist.

use serde::{Deserialize, Serialize};

use crate::name;
use crate::pool::{Machine, Program};
use crate::problem::Problem;
use crate::variable::Sealed;

/// Most providers of a cluster.
pub const MAX_PROVIDERS: usize = 50;
/// Most addresses of one Proxmox cluster.
pub const MAX_ENDPOINTS: usize = 16;
/// Most certificates that one is known by: the present one and the next.
pub const MAX_PINS: usize = 4;
/// Largest CA of a provider, in bytes.
pub const MAX_CA_BYTES: usize = 16 * 1024;
/// Longest of the other texts, in bytes.
pub const MAX_TEXT: usize = 256;

/// Who makes guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// How it is asked.
    pub way: Way,
    /// When it was set first, ms since the epoch.
    pub made_ms: u64,
    /// When it was set last.
    pub changed_ms: u64,
}

/// How a provider is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By the API of Proxmox VE.
    Proxmox(Proxmox),
    /// A program makes machines.
    Exec(Program),
    /// Machines that exist, each taken by one guest at a time. People tell them how to join.
    Static(Vec<Machine>),
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ProviderKind))]
#[serde(rename_all = "snake_case")]
pub enum WayKind {
    /// A Proxmox cluster.
    Proxmox,
    /// A program.
    Exec,
    /// A list of machines.
    Static,
}

/// A Proxmox cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxmox {
    /// Addresses of its hosts, `https://pve1.example.org:8006`: the next where one does not answer.
    pub endpoints: Vec<String>,
    /// How its hosts prove who they are.
    pub trust: Trust,
    /// The API token's name, `skep@pve!skep`.
    pub token_id: String,
    /// The API token's secret.
    pub secret: Sealed,
}

/// What a host's certificate is held against. There is no third way: whoever is asked gets the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ProviderTrust))]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// A CA, PEM: `/etc/pve/pve-root-ca.pem` of any host.
    Ca(String),
    /// SHA-256 of each certificate, as Proxmox shows it.
    Pins(Vec<String>),
}

impl Way {
    /// Which one.
    pub const fn kind(&self) -> WayKind {
        match self {
            Self::Proxmox(_) => WayKind::Proxmox,
            Self::Exec(_) => WayKind::Exec,
            Self::Static(_) => WayKind::Static,
        }
    }

    /// Whether its guests can be copied, and one that is lost be ended by it.
    pub const fn is_proxmox(&self) -> bool {
        matches!(self, Self::Proxmox(_))
    }
}

impl WayKind {
    /// As people read it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Proxmox => "a Proxmox cluster",
            Self::Exec => "a program",
            Self::Static => "a list of machines",
        }
    }
}

impl Provider {
    /// Checks every field.
    ///
    /// # Errors
    /// The first that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        name::check("name", &self.name)?;
        match &self.way {
            Way::Proxmox(proxmox) => proxmox.check(),
            Way::Exec(program) => program.check(),
            Way::Static(machines) => Machine::check_all(machines),
        }
    }
}

impl Proxmox {
    fn check(&self) -> Result<(), Problem> {
        let endpoints = &self.endpoints;
        if endpoints.is_empty() || endpoints.len() > MAX_ENDPOINTS {
            let text = format!("{} addresses are not accepted", endpoints.len());
            let hint = format!("1 to {MAX_ENDPOINTS}, one for each host");
            return Err(Problem::invalid("endpoints", text).hint(hint));
        }
        let is_address = |it: &&String| it.starts_with("https://") && it.len() <= MAX_TEXT;
        if let Some(odd) = endpoints.iter().find(|it| !is_address(it)) {
            let text = format!("`{}` is no address of an API", odd.escape_debug());
            return Err(Problem::invalid("endpoints", text).hint("https://pve1.example.org:8006"));
        }
        let is_token = |it: &str| {
            let (user, name) = it.split_once('!').unwrap_or_default();
            user.contains('@') && !name.is_empty() && it.len() <= MAX_TEXT
        };
        if !is_token(&self.token_id) {
            let text = format!(
                "`{}` is no name of an API token",
                self.token_id.escape_debug()
            );
            return Err(Problem::invalid("token_id", text)
                .hint("USER@REALM!NAME, as `pveum user token add` shows it: skep@pve!skep"));
        }
        match &self.trust {
            Trust::Ca(pem) if pem.is_empty() || pem.len() > MAX_CA_BYTES => {
                let text = "the CA is empty or too large";
                Err(Problem::invalid("ca", text)
                    .hint("/etc/pve/pve-root-ca.pem of any host of the cluster"))
            }
            Trust::Pins(pins) if pins.is_empty() || pins.len() > MAX_PINS => {
                let text = format!("{} fingerprints are not accepted", pins.len());
                let hint =
                    format!("1 to {MAX_PINS}: that of today, and that of the next certificate");
                Err(Problem::invalid("pins", text).hint(hint))
            }
            Trust::Ca(_) | Trust::Pins(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> Proxmox {
        Proxmox {
            endpoints: vec!["https://pve1:8006".to_owned()],
            trust: Trust::Pins(vec!["AA".to_owned()]),
            token_id: "skep@pve!skep".to_owned(),
            secret: Sealed(vec![1]),
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_its_field() {
        let check = |change: fn(&mut Proxmox)| {
            let mut proxmox = provider();
            change(&mut proxmox);
            let provider = Provider {
                name: "home".to_owned(),
                way: Way::Proxmox(proxmox),
                made_ms: 0,
                changed_ms: 0,
            };
            provider.check().err().and_then(|problem| problem.field)
        };
        assert_eq!(check(|_| ()), None);
        type Change = fn(&mut Proxmox);
        let cases: [(&str, Change); 7] = [
            ("endpoints", |it| it.endpoints.clear()),
            ("endpoints", |it| {
                it.endpoints[0] = "http://pve1:8006".to_owned()
            }),
            ("token_id", |it| it.token_id = "root".to_owned()),
            ("token_id", |it| it.token_id = "skep!x".to_owned()),
            ("pins", |it| it.trust = Trust::Pins(Vec::new())),
            ("ca", |it| it.trust = Trust::Ca(String::new())),
            ("ca", |it| {
                it.trust = Trust::Ca("x".repeat(MAX_CA_BYTES + 1))
            }),
        ];
        for (field, change) in cases {
            assert_eq!(check(change).as_deref(), Some(field));
        }
    }
}
