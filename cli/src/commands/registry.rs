//! `skep registry`: as whom the cluster's nodes pull from registries, and where a workspace's images are pushed.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    PushRegistryRequest, PushRegistryView, RegistriesView, RegistryRequest, WaitingPushView,
};
use skep_model::image_push::PushRegistryShown;
use skep_model::registry::{MAX_PASSWORD, RegistryShown};

use crate::client::escape;
use crate::failure::Failure;
use crate::output::table::{self, facts};
use crate::session::Session;

/// Registries: as whom nodes pull, and where images are pushed
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them
    #[command(visible_alias = "list")]
    Ls,
    /// Say as whom nodes pull from a registry; the password is read from stdin
    #[command(after_help = "\
Examples:
  pass show ghcr | skep registry login ghcr.io --user me
  skep registry login registry.example.com:5000 --user ci < token.txt

It holds for every node and every image of that registry, from the next pull on. The password is kept sealed
and never shown again. `docker.io` is the registry of references without a host.")]
    Login {
        /// Host, as references to images begin
        #[arg(value_name = "HOST[:PORT]")]
        host: String,
        /// As whom
        #[arg(long, short, value_name = "USER")]
        user: String,
    },
    /// Take a login away
    Rm {
        /// Host
        #[arg(value_name = "HOST[:PORT]")]
        host: String,
    },
    /// Push every image that is built to a registry, too; the password is read from stdin
    PushTo(PushTo),
    /// Show where images are pushed, and what is not there yet
    Show,
    /// Push images nowhere; what is at the registry stays there
    PushStop,
}

/// Where images are pushed.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  pass show registry | skep registry push-to registry.example.com/team --user ci --password-stdin
  skep registry push-to ghcr.io/acme --user ci --password-stdin --required < token.txt
  skep registry push-to r.lan:5000 --user ci --password-stdin --pull-user reader --pull-password-file r.txt < w.txt

From the next deployment on each image that is built is pushed as HOST/PREFIX/WORKSPACE/PROJECT/SERVICE:COMMIT
(of uploads: the deployment's id) by a node that has it. A registry that is away keeps nothing from going live,
unless --required says so: the image is pushed when it is back. Nodes pull an image from there where no node has
it any more. What the registry must be able to do is in docs/registry.md.")]
pub(crate) struct PushTo {
    /// Host and folders, as the references will begin
    #[arg(value_name = "HOST[:PORT][/PREFIX]")]
    to: String,
    /// As whom images are pushed
    #[arg(long, short, value_name = "USER")]
    user: String,
    /// Read the password from stdin: the one way, so that no shell remembers it
    #[arg(long, required = true)]
    password_stdin: bool,
    /// As whom nodes pull them [default: as whoever pushes]
    #[arg(long, value_name = "USER", requires = "pull_password_file")]
    pull_user: Option<String>,
    /// The file with that user's password, which is one line
    #[arg(long, value_name = "FILE", requires = "pull_user")]
    pull_password_file: Option<PathBuf>,
    /// Let nothing that is built go live before the registry has it
    #[arg(long)]
    required: bool,
}

/// Where the API has it.
pub(super) const PUSH_PATH: &str = "/v1/push-registry";

impl PushTo {
    fn request(self) -> Result<PushRegistryRequest, Failure> {
        let (host, prefix) = match self.to.split_once('/') {
            Some((host, prefix)) => (host, prefix.trim_end_matches('/')),
            None => (&*self.to, ""),
        };
        let pull = match (self.pull_user, &self.pull_password_file) {
            (Some(user), Some(file)) => Some(RegistryRequest {
                user,
                password: password_in(file)?,
            }),
            _ => None,
        };
        Ok(PushRegistryRequest {
            host: host.to_owned(),
            prefix: prefix.to_owned(),
            user: self.user,
            password: password("skep registry push-to HOST --user USER --password-stdin")?,
            pull,
            bucket: None,
            required: self.required,
        })
    }
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Ls => {
            let view: RegistriesView = client.get("/v1/registries").await?;
            session.out.result(&view, || text(&view.registries));
        }
        Command::Login { host, user } => {
            let request = RegistryRequest {
                user,
                password: password("skep registry login HOST --user USER")?,
            };
            let path = format!("/v1/registries/{}", escape(&host));
            let shown: RegistryShown = client.send(Method::PUT, &path, &request).await?;
            session.out.result(&shown, || {
                format!("nodes pull from {} as {}", shown.host, shown.user)
            });
        }
        Command::Rm { host } => {
            let path = format!("/v1/registries/{}", escape(&host));
            let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
            session.out.result(&json!({ "removed": host }), || {
                format!("nodes pull from {host} as anybody can")
            });
        }
        Command::PushTo(to) => {
            let request = to.request()?;
            let view: PushRegistryView = client.send(Method::PUT, PUSH_PATH, &request).await?;
            session.out.result(&view, || push_text(&view));
        }
        Command::Show => {
            let view: PushRegistryView = client.get(PUSH_PATH).await?;
            session.out.result(&view, || push_text(&view));
        }
        Command::PushStop => {
            let _: Value = client.send(Method::DELETE, PUSH_PATH, &json!({})).await?;
            session.out.result(&json!({ "removed": true }), || {
                "images are pushed nowhere".to_owned()
            });
        }
    }
    Ok(())
}

