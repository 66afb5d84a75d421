//! How far a build may go on the machine. The classic builder bounds memory and CPU of each step itself, and
//! puts its steps below a cgroup of ours, which bounds their processes; BuildKit of the daemon takes no bounds
//! for one build, so that its processes are bounded for all builds of the node together. Where nothing
//! holds, the log says so.

use std::io;
use std::path::{Path, PathBuf};

use bollard::models::SystemInfoCgroupDriverEnum as Driver;
use skep_model::build::{DEFAULT_PIDS, PER_NODE};
use skep_model::id::DeploymentId;
use tokio::time::timeout;

use super::super::Env;
use super::super::folder::blocking;
use super::super::image::INSPECT_LIMIT;
use super::detect::Builder;

/// The kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// Where the kernel shows its cgroups.
const ROOT: &str = "/sys/fs/cgroup";
/// Ours, below it.
const OURS: &str = "skep-builds";
/// Where BuildKit of a daemon that drives cgroups itself runs its steps.
const BUILDKITS: &str = "docker/buildkit";

/// What a build may take. 0: no bound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) memory_bytes: u64,
    pub(super) cpu_millis: u32,
    pub(super) pids: u32,
}

impl Limits {
    /// For the classic builder, as a query: bollard's options know no cgroup, and no memory from 2 GiB on.
    pub(super) fn query(&self, parent: Option<&str>) -> String {
        // What is certainly accepted, so that there is a query.
        let mut query = "rm=1".to_owned();
        if self.memory_bytes != 0 {
            let bytes = self.memory_bytes;
            // Memory, and memory with swap.
            query += &format!("&memory={bytes}&memswap={bytes}");
        }
        if self.cpu_millis != 0 {
            let quota = u64::from(self.cpu_millis) * CPU_PERIOD_US / 1_000;
            query += &format!("&cpuperiod={CPU_PERIOD_US}&cpuquota={quota}");
        }
        if let Some(parent) = parent {
            query += &format!("&cgroupparent={parent}");
        }
        query
    }

    /// What does not hold, or not for this build alone.
    pub(super) fn told(&self, builder: Builder, cage: &Cage) -> Vec<String> {
        let mut lines = Vec::new();
        let has_more = self.memory_bytes != 0 || self.cpu_millis != 0;
        if builder == Builder::BuildKit && has_more {
            lines.push(
                "docker: BuildKit of the daemon bounds neither memory nor CPU of a build: `build.memory` and \
                 `build.cpu` hold with the classic builder alone"
                    .to_owned(),
            );
        }
        match &cage.0 {
            Err(why) => lines.push(format!(
                "docker: processes of the build are not bounded: {why}"
            )),
            Ok(None) if self.pids != DEFAULT_PIDS => lines.push(format!(
                "docker: with BuildKit all builds of this node share {} processes",
                shared_pids()
            )),
            Ok(_) => {}
        }
        lines
    }
}

fn shared_pids() -> usize {
    DEFAULT_PIDS as usize * PER_NODE
}

/// The cgroup of a build; none: BuildKit's, for all of them. Goes with the build, or with a later one where
/// its last processes are still about to end.
pub(super) struct Cage(Result<Option<Held>, String>);

struct Held {
    /// As Docker is told of it.
    parent: String,
    name: String,
}

impl Cage {
    /// Bounds the processes of a build that is about to begin.
    pub(super) async fn make(env: &Env, (builder, id): (Builder, DeploymentId), pids: u32) -> Self {
        let asked = timeout(INSPECT_LIMIT, env.docker.info()).await;
        let driver = asked
            .ok()
            .and_then(Result::ok)
            .and_then(|it| it.cgroup_driver);
        if driver != Some(Driver::CGROUPFS) {
            let why = "its daemon leaves cgroups to systemd: bound them in system.slice";
            return Self(Err(why.to_owned()));
        }
        let made = blocking(move || {
            Ok(match builder {
                Builder::Classic => {
                    sweep(Path::new(ROOT));
                    let name = id.to_string();
                    bound(Path::new(ROOT), &format!("{OURS}/{name}"), pids as usize).map(|()| {
                        Some(Held {
                            parent: format!("/{OURS}/{name}"),
                            name,
                        })
                    })
                }
                Builder::BuildKit => {
                    bound(Path::new(ROOT), BUILDKITS, shared_pids()).map(|()| None)
                }
            })
        });
        match made.await {
            Ok(made) => Self(made.map_err(|error| error.to_string())),
            Err(problem) => Self(Err(problem.message)),
        }
    }

