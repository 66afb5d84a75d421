//! What a service has beside its image: volumes, paths of the node, secrets as files. Owns what is
//! accepted; where they lie on a node is the agent's business.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::autoscale::Autoscale;
use crate::problem::Problem;
use crate::rollout::Strategy;
use crate::run::{Mode, Overlap};
use crate::spec::ServiceSpec;
use crate::{name, variable};

/// Most volumes, host paths and secret files of a service, of each kind.
pub const MAX_MOUNTS: usize = 32;
/// Longest path, in bytes.
pub const MAX_PATH: usize = 512;
/// Largest volume that can be asked for, in bytes.
pub const MAX_VOLUME_BYTES: u64 = 1 << 60;
/// After so long without a server an allocation with a volume is stopped, where nothing else is said,
/// in ms.
pub const VOLUME_STOP_AFTER_MS: u64 = 30_000;
/// Folders that belong to the kernel or to the container's runtime.
const RESERVED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// What is mounted into each container of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Folders that outlive containers, on one node or on a storage that several have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Folders and files of the node itself, where its operator allowed them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_paths: Vec<HostPath>,
    /// Variables that are files in memory instead of the environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretFile>,
}

/// A folder that outlives the containers it is given to. It belongs to the service, and is on the node
/// where it was first needed or on a storage that several nodes have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Unique within the service.
    pub name: String,
    /// Where the app finds it.
    pub path: String,
    /// Whom the folder belongs to when it is made; none: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub owner: Option<Owner>,
    /// Counted as requested disk on its node, in bytes; 0: not counted. Not enforced.
    #[serde(default)]
    pub size_bytes: u64,
    /// The app only reads it.
    #[serde(default)]
    pub read_only: bool,
    /// The storage that it lies on, where several nodes have that (`skep agent --shared-storage`); none: on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
}

/// A folder or file of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HostPath {
    /// Where it is on the node.
    pub host: String,
    /// Where the app finds it.
    pub path: String,
    /// The app only reads it: unless it is said otherwise.
    #[serde(default = "yes")]
    pub read_only: bool,
}

/// A variable that the app reads from a file. It is not in the environment then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// The variable's name.
    pub variable: String,
    /// Where the app finds the file.
    pub path: String,
    /// Its permissions, in octal.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub mode: FileMode,
    /// Whom it belongs to; none: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub owner: Option<Owner>,
}

/// A user and a group by number: `1000:1000`. Names are the image's, and the node does not know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Permission bits of a file: `0444`. Readable by everybody in the container where nothing is said:
/// the folder that has it on the node is root's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(pub u32);

impl Default for FileMode {
    fn default() -> Self {
        Self(0o444)
    }
}

const fn yes() -> bool {
    true
}

/// A volume that is on a node, as its agent reports it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldVolume {
    /// Whose.
    pub service: crate::id::ServiceId,
    /// Its name within the service.
    pub name: String,
}

impl HeldVolume {
    /// How the API names it: unique on its node, and almost always in the cluster.
    pub fn key(&self) -> String {
        format!("{}.{}", self.service, self.name)
    }
}

impl Storage {
    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.host_paths.is_empty() && self.secrets.is_empty()
    }

    /// Whether it has data of its own: one allocation at a time has them.
    pub fn is_bound(&self) -> bool {
        !self.volumes.is_empty()
    }

    /// Whether the service belongs to the node that alone has its data.
    pub fn is_pinned(&self) -> bool {
        self.volumes.iter().any(|volume| volume.storage.is_none())
    }

    /// Whether its data are where several nodes reach them: who has them must be known to be dead before another gets
    /// them.
    pub fn is_shared(&self) -> bool {
        self.volumes.iter().any(|volume| volume.storage.is_some())
    }

    /// The storages that its volumes lie on, each once, in order.
    pub fn shared(&self) -> BTreeSet<&str> {
        let volumes = self.volumes.iter();
        volumes.filter_map(|it| it.storage.as_deref()).collect()
    }

    /// Disk that its volumes are counted with, in bytes.
    pub fn size_bytes(&self) -> u64 {
        let sizes = self.volumes.iter().map(|volume| volume.size_bytes);
        sizes.fold(0, u64::saturating_add)
    }

    /// Checks every path and name.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        for (field, count) in [
            ("volumes", self.volumes.len()),
            ("host_paths", self.host_paths.len()),
            ("secrets", self.secrets.len()),
        ] {
            if count > MAX_MOUNTS {
                let text = format!("{count} are too many");
                let hint = format!("at most {MAX_MOUNTS}");
                return Err(Problem::invalid(field, text).hint(hint));
            }
        }
        let mut names = Vec::new();
        let mut paths: Vec<(String, &str)> = Vec::new();
        for (index, volume) in self.volumes.iter().enumerate() {
            let field = format!("volumes[{index}]");
            name::check(&format!("{field}.name"), &volume.name)?;
            if names.contains(&&*volume.name) {
                let text = format!("there are two volumes `{}`", volume.name);
                return Err(Problem::invalid(format!("{field}.name"), text)
                    .hint("a name of its own for each"));
            }
            names.push(&*volume.name);
            if volume.size_bytes > MAX_VOLUME_BYTES {
                let text = format!("{} is out of range", volume.size_bytes);
                return Err(Problem::invalid(format!("{field}.size"), text)
                    .hint(format!("at most {MAX_VOLUME_BYTES} bytes")));
            }
            if let Some(storage) = &volume.storage {
                name::check(&format!("{field}.storage"), storage)?;
                if self.is_pinned() {
                    let text = format!(
                        "the volume `{}` is on shared storage, another is on one node",
                        volume.name
                    );
                    return Err(Problem::invalid(format!("{field}.storage"), text)
                        .hint("`storage` on each volume of the service, or on none: one that is on a node keeps the service there"));
                }
            }
            paths.push((format!("{field}.path"), &volume.path));
        }
        for (index, host) in self.host_paths.iter().enumerate() {
            let field = format!("host_paths[{index}]");
            check_path(&format!("{field}.host"), &host.host)?;
            paths.push((format!("{field}.path"), &host.path));
        }
        for (index, secret) in self.secrets.iter().enumerate() {
            let field = format!("secrets[{index}]");
            variable::check_name(&secret.variable)
                .map_err(|problem| problem.at(format!("{field}.variable")))?;
            paths.push((format!("{field}.path"), &secret.path));
        }
        check_targets(&paths)
    }
}

