//! What is mounted into containers: volumes, paths of the node, secrets as files. Owns the folders
//! that have them; which container gets what is said by its assignment.

mod copies;
mod host_paths;
mod orders;
mod secrets;
pub(crate) mod shared;
#[cfg(test)]
mod tests;
pub(crate) mod volumes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::models::{Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType};
use skep_model::assignment::Assignment;
use skep_model::id::{AllocationId, NodeId};
use skep_model::problem::{Code, Problem};
use tokio::sync::{Mutex, Notify};
use tokio::task::spawn_blocking;

use crate::options::Options;
use copies::Copier;

/// Where a node has what containers are given.
#[derive(Debug)]
pub(crate) struct Shelf {
    data_dir: PathBuf,
    offered: Vec<PathBuf>,
    /// Storages that other nodes have as well.
    storages: shared::Storages,
    /// The folder in memory that all agents of the machine share.
    memory: PathBuf,
    /// This agent's part of it.
    secrets: PathBuf,
    /// Told of each volume that is made, before anything is written to it.
    made: Arc<Notify>,
    copier: Box<dyn Copier>,
    /// Held by whoever deletes or copies volumes.
    changing: Mutex<()>,
}

impl Shelf {
    /// Makes nothing yet.
    pub(crate) fn new(options: &Options, node: NodeId, made: Arc<Notify>) -> Self {
        Self {
            data_dir: options.data_dir.clone(),
            offered: options.host_paths.clone(),
            storages: options.shared_storage.clone(),
            memory: options.secrets_dir.clone(),
            secrets: options.secrets_dir.join(node.to_string()),
            made,
            copier: copies::of(options.volume_command.as_ref()),
            changing: Mutex::new(()),
        }
    }

    /// Everything that container number `attempt` is given, made where it is not there yet.
    ///
    /// # Errors
    /// What cannot be had, and why: nothing is started without it.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        assignment: &Assignment,
        attempt: u32,
    ) -> Result<Vec<Mount>, Problem> {
        if assignment.storage.is_empty() {
            return Ok(Vec::new());
        }
        // First, since a volume stays: what is refused leaves none behind.
        let (shelf, wanted) = (self.clone(), assignment.clone());
        let others = spawn_blocking(move || shelf.prepare_now(&wanted, attempt)).await;
        let mut mounts =
            others.map_err(|error| Problem::new(Code::Runtime, error.to_string()))??;
        for wanted in &assignment.storage.volumes {
            if wanted.storage.is_some() {
                let folder = shared::ensure(&self.storages, assignment.service, wanted).await?;
                mounts.push(mount(&folder, &wanted.path, wanted.read_only));
                continue;
            }
            let made = volumes::ensure(&self.data_dir, assignment.service, wanted, &*self.copier);
            let (folder, is_new) = made.await?;
            if is_new {
                self.made.notify_one();
            }
            mounts.push(mount(&folder, &wanted.path, wanted.read_only));
        }
        Ok(mounts)
    }

    /// All but the volumes.
    fn prepare_now(&self, assignment: &Assignment, attempt: u32) -> Result<Vec<Mount>, Problem> {
        let storage = &assignment.storage;
        let mut mounts = Vec::new();
        for wanted in &storage.host_paths {
            let host = host_paths::allowed(&wanted.host, &self.offered)?;
            mounts.push(mount(&host, &wanted.path, wanted.read_only));
        }
        if !storage.secrets.is_empty() {
            secrets::ensure_memory(&self.memory)?;
            let folder = secrets::folder(&self.secrets, assignment.allocation, attempt);
            for (file, wanted) in secrets::write(&folder, assignment)? {
                mounts.push(mount(&file, &wanted.path, true));
            }
        }
        Ok(mounts)
    }

    /// Whether there may be files of an allocation's secrets.
    pub(crate) fn has_secrets(&self, allocation: AllocationId) -> bool {
        self.secrets.join(allocation.to_string()).exists()
    }

    /// Removes the secrets of a container that was not started.
    pub(crate) async fn discard(self: &Arc<Self>, allocation: AllocationId, attempt: u32) {
        let folder = secrets::folder(&self.secrets, allocation, attempt);
        // There is none where it has no secrets.
        let _ = tokio::fs::remove_dir_all(&folder).await;
        if let Some(of_allocation) = folder.parent() {
            let _ = tokio::fs::remove_dir(of_allocation).await;
        }
    }

    /// Removes the secrets of containers that are no more; those with the numbers in `left` are.
    pub(crate) async fn sweep(self: &Arc<Self>, allocation: AllocationId, left: Vec<u32>) {
        let folder = self.secrets.join(allocation.to_string());
        let swept = spawn_blocking(move || secrets::sweep(&folder, &left)).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!(%allocation, %error, "files of secrets could not be removed");
        }
    }
}

/// A bind that Docker refuses where there is nothing, and through which no later mount travels.
fn mount(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            create_mountpoint: Some(false),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Something that the node's filesystem refused.
fn refused(what: &str, path: &Path, error: &std::io::Error) -> Problem {
    let text = format!("{what} {}: {error}", path.display());
    Problem::new(Code::Runtime, text)
}
