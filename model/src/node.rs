//! Nodes: guests that run the agent and Docker, and what they say of themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::build::Builder;
use crate::id::NodeId;
use crate::machine::Machine;
use crate::name;
use crate::problem::{Code, Problem};
use crate::storage::{HeldVolume, check_path};

/// Most keys of metadata on a node.
pub const MAX_META: usize = 64;
/// Longest key, in bytes.
pub const MAX_META_KEY: usize = 63;
/// Longest value, in bytes.
pub const MAX_META_VALUE: usize = 256;

/// The key of metadata that says on which physical host a node runs.
pub const HOST: &str = "host";

/// Most nodes that are asked for one that seems to be gone.
pub const MAX_WITNESSES: usize = 3;

/// What an agent reports of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Facts {
    /// The machine's own name.
    pub hostname: String,
    /// As Rust and OCI spell it: `x86_64`, `aarch64`.
    pub architecture: String,
    /// Kernel release.
    pub kernel: String,
    /// Cores times 1,000.
    pub cpu_millis: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk under Docker's data root in bytes; 0: not known.
    pub disk_bytes: u64,
    /// Docker's version.
    pub docker_version: String,
    /// The agent's version.
    pub agent_version: String,
    /// Port of the node's ingress; none: no ingress here.
    pub ingress_port: Option<u16>,
    /// Takes builds.
    pub builder: bool,
    /// Devices that allocations may ask for, by name and count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, u32>,
    /// Its data plane offers the private network.
    #[serde(default)]
    pub private_network: bool,
    /// Metadata that its agent was started with; what operators set of the same key comes first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Its agent knows volumes, host paths and secrets as files.
    #[serde(default)]
    pub storage: bool,
    /// Volumes that are there, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<HeldVolume>,
    /// What its operator lets apps have of it: these folders and all within them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_paths: Vec<String>,
    /// Where it hands images to other nodes, `host:port`; none: it keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_address: Option<String>,
    /// Where its data plane takes other nodes' traffic for its containers, `host:port`; none: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_address: Option<String>,
    /// What the machine is.
    #[serde(default, skip_serializing_if = "Machine::is_silent")]
    pub machine: Machine,
    /// Builders beside Docker's own that it has, as a service names them: `nixpacks`, `exec:NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builders: Vec<String>,
    /// Storages that several nodes have, by name, in order: those that are mounted there now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_storage: Vec<String>,
}

/// Most storages of a node that others have as well.
pub const MAX_SHARED_STORAGE: usize = 32;

/// Most volumes on a node.
pub const MAX_HELD: usize = 1_024;

/// Longest address that a node gives for other nodes to dial, in bytes.
pub const MAX_ADDRESS: usize = 300;

/// Whether a node can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum NodeStatus {
    /// Its agent is connected and its runtime answers.
    Ready,
    /// Its agent says that the runtime does not answer.
    RuntimeDown,
    /// Its agent has been silent for too long.
    Lost,
    /// Its agent says that the runtime answers a ping and does nothing else.
    RuntimeWedged,
}

impl NodeStatus {
    /// Every status, in the order of the stored format: append only.
    pub const ALL: [Self; 4] = [
        Self::Ready,
        Self::RuntimeDown,
        Self::Lost,
        Self::RuntimeWedged,
    ];
}

/// What operators want of a node, whatever its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Admin {
    /// Takes allocations.
    #[default]
    Eligible,
    /// Takes no new ones; those that are there stay.
    Cordoned,
    /// Takes no new ones; those that are there move away.
    Draining {
        /// Cluster time after which they go even where no replacement is healthy, ms since the
        /// epoch.
        deadline_ms: u64,
    },
}

/// A guest that runs the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Identity: what its certificate says.
    pub id: NodeId,
    /// Unique in the cluster.
    pub name: String,
    /// Its own word.
    pub facts: Facts,
    /// The leader's judgement.
    pub status: NodeStatus,
    /// Cluster time of that judgement, ms since the epoch.
    pub status_ms: u64,
    /// Raised by every change that placement must know of: facts, status, allocations.
    pub generation: u64,
    /// Cluster time of joining.
    pub joined_ms: u64,
    /// What operators say of it, for constraints: key to value.
    pub meta: BTreeMap<String, String>,
    /// What operators want of it.
    pub admin: Admin,
    /// Held by the one agent that speaks for it: drawn anew by each life of the agent; 0: nobody's yet.
    pub seat: u128,
    /// Nodes that testified that its machine is gone, where it is lost for that; at most
    /// [`MAX_WITNESSES`]. None: it is not lost, or by its silence alone.
    pub witnesses: Vec<NodeId>,
    /// Whether what ran there is known to have ended, and which life of it that leaves.
    pub fencing: Fencing,
}

/// Who may speak for a node after what ran there was confirmed dead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fencing {
    /// Raised each time that it is fenced: an agent of a lower one has to drop all that it has first.
    pub incarnation: u64,
    /// It is fenced, and no agent has come back since.
    pub fenced: Option<Fenced>,
    /// What keeps it from being known to be dead, while it is lost; none: nobody has looked.
    pub waits: Option<String>,
}

/// That what ran on a node has ended, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fenced {
    /// Cluster time, ms since the epoch.
    pub at_ms: u64,
    /// A person's name, or the provider's.
    pub by: String,
    /// By what that is known.
    pub why: String,
}

