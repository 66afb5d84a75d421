//! Pools that make their nodes: `skep pool create|change|scale|upgrade`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use http::Method;
use serde_json::json;
use skep_control_plane::api::types::{
    GuestView, NodePlanView, NodePoolRequest, NodePoolSizeRequest, NodePoolView, NodePoolsView,
    ProvidersView,
};
use skep_model::guest_pool::{Auto, Size};
use skep_model::manifest::{parse_bytes, parse_cpu};
use skep_model::pool::{Addresses, Backups, Kind, Phase, Recipe, VmidRange};
use skep_model::problem::Code;
use skep_model::provider::WayKind;

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::node::another_copy;
use crate::output::table;
use crate::session::Session;

/// What nodes are made of, and how many there are. What is not named stays as it is, or as by default.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Make {
    /// Its name: also what its nodes say as metadata `pool`
    #[arg(value_name = "POOL")]
    pub(super) pool: String,
    /// Who makes them: `skep provider ls`. Of a program, each is told --cores, --memory and --disk; of a list of machines,
    /// nothing is said of what they are made of
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
    /// The template on a host: guests may be on hosts that have one; repeatable
    #[arg(long, value_name = "HOST=VMID", value_parser = template)]
    template: Vec<(String, u32)>,
    /// Guests are containers (LXC), not VMs; needs Proxmox VE 9.1
    #[arg(long)]
    lxc: bool,
    /// Processors of each [2]
    #[arg(long, value_name = "N")]
    cores: Option<u32>,
    /// Memory of each, MiB [4096]
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Disk of each, GiB [32]
    #[arg(long, value_name = "GIB")]
    disk: Option<u32>,
    /// The name of that disk [scsi0; rootfs of a container]
    #[arg(long, value_name = "NAME")]
    disk_name: Option<String>,
    /// Where disks of full clones go [where the template's is]
    #[arg(long, value_name = "STORAGE")]
    storage: Option<String>,
    /// Give each guest a disk of its own, instead of one that builds on the template's
    #[arg(long)]
    full_clone: bool,
    /// The bridge of its network [vmbr0]
    #[arg(long, value_name = "BRIDGE")]
    bridge: Option<String>,
    /// The VLAN there
    #[arg(long, value_name = "TAG")]
    vlan: Option<u16>,
    /// Addresses that guests get, and the length of their network: 10.0.0.100-10.0.0.199/24 [by DHCP]
    #[arg(long, value_name = "FIRST-LAST/LENGTH", requires = "gateway")]
    addresses: Option<String>,
    /// Their gateway
    #[arg(long, value_name = "ADDRESS", requires = "addresses")]
    gateway: Option<IpAddr>,
    /// Their servers for names; repeatable
    #[arg(long, value_name = "ADDRESS", requires = "addresses")]
    dns: Vec<IpAddr>,
    /// Who logs in, by cloud-init
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// With the SSH keys in this file
    #[arg(long, value_name = "FILE")]
    ssh_keys: Option<PathBuf>,
    /// Numbers that guests get: nobody else's [5000-5999]
    #[arg(long, value_name = "FIRST-LAST")]
    vmids: Option<String>,
    /// The Proxmox pool that guests are in: the fence of the token [skep]
    #[arg(long, value_name = "POOL")]
    resource_pool: Option<String>,
    /// Most of them on one host
    #[arg(long, value_name = "N")]
    max_per_host: Option<u32>,
    /// Metadata of its nodes; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    meta: Vec<String>,
    /// Whether a node that is lost is ended at its provider, where work with shared storage waits for that [true]
    #[arg(long, value_name = "BOOL")]
    fence: Option<bool>,
    /// Fewest nodes [0]
    #[arg(long, value_name = "N")]
    min: Option<u32>,
    /// Most nodes [10]
    #[arg(long, value_name = "N")]
    max: Option<u32>,
    /// How many nodes there should be now [as many as the fewest]
    #[arg(long, value_name = "N")]
    nodes: Option<u32>,
    /// Copy its guests when this is due, as of a cron service: '0 3 * * 0' is each Sunday at three
    #[arg(long, value_name = "SCHEDULE")]
    backup: Option<String>,
    /// In this time zone [UTC]
    #[arg(long, value_name = "ZONE")]
    backup_zone: Option<String>,
    /// The Proxmox storage that the copies go to
    #[arg(long, value_name = "STORAGE")]
    backup_storage: Option<String>,
    /// How many copies of each are kept [4]
    #[arg(long, value_name = "N")]
    backup_keep: Option<u32>,
    /// Copy them no more; copies that there are stay
    #[arg(long, conflicts_with_all = ["backup", "backup_zone", "backup_storage", "backup_keep"])]
    no_backup: bool,
    /// Let it scale itself, between the fewest and the most: more nodes where work finds no place, fewer where none is needed
    #[arg(long, conflicts_with = "no_autoscale")]
    autoscale: bool,
    /// Have as many nodes as you say again
    #[arg(long)]
    no_autoscale: bool,
    /// Room that is always to be free in it: `2,4GiB`, `500m,1GiB`; in one piece where one node can hold it [0,0]
    #[arg(long, value_name = "CPU,MEMORY", conflicts_with = "no_autoscale")]
    headroom: Option<String>,
    /// Nodes on which nothing runs that are always to be there [0]
    #[arg(long, value_name = "N", conflicts_with = "no_autoscale")]
    spare: Option<u32>,
    /// What a node costs: of pools that would do, the cheapest gets one more [1]
    #[arg(long, value_name = "N", conflicts_with = "no_autoscale")]
    cost: Option<u32>,
    /// For how long a node is not needed before it goes [10m]
    #[arg(long, value_name = "TIME", conflicts_with = "no_autoscale")]
    idle_after: Option<humantime::Duration>,
    /// Say what would be done, and do nothing of it
    #[arg(long)]
    pub(super) plan: bool,
}

