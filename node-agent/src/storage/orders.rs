//! What operators ask of volumes: how large they are, deleting, snapshots, clones. Never touches a volume
//! under a container that runs, and never leaves half of one under a name that counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_model::id::ServiceId;
use skep_model::node::MAX_HELD;
use skep_model::problem::{Code, Problem};
use skep_model::storage::HeldVolume;
use skep_model::volume::{MAX_SNAPSHOTS, Measured, Order};
use tokio::task::spawn_blocking;

use super::{Shelf, refused, volumes};
use crate::runtime::Runtime;

/// For the sizes of all volumes of a node together: what is not seen by then is not counted.
const MEASURE_FOR: Duration = Duration::from_secs(10);

impl Shelf {
    /// Does what is asked for; tells of volumes where that is what is asked.
    ///
    /// # Errors
    /// It is in use, not there, there already, or cannot be done; nothing has changed then.
    pub(crate) async fn obey(
        self: &Arc<Self>,
        runtime: &Runtime,
        order: Order,
    ) -> Result<Vec<Measured>, Problem> {
        order.check()?;
        if order == Order::Measure {
            let data_dir = self.data_dir.clone();
            let measured = spawn_blocking(move || measure(&data_dir)).await;
            return measured.map_err(|error| Problem::new(Code::Internal, error.to_string()));
        }
        let text = "another volume of the node is being changed or copied";
        let _one = self.changing.try_lock().map_err(|_| {
            Problem::new(Code::Busy, text).hint("wait until that has ended; see `skep volume ls`")
        })?;
        match &order {
            Order::Measure => {}
            Order::Remove { volume, snapshot } => {
                self.remove(runtime, volume, snapshot.as_ref()).await?;
            }
            Order::Snapshot { volume, name, torn } => {
                self.snapshot(runtime, (volume, name), *torn).await?;
            }
            Order::Clone { .. } => self.clone_volume(runtime, &order).await?,
        }
        tracing::info!(order = order.describe(), "volumes have changed");
        self.made.notify_one();
        Ok(Vec::new())
    }

    async fn remove(
        &self,
        runtime: &Runtime,
        volume: &HeldVolume,
        snapshot: Option<&String>,
    ) -> Result<(), Problem> {
        let all = volumes::snapshots_of(&self.data_dir, volume);
        if let Some(name) = snapshot {
            let folder = there(all.join(name), &format!("snapshot `{name}`"))?;
            return self.delete(&folder).await;
        }
        let folder = self.find(volume)?;
        unused(runtime, volume.service, "is deleted").await?;
        self.delete(&folder).await?;
        for name in volumes::snapshots(&self.data_dir, volume) {
            self.delete(&all.join(name)).await?;
        }
        // What is empty then needs no folder.
        for above in [Some(&*all), all.parent(), folder.parent()] {
            let _ = above.map(fs::remove_dir);
        }
        Ok(())
    }

    async fn snapshot(
        &self,
        runtime: &Runtime,
        (volume, name): (&HeldVolume, &str),
        torn: bool,
    ) -> Result<(), Problem> {
        let from = self.find(volume)?;
        let to = volumes::snapshots_of(&self.data_dir, volume).join(name);
        if to.exists() {
            let text = format!("the volume has a snapshot `{name}` already");
            return Err(Problem::new(Code::Conflict, text).hint("another name"));
        }
        let count = volumes::snapshots(&self.data_dir, volume).len();
        if count >= MAX_SNAPSHOTS {
            let text = format!("the volume has {count} snapshots");
            let hint = format!("at most {MAX_SNAPSHOTS}: `skep volume rm VOLUME@SNAPSHOT`");
            return Err(Problem::new(Code::Conflict, text).hint(hint));
        }
        let still = (!torn).then_some(volume.service);
        let copied = self.copy(runtime, (&from, &to), (still, true)).await?;
        self.name(&copied, &to)
    }

    async fn clone_volume(&self, runtime: &Runtime, order: &Order) -> Result<(), Problem> {
        let Order::Clone {
            volume,
            snapshot,
            to,
            replace,
            torn,
        } = order
        else {
            return Ok(());
        };
        let (from, still) = match snapshot {
            Some(name) => {
                let all = volumes::snapshots_of(&self.data_dir, volume);
                let from = there(all.join(name), &format!("snapshot `{name}`"))?;
                (from, None)
            }
            None => (self.find(volume)?, (!torn).then_some(volume.service)),
        };
        let target = volumes::folder_of(&self.data_dir, to);
        let is_there = target.exists();
        if is_there && !replace {
            let text = format!("there is a volume `{}` already", to.key());
            return Err(Problem::new(Code::Conflict, text)
                .hint("another name, or `--replace` to delete what is there"));
        }
        if !is_there && volumes::held(&self.data_dir).len() >= MAX_HELD {
            let text = format!("the node has {MAX_HELD} volumes");
            return Err(Problem::new(Code::Conflict, text).hint("remove some: `skep volume ls`"));
        }
        if is_there {
            unused(runtime, to.service, "is replaced").await?;
            if self.copier.is_whole() {
                self.copier.remove(&target).await?;
            }
        }
        let copied = self.copy(runtime, (&from, &target), (still, false)).await?;
        if !is_there || self.copier.is_whole() {
            return self.name(&copied, &target);
        }
        unused(runtime, to.service, "is replaced").await?;
        let gone = volumes::going(&target);
        fs::rename(&target, &gone).map_err(|error| refused("the volume", &target, &error))?;
        self.name(&copied, &target)?;
        self.copier.remove(&gone).await
    }

