//! What is kept of a file: what it changes, and what was left out of it; within bounds.

use skep_compose::{Outcome, Report};
use skep_model::stack::{
    self, Change, MAX_FIELD, MAX_FIELDS, MAX_REPORTS, MAX_TEXT, Planned, Reading, Stack,
};

use super::course::There;
use super::{File, turn};

/// A reading of a file, as it is kept.
pub(crate) fn reading<'a>(
    stack: &Stack,
    file: &File,
    there: impl Fn(&str) -> There<'a>,
) -> Reading {
    let next = stack.reading.as_ref().map_or(0, |it| it.number) + 1;
    let services = file.services.iter().map(|wanted| {
        let current = match there(&wanted.name) {
            There::Service(current) => Some(current),
            There::Nothing | There::Going => None,
        };
        let is_taken = current.is_some_and(|it| it.member.is_none()) && !stack.settings.adopt;
        let turn = turn(wanted, current, next);
        let (change, fields) = match (is_taken, current) {
            (true, _) => (Change::Taken, Vec::new()),
            // All of a new one is new.
            (false, None) => (turn.change, Vec::new()),
            (false, Some(_)) => (turn.change, turn.fields),
        };
        Planned {
            name: wanted.name.clone(),
            change,
            fields: few(fields),
        }
    });
    Reading {
        // Set where it is obeyed.
        number: 0,
        read_ms: 0,
        commit: file.commit.clone(),
        file: file.path.clone(),
        services: services.collect(),
        reports: file.reports.iter().take(MAX_REPORTS).map(kept).collect(),
        more_reports: u32::try_from(file.reports.len().saturating_sub(MAX_REPORTS))
            .unwrap_or(u32::MAX),
        end: None,
    }
}

fn few(mut fields: Vec<String>) -> Vec<String> {
    let more = fields.len().saturating_sub(MAX_FIELDS);
    fields.truncate(MAX_FIELDS);
    if more > 0 {
        fields.push(format!("{more} more"));
    }
    fields
        .iter()
        .map(|it| it[..it.floor_char_boundary(MAX_FIELD)].to_owned())
        .collect()
}

fn kept(report: &Report) -> stack::Report {
    stack::Report {
        path: cut(&report.path),
        kind: cut(&report.kind),
        left: report.outcome == Outcome::Left,
        message: cut(&report.message),
        hint: cut(&report.hint),
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}
