//! The app of a smoke test as a folder to upload: which kind fits the cluster, what it says, and how an answer of it
//! is recognised.

use std::io;
use std::path::Path;

use serde::Serialize;
use skep_control_plane::api::types::NodeView;
use skep_model::problem::{Code, Problem};
use skep_model::spec::{Resources, ServiceSpec};
use tempfile::TempDir;

use crate::failure::Failure;

use super::process;

/// What the process may use: it answers a line of text.
const MEMORY_BYTES: u64 = 64 << 20;
const CPU_MILLIS: u32 = 20;

/// What is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A process where the nodes can run this binary, else a site
    Auto,
    /// This binary in a container
    Process,
    /// Files that the nodes hand out themselves
    Site,
}

impl Kind {
    /// What it comes to on these nodes.
    ///
    /// # Errors
    /// A process is wanted, and could not run there.
    pub(super) fn choose(self, nodes: &[NodeView]) -> Result<Self, Failure> {
        let ours = std::env::consts::ARCH;
        let other = nodes.iter().find(|node| node.facts.architecture != ours);
        match (self, other) {
            (Self::Auto | Self::Process, None) => Ok(Self::Process),
            (Self::Auto | Self::Site, _) => Ok(Self::Site),
            (Self::Process, Some(node)) => {
                let theirs = &node.facts.architecture;
                let text = format!("{} is {theirs}, and this `skep` is {ours}", node.name);
                Err(Failure::usage(text).hint("--app site runs on every architecture"))
            }
        }
    }
}

/// An app in a folder of its own.
pub(super) struct App {
    pub(super) kind: Kind,
    folder: TempDir,
    /// Lines of the Dockerfile, for a process.
    dockerfile: String,
}

impl App {
    /// Makes the folder; there is no version in it yet.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) async fn make(kind: Kind) -> Result<Self, Failure> {
        let made = tokio::task::spawn_blocking(move || {
            let folder = tempfile::Builder::new().prefix("skep-smoke-").tempdir()?;
            let dockerfile = match kind {
                Kind::Process => process::fill(folder.path())?,
                _ => String::new(),
            };
            Ok(Self {
                kind,
                folder,
                dockerfile,
            })
        });
        let made = made.await.expect("writing a folder does not panic");
        made.map_err(unwritten)
    }

    /// The folder, with this version in it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn at(&self, version: u32) -> Result<&Path, Failure> {
        let folder = self.folder.path();
        let written = match self.kind {
            Kind::Process => {
                let lines = format!("{}CMD [\"{version}\"]\n", self.dockerfile);
                std::fs::write(folder.join("Dockerfile"), lines)
            }
            _ => write_site(folder, version),
        };
        written.map_err(unwritten)?;
        Ok(folder)
    }

    /// What the service is.
    pub(super) fn spec(&self) -> ServiceSpec {
        let mut spec = ServiceSpec::default();
        if self.kind == Kind::Process {
            spec.port = Some(process::PORT);
            spec.health.path = Some("/".to_owned());
            spec.resources = Resources {
                cpu_millis: CPU_MILLIS,
                memory_bytes: MEMORY_BYTES,
                ..Resources::default()
            };
        }
        spec
    }
}

/// Its mode: a number of replicas is to be said of it, as of a process.
fn write_site(folder: &Path, version: u32) -> io::Result<()> {
    let settings = "builder = \"static\"\n[static]\noutput = \".\"\n[run]\nmode = \"service\"\n";
    std::fs::write(folder.join("skep.toml"), settings)?;
    std::fs::write(folder.join("index.html"), page(version, None))
}

fn unwritten(error: io::Error) -> Failure {
    let text = format!("the app cannot be written to a folder: {error}");
    Failure::of(Problem::new(Code::SourceFailed, text)).hint("TMPDIR says where folders are made")
}

/// What the app says.
pub(super) fn page(version: u32, instance: Option<&str>) -> String {
    match instance {
        Some(instance) => format!("skep smoke version={version} instance={instance}\n"),
        None => format!("skep smoke version={version}\n"),
    }
}

/// An answer of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) version: u32,
    /// Which of several; none: files do not know.
    pub(super) instance: Option<String>,
}

/// What the app has said; none: this is not the app.
pub(super) fn read(page: &str) -> Option<Said> {
    let mut words = page
        .trim_end()
        .strip_prefix("skep smoke version=")?
        .split(' ');
    let version = words.next()?.parse().ok()?;
    let instance = words.next().and_then(|it| it.strip_prefix("instance="));
    Some(Said {
        version,
        instance: instance.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_app_says_is_read_back_and_nothing_else() {
        for instance in [None, Some("3f2a")] {
            let said = Said {
                version: 2,
                instance: instance.map(str::to_owned),
            };
            assert_eq!(read(&page(2, instance)), Some(said));
        }
        for other in ["", "<h1>Welcome to nginx</h1>", "skep smoke version=x"] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn each_version_is_a_folder_that_builds_from_nothing() {
        let site = App::make(Kind::Site).await.expect("made");
        for version in [1, 2] {
            let folder = site.at(version).expect("written");
            let text = std::fs::read_to_string(folder.join("index.html")).expect("there");
            assert_eq!(read(&text).expect("ours").version, version);
            let manifest = std::fs::read_to_string(folder.join("skep.toml")).expect("there");
            skep_model::manifest::Manifest::parse(&manifest).expect("accepted");
        }
        let process = App::make(Kind::Process).await.expect("made");
        let folder = process.at(7).expect("written");
        let lines = std::fs::read_to_string(folder.join("Dockerfile")).expect("there");
        assert!(lines.ends_with("CMD [\"7\"]\n"), "{lines}");
        assert!(folder.join("skep").is_file());
        process.spec().check().expect("accepted");
    }
}
