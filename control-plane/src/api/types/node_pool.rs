//! Providers, and pools that make their nodes, as clients see them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use skep_model::guest_pool::{Decision, GuestPool, PoolGuest, Size};
use skep_model::id::{GuestId, NodeId};
use skep_model::pool::{Backups, GuestSize, Machine, Phase, Program, Recipe, Resizing};
use skep_model::provider::{Provider, Trust, Way, WayKind};
use skep_pools::Archive;
use utoipa::ToSchema;

/// Who makes guests: a Proxmox cluster (`endpoints`, `trust`, `token_id`, `secret`), a program (`program`), or nobody, where the
/// machines exist (`machines`). One of the three.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderRequest {
    /// Addresses of its hosts: `https://pve1.example.org:8006`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// How its hosts prove who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// The API token's name: `skep@pve!skep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// The API token's secret. Sealed, and never shown; none: the one that is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The program that makes machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// Machines that exist.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Machine>,
}

impl fmt::Debug for ProviderRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderRequest")
            .field("token_id", &self.token_id)
            .field("program", &self.program)
            .field("machines", &self.machines)
            .finish_non_exhaustive()
    }
}

/// Who makes guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProviderView {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: WayKind,
    /// Of a Proxmox cluster: addresses of its hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// How its hosts prove who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// The API token's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// The program that makes machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// Machines that exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Machine>,
    /// When it was set last, ms since the epoch.
    pub changed_ms: u64,
}

/// Providers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProvidersView {
    /// By name.
    pub providers: Vec<ProviderView>,
}

/// What a provider shows when it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProviderStateView {
    /// What it is.
    pub kind: WayKind,
    /// Of a program: how it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramStateView>,
    /// Of a list of machines: who has which, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineStateView>,
    /// Of a Proxmox cluster: its version.
    pub version: String,
    /// Privileges that its token lacks, each with the path where: `VM.Clone on /pool/skep`.
    pub missing: Vec<String>,
    /// Its hosts, by name.
    pub hosts: Vec<HostView>,
    /// Guests that carry our name or tag and are written down nowhere. They are told, and left alone.
    pub orphans: Vec<OrphanView>,
}

/// A program that makes machines, as it stands on the server that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgramStateView {
    /// What is set.
    pub program: Program,
    /// The server that looked. The one that leads runs it.
    pub server: String,
    /// Whether that one leads.
    pub leads: bool,
    /// Where it is there; none: it would not be run there.
    pub path: Option<String>,
    /// Why it would not be run there.
    pub problem: Option<String>,
    /// Guests of its pools, by name, with what keeps them from going on.
    pub guests: Vec<ProgramGuestView>,
}

/// A guest that a program has made, or is to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgramGuestView {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// How far it has come.
    pub phase: Phase,
    /// What keeps it from going on.
    pub problem: Option<String>,
}

/// A machine that exists, and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineStateView {
    /// The machine.
    #[serde(flatten)]
    pub machine: Machine,
    /// The guest that has it; none: it is free.
    pub guest: Option<String>,
    /// The pool of that guest.
    pub pool: Option<String>,
    /// How far that guest has come.
    pub phase: Option<Phase>,
}

/// What a person puts on a machine so that its agent joins as the node of a guest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IntroductionView {
    /// The guest, which is the name of its node.
    pub guest: String,
    /// The machine that it is for.
    pub machine: Option<String>,
    /// The address of its network card, by which it is recognised when it joins.
    pub mac: String,
    /// Where it goes.
    pub path: String,
    /// What goes there, a line for each variable. A secret is in it: a join token, of use once, to that machine alone.
    pub content: String,
    /// Until when the token is good, ms since the epoch. Whoever asks again makes it good for nothing.
    pub expires_ms: u64,
}

impl fmt::Debug for IntroductionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IntroductionView({})", self.guest)
    }
}

/// A physical host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub online: bool,
    /// Somebody has put it into maintenance.
    pub maintenance: bool,
    /// Memory that it has, bytes.
    pub memory_bytes: u64,
    /// Memory that its guests were promised, bytes: more than it has is more than it can give.
    pub promised_bytes: u64,
    /// Guests on it, ours and others'.
    pub guests: u32,
    /// Nodes of this cluster on it, by name.
    pub nodes: Vec<String>,
}