fn template(text: &str) -> Result<(String, u32), String> {
    let (host, vmid) = text
        .split_once('=')
        .ok_or("HOST=VMID is expected: pve1=9000")?;
    let vmid = vmid
        .parse()
        .map_err(|_| format!("`{vmid}` is no number of a guest"))?;
    Ok((host.to_owned(), vmid))
}

fn range<T: std::str::FromStr>(flag: &str, text: &str, example: &str) -> Result<(T, T), Failure> {
    let parsed = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    parsed.ok_or_else(|| {
        Failure::usage(format!("`{text}` is no range")).hint(format!("{flag} {example}"))
    })
}

impl Make {
    /// The pool as it is, with what is said here, and made by a provider of this kind where it is new.
    fn request(
        &self,
        known: Option<NodePoolView>,
        way: WayKind,
    ) -> Result<NodePoolRequest, Failure> {
        let generation = known.as_ref().map(|it| it.generation);
        let fences = known.as_ref().is_none_or(|it| it.fences);
        let (provider, recipe, mut meta, size, backups) = match known {
            Some(pool) => (
                Some(pool.provider),
                pool.recipe,
                pool.meta,
                pool.size,
                pool.backups,
            ),
            None => {
                let min = self.min.unwrap_or(0);
                let size = Size {
                    min,
                    max: self.max.unwrap_or(10).max(min),
                    wanted: min,
                    auto: None,
                };
                (None, fresh(way, self.lxc), BTreeMap::new(), size, None)
            }
        };
        let provider = self.provider.clone().or(provider).ok_or_else(|| {
            Failure::usage("nobody is named who makes the nodes".to_owned())
                .hint("--provider NAME; `skep provider set` makes one")
        })?;
        for text in &self.meta {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format!("`{text}` is no metadata")).hint("--meta KEY=VALUE")
            })?;
            meta.insert(key.to_owned(), value.to_owned());
        }
        let auto = self.auto(size.auto)?;
        if generation.is_some() && auto.is_some() && self.nodes.is_some() {
            let text = "a pool that scales itself has as many nodes as it needs".to_owned();
            return Err(
                Failure::usage(text).hint("--min keeps at least so many; or --no-autoscale")
            );
        }
        let (min, max) = (self.min.unwrap_or(size.min), self.max.unwrap_or(size.max));
        Ok(NodePoolRequest {
            provider,
            recipe: self.recipe(recipe)?,
            meta,
            size: Size {
                min,
                max,
                wanted: self.nodes.unwrap_or(size.wanted.clamp(min, max.max(min))),
                auto,
            },
            backups: self.backups(backups)?,
            fences: self.fence.unwrap_or(fences),
            generation,
        })
    }

    /// How guests are copied, with what is said here.
    fn backups(&self, known: Option<Backups>) -> Result<Option<Backups>, Failure> {
        if self.no_backup {
            return Ok(None);
        }
        let is_said = self.backup.is_some()
            || self.backup_zone.is_some()
            || self.backup_storage.is_some()
            || self.backup_keep.is_some();
        if !is_said {
            return Ok(known);
        }
        let lacks = |what: &str, hint: &str| {
            Failure::usage(format!("the {what} of copies is not named")).hint(hint)
        };
        let (schedule, storage, keep, zone, since_ms) = known.map_or_else(
            || (None, None, 4, "UTC".to_owned(), 0),
            |it| {
                (
                    Some(it.schedule),
                    Some(it.storage),
                    it.keep,
                    it.time_zone,
                    it.since_ms,
                )
            },
        );
        let schedule = self.backup.clone().or(schedule);
        let storage = self.backup_storage.clone().or(storage);
        Ok(Some(Backups {
            schedule: schedule.ok_or_else(|| lacks("schedule", "--backup '0 3 * * 0'"))?,
            time_zone: self.backup_zone.clone().unwrap_or(zone),
            storage: storage.ok_or_else(|| {
                lacks(
                    "storage",
                    "--backup-storage NAME; `pvesm status --content backup` lists them",
                )
            })?,
            keep: self.backup_keep.unwrap_or(keep),
            since_ms,
        }))
    }

    /// How it scales itself, as it does now with what is said here; none: it does not.
    fn auto(&self, known: Option<Auto>) -> Result<Option<Auto>, Failure> {
        let said = [
            ("--headroom", self.headroom.is_some()),
            ("--spare", self.spare.is_some()),
            ("--cost", self.cost.is_some()),
            ("--idle-after", self.idle_after.is_some()),
        ];
        if self.no_autoscale {
            return Ok(None);
        }
        if !self.autoscale && known.is_none() {
            return match said.into_iter().find(|(_, is_said)| *is_said) {
                None => Ok(None),
                Some((flag, _)) => {
                    let text = format!("{flag} is for a pool that scales itself");
                    Err(Failure::usage(text).hint("--autoscale"))
                }
            };
        }
        let mut auto = known.unwrap_or_default();
        auto.spare = self.spare.unwrap_or(auto.spare);
        auto.cost = self.cost.unwrap_or(auto.cost);
        if let Some(idle) = self.idle_after {
            auto.idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        }
        if let Some(text) = &self.headroom {
            let (cpu, memory) = text.split_once(',').ok_or_else(|| {
                Failure::usage(format!("`{text}` is no room")).hint("--headroom 2,4GiB")
            })?;
            auto.headroom_cpu_millis = parse_cpu("--headroom", cpu.trim())?;
            auto.headroom_memory_bytes = parse_bytes("--headroom", memory.trim())?;
        }
        Ok(Some(auto))
    }

    fn recipe(&self, mut recipe: Recipe) -> Result<Recipe, Failure> {
        if !self.template.is_empty() {
            recipe.templates = self.template.iter().cloned().collect();
        }
        recipe.cores = self.cores.unwrap_or(recipe.cores);
        recipe.memory_mib = self.memory.unwrap_or(recipe.memory_mib);
        recipe.disk_gib = self.disk.unwrap_or(recipe.disk_gib);
        // A pool that is there may have nothing yet: its server says whether it can still become one of containers.
        if self.lxc && recipe.kind == Kind::Vm {
            recipe.kind = Kind::Lxc;
            if recipe.disk == VM_DISK {
                recipe.disk = LXC_DISK.to_owned();
            }
        }
        recipe.disk = self.disk_name.clone().unwrap_or(recipe.disk);
        recipe.storage = self.storage.clone().or(recipe.storage);
        recipe.full_clone |= self.full_clone;
        recipe.bridge = self.bridge.clone().unwrap_or(recipe.bridge);
        recipe.vlan = self.vlan.or(recipe.vlan);
        recipe.user = self.user.clone().or(recipe.user);
        recipe.resource_pool = self.resource_pool.clone().unwrap_or(recipe.resource_pool);
        recipe.max_per_host = self.max_per_host.or(recipe.max_per_host);
        if let Some(text) = &self.vmids {
            let (first, last) = range("--vmids", text, "5000-5999")?;
            recipe.vmids = VmidRange { first, last };
        }
        if let Some(path) = &self.ssh_keys {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::usage(format!("{} cannot be read: {error}", path.display()))
            })?;
            let keys = text.lines().map(str::trim);
            let keys = keys.filter(|line| !line.is_empty() && !line.starts_with('#'));
            recipe.ssh_keys = keys.map(str::to_owned).collect();
        }
        if let (Some(text), Some(gateway)) = (&self.addresses, self.gateway) {
            let example = "10.0.0.100-10.0.0.199/24";
            let (both, prefix) = text.rsplit_once('/').ok_or_else(|| {
                Failure::usage(format!("`{text}` has no length of a network"))
                    .hint(format!("--addresses {example}"))
            })?;
            let (first, last) = range("--addresses", both, example)?;
            let prefix = prefix.parse().map_err(|_| {
                Failure::usage(format!("`{prefix}` is no length of a network"))
                    .hint(format!("--addresses {example}"))
            })?;
            recipe.addresses = Some(Addresses {
                first,
                last,
                prefix,
                gateway,
                dns: self.dns.clone(),
            });
        }
        Ok(recipe)
    }
}

