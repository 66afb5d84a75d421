//! `skep pool`: how the nodes of a pool are filled, what they have in common, and how they are made.

mod backups;
pub(crate) mod nodes;

use std::collections::BTreeMap;

use clap::ValueEnum;
use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{PoolRequest, PoolsView};
use skep_model::manifest::parse_cpu;
use skep_model::placement::{Builds, PoolPolicy, Strategy};
use skep_model::problem::{Code, Problem};
use skep_model::settings::Pool;

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;

/// Pools of nodes
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List the pools that have a policy, and those that make their nodes
    #[command(visible_alias = "list")]
    Ls,
    /// Show one: its policy, and the guests that it has made
    Show {
        /// Its name: what nodes say as metadata `pool`
        #[arg(value_name = "POOL")]
        pool: String,
    },
    /// Let a provider make the nodes of a pool
    #[command(after_help = "\
Examples:
  skep pool create web --provider home --template pve1=9000 --template pve2=9000 --nodes 2
  skep pool create web --provider home --template pve1=9000 --memory 8192 --min 1 --max 6 --plan
  skep pool create db --provider home --template pve3=9002 --vmids 6000-6099 \\
    --addresses 10.0.0.100-10.0.0.199/24 --gateway 10.0.0.1 --nodes 1
  skep pool create burst --provider home --template pve1=9000 --vmids 7000-7099 \\
    --autoscale --min 0 --max 8 --headroom 1,2GiB --idle-after 20m

  skep pool create burst --provider cloud --cores 4 --memory 8192 --autoscale --max 5
  skep pool create metal --provider rack --nodes 3

Each node of a Proxmox cluster is a guest that is cloned from its host's template, started, told how to join with a
token of its own, and let in when its MAC and SMBIOS id are the guest's. Templates are made as
docs/install-proxmox.md says. What is at the provider and not ours is never touched. Programs and
machines that exist (`skep provider set`) are in docs/node-pools.md.")]
    Create(Box<nodes::Make>),
    /// Change what nodes are made of, or how many there may be; what is not named stays
    #[command(after_help = "\
Examples:
  skep pool change web --max 12
  skep pool change web --template pve1=9010 --template pve2=9010     a new template
  skep pool change web --autoscale --min 1 --max 12 --spare 1        as many as are needed, and one
  skep pool change web --no-autoscale --nodes 3

Nodes that there are stay as they were made until `skep pool upgrade`.")]
    Change(Box<nodes::Make>),
    /// Have so many nodes: more are made, or some are drained and removed; refused where the pool scales itself
    Scale {
        /// Its name
        #[arg(value_name = "POOL")]
        pool: String,
        /// How many
        #[arg(value_name = "NODES")]
        nodes: u32,
        /// Say what would be done, and do nothing of it
        #[arg(long)]
        plan: bool,
    },
    /// Replace the nodes that were made by an older recipe: another one comes before each goes
    Upgrade {
        /// Its name
        #[arg(value_name = "POOL")]
        pool: String,
        /// Say what would be done, and do nothing of it
        #[arg(long)]
        plan: bool,
    },
    /// List the copies that are left of guests that have left one
    Backups {
        /// Its name
        #[arg(value_name = "POOL")]
        pool: String,
        /// The Proxmox storage [where the pool's guests are copied to]
        #[arg(long, value_name = "STORAGE")]
        storage: Option<String>,
    },
    /// Remove copies of guests that have left one; those of guests that are there go by their pool's schedule
    #[command(visible_alias = "remove-backups")]
    RmBackups(backups::Remove),
    /// Change its policy; what is not named stays
    #[command(after_help = "\
Examples:
  skep pool set web --strategy spread --cpu-percent 200     twice the CPU may be requested
  skep pool set db --reserved-memory-percent 10 --meta tier=pro
  skep pool set default --strategy balanced                 every node whose pool has no policy
  skep pool set builders --builds only                      its nodes build, and run no apps

A node is in a pool by its metadata: `skep node meta NODE pool=web`. What runs stays where it is; what is
placed from then on, and what waits for room, is placed by the new policy.")]
    Set(Box<Set>),
    /// Take its policy away, and let it make no nodes any more; refused while it has some that it made
    Rm {
        /// Its name
        #[arg(value_name = "POOL")]
        pool: String,
    },
}

