//! What Docker says: the containers and images of one cluster, seen beside Skep. Touches only what
//! carries that cluster's label.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, bail};
use bollard::exec::StartExecResults;
use bollard::models::{
    ContainerCreateBody, ContainerSummary, ContainerSummaryStateEnum, ExecConfig,
};
use bollard::query_parameters::{
    BuildImageOptionsBuilder, EventsOptionsBuilder, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, PushImageOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker, body_full};
use bytes::Bytes;
use futures_util::StreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The label that names the cluster, on all that belongs to it.
pub const CLUSTER_LABEL: &str = "sh.skep.cluster";
/// The label that names the allocation.
pub const ALLOCATION_LABEL: &str = "sh.skep.allocation";
/// The label of what runs before an app's own command, with its number.
const INIT_LABEL: &str = "sh.skep.init";
/// The label of images that the tests build themselves; its value is the prefix of the run.
pub const TEST_LABEL: &str = "sh.skep.test";
/// Docker on a busy machine takes its time; what takes longer hangs.
const DOCKER_SECONDS: u64 = 60;
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// A container of a cluster.
#[derive(Debug, Clone)]
pub struct Container {
    /// Docker's id.
    pub id: String,
    /// Whose it is.
    pub allocation: String,
    /// Whether it runs.
    pub runs: bool,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

/// A connection to one Docker daemon.
#[derive(Clone)]
pub struct Containers {
    docker: Docker,
}

/// What happened to the containers of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Happened(Arc<Mutex<Vec<String>>>);

impl Happened {
    /// So far.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().expect("nobody panics").clone()
    }
}

/// The socket of the machine's own daemon.
pub fn default_socket() -> String {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://")
        .unwrap_or(DEFAULT_SOCKET)
        .to_owned()
}

impl Containers {
    /// Connects.
    ///
    /// # Errors
    /// No daemon answers there.
    pub async fn connect(socket: &str) -> Result<Self> {
        let docker = Docker::connect_with_unix(socket, DOCKER_SECONDS, API_DEFAULT_VERSION)?;
        let docker = docker
            .negotiate_version()
            .await
            .context("no Docker daemon answers")?;
        Ok(Self { docker })
    }

    /// Docker itself.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// The containers of a cluster, also those that have ended.
    ///
    /// # Errors
    /// Docker's.
    pub async fn of_cluster(&self, cluster: &str) -> Result<Vec<Container>> {
        let label = format!("{CLUSTER_LABEL}={cluster}");
        Ok(self
            .with_label(&label)
            .await?
            .into_iter()
            .map(container)
            .collect())
    }

    /// The containers of whatever cluster the daemon's only node is of.
    ///
    /// # Errors
    /// Docker's.
    pub async fn all(&self) -> Result<Vec<Container>> {
        let found = self.with_label(CLUSTER_LABEL).await?;
        Ok(found.into_iter().map(container).collect())
    }