/// What the disk is called where nobody says otherwise.
const VM_DISK: &str = "scsi0";
/// The same of a container.
const LXC_DISK: &str = "rootfs";

/// A recipe of which nothing was said yet.
fn fresh(way: WayKind, is_lxc: bool) -> Recipe {
    let (kind, disk) = match is_lxc {
        true => (Kind::Lxc, LXC_DISK),
        false => (Kind::Vm, VM_DISK),
    };
    match way {
        WayKind::Proxmox => {}
        // Whoever makes it refuses what else is said.
        WayKind::Exec => {
            return Recipe {
                kind,
                ..Recipe::sized(2, 4_096, 32)
            };
        }
        WayKind::Static => {
            return Recipe {
                kind,
                ..Recipe::default()
            };
        }
    }
    Recipe {
        kind,
        templates: BTreeMap::new(),
        full_clone: false,
        storage: None,
        cores: 2,
        memory_mib: 4_096,
        disk_gib: 32,
        disk: disk.to_owned(),
        bridge: "vmbr0".to_owned(),
        vlan: None,
        user: None,
        ssh_keys: Vec::new(),
        vmids: VmidRange {
            first: 5_000,
            last: 5_999,
        },
        resource_pool: "skep".to_owned(),
        max_per_host: None,
        addresses: None,
    }
}

