//! `skep git`: a remote that deploys what is pushed to it, and the answer to git's question for the token. What it
//! changes is the configuration of one repository; the token is in none.

mod credential;
mod repository;

use std::path::{Path, PathBuf};

use serde_json::json;
use skep_control_plane::api::types::{CaView, ServiceView};
use skep_identity::secret_file;
use skep_model::spec::{ServiceSpec, Source};

use super::up::{base_of, existing, put};
use crate::client::Client;
use crate::context::{Context, folder};
use crate::failure::{Failure, chain};
use crate::folder::App;
use crate::session::Session;
use crate::target::{Scope, Target};
use repository::Repository;

/// The branch where a folder is named and no branch.
const BRANCH: &str = "main";

/// Push with git: remotes that deploy what is pushed to them
#[derive(Debug, Clone, clap::Subcommand)]
#[command(after_help = "\
Examples:
  skep git remote add --service web --project shop
  git push skep main

No forge is needed: the nodes that build keep what is pushed.")]
pub(crate) enum Command {
    /// Remotes of the repository in this folder
    #[command(subcommand)]
    Remote(Remote),
    /// Tell git the token of a remote; git runs this by itself
    Credential(credential::Args),
}

/// Remotes of the repository in this folder
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Remote {
    /// Make a remote that deploys what is pushed to it, and its service where there is none
    Add(Add),
}

/// A remote.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep git remote add
  skep git remote add --service web --project shop --environment staging --name staging
  skep git remote add --service web --branch release --directory web

Names come from the options, else from skep.toml, else from the folder's name. The branch that is pushed first is
the one that is deployed, unless --branch says so; run it again to choose another. The token stays in the
configuration of skep, and git asks for it there.")]
pub(crate) struct Add {
    /// Name of the service
    #[arg(long, value_name = "NAME", env = "SKEP_SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// Name of the remote
    #[arg(long, value_name = "NAME", default_value = "skep")]
    name: String,
    /// The branch that is deployed [default: the one that is pushed first]
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// The app's folder inside the repository [default: its root]
    #[arg(long, value_name = "PATH")]
    directory: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// No repository, not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Remote(Remote::Add(add)) => add.run(session).await,
        Command::Credential(args) => credential::run(&args),
    }
}

impl Add {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let repository = Repository::here().await?;
        let app = App::read(Path::new(".")).await?;
        let target = app.target(&self.scope, self.service.as_deref())?;
        let (context, client) = (session.context()?, session.client()?);
        let base = context.server.trim_end_matches('/').to_owned();
        let url = remote_url(&base, &target);
        repository.check_remote(&self.name, &base).await?;
        let known = existing(&client, &target).await?;
        let service = self
            .prepare(&client, (&app, &target), known.as_ref())
            .await?;
        let ca = keep_ca(&client, &context).await?;
        repository.set_remote(&self.name, &url).await?;
        repository.trust(&base, &ca).await?;
        let told = json!({
            "remote": self.name,
            "url": url,
            "service": target.to_string(),
            "made": known.is_none(),
        });
        let before = known.as_ref().and_then(|view| view.spec.source.as_ref());
        session.out.result(&told, || {
            text((&self.name, &target), (known.is_none(), before), &service)
        });
        Ok(())
    }

    /// The service as it is to be; made or changed only where something is missing.
    async fn prepare(
        &self,
        client: &Client,
        (app, target): (&App, &Target),
        known: Option<&ServiceView>,
    ) -> Result<ServiceSpec, Failure> {
        let before = base_of(known);
        let mut spec = match (&app.manifest, known) {
            (Some(manifest), None) => manifest.apply(&before)?,
            _ => before.clone(),
        };
        if self.branch.is_some() || self.directory.is_some() {
            let own = before.source.as_ref().and_then(Source::branch);
            let branch = self.branch.as_deref().or(own).unwrap_or(BRANCH);
            spec.source = Some(Source::Pushed {
                branch: branch.to_owned(),
                directory: self.directory.clone().unwrap_or_default(),
            });
        }
        spec.check()?;
        if known.is_none() || spec != before {
            put(client, target, known, spec.clone(), Vec::new()).await?;
        }
        Ok(spec)
    }
}

fn remote_url(base: &str, target: &Target) -> String {
    let Target {
        project,
        environment,
        service,
    } = target;
    format!("{base}/git/{project}/{environment}/{service}")
}

/// What git verifies the servers by: the CAs of the cluster, as told over a connection that was verified by the
/// fingerprint.
async fn keep_ca(client: &Client, context: &Context) -> Result<PathBuf, Failure> {
    let view: CaView = client.get("/v1/ca").await?;
    let pems: Vec<&str> = view
        .trusted
        .iter()
        .map(|ca| ca.certificate_pem.trim())
        .collect();
    let folder = folder()?.join("ca");
    let path = folder.join(format!("{}.pem", context.fingerprint));
    let text = format!("{}\n", pems.join("\n"));
    // A few hundred bytes in a folder of the user's own.
    secret_file::ensure_private_dir(&folder)
        .and_then(|()| secret_file::write_private(&path, text.as_bytes()))
        .map_err(|error| Failure::failed(chain(&error)))?;
    Ok(path)
}

fn text(
    (name, target): (&str, &Target),
    (is_made, before): (bool, Option<&Source>),
    spec: &ServiceSpec,
) -> String {
    let made = if is_made { ", which was made now" } else { "" };
    let branch = spec.source.as_ref().and_then(Source::branch);
    let deploys = match branch {
        Some(branch) => format!("  git push {name} {branch}\n\ndeploys it"),
        None => format!(
            "  git push {name} {BRANCH}\n\ndeploys it, and makes {BRANCH} the branch that is deployed"
        ),
    };
    let elsewhere = match (before, &spec.source) {
        (
            Some(Source::Git { .. } | Source::Image { .. }),
            Some(Source::Git { .. } | Source::Image { .. }),
        ) => ".\nIt comes from elsewhere now, and from what is pushed once that was deployed",
        _ => "",
    };
    format!("the remote `{name}` leads to {target}{made}:\n\n{deploys}{elsewhere}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_what_to_type_and_what_it_does() {
        let target = Target {
            project: "shop".into(),
            environment: "production".into(),
            service: "web".into(),
        };
        assert_eq!(
            remote_url("https://h:7643", &target),
            "https://h:7643/git/shop/production/web"
        );
        let spec = |source| ServiceSpec {
            source,
            ..ServiceSpec::default()
        };
        let told = text(("skep", &target), (true, None), &spec(None));
        assert_eq!(
            told,
            "the remote `skep` leads to shop/production/web, which was made now:\n\n  git push skep main\n\n\
             deploys it, and makes main the branch that is deployed."
        );
        let pushed = Some(Source::Pushed {
            branch: "release".into(),
            directory: String::new(),
        });
        let told = text(
            ("skep", &target),
            (false, pushed.as_ref()),
            &spec(pushed.clone()),
        );
        assert!(
            told.contains("git push skep release\n\ndeploys it."),
            "{told}"
        );
        let image = Some(Source::Image {
            reference: "nginx".into(),
        });
        let told = text(
            ("skep", &target),
            (false, image.as_ref()),
            &spec(image.clone()),
        );
        assert!(told.contains("comes from elsewhere now"), "{told}");
    }
}