/// One line from stdin, which must be no terminal: there it would be seen.
pub(super) fn password(command: &str) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage("the password is read from stdin")
            .hint(format!("pass show NAME | {command}")));
    }
    let mut text = String::new();
    let limit = MAX_PASSWORD as u64 + 2;
    stdin
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("the password cannot be read: {error}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn text(registries: &[RegistryShown]) -> String {
    let row = |login: &RegistryShown| vec![login.host.clone(), login.user.clone()];
    let rows = registries.iter().map(row).collect();
    let empty = "no logins: nodes pull from registries as anybody can";
    table::render(&["REGISTRY", "USER"], rows, empty)
}

fn password_in(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

pub(super) fn push_text(view: &PushRegistryView) -> String {
    let Some(registry) = &view.registry else {
        return "images are pushed nowhere: `skep registry push-to HOST --user USER --password-stdin` says where to"
            .to_owned();
    };
    let mut text = facts(&push_rows(registry, view.waiting.len()));
    if !view.waiting.is_empty() {
        let rows = view.waiting.iter().map(waiting_row).collect();
        text.push_str("\n\n");
        text.push_str(&table::render(
            &["SERVICE", "IMAGE", "TRIED", "REASON"],
            rows,
            "",
        ));
    }
    text
}

fn push_rows(registry: &PushRegistryShown, waiting: usize) -> Vec<(&'static str, String)> {
    let to = match registry.prefix.as_str() {
        "" => registry.host.clone(),
        prefix => format!("{}/{prefix}", registry.host),
    };
    let required = match registry.required {
        true => "yes: nothing that is built goes live before it is there",
        false => "no",
    };
    let mut rows = match &registry.bucket {
        None => vec![
            ("pushed to", to),
            ("as", registry.user.clone()),
            ("pulled as", registry.pull_user.clone()),
        ],
        Some(bucket) => vec![
            ("bucket", bucket.name.clone()),
            ("endpoint", registry.host.clone()),
            ("region", bucket.region.clone()),
            ("prefix", registry.prefix.clone()),
            ("access key", registry.user.clone()),
        ],
    };
    rows.push(("required", required.to_owned()));
    rows.push(("waiting", waiting.to_string()));
    rows
}

fn waiting_row(one: &WaitingPushView) -> Vec<String> {
    let why = one.problem.as_ref().map(|problem| problem.to_string());
    vec![
        one.service.clone(),
        one.reference.clone(),
        one.attempts.to_string(),
        why.unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::id::DeploymentId;
    use skep_model::problem::Problem;

    #[test]
    fn what_is_not_pushed_says_why() {
        let mut view = PushRegistryView {
            registry: None,
            waiting: Vec::new(),
        };
        assert!(push_text(&view).contains("pushed nowhere"));
        view.registry = Some(PushRegistryShown {
            host: "r.example:5000".into(),
            prefix: "team".into(),
            user: "ci".into(),
            bucket: None,
            pull_user: "reader".into(),
            required: false,
            changed_ms: 1,
        });
        let calm = push_text(&view);
        assert!(
            calm.contains("r.example:5000/team") && !calm.contains("REASON"),
            "{calm}"
        );
        view.waiting.push(WaitingPushView {
            deployment: DeploymentId::from_u128(1),
            service: "shop/production/web".into(),
            reference: "r.example:5000/team/default/shop/web:abc".into(),
            problem: Some(Problem::invalid("host", "it does not answer")),
            attempts: 3,
        });
        let text = push_text(&view);
        assert!(
            text.contains("shop/production/web") && text.contains("it does not answer"),
            "{text}"
        );
    }
}