fn path(pool: &str) -> String {
    format!("/v1/node-pools/{}", escape(pool))
}

/// A pool that makes its nodes; none: there is none of this name.
pub(super) async fn find(client: &Client, name: &str) -> Result<Option<NodePoolView>, Failure> {
    Ok(all(client).await?.into_iter().find(|it| it.name == name))
}

/// The same with what it would do, where it scales itself.
pub(super) async fn looked_at(
    client: &Client,
    known: NodePoolView,
) -> Result<NodePoolView, Failure> {
    match known.size.auto {
        Some(_) => Ok(client.get(&path(&known.name)).await?),
        None => Ok(known),
    }
}

/// All of them.
pub(crate) async fn all(client: &Client) -> Result<Vec<NodePoolView>, Failure> {
    let view: NodePoolsView = client.get("/v1/node-pools").await?;
    Ok(view.pools)
}

/// What a provider is; where there is none of this name, the API says so.
async fn way_of(client: &Client, provider: Option<&str>) -> Result<WayKind, Failure> {
    let view: ProvidersView = client.get("/v1/providers").await?;
    let named = view
        .providers
        .iter()
        .find(|it| Some(it.name.as_str()) == provider);
    Ok(named.map_or(WayKind::Proxmox, |it| it.kind))
}

/// Makes a pool, or changes one.
pub(super) async fn put(
    make: &Make,
    is_new: bool,
    (client, session): (&Client, &Session),
) -> Result<(), Failure> {
    let known = find(client, &make.pool).await?;
    match (is_new, &known) {
        (true, Some(_)) => {
            let text = format!("the pool `{}` makes nodes already", make.pool);
            return Err(Failure::usage(text).hint(format!("`skep pool change {}`", make.pool)));
        }
        (false, None) => return Err(missing(&make.pool)),
        _ => {}
    }
    let way = match &known {
        // What is there already was said when it was made.
        Some(_) => WayKind::Proxmox,
        None => way_of(client, make.provider.as_deref()).await?,
    };
    let request = make.request(known, way)?;
    if make.plan {
        let at = format!("{}/plan", path(&make.pool));
        let view: NodePlanView = client.send(Method::POST, &at, &request).await?;
        session.out.result(&view, || foreseen(&view));
        return Ok(());
    }
    let view: NodePoolView = client
        .send(Method::PUT, &path(&make.pool), &request)
        .await?;
    session.out.result(&view, || shown(&view));
    Ok(())
}

