//! The life of a smoke test's app: made, deployed twice, scaled, rolled back, removed. Each step ends when the
//! cluster says that it has, and says what was seen.

use std::collections::BTreeSet;
use std::fmt;

use futures_util::future::try_join_all;
use http::{Method, Uri};
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    DeploymentRequest, DeploymentView, NodeView, NodesView, PutService, ScaleRequest, ServersView,
    ServiceView, ServicesView, StatusView,
};
use skep_model::node::{Admin, NodeStatus};
use skep_model::problem::{Code, Problem};
use skep_model::tenancy::DEFAULT_ENVIRONMENT;
use tokio::time::Instant;

use crate::client::Client;
use crate::commands::stop::{END_DEADLINE, LOOK};
use crate::commands::up::existing;
use crate::failure::{Exit, Failure};
use crate::follow;
use crate::output::Output;
use crate::probe;
use crate::target::Target;

use super::app::{self, App, Kind};
use super::doors::{Door, Doors};
use super::mark::{Here, Mark};

/// The project of all smoke tests: a project is never forgotten, so there is one, and services come and go.
const PROJECT: &str = "skep-smoke";
/// So many allocations are seen to be more than one, and start soon everywhere.
const REPLICAS_MAX: u32 = 3;
/// Connections after which each of so few allocations has had one.
const ASKED: usize = 50;

/// The service of this name in the project of smoke tests.
pub(super) fn target(service: &str) -> Target {
    Target {
        project: PROJECT.to_owned(),
        environment: DEFAULT_ENVIRONMENT.to_owned(),
        service: service.to_owned(),
    }
}

/// Removes what smoke tests that were killed have left.
///
/// # Errors
/// Not reachable, or refused.
pub(super) async fn remove_leftovers(client: &Client, here: &Here) -> Result<String, Failure> {
    let all: ServicesView = client.get("/v1/services").await?;
    let of_smoke = all.services.iter().filter(|it| it.project == PROJECT);
    let left = of_smoke.filter(|it| {
        let mark = Mark::parse(&it.name);
        mark.is_some_and(|mark| mark.is_left(here)) && !it.removing
    });
    let left: Vec<Target> = left.map(Target::from).collect();
    for target in &left {
        remove(client, target).await?;
    }
    let names: Vec<_> = left.iter().map(|target| &*target.service).collect();
    Ok(match names.len() {
        0 => "none".to_owned(),
        _ => format!("removed {}", names.join(", ")),
    })
}

/// What the cluster says of itself.
pub(super) struct Seen {
    /// The nodes that are ready.
    pub(super) nodes: Vec<NodeView>,
    /// All that there are.
    of: usize,
    leader: String,
}

impl Seen {
    /// How many nodes take allocations.
    pub(super) fn ready(&self) -> usize {
        let takes = |node: &&NodeView| node.admin == Admin::Eligible;
        self.nodes.iter().filter(takes).count()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, of, leader } = self;
        write!(f, "{leader} leads, {} of {of} nodes ready", nodes.len())
    }
}

/// Whether there is a leader, a node that takes allocations, one that builds, and an ingress.
///
/// # Errors
/// One of them is not there.
pub(super) async fn look(client: &Client) -> Result<Seen, Failure> {
    let servers: ServersView = client.get("/v1/servers").await?;
    let found: NodesView = client.get("/v1/nodes").await?;
    let status: StatusView = client.get("/v1/status").await?;
    let leads = servers
        .servers
        .iter()
        .find(|it| Some(it.id) == servers.leader);
    let Some(leader) = leads.map(|it| it.name.clone()) else {
        return Err(unwell(
            "the servers have no leader",
            "`skep server ls` shows them",
        ));
    };
    let of = found.nodes.len();
    let mut nodes = found.nodes;
    nodes.retain(|node| node.status == NodeStatus::Ready);
    let seen = Seen { nodes, of, leader };
    if seen.ready() == 0 {
        let text = format!("of {of} nodes none takes allocations");
        return Err(unwell(
            &text,
            "`skep node ls` shows what is wrong with them",
        ));
    }
    if !seen.nodes.iter().any(|node| node.facts.builder) {
        return Err(unwell(
            "no node that is ready builds",
            "start an agent without --no-builds",
        ));
    }
    if status.ingress_port.is_none() {
        return Err(unwell(
            "no node has an ingress",
            "does `skep net` run on the nodes?",
        ));
    }
    Ok(seen)
}

fn unwell(text: &str, hint: &str) -> Failure {
    Failure::failed(text).hint(hint)
}

/// An app on its way through.
pub(super) struct Life<'a> {
    pub(super) client: &'a Client,
    pub(super) out: Output,
    pub(super) target: Target,
    pub(super) app: App,
    pub(super) doors: Doors,
}

