//! How carrying a file out goes on: what can be done now, what waits for others, and whether all is done that can be.

use std::collections::BTreeMap;

use skep_model::deployment::Status;
use skep_model::problem::{Code, Problem};
use skep_model::stack::{Change, Prune, Stack};

use super::{Current, File, Turn, turn};

/// What is next for a service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next {
    /// This.
    Do(Box<Turn>),
    /// Its deployment is on its way, or an older service of its name is going.
    Wait,
    /// Nothing: it is as the file says, and runs.
    Done,
    /// Nothing: why it is not as the file says.
    Failed(String),
}

/// What there is of a service.
#[derive(Debug, Clone, Copy)]
pub(crate) enum There<'a> {
    /// Nothing.
    Nothing,
    /// One that is being removed.
    Going,
    /// This.
    Service(Current<'a>),
}

/// How carrying a file out goes on.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Course {
    /// What is to be done, by service.
    pub(crate) turns: Vec<(String, Turn)>,
    /// All is done that can be: with what is not in force, and why.
    pub(crate) end: Option<Option<Problem>>,
    /// Members that go now.
    pub(crate) prune: bool,
}

/// What is next. `there` says what there is of a service, `refused` what the cluster did not take of it.
pub(crate) fn course<'a>(
    stack: &Stack,
    file: &File,
    there: impl Fn(&str) -> There<'a>,
    refused: &BTreeMap<String, Problem>,
) -> Course {
    let number = stack.reading.as_ref().map_or(0, |it| it.number);
    let mut known: BTreeMap<&str, Next> = BTreeMap::new();
    let mut course = Course::default();
    for wanted in &file.services {
        let mut next = match there(&wanted.name) {
            There::Going => Next::Wait,
            There::Nothing => Next::Do(Box::new(turn(wanted, None, number))),
            There::Service(current) if current.member.is_none() && !stack.settings.adopt => {
                Next::Failed(taken())
            }
            There::Service(current) => of_service(&current, turn(wanted, Some(current), number)),
        };
        if let Some(problem) = refused.get(&wanted.name) {
            next = Next::Failed(problem.to_string());
        }
        if let Next::Do(turn) = &next {
            match held_by(wanted.depends_on.iter(), &known) {
                Some((_, Next::Failed(_))) if turn.change != Change::Set => {
                    let names = wanted.depends_on.iter();
                    let on = held_by(names, &known).map_or("", |(name, _)| name);
                    next = Next::Failed(format!("it depends on `{on}`, which is not live"));
                }
                Some(_) if turn.change != Change::Set => next = Next::Wait,
                _ => course.turns.push((wanted.name.clone(), (**turn).clone())),
            }
        }
        known.insert(&wanted.name, next);
    }
    let is_open = known
        .values()
        .any(|it| matches!(it, Next::Do(_) | Next::Wait));
    if !is_open {
        let failed: Vec<String> = known
            .iter()
            .filter_map(|(name, next)| match next {
                Next::Failed(why) => Some(format!("{name}: {why}")),
                _ => None,
            })
            .collect();
        course.prune = failed.is_empty() && stack.settings.prune == Prune::Auto;
        course.end = Some(problem_of(&failed));
    }
    course
}

/// The dependency that holds a service up; one that has failed before one that is on its way.
fn held_by<'a, 'b>(
    names: impl Iterator<Item = &'a String>,
    known: &'b BTreeMap<&str, Next>,
) -> Option<(&'a str, &'b Next)> {
    let held = names.filter_map(|name| match known.get(name.as_str())? {
        Next::Done => None,
        next => Some((name.as_str(), next)),
    });
    held.min_by_key(|(_, next)| !matches!(next, Next::Failed(_)))
}

fn of_service(current: &Current<'_>, turn: Turn) -> Next {
    if turn.change != Change::Same {
        return Next::Do(Box::new(turn));
    }
    let Some(newest) = current.newest else {
        return Next::Done;
    };
    match newest.status {
        status if status.is_active() => Next::Wait,
        Status::Failed | Status::Canceled => {
            let why = newest.problem.as_ref().map(|it| it.message.as_str());
            Next::Failed(why.unwrap_or("its deployment was canceled").to_owned())
        }
        _ => Next::Done,
    }
}

fn taken() -> String {
    "there is a service of that name that is not the stack's: `skep stack connect --adopt` makes it so"
        .to_owned()
}

fn problem_of(failed: &[String]) -> Option<Problem> {
    if failed.is_empty() {
        return None;
    }
    let text = format!("not as the file says: {}", failed.join("; "));
    let end = text.floor_char_boundary(MAX_PROBLEM);
    Some(
        Problem::new(Code::Conflict, &text[..end])
            .hint("the next push tries again, and so does `skep stack sync`"),
    )
}

/// Longest text of what is not in force, in bytes.
const MAX_PROBLEM: usize = 4_000;