/// Has a pool have so many nodes.
pub(crate) async fn scale(
    (pool, nodes): (&str, u32),
    is_plan: bool,
    (client, session): (&Client, &Session),
) -> Result<(), Failure> {
    if is_plan {
        let known = find(client, pool).await?.ok_or_else(|| missing(pool))?;
        if known.size.auto.is_some() {
            let text = format!("the pool `{pool}` scales itself");
            return Err(Failure::usage(text).hint(format!(
                "`skep pool change {pool} --min N` keeps at least so many"
            )));
        }
        let request = NodePoolRequest {
            provider: known.provider,
            recipe: known.recipe,
            meta: known.meta,
            size: Size {
                wanted: nodes,
                ..known.size
            },
            backups: known.backups,
            fences: known.fences,
            generation: None,
        };
        let at = format!("{}/plan", path(pool));
        let view: NodePlanView = client.send(Method::POST, &at, &request).await?;
        session.out.result(&view, || foreseen(&view));
        return Ok(());
    }
    let at = format!("{}/size", path(pool));
    let request = NodePoolSizeRequest { nodes };
    let view: NodePoolView = client.send(Method::PUT, &at, &request).await?;
    session.out.result(&view, || shown(&view));
    Ok(())
}

/// Replaces what was made by an older recipe.
pub(super) async fn upgrade(
    pool: &str,
    is_plan: bool,
    (client, session): (&Client, &Session),
) -> Result<(), Failure> {
    let known = find(client, pool).await?.ok_or_else(|| missing(pool))?;
    let old: Vec<&GuestView> = known
        .guests
        .iter()
        .filter(|one| one.outdated && one.phase < Phase::Leaving)
        .collect();
    if is_plan {
        let steps = old.iter().map(|one| {
            let name = &one.name;
            let own = one.size.map_or_else(String::new, |own| {
                format!("; its own size, {own}, goes with it: the other one has the recipe's")
            });
            format!("another one is made and joins, then {name} is drained and removed{own}")
        });
        let view = NodePlanView {
            steps: steps.collect(),
            against: Vec::new(),
        };
        session.out.result(&view, || foreseen(&view));
        return Ok(());
    }
    let at = format!("{}/upgrade", path(pool));
    let view: NodePoolView = client.send(Method::POST, &at, &json!({})).await?;
    session.out.result(&view, || {
        format!(
            "{} of {} are replaced, one after the other\n{}",
            old.len(),
            pool,
            shown(&view)
        )
    });
    Ok(())
}

/// Takes a pool away; false: there is none of this name.
pub(super) async fn remove(client: &Client, pool: &str) -> Result<bool, Failure> {
    if find(client, pool).await?.is_none() {
        return Ok(false);
    }
    let _: serde_json::Value = client.send(Method::DELETE, &path(pool), &json!({})).await?;
    Ok(true)
}

/// That there is none of this name.
pub(super) fn missing(pool: &str) -> Failure {
    let text = format!("no pool `{pool}` makes nodes");
    skep_model::problem::Problem::new(Code::NotFound, text)
        .hint("`skep pool ls` lists the pools, `skep pool create` makes one")
        .into()
}

/// A plan, for people.
pub(crate) fn foreseen(view: &NodePlanView) -> String {
    let steps = (1..)
        .zip(&view.steps)
        .map(|(number, step)| format!("{number}. {step}"));
    let against = view.against.iter().map(|it| format!("against it: {it}"));
    let lines: Vec<String> = steps.chain(against).collect();
    format!("{}\nnothing of this was done", lines.join("\n"))
}

/// Pools that make nodes, for people.
pub(super) fn list(pools: &[NodePoolView]) -> String {
    let row = |pool: &NodePoolView| {
        let ready = pool.guests.iter().filter(|one| one.phase == Phase::Ready);
        let recipe = &pool.recipe;
        let hosts: Vec<&str> = recipe.templates.keys().map(String::as_str).collect();
        vec![
            pool.name.clone(),
            pool.provider.clone(),
            format!("{} of {}", ready.count(), pool.size.wanted),
            format!(
                "{} to {}{}",
                pool.size.min,
                pool.size.max,
                if pool.size.auto.is_some() {
                    ", by itself"
                } else {
                    ""
                }
            ),
            each(recipe),
            hosts.join(" "),
        ]
    };
    let columns = ["POOL", "PROVIDER", "READY", "NODES", "EACH", "HOSTS"];
    table::render(
        &columns,
        pools.iter().map(row).collect(),
        "no pool makes nodes",
    )
}

