//! Which physical host each node of a pool is on: Proxmox moves guests by itself, so that where one was made says nothing of
//! where it is. And guests that carry our name and are written down nowhere: they are told of, once, and left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_model::guest_pool::PoolGuest;
use skep_model::node::HOST;
use skep_model::pool::Phase;
use skep_pools::{Overcommit, orphans, overcommitted};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proxmox::calls::cluster;
use skep_state::State;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::guests::clients::{Clients, Hosts};
use crate::history::AuditEntry;
use crate::hosts::{Alarm, said};
use crate::store::now_ms;

/// Between two looks: what high availability and rebalancing move takes longer.
const PERIOD: Duration = Duration::from_secs(10);

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut clients = Clients::default();
    let mut told: BTreeSet<(String, u32)> = BTreeSet::new();
    loop {
        let view = parts.store.view();
        clients.retain(|name| view.provider(name).is_some());
        let is_used = |name: &str| view.guest_pools().any(|pool| pool.provider == name);
        parts.promises.keep(is_used);
        // What is no Proxmox cluster has no hosts to tell of.
        let asked = view.providers().filter(|it| it.way.is_proxmox());
        for provider in asked.filter(|it| is_used(&it.name)) {
            let name = &provider.name;
            let seen = match clients.of(provider, &parts.secrets) {
                Ok(client) => look(&client).await,
                Err(problem) => Err(problem.to_string()),
            };
            match seen {
                Ok((rows, hosts)) => {
                    // What was made while they were asked is written down by now.
                    let view = parts.store.view();
                    follow(parts, &view, (name, &rows)).await;
                    tell(parts, &view, (name, &rows), &mut told);
                    maintain(parts, &hosts).await;
                    warn(parts, name, overcommitted(&hosts, &rows));
                }
                Err(why) => tracing::warn!(
                    provider = name,
                    why,
                    "a provider does not say where guests are"
                ),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = token.cancelled() => return,
        }
    }
}

async fn look(client: &Hosts) -> Result<(Vec<cluster::Guest>, Vec<cluster::Host>), String> {
    let said = |error: skep_proxmox::Error| error.to_string();
    let rows = client.send(&cluster::guests()).await.map_err(said)?.rows;
    let hosts = client.send(&cluster::hosts()).await.map_err(said)?.rows;
    Ok((rows, hosts))
}

/// A host that its provider has under maintenance is drained here, too.
async fn maintain(parts: &Parts, hosts: &[cluster::Host]) {
    for command in said(&parts.store.view(), hosts, now_ms()) {
        if let Err(problem) = parts.store.propose(command).await {
            tracing::warn!(%problem, "what a provider says of a host's maintenance was not written down");
        }
    }
}

/// Hosts that have begun or ceased to promise more memory than they have, each once.
fn warn(parts: &Parts, provider: &str, over: Vec<Overcommit>) {
    for alarm in parts.promises.note(provider, over) {
        let (host, action, outcome) = match alarm {
            Alarm::Begun(it) => {
                let mib = |bytes: u64| bytes >> 20;
                let text = format!(
                    "guests were promised {} MiB, it has {} MiB: its kernel ends one of them when they use it",
                    mib(it.promised),
                    mib(it.has)
                );
                tracing::warn!(
                    provider,
                    host = it.host,
                    promised = it.promised,
                    has = it.has,
                    "a host has promised more memory than it has"
                );
                (it.host, "host_overcommitted", text)
            }
            Alarm::Ended(host) => {
                tracing::info!(
                    provider,
                    host,
                    "a host has promised no more memory than it has"
                );
                let text = "guests were promised no more than it has".to_owned();
                (host, "host_overcommit_ended", text)
            }
        };
        parts.history.audit(AuditEntry {
            at_ms: now_ms(),
            principal: "the leader".to_owned(),
            action: action.to_owned(),
            resource: format!("hosts/{host}"),
            outcome,
        });
    }
}

/// What is known of nodes' hosts is what their provider says.
async fn follow(parts: &Parts, view: &State, (provider, rows): (&str, &[cluster::Guest])) {
    for (node, host) in moved(view, provider, rows) {
        let command = Kind::SetNodeMeta(v1::SetNodeMeta {
            node: id_bytes(node.as_u128()),
            set: BTreeMap::from([(HOST.to_owned(), host.clone())]),
            unset: Vec::new(),
        });
        match parts.store.propose(command).await {
            Ok(_) => tracing::info!(%node, host, "a node is on another host"),
            Err(problem) => tracing::warn!(%node, %problem, "where a node is was not written down"),
        }
    }
}

/// Guests that are written down of a provider's pools.
fn guests_at<'a>(view: &'a State, provider: &'a str) -> impl Iterator<Item = &'a PoolGuest> {
    let is_its = move |one: &&PoolGuest| {
        let pool = view.guest_pool(&one.pool);
        pool.is_some_and(|pool| pool.provider == provider)
    };
    view.guests().map(|one| &**one).filter(is_its)
}

/// Nodes that are on another host than is known, and on which.
fn moved(
    view: &State,
    provider: &str,
    rows: &[cluster::Guest],
) -> Vec<(skep_model::id::NodeId, String)> {
    let found = guests_at(view, provider).filter_map(|one| {
        let node = view.node(one.node?)?;
        let name = one.guest.name();
        // By its name, too: a number may be somebody else's by now.
        let row = rows.iter().find(|row| {
            row.vmid().map(skep_proxmox::Vmid::get) == one.guest.vmid
                && row.name.as_ref() == Some(&name)
        });
        let host = row?.node.clone()?;
        let is_known = node.meta.get(HOST) == Some(&host);
        (!is_known && one.guest.phase < Phase::Gone).then_some((node.id, host))
    });
    found.collect()
}

/// Guests that nobody knows of, each once.
fn tell(
    parts: &Parts,
    view: &State,
    (provider, rows): (&str, &[cluster::Guest]),
    told: &mut BTreeSet<(String, u32)>,
) {
    let ours: Vec<_> = guests_at(view, provider)
        .map(|one| one.guest.clone())
        .collect();
    let found = orphans(&ours, rows);
    let now: BTreeSet<u32> = found.iter().map(|one| one.vmid).collect();
    told.retain(|(of, vmid)| of != provider || now.contains(vmid));
    for orphan in found {
        if !told.insert((provider.to_owned(), orphan.vmid)) {
            continue;
        }
        let host = orphan.host.as_deref().unwrap_or("a host");
        tracing::warn!(
            provider,
            vmid = orphan.vmid,
            host,
            why = orphan.why,
            "a guest that nobody knows of"
        );
        parts.history.audit(AuditEntry {
            at_ms: now_ms(),
            principal: "the leader".to_owned(),
            action: "orphan_found".to_owned(),
            resource: format!("providers/{provider}/{}", orphan.vmid),
            outcome: format!("on {host}: {}; it is left alone", orphan.why),
        });
    }
}