    /// Below which cgroup its steps run.
    pub(super) fn parent(&self) -> Option<&str> {
        let held = self.0.as_ref().ok().and_then(Option::as_ref);
        held.map(|held| held.parent.as_str())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        remove(Path::new(ROOT), &self.name);
    }
}

/// Where processes are counted: a hierarchy of their own, or the one of all.
fn counter(root: &Path) -> PathBuf {
    let own = root.join("pids");
    if own.is_dir() { own } else { root.to_owned() }
}

fn bound(root: &Path, name: &str, pids: usize) -> io::Result<()> {
    let folder = counter(root).join(name);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("pids.max"), pids.to_string())
}

/// Docker makes it in every hierarchy. One that still has processes stays.
fn remove(root: &Path, name: &str) {
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    let places = hierarchies
        .map(|entry| entry.path())
        .chain([root.to_owned()]);
    for place in places {
        let _ = std::fs::remove_dir(place.join(OURS).join(name));
    }
}

/// What builds before this one could not remove.
fn sweep(root: &Path) {
    let left = std::fs::read_dir(counter(root).join(OURS));
    for entry in left.into_iter().flatten().flatten() {
        let name = entry.file_name();
        // One that was just made for another build, and has no processes yet, is not ours to take.
        let bounded = std::fs::metadata(entry.path()).and_then(|it| it.created().or(it.modified()));
        let is_old =
            bounded.is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 3 * 3_600));
        if is_old {
            remove(root, &name.to_string_lossy());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_both_versions_are_bounded_and_removed() {
        for hierarchy in ["", "pids"] {
            let root = tempfile::tempdir().expect("folder");
            let place = root.path().join(hierarchy);
            std::fs::create_dir_all(&place).expect("hierarchy");
            bound(root.path(), "skep-builds/a", 64).expect("bounded");
            let file = place.join("skep-builds/a/pids.max");
            assert_eq!(std::fs::read_to_string(&file).expect("written"), "64");
            // The kernel's files go with their folder.
            std::fs::remove_file(file).expect("gone");
            remove(root.path(), "a");
            assert!(!place.join("skep-builds/a").exists());
        }
    }

    #[test]
    fn what_does_not_hold_is_told() {
        let limits = |memory_bytes, pids| Limits {
            memory_bytes,
            cpu_millis: 0,
            pids,
        };
        let told = |limits: Limits, builder, cage| limits.told(builder, &Cage(cage)).join("\n");
        let plain = limits(0, DEFAULT_PIDS);
        assert_eq!(told(plain, Builder::BuildKit, Ok(None)), "");
        assert!(told(limits(1, 5), Builder::BuildKit, Ok(None)).contains("8192 processes"));
        assert!(told(limits(1, 5), Builder::BuildKit, Ok(None)).contains("`build.memory`"));
        assert!(told(plain, Builder::Classic, Err("no".into())).contains("not bounded: no"));
        let all = Limits {
            memory_bytes: 3 << 30,
            cpu_millis: 500,
            pids: 1,
        };
        assert_eq!(
            all.query(Some("/x/y")),
            "rm=1&memory=3221225472&memswap=3221225472&cpuperiod=100000&cpuquota=50000&cgroupparent=/x/y"
        );
        assert_eq!(plain.query(None), "rm=1");
    }
}