/// Targets within the container: none within another, so that the order of mounts never matters.
fn check_targets(paths: &[(String, &str)]) -> Result<(), Problem> {
    for (index, (field, path)) in paths.iter().enumerate() {
        check_path(field, path)?;
        if let Some(reserved) = RESERVED.iter().find(|one| Path::new(path).starts_with(one)) {
            let text = format!("`{path}` is within `{reserved}`, which belongs to the system");
            return Err(Problem::invalid(field, text).hint("another path, for example /data"));
        }
        let overlaps = |other: &&(String, &str)| {
            Path::new(path).starts_with(other.1) || Path::new(other.1).starts_with(path)
        };
        if let Some((_, other)) = paths[..index].iter().find(overlaps) {
            let text = format!("`{path}` and `{other}` are within each other");
            return Err(Problem::invalid(field, text).hint("paths beside each other"));
        }
    }
    Ok(())
}

/// An absolute path in its shortest form, and not the root.
///
/// # Errors
/// Names the field.
pub fn check_path(field: &str, path: &str) -> Result<(), Problem> {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let canonical: std::path::PathBuf = Path::new(path).components().collect();
    let is_plain = path.starts_with('/')
        && path != "/"
        && path.len() <= MAX_PATH
        && !path.chars().any(char::is_control)
        && Path::new(path).components().all(plain)
        && canonical.as_os_str() == path;
    if is_plain {
        return Ok(());
    }
    let shown: String = path.chars().take(MAX_PATH).collect();
    let text = format!(
        "`{}` is not a path that can be mounted",
        shown.escape_debug()
    );
    Err(Problem::invalid(field, text).hint(
        "an absolute path without `.`, `..`, `//` or a slash at the end, for example /var/lib/app",
    ))
}

/// A volume has one writer: what a service with one cannot have, and why.
///
/// # Errors
/// Names the field that asks for it.
pub(crate) fn check_bound(spec: &ServiceSpec) -> Result<(), Problem> {
    if !spec.storage.is_bound() {
        return Ok(());
    }
    let refuse = |field: &str, what: &str, hint: &str| {
        let text = format!("{what}: a volume is given to one allocation at a time");
        Err(Problem::invalid(field, text).hint(hint.to_owned()))
    };
    if spec
        .autoscale
        .as_ref()
        .is_some_and(|it: &Autoscale| it.max > 1)
    {
        let hint = "autoscale.max = 1, or leave autoscale out";
        return refuse("autoscale.max", "there would be several allocations", hint);
    }
    if spec.replicas > 1 {
        let what = "there would be several allocations";
        return refuse(
            "replicas",
            what,
            "replicas = 1, or keep the data in a service of its own",
        );
    }
    if spec.rollout.strategy != Strategy::Rolling {
        let what = "the releases would run beside each other";
        return refuse("rollout.strategy", what, "`rolling`");
    }
    match spec.run.mode {
        Mode::System => {
            let what = "there would be one on every node";
            refuse(
                "run.mode",
                what,
                "`service`, or host_paths for what each node has",
            )
        }
        Mode::Batch | Mode::Cron if spec.run.overlap == Overlap::Allow => refuse(
            "run.overlap",
            "jobs would run beside each other",
            "`forbid` or `replace`",
        ),
        _ => Ok(()),
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl FromStr for Owner {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let numbers = text.split_once(':');
        let numbers = numbers.and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
        // The largest number means "no change" to the kernel.
        let numbers = numbers.filter(|(uid, gid)| *uid != u32::MAX && *gid != u32::MAX);
        let (uid, gid) = numbers.ok_or_else(|| {
            let text = format!("`{}` is not an owner", text.escape_debug());
            Problem::invalid("owner", text).hint("USER:GROUP by number, for example 1000:1000")
        })?;
        Ok(Self { uid, gid })
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FromStr for FileMode {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let bits = u32::from_str_radix(text, 8).ok();
        let bits = bits.filter(|bits| *bits <= 0o777 && bits & 0o444 != 0);
        bits.map(Self).ok_or_else(|| {
            let text = format!("`{}` is not a file's mode", text.escape_debug());
            Problem::invalid("mode", text).hint("octal, readable by somebody, for example 0440")
        })
    }
}

macro_rules! as_string {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = Problem;

            fn try_from(text: String) -> Result<Self, Problem> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

as_string!(Owner);
as_string!(FileMode);

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