/// What to change.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Set {
    /// Its name; `default`: every node whose pool has no policy of its own
    #[arg(value_name = "POOL")]
    pool: String,
    /// How nodes are ranked for services that do not say
    #[arg(long, value_enum)]
    strategy: Option<Ranking>,
    /// What its nodes are for; as long as a node that only builds can do a build, no other one does [also]
    #[arg(long, value_enum)]
    builds: Option<Role>,
    /// CPU that may be requested, in percent of what there is (10 to 2000)
    #[arg(long, value_name = "PERCENT")]
    cpu_percent: Option<u32>,
    /// Memory that may be requested, in percent of what there is (10 to 400)
    #[arg(long, value_name = "PERCENT")]
    memory_percent: Option<u32>,
    /// CPU kept for each node's own: cores like 1, or thousandths like 500m
    #[arg(long, value_name = "CPU")]
    reserved_cpu: Option<String>,
    /// Memory kept for each node's own, in percent (0 to 90)
    #[arg(long, value_name = "PERCENT")]
    reserved_memory_percent: Option<u32>,
    /// Disk kept for each node's own, in percent (0 to 90)
    #[arg(long, value_name = "PERCENT")]
    reserved_disk_percent: Option<u32>,
    /// Metadata of its nodes, where a node does not say another value; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    meta: Vec<String>,
    /// A key of that metadata to take away; repeatable
    #[arg(long, value_name = "KEY")]
    unset_meta: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ranking {
    /// Fill nodes, keep others free
    Binpack,
    /// Use what is used least
    Spread,
    /// Keep each node's resources equally used
    Balanced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Builds, and everything else
    Also,
    /// Builds alone
    Only,
    /// Everything but builds
    Never,
}

impl From<Role> for Builds {
    fn from(role: Role) -> Self {
        match role {
            Role::Also => Self::Also,
            Role::Only => Self::Only,
            Role::Never => Self::Never,
        }
    }
}

impl From<Ranking> for Strategy {
    fn from(ranking: Ranking) -> Self {
        match ranking {
            Ranking::Binpack => Self::Binpack,
            Ranking::Spread => Self::Spread,
            Ranking::Balanced => Self::Balanced,
        }
    }
}

impl Set {
    /// The pool as it is, with what is said here.
    fn apply(&self, pool: Option<Pool>) -> Result<PoolRequest, Failure> {
        let (mut policy, mut meta) = pool.map_or_else(
            || (PoolPolicy::default(), BTreeMap::new()),
            |pool| (pool.policy, pool.meta),
        );
        let numbers = [
            (&mut policy.cpu_percent, self.cpu_percent),
            (&mut policy.memory_percent, self.memory_percent),
            (
                &mut policy.reserved_memory_percent,
                self.reserved_memory_percent,
            ),
            (
                &mut policy.reserved_disk_percent,
                self.reserved_disk_percent,
            ),
        ];
        for (slot, given) in numbers {
            *slot = given.unwrap_or(*slot);
        }
        if let Some(text) = &self.reserved_cpu {
            policy.reserved_cpu_millis = parse_cpu("--reserved-cpu", text)?;
        }
        policy.strategy = self.strategy.map(Into::into).or(policy.strategy);
        policy.builds = self.builds.map_or(policy.builds, Into::into);
        for text in &self.meta {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format!("`{text}` is no metadata")).hint("--meta KEY=VALUE")
            })?;
            meta.insert(key.to_owned(), value.to_owned());
        }
        for key in &self.unset_meta {
            meta.remove(key);
        }
        Ok(PoolRequest { policy, meta })
    }
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Ls => {
            let view: PoolsView = client.get("/v1/pools").await?;
            let made = nodes::all(&client).await?;
            let both = json!({ "pools": view.pools, "node_pools": made });
            session.out.result(&both, || {
                let mut parts = vec![text(&view.pools)];
                if !made.is_empty() {
                    parts.insert(0, nodes::list(&made));
                }
                parts.join("\n\n")
            });
        }
        Command::Show { pool } => {
            let policy = find(&client, &pool).await?;
            let made = match nodes::find(&client, &pool).await? {
                Some(known) => Some(nodes::looked_at(&client, known).await?),
                None => None,
            };
            if policy.is_none() && made.is_none() {
                let text = format!("the pool `{pool}` has no policy, and makes no nodes");
                return Err(Problem::new(Code::NotFound, text)
                    .hint("`skep pool ls` lists the pools")
                    .into());
            }
            let both = json!({ "policy": policy, "nodes": made });
            session.out.result(&both, || {
                let policy = policy.iter().map(|it| text(std::slice::from_ref(it)));
                let parts: Vec<String> = made.iter().map(nodes::shown).chain(policy).collect();
                parts.join("\n\n")
            });
        }
        Command::Create(make) => nodes::put(&make, true, (&client, session)).await?,
        Command::Change(make) => nodes::put(&make, false, (&client, session)).await?,
        Command::Scale { pool, nodes, plan } => {
            nodes::scale((&pool, nodes), plan, (&client, session)).await?;
        }
        Command::Upgrade { pool, plan } => {
            nodes::upgrade(&pool, plan, (&client, session)).await?;
        }
        Command::Backups { pool, storage } => {
            backups::list((&client, session), &pool, storage.as_deref()).await?;
        }
        Command::RmBackups(remove) => backups::remove((&client, session), &remove).await?,
        Command::Set(set) => {
            let request = set.apply(find(&client, &set.pool).await?)?;
            let path = format!("/v1/pools/{}", escape(&set.pool));
            let pool: Pool = client.send(Method::PUT, &path, &request).await?;
            session
                .out
                .result(&pool, || text(std::slice::from_ref(&pool)));
        }
        Command::Rm { pool } => {
            let is_made = nodes::remove(&client, &pool).await?;
            let policy = find(&client, &pool).await?;
            if policy.is_some() || !is_made {
                let path = format!("/v1/pools/{}", escape(&pool));
                let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
            }
            session.out.result(&json!({ "removed": pool }), || {
                let of_policy = policy.map(|_| format!("{pool} is filled as by default again"));
                let of_nodes = is_made.then(|| format!("{pool} makes no nodes any more"));
                let parts: Vec<String> = of_nodes.into_iter().chain(of_policy).collect();
                parts.join("\n")
            });
        }
    }
    Ok(())
}

