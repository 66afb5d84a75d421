//! `skep domains`: whose hosts are, and what generated names end in.

use http::Method;
use skep_control_plane::api::types::{
    BaseDomainRequest, BaseDomainView, DomainProofRequest, DomainProofView, DomainRoute,
    DomainView, DomainsView,
};

use crate::client::escape;
use crate::failure::Failure;
use crate::output::{table, time};
use crate::session::Session;

/// Which hosts projects have
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep domains                                                     every host, and who answers there
  skep domains base --project shop -e staging apps.example.com     names of staging end in that
  skep domains base --project shop -e staging --inherit            and in the cluster's domain again
  skep domains proof on                                            projects prove that domains are theirs

A host is claimed by the first route on it (`domains` and `[[routes]]` in skep.toml) and is its project's from
then on. For a day after the last route is gone only that project may take it again.")]
pub(crate) struct Args {
    /// What to do; nothing: list them
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// List the hosts that projects have
    #[command(visible_alias = "list")]
    Ls,
    /// Show what the generated names of an environment end in, or say it
    Base(Base),
    /// Show whether projects prove in DNS that domains are theirs, and by which records, or say it
    Proof(Proof),
}

/// Whether domains are proved.
#[derive(Debug, Clone, clap::Args)]
struct Proof {
    /// Nothing: it is shown
    #[arg(value_enum)]
    wanted: Option<Wanted>,
}

/// What can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    /// New hosts need a record in DNS
    On,
    /// First come, first served
    Off,
}

/// A base domain.
#[derive(Debug, Clone, clap::Args)]
struct Base {
    /// The project of the environment
    #[arg(long, value_name = "NAME")]
    project: String,
    /// The environment
    #[arg(long, short, value_name = "NAME")]
    environment: String,
    /// The domain; without it, and without --inherit, the one that holds is shown
    #[arg(value_name = "DOMAIN")]
    domain: Option<String>,
    /// The cluster's domain
    #[arg(long, conflicts_with = "domain")]
    inherit: bool,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match args.command {
        None | Some(Command::Ls) => {
            let view: DomainsView = client.get("/v1/domains").await?;
            session
                .out
                .result(&view, || text(&view.domains, time::now_ms()));
        }
        Some(Command::Proof(proof)) => {
            const PATH: &str = "/v1/domain-proof";
            let view: DomainProofView = match proof.wanted {
                None => client.get(PATH).await?,
                Some(wanted) => {
                    let required = wanted == Wanted::On;
                    let request = DomainProofRequest { required };
                    client.send(Method::PUT, PATH, &request).await?
                }
            };
            session.out.result(&view, || proofs(&view));
        }
        Some(Command::Base(base)) => {
            let (project, environment) = (escape(&base.project), escape(&base.environment));
            let path = format!("/v1/projects/{project}/environments/{environment}/base-domain");
            let view: BaseDomainView = if base.domain.is_some() || base.inherit {
                let request = BaseDomainRequest {
                    base_domain: base.domain,
                };
                client.send(Method::PUT, &path, &request).await?
            } else {
                client.get(&path).await?
            };
            session.out.result(&view, || {
                let whose = if view.is_own {
                    ""
                } else {
                    ", as in the whole cluster"
                };
                format!(
                    "generated names of {}/{} end in {}{whose}",
                    view.project, view.environment, view.base_domain
                )
            });
        }
    }
    Ok(())
}

/// How projects prove that domains are theirs.
fn proofs(view: &DomainProofView) -> String {
    if !view.required {
        return "no proof is asked for: who claims a host first has it".to_owned();
    }
    let rows = view.records.iter();
    let rows = rows.map(|(project, text)| vec![project.clone(), text.clone()]);
    let records = table::render(&["PROJECT", "TXT RECORD"], rows.collect(), "no projects");
    format!(
        "before a project gets a host, DNS has its record at `_skep.` and the host, or a domain above it\n{records}"
    )
}

/// A table of hosts.
fn text(domains: &[DomainView], now_ms: u64) -> String {
    let columns = ["HOST", "PROJECT", "ROUTES", "SINCE", "STATE"];
    let rows = domains.iter().map(|one| row(one, now_ms)).collect();
    table::render(&columns, rows, "no hosts beside the generated names")
}

fn row(one: &DomainView, now_ms: u64) -> Vec<String> {
    let route =
        |route: &DomainRoute| format!("{} -> {}/{}", route.path, route.environment, route.service);
    let routes: Vec<String> = one.routes.iter().map(route).collect();
    let state = match one.free_ms {
        None => "in use".to_owned(),
        Some(free_ms) => format!("given up, free in {}", time::age(free_ms, now_ms)),
    };
    vec![
        one.host.clone(),
        format!("{}/{}", one.workspace, one.project),
        if routes.is_empty() {
            "-".to_owned()
        } else {
            routes.join(", ")
        },
        format!("{} ago", time::age(now_ms, one.since_ms)),
        state,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_says_who_answers_or_when_it_is_free() {
        let mut one = DomainView {
            host: "shop.example.com".into(),
            workspace: "default".into(),
            project: "shop".into(),
            routes: vec![DomainRoute {
                path: "/api".into(),
                environment: "production".into(),
                service: "api".into(),
            }],
            since_ms: 0,
            released_ms: None,
            free_ms: None,
        };
        let cells = row(&one, 90_000);
        assert_eq!(cells[1..3], ["default/shop", "/api -> production/api"]);
        assert_eq!(cells[4], "in use");
        one.routes.clear();
        (one.released_ms, one.free_ms) = (Some(0), Some(100_000));
        let cells = row(&one, 90_000);
        assert_eq!((&*cells[2], &*cells[4]), ("-", "given up, free in 10s"));
    }
}