/// A guest that nobody knows of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrphanView {
    /// Its number.
    pub vmid: u32,
    /// The host that it is on.
    pub host: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Why it is thought to be ours.
    pub why: String,
}

/// A pool that makes its nodes, as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePoolRequest {
    /// The name of the provider.
    pub provider: String,
    /// What each guest is made of.
    pub recipe: Recipe,
    /// Metadata of its nodes.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// How many nodes.
    pub size: Size,
    /// How its guests are copied; none: they are not.
    #[serde(default)]
    pub backups: Option<Backups>,
    /// A node of it that is lost is ended by its provider, where work with shared storage waits for that.
    #[serde(default = "yes")]
    pub fences: bool,
    /// Refused where it was changed meanwhile; none: whatever it was.
    #[serde(default)]
    pub generation: Option<u64>,
}

const fn yes() -> bool {
    true
}

/// How many nodes a pool should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePoolSizeRequest {
    /// That many.
    pub nodes: u32,
}

/// A pool that makes its nodes, with its guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodePoolView {
    /// Its name.
    pub name: String,
    /// The name of the provider.
    pub provider: String,
    /// What each guest is made of.
    pub recipe: Recipe,
    /// Metadata of its nodes.
    pub meta: BTreeMap<String, String>,
    /// How many nodes.
    pub size: Size,
    /// How its guests are copied; none: they are not.
    #[serde(default)]
    pub backups: Option<Backups>,
    /// A node of it that is lost is ended by its provider, where work with shared storage waits for that.
    #[serde(default = "yes")]
    pub fences: bool,
    /// Raised by each change of the recipe.
    pub edition: u64,
    /// Raised by each change.
    pub generation: u64,
    /// Its guests, the oldest first.
    pub guests: Vec<GuestView>,
    /// What it decided last, where it scales itself.
    #[serde(default)]
    pub decided: Option<Decision>,
    /// What it would do now and why, in words, where it scales itself; of a list of pools, nothing.
    #[serde(default)]
    pub outlook: Vec<String>,
}

/// A guest of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestView {
    /// Which.
    pub id: GuestId,
    /// Its name, which is that of its node.
    pub name: String,
    /// How far it has come.
    pub phase: Phase,
    /// The host that it was made on.
    pub host: Option<String>,
    /// Its number.
    pub vmid: Option<u32>,
    /// Its address.
    pub address: Option<String>,
    /// The node in it, once that has joined.
    pub node: Option<NodeId>,
    /// Another one comes in its place, then it goes.
    pub retiring: bool,
    /// It was made by an older recipe.
    pub outdated: bool,
    /// What keeps it from going on.
    pub problem: Option<String>,
    /// The copy of it that it is becoming.
    #[serde(default)]
    pub restoring: Option<String>,
    /// The size that it was given apart from the recipe; none: it has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<GuestSize>,
    /// How far it has come to that size, in words; none: it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resizing: Option<String>,
    /// When it was planned, ms since the epoch.
    pub planned_ms: u64,
}

/// Copies of a node's guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestBackupsView {
    /// How they are made.
    pub backups: Backups,
    /// When the next one is due, ms since the epoch; in the past where one was missed.
    pub next_ms: Option<u64>,
    /// Those that there are, the newest first.
    pub archives: Vec<GuestArchiveView>,
}

/// A copy of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestArchiveView {
    /// Its name.
    pub archive: String,
    /// When it was begun, ms since the epoch.
    pub at_ms: u64,
    /// Its size, bytes; none: its storage does not say.
    pub bytes: Option<u64>,
    /// Marked at the provider as not to be removed.
    pub protected: bool,
}

/// Copies of guests that have left a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolBackupsView {
    /// The storage that was looked at.
    pub storage: String,
    /// Those that are proven to be of a guest of this pool that is gone, the oldest first.
    pub archives: Vec<DepartedArchiveView>,
    /// How many more there are that name a guest as ours are named, which is none that is known: nobody here removes them.
    pub unknown: u32,
}