impl Life<'_> {
    /// Uploads, builds and deploys a version, to its end.
    ///
    /// # Errors
    /// Refused, or it did not become live.
    pub(super) async fn deploy(&self, version: u32) -> Result<String, Failure> {
        let folder = self.app.at(version)?.to_owned();
        if version == 1 {
            let body = PutService {
                spec: Some(self.app.spec()),
                if_generation: Some(0),
                ..PutService::default()
            };
            let path = self.target.path();
            let _: ServiceView = self.client.send(Method::PUT, &path, &body).await?;
        }
        let made = self.order(&DeploymentRequest::Upload).await?;
        let live = follow::quietly(self.client, self.out, (&made, Some(folder))).await?;
        let node = live.node.as_deref().unwrap_or("a node");
        let release = live.release.unwrap_or(0);
        Ok(format!("built on {node}, release {release} is live"))
    }

    /// Goes back to the first release.
    ///
    /// # Errors
    /// Refused, or it did not become live.
    pub(super) async fn roll_back(&self) -> Result<String, Failure> {
        let request = DeploymentRequest::Rollback { release: Some(1) };
        let made = self.order(&request).await?;
        follow::quietly(self.client, self.out, (&made, None)).await?;
        Ok("release 1 is live again".to_owned())
    }

    async fn order(&self, request: &DeploymentRequest) -> Result<DeploymentView, Failure> {
        let path = format!("{}/deployments", self.target.path());
        Ok(self.client.send(Method::POST, &path, request).await?)
    }

    /// Waits until there are several, and of a process wants an answer of each.
    ///
    /// # Errors
    /// Refused, or one is never asked.
    pub(super) async fn scale(&self, nodes: usize) -> Result<String, Failure> {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        let replicas = match self.app.kind {
            // One copy of files a node is all that there can be.
            Kind::Site => nodes.min(REPLICAS_MAX),
            _ => nodes.clamp(2, REPLICAS_MAX),
        };
        let path = format!("{}/scale", self.target.path());
        let request = ScaleRequest { replicas };
        let mut view: ServiceView = self.client.send(Method::POST, &path, &request).await?;
        // Until the time of all steps is over: the API has no event for services.
        while view.allocations.healthy != replicas || view.allocations.live != replicas {
            tokio::time::sleep(LOOK).await;
            view = self.client.get(&self.target.path()).await?;
        }
        if self.app.kind == Kind::Site {
            return Ok(format!("{replicas} healthy"));
        }
        self.all_answer(&view, replicas as usize).await?;
        Ok(format!("{replicas} healthy, and each of them answers"))
    }

    async fn all_answer(&self, view: &ServiceView, replicas: usize) -> Result<(), Failure> {
        let (doors, authority) = self.places(view)?;
        let mut instances = BTreeSet::new();
        for door in doors.iter().cycle().take(ASKED.max(doors.len())) {
            let page = probe::page((&door.host, door.port), &authority).await;
            let said = page.ok().and_then(|page| app::read(&page));
            instances.extend(said.and_then(|said| said.instance));
            if instances.len() == replicas {
                return Ok(());
            }
        }
        let text = format!(
            "{replicas} allocations are healthy, and {} answer",
            instances.len()
        );
        Err(Failure::failed(text).hint("`skep ps` shows where they run"))
    }

    /// Wants this version at every door.
    ///
    /// # Errors
    /// One has none, or another.
    pub(super) async fn is_seen(&self, version: u32) -> Result<String, Failure> {
        let view: ServiceView = self.client.get(&self.target.path()).await?;
        let (doors, authority) = self.places(&view)?;
        let asked = doors.iter().map(|door| wait_for(door, &authority, version));
        try_join_all(asked).await?;
        let names: Vec<_> = doors.iter().map(|door| &*door.name).collect();
        Ok(format!("version {version} from {}", names.join(", ")))
    }

    /// Where to ask, and for whom.
    fn places(&self, view: &ServiceView) -> Result<(Vec<Door>, String), Failure> {
        let url = view.urls.first().and_then(|url| url.parse::<Uri>().ok());
        let Some(authority) = url.as_ref().and_then(Uri::authority) else {
            return Err(unwell(
                "the service has no URL",
                "does `skep net` run on the nodes?",
            ));
        };
        let doors = match &self.doors {
            Doors::These(doors) => doors.clone(),
            Doors::ByName => vec![Door {
                name: authority.host().to_owned(),
                host: authority.host().to_owned(),
                port: authority.port_u16().unwrap_or(80),
            }],
        };
        Ok((doors, authority.to_string()))
    }
}

async fn wait_for(door: &Door, authority: &str, version: u32) -> Result<(), Failure> {
    let is_it = |page: &str| app::read(page).is_some_and(|said| said.version == version);
    let asked = probe::page_until((&door.host, door.port), authority, is_it).await;
    asked.map_err(|last| {
        let text = format!(
            "{} does not answer with version {version}: {last}",
            door.name
        );
        let problem = Problem::new(Code::Unavailable, text);
        let hint = format!(
            "it was asked at {}:{} for the host {authority}",
            door.host, door.port
        );
        Failure::with(Exit::Failed, problem.hint(hint))
    })
}

/// Takes the service away, and stays until it is gone. There need not be one.
///
/// # Errors
/// Not reachable, or its containers do not end.
pub(super) async fn remove(client: &Client, target: &Target) -> Result<String, Failure> {
    if existing(client, target).await?.is_none() {
        return Ok("there was nothing yet".to_owned());
    }
    let _: Value = client
        .send(Method::DELETE, &target.path(), &json!({}))
        .await?;
    let deadline = Instant::now() + END_DEADLINE;
    while existing(client, target).await?.is_some() {
        if Instant::now() >= deadline {
            let text = format!("{target} is removed, but its containers have not ended");
            return Err(Failure::failed(text)
                .hint("they end when their node is back: `skep ps`, `skep node ls`"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok("all of it".to_owned())
}
