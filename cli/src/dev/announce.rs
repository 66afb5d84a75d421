//! What a running `skep dev` tells: to people on the terminal, to programs in `dev.json`, to the
//! command line as the context `dev`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use skep_control_plane::api::types::NodesView;
use skep_identity::secret_file;
use skep_model::node::NodeStatus;
use tokio::time::Instant;

use super::plan::{Folders, Part};
use crate::client::Client;
use crate::context::{Context, Contexts};
use crate::failure::{Failure, chain};
use crate::output::{Output, Style};

/// The context's name.
const CONTEXT: &str = "dev";
/// How long the node may take to report for the first time.
const NODE_DEADLINE: Duration = Duration::from_secs(15);
/// Between two looks: the API has no event for nodes.
const NODE_LOOK: Duration = Duration::from_millis(50);

/// How to reach a server, as it writes it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Bootstrap {
    /// URL of the API.
    pub(super) api: String,
    /// URL of the API on plain HTTP.
    pub(super) http: String,
    /// `host:port` for agents.
    pub(super) agents: String,
    /// Of the cluster's CA.
    pub(super) ca_fingerprint: String,
    /// The administrator's.
    pub(super) token: String,
    /// For the first start of the agent.
    pub(super) join_token: String,
}

/// What changes when a part is started again.
#[derive(Debug, Clone, Default)]
pub(super) struct Processes {
    /// Process ids.
    pub(super) pids: BTreeMap<Part, u32>,
    /// URL of the agent's metrics.
    pub(super) agent_metrics: Option<String>,
}

/// Where everything listens.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    /// The server.
    pub(super) bootstrap: Bootstrap,
    /// Apps.
    pub(super) ingress: SocketAddr,
    /// The data plane's own endpoint.
    pub(super) admin: SocketAddr,
}

impl Addresses {
    fn context(&self) -> Context {
        Context {
            server: self.bootstrap.api.clone(),
            fingerprint: self.bootstrap.ca_fingerprint.clone(),
            token: self.bootstrap.token.clone(),
            hooks: Some(self.bootstrap.http.clone()),
            servers: Vec::new(),
        }
    }

    fn traefik(&self) -> String {
        format!("http://{}/v1/traefik", self.admin)
    }
}

/// Keeps the server as the context `dev`. Whether that is the current one.
///
/// # Errors
/// The file of contexts cannot be changed.
pub(super) fn keep_context(addresses: &Addresses) -> Result<bool, Failure> {
    Contexts::update(|contexts| {
        contexts.put(CONTEXT, addresses.context());
        Ok(contexts.current.as_deref() == Some(CONTEXT))
    })
}

/// Writes `dev.json`.
///
/// # Errors
/// The disk does not take it.
pub(super) fn write(
    folders: &Folders,
    addresses: &Addresses,
    processes: &Processes,
) -> Result<(), Failure> {
    let pids = processes.pids.iter().map(|(part, pid)| (part.name(), pid));
    let pids: BTreeMap<_, _> = pids.collect();
    let content = json!({
        "api": addresses.bootstrap.api,
        "http": addresses.bootstrap.http,
        "agents": addresses.bootstrap.agents,
        "ingress": format!("http://{}", addresses.ingress),
        "traefik": addresses.traefik(),
        "pid": std::process::id(),
        "pids": pids,
        "agent_metrics": processes.agent_metrics,
        "net_metrics": format!("http://{}/metrics", addresses.admin),
    });
    let text = format!("{content:#}\n");
    secret_file::write_private(&folders.announcement(), text.as_bytes())
        .map_err(|error| Failure::failed(chain(&error)))
}

/// Nothing listens there any more.
pub(super) fn withdraw(folders: &Folders) {
    let _ = std::fs::remove_file(folders.announcement());
    let _ = std::fs::remove_file(folders.bootstrap());
}

/// Waits for the node to be usable, and says so where it is not.
pub(super) async fn wait_for_node(addresses: &Addresses, out: Output) {
    let Ok(client) = Client::new(addresses.context()) else {
        return;
    };
    let deadline = Instant::now() + NODE_DEADLINE;
    let mut status = None;
    while status != Some(NodeStatus::Ready) && Instant::now() < deadline {
        if status.is_some() {
            tokio::time::sleep(NODE_LOOK).await;
        }
        let nodes = client
            .get::<NodesView>("/v1/nodes")
            .await
            .map_or(Vec::new(), |view| view.nodes);
        status = Some(nodes.first().map_or(NodeStatus::Lost, |node| node.status));
    }
    match status {
        Some(NodeStatus::Ready) => {}
        Some(NodeStatus::RuntimeDown) => {
            out.warning(
                "Docker does not answer: apps start as soon as it does (is dockerd running?)",
            );
        }
        Some(NodeStatus::RuntimeWedged) => {
            out.warning("Docker answers a ping and hangs with everything else: restart it");
        }
        _ => out.warning("the node has not reported yet: see `skep node ls` and logs/agent.log"),
    }
}

/// Tells a person where everything is and what to try.
pub(super) fn say(folders: &Folders, addresses: &Addresses, is_current: bool, out: Output) {
    let strong = |text: &str| out.styled(Style::Strong, text);
    let context = if is_current {
        "dev"
    } else {
        "dev (not the current one: skep context use dev)"
    };
    out.progress(&format!(
        "{ready}

  apps     http://SERVICE-production-PROJECT.localhost:{ingress}
  API      {api} (for the browser: {http})
  Traefik  {traefik}
  context  {context}
  data     {data}

Try next, in another terminal:
  skep up          in the folder of an app with a Dockerfile
  skep status      what there is
  skep logs -f     what it says

Ctrl-C stops Skep and the apps; the next `skep dev` brings them back.",
        ready = strong("Skep is ready."),
        ingress = addresses.ingress.port(),
        api = addresses.bootstrap.api,
        http = addresses.bootstrap.http,
        traefik = addresses.traefik(),
        data = folders.root.display(),
    ));
}