/// What each node is made of.
fn each(recipe: &Recipe) -> String {
    let size = format!(
        "{} cores, {} MiB, {} GiB",
        recipe.cores, recipe.memory_mib, recipe.disk_gib
    );
    match (recipe.templates.is_empty(), recipe.cores) {
        (false, _) => format!("{}, {size}", kind(recipe.kind)),
        (true, 0) => "a machine that exists".to_owned(),
        (true, _) => size,
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Vm => "VM",
        Kind::Lxc => "LXC",
    }
}

/// A pool with its guests, for people.
pub(super) fn shown(pool: &NodePoolView) -> String {
    let row = |one: &GuestView| {
        let mut notes: Vec<&str> = Vec::new();
        if one.outdated {
            notes.push("by an older recipe");
        }
        if one.retiring {
            notes.push("is being replaced");
        }
        let becoming = one.restoring.as_ref().map(|it| format!("becomes {it}"));
        notes.extend(becoming.as_deref());
        let own = one.size.map(|it| format!("own size: {it}"));
        notes.extend(own.as_deref());
        notes.extend(one.resizing.as_deref());
        notes.extend(one.problem.as_deref());
        vec![
            one.name.clone(),
            phase(one.phase).to_owned(),
            one.host.clone().unwrap_or_default(),
            one.vmid.map(|it| it.to_string()).unwrap_or_default(),
            one.address.clone().unwrap_or_default(),
            notes.join("; "),
        ]
    };
    let columns = ["GUEST", "PHASE", "MADE ON", "VMID", "ADDRESS", "NOTES"];
    let guests = table::render(
        &columns,
        pool.guests.iter().map(row).collect(),
        "it has no guests",
    );
    let copies = pool.backups.as_ref().map_or_else(String::new, |it| {
        format!(
            "\n\nits guests are copied to {} by `{}` ({}), {} of each are kept",
            it.storage, it.schedule, it.time_zone, it.keep
        )
    });
    let all = list(std::slice::from_ref(pool));
    let scaling: Vec<String> = scaling(pool)
        .iter()
        .map(|line| format!("\n{line}"))
        .collect();
    let stuck = pool.guests.iter().filter(|one| {
        // Whoever has read why may do something.
        one.restoring.is_some() && one.problem.is_some()
    });
    let stuck: Vec<String> = stuck
        .map(|one| {
            let other = another_copy(&one.name);
            format!("\n\n{} does not get on: {other}", one.name)
        })
        .collect();
    format!(
        "{all}\n{}\n{guests}{}{copies}",
        scaling.concat() + if scaling.is_empty() { "" } else { "\n" },
        stuck.concat()
    )
}

/// How a pool scales itself, a line each.
fn scaling(pool: &NodePoolView) -> Vec<String> {
    let Some(auto) = pool.size.auto else {
        return Vec::new();
    };
    let mut kept = Vec::new();
    if auto.has_headroom() {
        kept.push(format!(
            "{} CPU and {} MiB free",
            f64::from(auto.headroom_cpu_millis) / 1_000.0,
            auto.headroom_memory_bytes >> 20
        ));
    }
    if auto.spare > 0 {
        kept.push(format!("{} spare", auto.spare));
    }
    let span = |ms: u64| humantime::format_duration(std::time::Duration::from_millis(ms));
    let mut lines = vec![format!(
        "scales itself: a node costs {}, and goes when it was not needed for {}{}{}",
        auto.cost,
        span(auto.idle_ms),
        if kept.is_empty() { "" } else { "; keeps " },
        kept.join(", ")
    )];
    if let Some(last) = &pool.decided {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(last.at_ms);
        let at = humantime::format_rfc3339_seconds(at);
        lines.push(format!("last: {at}  {}", last.reason));
    }
    lines.extend(pool.outlook.iter().map(|line| format!("now: {line}")));
    lines
}

/// How far a guest has come, for people.
pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Planned => "planned",
        Phase::Cloning => "cloning",
        Phase::Configuring => "configuring",
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Leaving => "leaving",
        Phase::Gone => "gone",
    }
}

#[cfg(test)]
mod tests;
