//! `skep inventory`: the cluster as Ansible reads it, static or by a script. Decides names, groups and variables from
//! what the API says; reaches no machine.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value, json};
use skep_control_plane::api::types::{NodeView, NodesView, ServerView, ServersView};
use skep_model::node::Admin;

use crate::address;
use crate::failure::Failure;
use crate::session::Session;

/// The key of a node's metadata that says its pool.
const POOL: &str = "pool";

/// Print the cluster as an inventory for Ansible
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Groups: `servers`, `nodes`, `pool_NAME`, `machine_vm`, `machine_lxc`, `machine_bare`, `machine_container`; of names
each character that Ansible does not take is `_`. A machine that is a server and a node is one host. Variables of
each host: ansible_host (the address that the cluster itself uses), skep_name, skep_role (server, node or both),
skep_server_id, skep_leader, skep_node_id, skep_admin (eligible, cordoned, draining), skep_status, skep_pool.

Examples:
  skep inventory > inventory.json             as it is now
  printf '#!/bin/sh\\nexec skep inventory \"$@\"\\n' > skep.sh && chmod +x skep.sh
  ansible -i skep.sh nodes -m ping            asked at each run")]
pub(crate) struct Args {
    /// All hosts and groups, as without it; what Ansible asks a script
    #[arg(long)]
    list: bool,
    /// The variables of this host alone
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    host: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let servers: ServersView = client.get("/v1/servers").await?;
    let nodes: NodesView = client.get("/v1/nodes").await?;
    let inventory = Inventory::of(&servers, &nodes.nodes);
    if let Some(name) = &args.host {
        // Of a host that it does not know Ansible expects nothing.
        let variables = inventory.hosts.get(name).cloned().unwrap_or_default();
        session.out.document(&text(&Value::Object(variables)));
        return Ok(());
    }
    for (name, variables) in &inventory.hosts {
        if !variables.contains_key("ansible_host") {
            let text = format!("{name} says no address: Ansible will look for its name");
            session.out.warning(&text);
        }
    }
    session.out.document(&text(&inventory.document()));
    Ok(())
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("JSON with text keys")
}

/// Hosts with their variables, and groups of them.
#[derive(Debug, Default)]
struct Inventory {
    hosts: BTreeMap<String, Map<String, Value>>,
    groups: BTreeMap<String, BTreeSet<String>>,
}

impl Inventory {
    fn of(servers: &ServersView, nodes: &[NodeView]) -> Self {
        let mut made = Self::default();
        // Both are there in an empty cluster, too: playbooks name them.
        for group in ["servers", "nodes"] {
            made.groups.entry(group.to_owned()).or_default();
        }
        for server in &servers.servers {
            made.add_server(server, servers.leader == Some(server.id));
        }
        for node in nodes {
            made.add_node(node);
        }
        made
    }

    fn add_server(&mut self, server: &ServerView, leads: bool) {
        let mut variables = Map::new();
        if let Some(address) = address::host(&server.cluster_address) {
            variables.insert("ansible_host".into(), address.into());
        }
        variables.extend(pairs(json!({
            "skep_name": server.name,
            "skep_role": "server",
            "skep_server_id": server.id,
            "skep_leader": leads,
        })));
        self.join("servers".to_owned(), &server.name);
        self.hosts.insert(server.name.clone(), variables);
    }

    fn add_node(&mut self, node: &NodeView) {
        let own = address::of_node(node);
        let (name, mut variables) = self.place(node, own.as_deref());
        if let Some(address) = own {
            variables.entry("ansible_host").or_insert(address.into());
        }
        let is_server = variables.contains_key("skep_server_id");
        let pool = node.meta.get(POOL).or_else(|| node.facts.meta.get(POOL));
        variables.extend(pairs(json!({
            "skep_name": node.name,
            "skep_role": if is_server { "both" } else { "node" },
            "skep_node_id": node.id,
            "skep_admin": admin(node.admin),
            "skep_status": node.status,
        })));
        self.join("nodes".to_owned(), &name);
        if let Some(pool) = pool {
            variables.insert("skep_pool".into(), pool.as_str().into());
            self.join(group("pool", pool), &name);
        }
        if let Some(guest) = node.facts.machine.guest {
            let kind = json!(guest);
            self.join(group("machine", kind.as_str().unwrap_or_default()), &name);
        }
        self.hosts.insert(name, variables);
    }

    /// The host that a node is, and what is known of it: the server of that name where it is the same machine.
    fn place(&self, node: &NodeView, address: Option<&str>) -> (String, Map<String, Value>) {
        let Some(server) = self.hosts.get(&node.name) else {
            return (node.name.clone(), Map::new());
        };
        let theirs = server.get("ansible_host").and_then(Value::as_str);
        match (theirs, address) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                (format!("{}-node", node.name), Map::new())
            }
            _ => (node.name.clone(), server.clone()),
        }
    }

    fn join(&mut self, group: String, host: &str) {
        self.groups
            .entry(group)
            .or_default()
            .insert(host.to_owned());
    }

    /// As Ansible wants it of a script: with `_meta` it asks for no host by itself.
    fn document(&self) -> Value {
        let mut all = Map::new();
        all.insert("_meta".into(), json!({ "hostvars": self.hosts }));
        let names: Vec<_> = self.groups.keys().collect();
        all.insert("all".into(), json!({ "children": names }));
        for (name, hosts) in &self.groups {
            all.insert(name.clone(), json!({ "hosts": hosts }));
        }
        Value::Object(all)
    }
}

fn pairs(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

const fn admin(admin: Admin) -> &'static str {
    match admin {
        Admin::Eligible => "eligible",
        Admin::Cordoned => "cordoned",
        Admin::Draining { .. } => "draining",
    }
}

/// A name that Ansible takes for a group: letters, digits and `_`.
fn group(kind: &str, name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(letter).collect();
    format!("{kind}_{name}")
}

#[cfg(test)]
mod tests;