/// Why a service with data on shared storage does not go on elsewhere: its node is lost, and `waits` keeps that from being
/// known to be dead; none: nobody has looked.
pub fn unconfirmed(service: &str, node: &str, waits: Option<&str>) -> Problem {
    let why = waits.unwrap_or("nobody has confirmed that what runs there has ended");
    let text = format!(
        "`{service}` has data on shared storage, and its node `{node}` is lost and not confirmed dead: {why}"
    );
    Problem::new(Code::Unplaceable, text).hint(format!(
        "it goes on when `{node}` is back; or make sure that it is off, then `skep node fence {node} --confirm`"
    ))
}

/// Longest text of why a node is fenced, or is not yet, in bytes.
pub const MAX_FENCED_WHY: usize = 500;

impl Node {
    /// Whether something that ran there may still run, though nobody hears of it.
    pub fn may_run_unheard(&self) -> bool {
        self.status == NodeStatus::Lost && self.fencing.fenced.is_none()
    }

    /// A value of its metadata: the operators' word, else its agent's.
    pub fn meta(&self, key: &str) -> Option<&str> {
        let found = self.meta.get(key).or_else(|| self.facts.meta.get(key));
        found.map(String::as_str)
    }

    /// All of its metadata, the same way.
    pub fn all_meta(&self) -> BTreeMap<String, String> {
        let all = self.facts.meta.iter().chain(&self.meta);
        all.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

impl Facts {
    /// Checks what an agent was told to say: its metadata, and the names of its devices.
    ///
    /// # Errors
    /// Names what is not accepted.
    pub fn check(&self) -> Result<(), Problem> {
        if self.meta.len() > MAX_META || self.devices.len() > MAX_META {
            let text = "the agent says too much of its node";
            return Err(Problem::invalid("meta", text).hint(format!(
                "at most {MAX_META} metadata keys and kinds of devices"
            )));
        }
        for (field, address) in [
            ("image_address", &self.image_address),
            ("mesh_address", &self.mesh_address),
        ] {
            let is_sane = |it: &String| {
                it.len() <= MAX_ADDRESS && it.bytes().all(|byte| byte.is_ascii_graphic())
            };
            if !address.as_ref().is_none_or(is_sane) {
                let text = "the node's address for other nodes is not host:port";
                return Err(Problem::invalid(field, text));
            }
        }
        self.machine.check()?;
        let mut builders = self.builders.iter();
        builders.try_for_each(|it| it.parse::<Builder>().map(drop))?;
        if self.builders.len() > MAX_META {
            let text = "the agent says too much of its node";
            return Err(Problem::invalid("builders", text).hint(format!("at most {MAX_META}")));
        }
        let mut meta = self.meta.iter();
        meta.try_for_each(|(key, value)| check_meta(key, value))?;
        let mut devices = self.devices.keys();
        devices.try_for_each(|name| check_meta(name, ""))?;
        if self.volumes.len() > MAX_HELD || self.host_paths.len() > MAX_META {
            let text = "the agent says too much of its node";
            return Err(Problem::invalid("volumes", text).hint(format!(
                "at most {MAX_HELD} volumes and {MAX_META} host paths"
            )));
        }
        let mut volumes = self.volumes.iter();
        volumes.try_for_each(|held| name::check("volumes", &held.name))?;
        if self.shared_storage.len() > MAX_SHARED_STORAGE {
            let text = "the agent says too much of its node";
            return Err(Problem::invalid("shared_storage", text)
                .hint(format!("at most {MAX_SHARED_STORAGE} shared storages")));
        }
        let mut shared = self.shared_storage.iter();
        shared.try_for_each(|it| name::check("shared_storage", it))?;
        let mut paths = self.host_paths.iter();
        paths.try_for_each(|path| check_path("host_paths", path))
    }
}

/// Checks one key of a node's metadata and its value.
///
/// # Errors
/// Says what is accepted: a key of 1 to 63 of `a-z`, `0-9`, `.`, `_`, `/`, `-`; a value of at most 256
/// bytes without control characters.
pub fn check_meta(key: &str, value: &str) -> Result<(), Problem> {
    let is_key = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._/-".contains(&b);
    if key.is_empty() || key.len() > MAX_META_KEY || !key.bytes().all(is_key) {
        let shown: String = key.chars().take(MAX_META_KEY + 1).collect();
        let text = format!("`{}` is not a metadata key", shown.escape_debug());
        return Err(Problem::invalid("set", text).hint("1 to 63 of a-z, 0-9 and ._/-"));
    }
    if value.len() > MAX_META_VALUE {
        let text = format!("the value of `{key}` has {} bytes", value.len());
        return Err(Problem::invalid("set", text).hint(format!("at most {MAX_META_VALUE}")));
    }
    if value.chars().any(char::is_control) {
        let text = format!("the value of `{key}` has a control character");
        return Err(Problem::invalid("set", text).hint("one line of text is accepted"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_short_text() {
        assert!(check_meta("zone.example/rack_1-a", "r 1: ünïcode").is_ok());
        assert!(check_meta(&"k".repeat(63), &"v".repeat(256)).is_ok());
        for bad in ["", "A", "a b", "ä", "a=b", &"k".repeat(64)] {
            assert!(check_meta(bad, "").is_err(), "{bad}");
        }
        assert!(check_meta("a", &"v".repeat(257)).is_err());
        assert!(check_meta("a", "line\nline").is_err());
    }
}