    async fn with_label(&self, label: &str) -> Result<Vec<ContainerSummary>> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        Ok(self.docker.list_containers(Some(options)).await?)
    }

    /// The address of a container on its bridge.
    ///
    /// # Errors
    /// It has none, or is gone.
    pub async fn address(&self, id: &str) -> Result<String> {
        let inspected = self.docker.inspect_container(id, None).await?;
        let networks = inspected
            .network_settings
            .and_then(|settings| settings.networks);
        let addresses = networks
            .into_iter()
            .flatten()
            .filter_map(|(_, end)| end.ip_address);
        addresses
            .into_iter()
            .find(|ip| !ip.is_empty())
            .context("the container has no address")
    }

    /// Starts a container beside Skep: the same image with these labels.
    ///
    /// # Errors
    /// Docker's.
    pub async fn copy(&self, of: &str, labels: HashMap<String, String>) -> Result<String> {
        let image = self.docker.inspect_container(of, None).await?.image;
        let body = ContainerCreateBody {
            image,
            labels: Some(labels),
            ..ContainerCreateBody::default()
        };
        let id = self.docker.create_container(None, body).await?.id;
        self.docker.start_container(&id, None).await?;
        Ok(id)
    }

    /// Whether a container is there and runs.
    ///
    /// # Errors
    /// Docker's, other than that it is gone.
    pub async fn runs(&self, id: &str) -> Result<bool> {
        match self.docker.inspect_container(id, None).await {
            Ok(found) => Ok(found.state.and_then(|state| state.running) == Some(true)),
            Err(error) => gone_is_fine(Err(error)).map(|()| false),
        }
    }

    /// The main process of a container; none: it does not run, or is gone.
    ///
    /// # Errors
    /// Docker's, other than that it is gone.
    pub async fn pid(&self, id: &str) -> Result<Option<i64>> {
        match self.docker.inspect_container(id, None).await {
            Ok(found) => {
                let pid = found.state.and_then(|state| state.pid);
                Ok(pid.filter(|pid| *pid != 0))
            }
            Err(error) => gone_is_fine(Err(error)).map(|()| None),
        }
    }

    /// When a container's main process was begun, ms since the epoch.
    ///
    /// # Errors
    /// It is gone, or never ran.
    pub async fn started_ms(&self, id: &str) -> Result<f64> {
        let state = self.docker.inspect_container(id, None).await?.state;
        let at = state.and_then(|state| state.started_at);
        let at = OffsetDateTime::parse(&at.context("it never ran")?, &Rfc3339)?;
        Ok(at.unix_timestamp_nanos() as f64 / 1e6)
    }

    /// The limits of a container: memory in bytes, CPU in billionths of a core.
    ///
    /// # Errors
    /// It is gone.
    pub async fn limits(&self, id: &str) -> Result<(i64, i64)> {
        let inspected = self.docker.inspect_container(id, None).await?;
        let host = inspected
            .host_config
            .context("a container has a host configuration")?;
        Ok((host.memory.unwrap_or(0), host.nano_cpus.unwrap_or(0)))
    }

    /// Runs a command in a container: its exit code and what it wrote.
    ///
    /// # Errors
    /// Docker's; it is gone.
    pub async fn exec(&self, id: &str, command: &[&str]) -> Result<(i64, String)> {
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.iter().map(ToString::to_string).collect()),
            ..ExecConfig::default()
        };
        let made = self.docker.create_exec(id, config).await?.id;
        let started = self.docker.start_exec(&made, None).await?;
        let mut text = String::new();
        if let StartExecResults::Attached { mut output, .. } = started {
            while let Some(frame) = output.next().await {
                text.push_str(&String::from_utf8_lossy(&frame?.into_bytes()));
            }
        }
        let code = self.docker.inspect_exec(&made).await?.exit_code;
        Ok((code.context("an exit code")?, text))
    }

    /// Writes down what happens to the containers of a cluster from now on, in order: `start replica`,
    /// `destroy init0`, `exec_start: ... replica`. An attempt of a job is a replica here.
    pub fn follow(&self, cluster: &str) -> Happened {
        let label = format!("{CLUSTER_LABEL}={cluster}");
        let filters = HashMap::from([("label", vec![label]), ("type", vec!["container".into()])]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let happened = Happened::default();
        let (docker, lines) = (self.docker.clone(), happened.0.clone());
        tokio::spawn(async move {
            let mut events = Box::pin(docker.events(Some(options)));
            while let Some(Ok(event)) = events.next().await {
                let labels = event.actor.and_then(|actor| actor.attributes);
                let which = labels
                    .unwrap_or_default()
                    .get(INIT_LABEL)
                    .map_or_else(|| "replica".to_owned(), |number| format!("init{number}"));
                let line = format!("{} {which}", event.action.unwrap_or_default());
                lines.lock().expect("nobody panics").push(line);
            }
        });
        happened
    }

    /// SIGKILL to a container's process, behind Skep's back.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&self, id: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::default()
            .signal("KILL")
            .build();
        Ok(self.docker.kill_container(id, Some(options)).await?)
    }

    /// Builds an image of a folder with Docker alone.
    ///
    /// # Errors
    /// The build failed.
    pub async fn build(&self, folder: &Path, tag: &str) -> Result<()> {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir_all(".", folder)?;
        let options = BuildImageOptionsBuilder::default()
            .t(tag)
            // A step's image would be another test's, who may be removing it at this moment.
            .nocache(true)
            .rm(true)
            .forcerm(true)
            .build();
        let body = body_full(Bytes::from(archive.into_inner()?));
        let mut lines = Box::pin(self.docker.build_image(options, None, Some(body)));
        while let Some(line) = lines.next().await {
            let line = line.with_context(|| format!("building {tag}"))?;
            if let Some(error) = line.error_detail.and_then(|detail| detail.message) {
                bail!("building {tag}: {error}");
            }
        }
        Ok(())
    }

    /// Pushes an image to the registry that its name begins with.
    ///
    /// # Errors
    /// The registry does not take it.
    pub async fn push(&self, reference: &str) -> Result<()> {
        let (name, tag) = reference.rsplit_once(':').context("a tag")?;
        let options = PushImageOptionsBuilder::default().tag(tag).build();
        let mut lines = Box::pin(self.docker.push_image(name, Some(options), None));
        while let Some(line) = lines.next().await {
            let line = line.with_context(|| format!("pushing {reference}"))?;
            if let Some(error) = line.error_detail.and_then(|detail| detail.message) {
                bail!("pushing {reference}: {error}");
            }
        }
        Ok(())
    }

    /// Removes the containers and images of a cluster, and the images that the run built.
    ///
    /// # Errors
    /// Docker's; containers that go meanwhile are no error.
    pub async fn clean(&self, cluster: Option<&str>, run: &str) -> Result<()> {
        let cluster_label = cluster.map(|id| format!("{CLUSTER_LABEL}={id}"));
        let run_label = format!("{TEST_LABEL}={run}");
        for label in cluster_label.iter().chain([&run_label]) {
            for found in self.with_label(label).await? {
                self.remove(&found.id.unwrap_or_default()).await?;
            }
            let filters = HashMap::from([("label", vec![label.as_str()])]);
            let options = ListImagesOptionsBuilder::default()
                .all(true)
                .filters(&filters)
                .build();
            for image in self.docker.list_images(Some(options)).await? {
                let options = RemoveImageOptionsBuilder::default().force(true).build();
                gone_is_fine(
                    self.docker
                        .remove_image(&image.id, Some(options), None)
                        .await
                        .map(drop),
                )?;
            }
        }
        Ok(())
    }

    /// References of images whose name begins so.
    ///
    /// # Errors
    /// Docker's.
    pub async fn images_named(&self, prefix: &str) -> Result<Vec<String>> {
        let options = ListImagesOptionsBuilder::default().all(true).build();
        let images = self.docker.list_images(Some(options)).await?;
        let tags = images.into_iter().flat_map(|image| image.repo_tags);
        Ok(tags.filter(|tag| tag.starts_with(prefix)).collect())
    }

    /// Removes a container, running or not.
    ///
    /// # Errors
    /// Docker's.
    pub async fn remove(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        gone_is_fine(self.docker.remove_container(id, Some(options)).await)
    }
}

fn container(summary: ContainerSummary) -> Container {
    let labels = summary.labels.unwrap_or_default();
    Container {
        id: summary.id.unwrap_or_default(),
        allocation: labels.get(ALLOCATION_LABEL).cloned().unwrap_or_default(),
        runs: summary.state == Some(ContainerSummaryStateEnum::RUNNING),
        labels,
    }
}

/// 404: it went meanwhile; 409: its removal is under way, or an image's child still goes.
fn gone_is_fine(outcome: Result<(), bollard::errors::Error>) -> Result<()> {
    match outcome {
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        }) => Ok(()),
        other => Ok(other?),
    }
}
