//! Stacks as text: what goes first, then what is, then what was left out.

use skep_control_plane::api::types::{StackServiceView, StackState, StackView};
use skep_model::stack::Report;

use crate::output::table::{self, facts};

/// Digits of a commit that are shown.
const SHORT: usize = 12;

fn short(commit: &str) -> &str {
    commit.get(..SHORT).unwrap_or(commit)
}

fn state(view: &StackView) -> &'static str {
    match view.state {
        StackState::Reading => "its file is read by a node that builds",
        StackState::Deploying => "its file is being carried out",
        StackState::InForce => "in force",
        StackState::Incomplete => "not all is as the file says",
        StackState::Refused => "the newest commit changes nothing",
    }
}

/// A line while it goes on.
pub(super) fn progress(view: &StackView) -> String {
    match (&view.state, &view.reading) {
        (StackState::Deploying, Some(reading)) => {
            let changes = reading
                .services
                .iter()
                .map(|it| format!("{} {}", it.planned.change.as_str(), it.planned.name));
            let changes: Vec<String> = changes.collect();
            let (file, commit) = (&reading.file, short(&reading.commit));
            format!("{file} at {commit}: {}", changes.join(", "))
        }
        _ => {
            let (repository, branch) = (&view.settings.repository, &view.settings.branch);
            match &view.problem {
                Some(problem) => format!("waits to read {repository}: {problem}"),
                None => format!("reading {repository} (branch {branch})"),
            }
        }
    }
}

/// All stacks.
pub(super) fn all(views: &[StackView]) -> String {
    let row = |view: &StackView| {
        let reading = view.reading.as_ref();
        vec![
            view.project.clone(),
            view.environment.clone(),
            view.state.as_str().to_owned(),
            reading.map_or("-", |it| short(&it.commit)).to_owned(),
            view.gone.len().to_string(),
            view.settings.repository.clone(),
        ]
    };
    let columns = [
        "PROJECT",
        "ENVIRONMENT",
        "STATE",
        "COMMIT",
        "TO REMOVE",
        "REPOSITORY",
    ];
    let empty = "there is none: `skep stack connect REPOSITORY --project NAME` makes one";
    table::render(&columns, views.iter().map(row).collect(), empty)
}

/// One stack in full.
pub(super) fn one(view: &StackView) -> String {
    let mut parts = Vec::new();
    if !view.gone.is_empty() {
        parts.push(removals(view));
    }
    parts.push(head(view));
    if let Some(reading) = &view.reading {
        let rows = reading.services.iter().map(row).collect();
        let columns = ["SERVICE", "CHANGE", "DEPLOYMENT", "WHAT CHANGED"];
        parts.push(table::render(&columns, rows, "it has no services"));
        let left = reports(&reading.reports, true);
        let differs = reports(&reading.reports, false);
        if !left.is_empty() {
            parts.push(format!("left out:\n{left}"));
        }
        if !differs.is_empty() {
            parts.push(format!("works otherwise:\n{differs}"));
        }
        if reading.more_reports > 0 {
            let more = reading.more_reports;
            parts.push(format!(
                "and {more} more settings: `skep import --dry-run` in the repository tells all"
            ));
        }
    }
    parts.join("\n\n")
}

fn removals(view: &StackView) -> String {
    let names: Vec<&str> = view.gone.iter().map(|it| it.name.as_str()).collect();
    format!(
        "the file has no more, and run on: {}\n  skep stack approve removes them, skep stack keep NAME keeps one",
        names.join(", ")
    )
}

fn head(view: &StackView) -> String {
    let settings = &view.settings;
    let mut rows = vec![
        ("stack", format!("{}/{}", view.project, view.environment)),
        (
            "repository",
            format!("{} (branch {})", settings.repository, settings.branch),
        ),
    ];
    if let Some(reading) = &view.reading {
        rows.push((
            "file",
            format!("{} at {}", reading.file, short(&reading.commit)),
        ));
    }
    rows.push(("state", state(view).to_owned()));
    if let Some(problem) = &view.problem {
        let seen = view.seen.as_deref().map(short).unwrap_or_default();
        let at = match view.state {
            StackState::Refused if !seen.is_empty() => format!("at {seen}: "),
            _ => String::new(),
        };
        rows.push(("problem", format!("{at}{problem}")));
    }
    facts(&rows)
}

fn row(service: &StackServiceView) -> Vec<String> {
    let planned = &service.planned;
    vec![
        planned.name.clone(),
        planned.change.as_str().to_owned(),
        service.deployment.clone().unwrap_or_else(|| "-".to_owned()),
        match planned.fields.is_empty() {
            true => "-".to_owned(),
            false => planned.fields.join(", "),
        },
    ]
}

/// Keys with the same story are told together.
fn reports(all: &[Report], left: bool) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut told: Vec<&Report> = Vec::new();
    for report in all.iter().filter(|it| it.left == left) {
        let is_same = |it: &&Report| it.message == report.message && it.hint == report.hint;
        if told.iter().any(is_same) {
            continue;
        }
        told.push(report);
        let same = all.iter().filter(|it| it.left == left && is_same(it));
        lines.extend(same.map(|it| format!("  {} ({})", it.path, it.kind)));
        let hint = match report.hint.is_empty() {
            true => String::new(),
            false => format!("; {}", report.hint),
        };
        lines.push(format!("    {}{hint}", report.message));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use skep_control_plane::api::types::{StackGoneView, StackReadingView};
    use skep_model::id::ServiceId;
    use skep_model::stack::{Change, Planned, Settings};

    use super::*;

    #[test]
    fn what_goes_is_shown_first_and_what_was_left_out_is_not_forgotten() {
        let report = |path: &str| Report {
            path: path.into(),
            kind: "true or false".into(),
            left: true,
            message: "it has no counterpart".into(),
            hint: "leave it out".into(),
        };
        let view = StackView {
            project: "shop".into(),
            environment: "production".into(),
            settings: Settings {
                repository: "https://forge.test/shop.git".into(),
                branch: "main".into(),
                ..Settings::default()
            },
            state: StackState::InForce,
            problem: None,
            seen: Some("a".repeat(40)),
            reading: Some(StackReadingView {
                number: 2,
                commit: "a".repeat(40),
                file: "compose.yaml".into(),
                read_ms: 0,
                services: vec![StackServiceView {
                    planned: Planned {
                        name: "web".into(),
                        change: Change::Build,
                        fields: vec!["files".into(), "replicas".into()],
                    },
                    deployment: Some("live".into()),
                }],
                reports: vec![
                    report("services.web.privileged"),
                    report("services.db.privileged"),
                ],
                more_reports: 3,
            }),
            gone: vec![StackGoneView {
                name: "cache".into(),
                service: ServiceId::from_u128(1),
            }],
        };
        let text = one(&view);
        assert!(
            text.starts_with("the file has no more, and run on: cache"),
            "{text}"
        );
        for part in [
            "compose.yaml at aaaaaaaaaaaa\n",
            "web      build   live        files, replicas",
            "  services.web.privileged (true or false)\n  services.db.privileged (true or false)\n    it has no counterpart; leave it out",
            "and 3 more settings",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(all(&[view]).contains("in_force"), "listed");
    }
}
