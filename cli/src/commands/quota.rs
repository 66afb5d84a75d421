//! `skep quota`: what workspaces and environments may have.

use http::Method;
use skep_control_plane::api::types::{QuotaView, QuotasView};
use skep_model::manifest::{parse_bytes, parse_cpu};
use skep_model::settings::Quota;
use skep_model::tenancy::DEFAULT_WORKSPACE;

use crate::client::escape;
use crate::failure::Failure;
use crate::output::{table, time};
use crate::session::Session;

/// What workspaces and environments may have
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Show what they may have, and have
    Show,
    /// Say what one may have: what is not named has no limit from then on
    #[command(after_help = "\
Examples:
  skep quota set --cpu 16 --memory 64GiB                        the default workspace
  skep quota set --project shop -e staging --allocations 20     one environment
  skep quota set --project shop -e staging                      no limits again

Requests of live allocations are counted when new ones are planned; what runs is left alone.")]
    Set(Set),
}

/// Whose settings.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Whose {
    /// The project of the environment
    #[arg(long, value_name = "NAME", requires = "environment")]
    project: Option<String>,
    /// The environment; without it the workspace is meant
    #[arg(long, short, value_name = "NAME", requires = "project")]
    environment: Option<String>,
    /// The workspace
    #[arg(long, value_name = "NAME", default_value = DEFAULT_WORKSPACE, conflicts_with = "project")]
    workspace: String,
}

impl Whose {
    /// Its path in the API.
    pub(crate) fn path(&self) -> String {
        match (&self.project, &self.environment) {
            (Some(project), Some(environment)) => {
                let (project, environment) = (escape(project), escape(environment));
                format!("/v1/projects/{project}/environments/{environment}")
            }
            _ => format!("/v1/workspaces/{}", escape(&self.workspace)),
        }
    }
}

/// The limits.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Set {
    #[command(flatten)]
    whose: Whose,
    /// Requested CPU: cores like 16, or thousandths like 500m
    #[arg(long, value_name = "CPU")]
    cpu: Option<String>,
    /// Requested memory, like 64GiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Requested disk, like 500GiB
    #[arg(long, value_name = "SIZE")]
    disk: Option<String>,
    /// How many allocations
    #[arg(long, value_name = "N")]
    allocations: Option<u64>,
}

impl Set {
    fn quota(&self) -> Result<Quota, Failure> {
        let cpu = self.cpu.as_ref().map(|text| parse_cpu("--cpu", text));
        let bytes = |field: &str, text: &Option<String>| {
            let read = text.as_ref().map(|text| parse_bytes(field, text));
            read.transpose()
        };
        Ok(Quota {
            cpu_millis: cpu.transpose()?.map(u64::from),
            memory_bytes: bytes("--memory", &self.memory)?,
            disk_bytes: bytes("--disk", &self.disk)?,
            allocations: self.allocations,
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
        Command::Show => {
            let view: QuotasView = client.get("/v1/quotas").await?;
            session.out.result(&view, || text(&view.quotas));
        }
        Command::Set(set) => {
            let path = format!("{}/quota", set.whose.path());
            let view: QuotaView = client.send(Method::PUT, &path, &set.quota()?).await?;
            session
                .out
                .result(&view, || text(std::slice::from_ref(&view)));
        }
    }
    Ok(())
}

/// A table of what is used of what.
pub(crate) fn text(quotas: &[QuotaView]) -> String {
    let columns = ["OF", "CPU", "MEMORY", "DISK", "ALLOCATIONS", "CONSTRAINTS"];
    let rows = quotas.iter().map(row).collect();
    table::render(&columns, rows, "there is no workspace yet")
}

fn row(one: &QuotaView) -> Vec<String> {
    let of = |used: u64, limit: Option<u64>, say: &dyn Fn(u64) -> String| {
        let limit = limit.map_or("no limit".to_owned(), say);
        format!("{} of {limit}", say(used))
    };
    let cores = |millis: u64| format!("{}", millis as f64 / 1_000.0);
    let (quota, used) = (&one.quota, &one.used);
    let name = match (&one.project, &one.environment) {
        (Some(project), Some(environment)) => format!("{project}/{environment}"),
        _ => format!("workspace {}", one.workspace),
    };
    let relaxed = match one.relaxed {
        Some(true) => "relaxed",
        Some(false) => "strict",
        None => "-",
    };
    vec![
        name,
        of(used.cpu_millis, quota.cpu_millis, &cores),
        of(used.memory_bytes, quota.memory_bytes, &time::bytes),
        of(used.disk_bytes, quota.disk_bytes, &time::bytes),
        of(used.allocations, quota.allocations, &|n| n.to_string()),
        relaxed.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use skep_control_plane::api::types::UsedView;

    use super::*;

    #[test]
    fn what_is_used_is_told_of_what_there_may_be() {
        let one = QuotaView {
            workspace: "default".into(),
            project: Some("shop".into()),
            environment: Some("staging".into()),
            quota: Quota {
                cpu_millis: Some(2_500),
                allocations: Some(4),
                ..Quota::default()
            },
            used: UsedView {
                cpu_millis: 500,
                memory_bytes: 0,
                disk_bytes: 0,
                allocations: 3,
            },
            relaxed: Some(true),
        };
        let cells = row(&one);
        assert_eq!(cells[0], "shop/staging");
        assert_eq!(cells[1], "0.5 of 2.5");
        assert!(cells[2].ends_with("of no limit"), "{}", cells[2]);
        assert_eq!((&*cells[4], &*cells[5]), ("3 of 4", "relaxed"));
    }
}
