//! An app's folder as the command line sees it: its `skep.toml` and the names that follow from it.
//! Reads nothing else; what is uploaded is decided by the packer.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use skep_model::manifest::{self, Manifest};
use skep_model::name;
use skep_model::problem::{Code, Problem};
use skep_model::tenancy::DEFAULT_ENVIRONMENT;

use crate::target::{Scope, Target};

/// A folder with an app in it.
#[derive(Debug, Clone)]
pub(crate) struct App {
    /// Absolute, links resolved: its last part is a name.
    pub(crate) dir: PathBuf,
    /// Its `skep.toml`, where it has one.
    pub(crate) manifest: Option<Manifest>,
}

impl App {
    /// Reads `dir`.
    ///
    /// # Errors
    /// No such folder, or a `skep.toml` that is not accepted.
    pub(crate) async fn read(dir: &Path) -> Result<Self, Problem> {
        let dir = dir.to_owned();
        let read = tokio::task::spawn_blocking(move || Self::read_blocking(&dir));
        read.await.expect("reading a folder does not panic")
    }

    fn read_blocking(dir: &Path) -> Result<Self, Problem> {
        let unreadable = |error: std::io::Error| {
            Problem::invalid("dir", format!("cannot read {}: {error}", dir.display()))
        };
        let found = dir.canonicalize().map_err(unreadable)?;
        if !found.is_dir() {
            return Err(Problem::invalid(
                "dir",
                format!("{} is not a folder", dir.display()),
            ));
        }
        let path = found.join(manifest::FILE);
        let mut text = String::new();
        match std::fs::File::open(&path) {
            Ok(file) => {
                let mut file = file.take(manifest::MAX_BYTES + 1);
                file.read_to_string(&mut text).map_err(|error| {
                    Problem::invalid(manifest::FILE, format!("cannot be read: {error}"))
                })?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self {
                    dir: found,
                    manifest: None,
                });
            }
            Err(error) => return Err(unreadable(error)),
        }
        let manifest = Some(Manifest::parse(&text)?);
        Ok(Self {
            dir: found,
            manifest,
        })
    }

    /// The service that the folder stands for: options, else `skep.toml`, else the folder's name.
    ///
    /// # Errors
    /// A name is not accepted, or the folder's name suggests none.
    pub(crate) fn target(&self, scope: &Scope, service: Option<&str>) -> Result<Target, Problem> {
        let manifest = self.manifest.as_ref();
        let service = match service.or_else(|| manifest.and_then(|it| it.name.as_deref())) {
            Some(given) => given.to_owned(),
            None => self.suggested()?,
        };
        let project = scope.project.as_deref();
        let project = project.or_else(|| manifest.and_then(|it| it.project.as_deref()));
        complete(
            scope,
            service.clone(),
            project.unwrap_or(&service).to_owned(),
        )
    }

    fn suggested(&self) -> Result<String, Problem> {
        let folder = self.dir.file_name().unwrap_or_default().to_string_lossy();
        name::suggest(&folder).ok_or_else(|| {
            let message = format!(
                "no name can be made of the folder's, `{}`",
                folder.escape_debug()
            );
            Problem::new(Code::Invalid, message)
                .at("service")
                .hint("--service NAME")
        })
    }
}

/// The target with these names, in the environment of the options.
///
/// # Errors
/// A name is not accepted.
pub(crate) fn complete(scope: &Scope, service: String, project: String) -> Result<Target, Problem> {
    let environment = scope
        .environment
        .as_deref()
        .unwrap_or(DEFAULT_ENVIRONMENT)
        .to_owned();
    let target = Target {
        project,
        environment,
        service,
    };
    target.check()?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(folder: &str, manifest: &str) -> (tempfile::TempDir, Result<App, Problem>) {
        let root = tempfile::tempdir().expect("a folder");
        let dir = root.path().join(folder);
        std::fs::create_dir(&dir).expect("made");
        if !manifest.is_empty() {
            std::fs::write(dir.join(manifest::FILE), manifest).expect("written");
        }
        let app = App::read_blocking(&dir);
        (root, app)
    }

    fn target(folder: &str, manifest: &str, scope: &Scope, service: Option<&str>) -> String {
        let (_root, app) = app(folder, manifest);
        let target = app.expect("an app").target(scope, service);
        target.expect("names").to_string()
    }

    #[test]
    fn names_come_from_options_then_the_manifest_then_the_folder() {
        let any = Scope::default();
        assert_eq!(target("My App", "", &any, None), "my-app/production/my-app");
        let manifest = "name = \"web\"\nproject = \"shop\"\n";
        assert_eq!(target("x", manifest, &any, None), "shop/production/web");
        let scope = Scope {
            project: Some("blog".into()),
            environment: Some("staging".into()),
        };
        assert_eq!(
            target("x", manifest, &scope, Some("api")),
            "blog/staging/api"
        );
    }

    #[test]
    fn what_cannot_be_a_name_says_what_to_do() {
        let (_root, app) = app("1 2", "");
        let problem = app
            .expect("readable")
            .target(&Scope::default(), None)
            .expect_err("no name");
        assert_eq!(problem.hint.as_deref(), Some("--service NAME"));
        let (_root, app) = self::app("x", "prot = 80\n");
        assert_eq!(
            app.expect_err("typo").field.as_deref(),
            Some(manifest::FILE)
        );
        let problem = App::read_blocking(Path::new("/no/such/folder")).expect_err("missing");
        assert_eq!(problem.field.as_deref(), Some("dir"));
    }
}