/// A copy of a guest that has left its pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DepartedArchiveView {
    /// The guest's name.
    pub guest: String,
    /// The number that it had.
    pub vmid: u32,
    /// When it was forgotten, ms since the epoch.
    pub gone_ms: u64,
    /// The copy's name.
    pub archive: String,
    /// When it was begun, ms since the epoch.
    pub at_ms: u64,
    /// Its size, bytes; none: its storage does not say.
    pub bytes: Option<u64>,
    /// Marked at the provider as not to be removed.
    pub protected: bool,
}

/// Which copies of guests that have left a pool are removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RemovePoolBackupsRequest {
    /// Their names.
    pub archives: Vec<String>,
    /// The storage that they are on; none: the one that the pool's guests are copied to.
    pub storage: Option<String>,
}

/// A copy that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupBegunView {
    /// The provider's task.
    pub task: String,
    /// The storage that it goes to.
    pub storage: String,
}

/// Which copy a node's guest becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// Its name.
    pub archive: String,
}

impl From<Archive> for GuestArchiveView {
    fn from(archive: Archive) -> Self {
        Self {
            archive: archive.volid,
            at_ms: archive.at_ms,
            bytes: archive.bytes,
            protected: archive.is_protected,
        }
    }
}

/// Pools that make their nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodePoolsView {
    /// By name.
    pub pools: Vec<NodePoolView>,
}

/// What would be done, in order. Nothing of it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodePlanView {
    /// In words, a line each.
    pub steps: Vec<String>,
    /// What is against it now.
    pub against: Vec<String>,
}

/// How a node is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetireRequest {
    /// Another one of its pool comes first.
    pub replace: bool,
    /// How long what runs there may take to move away, in ms; none: an hour. What is left then is stopped.
    pub deadline_ms: Option<u64>,
    /// Also when it has volumes of services that there are: what is in them is given up.
    pub lose_volumes: bool,
}

impl From<&Provider> for ProviderView {
    fn from(provider: &Provider) -> Self {
        let mut view = Self {
            name: provider.name.clone(),
            kind: provider.way.kind(),
            endpoints: Vec::new(),
            trust: None,
            token_id: None,
            program: None,
            machines: Vec::new(),
            changed_ms: provider.changed_ms,
        };
        match &provider.way {
            Way::Proxmox(proxmox) => {
                view.endpoints.clone_from(&proxmox.endpoints);
                view.trust = Some(proxmox.trust.clone());
                view.token_id = Some(proxmox.token_id.clone());
            }
            Way::Exec(program) => view.program = Some(program.clone()),
            Way::Static(machines) => view.machines.clone_from(machines),
        }
        view
    }
}

impl NodePoolView {
    /// A pool with its guests.
    pub(crate) fn of<'a>(pool: &GuestPool, guests: impl Iterator<Item = &'a PoolGuest>) -> Self {
        Self {
            name: pool.name.clone(),
            provider: pool.provider.clone(),
            recipe: pool.recipe.clone(),
            meta: pool.meta.clone(),
            size: pool.size,
            backups: pool.backups.clone(),
            fences: pool.fences,
            edition: pool.edition,
            generation: pool.generation,
            guests: guests.map(|one| GuestView::of(pool, one)).collect(),
            decided: pool.decided.clone().filter(|_| pool.size.auto.is_some()),
            outlook: Vec::new(),
        }
    }
}

impl GuestView {
    fn of(pool: &GuestPool, one: &PoolGuest) -> Self {
        let guest = &one.guest;
        Self {
            id: guest.id,
            name: guest.name(),
            phase: guest.phase,
            host: guest.host.clone(),
            vmid: guest.vmid,
            address: guest.address.or(guest.given).map(|it| it.to_string()),
            node: one.node,
            retiring: one.is_retiring,
            outdated: one.edition < pool.edition,
            problem: guest.problem.clone(),
            restoring: guest.restoring.as_ref().map(|it| it.archive.clone()),
            size: guest.size,
            resizing: guest.resizing.as_ref().map(|it| stage(it).to_owned()),
            planned_ms: one.planned_ms,
        }
    }
}

/// How far a guest is that becomes another size.
pub(crate) const fn stage(resizing: &Resizing) -> &'static str {
    match (resizing.done_ms, resizing.down, resizing.stops) {
        (Some(_), ..) => "it has its size, and its agent is waited for",
        (None, Some(_), _) => "it is down, and is changed and started",
        (None, None, true) => "its node is drained, then it is shut down",
        (None, None, false) => "it is changed while it runs",
    }
}