    fn find(&self, volume: &HeldVolume) -> Result<PathBuf, Problem> {
        let folder = volumes::folder_of(&self.data_dir, volume);
        there(folder, &format!("volume `{}`", volume.key()))
    }

    /// A copy that is to be called `to`: where it is. Of one moment where a service is to be still.
    async fn copy(
        &self,
        runtime: &Runtime,
        (from, to): (&Path, &Path),
        (still, is_snapshot): (Option<ServiceId>, bool),
    ) -> Result<PathBuf, Problem> {
        if let Some(above) = to.parent() {
            let made = volumes::make_private(above);
            made.map_err(|error| refused("the folder", above, &error))?;
        }
        let copier = &self.copier;
        if copier.is_whole() {
            copier.copy((from, to), is_snapshot).await?;
            return Ok(to.to_owned());
        }
        let before = still_containers(runtime, still).await?;
        let copy = volumes::copying(to);
        if copy.exists() {
            copier.remove(&copy).await?;
        }
        let mut done = copier.copy((from, &copy), is_snapshot).await;
        if done.is_ok() {
            done = match still_containers(runtime, still).await {
                Ok(after) if after == before => Ok(()),
                Ok(_) => Err(torn()),
                Err(problem) => Err(problem),
            };
        }
        match done {
            Ok(()) => Ok(copy),
            Err(problem) => {
                if copy.exists() {
                    copier.remove(&copy).await?;
                }
                Err(problem)
            }
        }
    }

    fn name(&self, copied: &Path, to: &Path) -> Result<(), Problem> {
        let named = match copied == to {
            true => Ok(()),
            false => fs::rename(copied, to).and_then(|()| volumes::sync(to)),
        };
        named.map_err(|error| refused("the copy", to, &error))
    }

    /// Takes its name away before its content, where that can be told apart.
    async fn delete(&self, folder: &Path) -> Result<(), Problem> {
        if self.copier.is_whole() {
            return self.copier.remove(folder).await;
        }
        let gone = volumes::going(folder);
        if gone.exists() {
            self.copier.remove(&gone).await?;
        }
        fs::rename(folder, &gone).map_err(|error| refused("the volume", folder, &error))?;
        self.copier.remove(&gone).await
    }

    /// Deletes what an earlier life left half done.
    pub(crate) async fn tidy(self: Arc<Self>) {
        let _one = self.changing.lock().await;
        for left in volumes::leftovers(&self.data_dir) {
            tracing::info!(folder = %left.display(), "deleting what was half made or half deleted");
            if let Err(problem) = self.copier.remove(&left).await {
                tracing::warn!(%problem, "it stays");
            }
        }
    }
}

fn measure(data_dir: &Path) -> Vec<Measured> {
    let until = Instant::now() + MEASURE_FOR;
    let all = volumes::held(data_dir).into_iter();
    all.map(|volume| {
        let (bytes, is_all) = volumes::size(&volumes::folder_of(data_dir, &volume), until);
        Measured {
            bytes,
            at_least: !is_all,
            snapshots: volumes::snapshots(data_dir, &volume),
            volume,
        }
    })
    .collect()
}

fn there(folder: PathBuf, what: &str) -> Result<PathBuf, Problem> {
    match folder.is_dir() {
        true => Ok(folder),
        false => {
            let text = format!("there is no {what} on the node");
            Err(Problem::new(Code::NotFound, text).hint("`skep volume ls` lists them"))
        }
    }
}

/// Nothing runs that may have a volume of the service.
async fn unused(runtime: &Runtime, service: ServiceId, what: &str) -> Result<(), Problem> {
    match running(runtime, service).await?.is_empty() {
        true => Ok(()),
        false => {
            let text = format!("a container of the service runs: no volume of it {what}");
            Err(Problem::new(Code::Conflict, text).hint("`skep stop` the service first"))
        }
    }
}

/// Every container of a service that must be still, none of which runs.
async fn still_containers(
    runtime: &Runtime,
    service: Option<ServiceId>,
) -> Result<Vec<String>, Problem> {
    let Some(service) = service else {
        return Ok(Vec::new());
    };
    if !running(runtime, service).await?.is_empty() {
        return Err(torn());
    }
    let all = runtime.containers_of(service).await;
    let all = all.map_err(|error| Problem::new(Code::Runtime, error.message()))?;
    Ok(all.into_iter().map(|seen| seen.id).collect())
}

fn torn() -> Problem {
    let text = "the service runs: a copy would not be of one moment";
    Problem::new(Code::Conflict, text)
        .hint("`skep stop` it first, or `--running` where its files bear that")
}

async fn running(runtime: &Runtime, service: ServiceId) -> Result<Vec<String>, Problem> {
    let all = runtime.containers_of(service).await;
    let all = all.map_err(|error| Problem::new(Code::Runtime, error.message()))?;
    let running = all.into_iter().filter(|seen| seen.is_running());
    Ok(running.map(|seen| seen.id).collect())
}
