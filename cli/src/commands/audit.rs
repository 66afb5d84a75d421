//! `skep audit`: who changed what, and how it went.

use skep_control_plane::api::types::{AuditEntry, AuditView};

use crate::failure::Failure;
use crate::output::{table, time};
use crate::session::Session;

/// Show who changed what
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  skep audit\n  skep audit --limit 1000 --json")]
pub(crate) struct Args {
    /// Entries, newest first: 1 to 1,000
    #[arg(long, value_name = "COUNT", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or the history does not answer.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let found: AuditView = client
        .get(&format!("/v1/audit?limit={}", args.limit))
        .await?;
    session
        .out
        .result(&found.entries, || shown(&found.entries, time::now_ms()));
    Ok(())
}

fn shown(entries: &[AuditEntry], now_ms: u64) -> String {
    let row = |entry: &AuditEntry| {
        vec![
            time::age(now_ms, entry.at_ms),
            entry.principal.clone(),
            entry.action.clone(),
            entry.resource.clone(),
            entry.outcome.clone(),
        ]
    };
    table::render(
        &["AGE", "WHO", "ACTION", "RESOURCE", "ANSWER"],
        entries.iter().map(row).collect(),
        "nobody changed anything yet",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_a_line() {
        let entry = AuditEntry {
            at_ms: 1_000,
            principal: "admin".into(),
            action: "put_service".into(),
            resource: "services/web".into(),
            outcome: "200".into(),
        };
        let text = shown(&[entry], 61_000);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["AGE", "WHO", "ACTION", "RESOURCE", "ANSWER"]);
        assert_eq!(
            lines[1][1..],
            ["admin", "put_service", "services/web", "200"]
        );
        assert!(shown(&[], 0).contains("nobody"));
    }
}