async fn find(client: &Client, name: &str) -> Result<Option<Pool>, Failure> {
    let view: PoolsView = client.get("/v1/pools").await?;
    Ok(view.pools.into_iter().find(|pool| pool.name == name))
}

fn text(pools: &[Pool]) -> String {
    let columns = [
        "POOL",
        "STRATEGY",
        "BUILDS",
        "CPU",
        "MEMORY",
        "RESERVED (CPU, MEMORY, DISK)",
        "METADATA",
    ];
    let rows = pools.iter().map(row).collect();
    let empty = "no pool has a policy: nodes are filled as by default";
    table::render(&columns, rows, empty)
}

fn row(pool: &Pool) -> Vec<String> {
    let policy = &pool.policy;
    let strategy = match policy.strategy {
        None => "-",
        Some(Strategy::Binpack) => "binpack",
        Some(Strategy::Spread) => "spread",
        Some(Strategy::Balanced) => "balanced",
    };
    let builds = match policy.builds {
        Builds::Also => "also",
        Builds::Only => "only",
        Builds::Never => "never",
    };
    let meta = pool
        .meta
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    vec![
        pool.name.clone(),
        strategy.to_owned(),
        builds.to_owned(),
        format!("{}%", policy.cpu_percent),
        format!("{}%", policy.memory_percent),
        format!(
            "{}m, {}%, {}%",
            policy.reserved_cpu_millis,
            policy.reserved_memory_percent,
            policy.reserved_disk_percent
        ),
        meta.collect::<Vec<_>>().join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let old = Pool {
            name: "web".into(),
            policy: PoolPolicy {
                cpu_percent: 300,
                strategy: Some(Strategy::Balanced),
                builds: Builds::Only,
                ..PoolPolicy::default()
            },
            meta: BTreeMap::from([("tier".into(), "pro".into()), ("zone".into(), "a".into())]),
        };
        let set = Set {
            memory_percent: Some(120),
            reserved_cpu: Some("500m".into()),
            meta: vec!["zone=b".into()],
            unset_meta: vec!["tier".into()],
            ..Set::default()
        };
        let request = set.apply(Some(old)).expect("understood");
        let policy = request.policy;
        assert_eq!((policy.cpu_percent, policy.memory_percent), (300, 120));
        assert_eq!(policy.strategy, Some(Strategy::Balanced));
        assert_eq!(policy.builds, Builds::Only);
        assert_eq!(policy.reserved_cpu_millis, 500);
        assert_eq!(request.meta, BTreeMap::from([("zone".into(), "b".into())]));
        let odd = Set {
            meta: vec!["zone".into()],
            ..Set::default()
        };
        assert!(odd.apply(None).is_err());
    }
}
