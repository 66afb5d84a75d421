//! What repositories are asked, and what is found there.

use skep_model::id::ServiceId;
use skep_model::polling::{
    Ask, Came, Found, History, MAX_COMMITS, MAX_FILES, MAX_MESSAGE, MAX_READ, MAX_READS, MAX_WANTS,
    Polled, Read, Seen, Tip, Want, Wanted,
};
use skep_model::problem::Problem;

use super::build::{fetch_in, fetch_out, variable_in, variable_out};
use super::{Error, cut, error, id_bits, id_bytes, problem};
use crate::v1;

/// Longest name of a branch or tag, in bytes.
const MAX_NAME: usize = 1_000;
/// Longest path of a file, in bytes.
const MAX_PATH: usize = 4_096;

impl From<&Ask> for v1::SourceAsk {
    fn from(ask: &Ask) -> Self {
        Self {
            // Given by whoever sends it.
            request: 0,
            repository: ask.repository.clone(),
            fetch: fetch_out(&ask.fetch),
            variables: ask.variables.iter().map(variable_out).collect(),
            wants: ask.wants.iter().map(want_out).collect(),
            read: ask.read.as_ref().map(|read| v1::SourceRead {
                paths: read.paths.clone(),
                unless: read.unless.clone(),
            }),
        }
    }
}

impl TryFrom<v1::SourceAsk> for Ask {
    type Error = Error;

    fn try_from(message: v1::SourceAsk) -> Result<Self, Error> {
        let wants = message.wants.into_iter().take(MAX_WANTS).map(want_in);
        Ok(Self {
            repository: message.repository,
            fetch: fetch_in(message.fetch),
            variables: message.variables.into_iter().map(variable_in).collect(),
            wants: wants.collect::<Result<_, Error>>()?,
            read: message.read.map(|read| Read {
                paths: read.paths.into_iter().take(MAX_READS).collect(),
                unless: read.unless,
            }),
        })
    }
}

fn want_out(want: &Want) -> v1::SourceWant {
    let since = want.since.clone();
    match &want.of {
        Wanted::Branch(name) => v1::SourceWant {
            branch: name.clone(),
            since,
            ..v1::SourceWant::default()
        },
        Wanted::Tags { pattern, known } => v1::SourceWant {
            tags: pattern.clone(),
            known: known.clone(),
            since,
            ..v1::SourceWant::default()
        },
    }
}

fn want_in(message: v1::SourceWant) -> Result<Want, Error> {
    let of = match (message.branch.is_empty(), message.tags.is_empty()) {
        (false, true) => Wanted::Branch(message.branch),
        (true, false) => Wanted::Tags {
            pattern: message.tags,
            known: message.known,
        },
        _ => return Err(error("branch")),
    };
    Ok(Want {
        of,
        since: message.since,
    })
}

/// What a node found, as it is sent.
pub fn found_out(found: &Found) -> v1::SourceFound {
    match found {
        Ok(tips) => v1::SourceFound {
            tips: tips
                .iter()
                .map(|tip| tip.as_ref().map_or_else(v1::SourceTip::default, tip_out))
                .collect(),
            ..v1::SourceFound::default()
        },
        Err(problem) => v1::SourceFound {
            problem: Some(problem.into()),
            ..v1::SourceFound::default()
        },
    }
}

/// What a node says that it found.
///
/// # Errors
/// A commit that is none.
pub fn found_in(message: v1::SourceFound) -> Result<Found, Error> {
    if let Some(problem) = problem(message.problem)? {
        return Ok(Err(problem_cut(problem)));
    }
    let tips = message.tips.into_iter().take(MAX_WANTS).map(tip_in);
    Ok(Ok(tips.collect::<Result<_, Error>>()?))
}

/// It is kept in the state: a node says no more than a person reads.
fn problem_cut(problem: Problem) -> Problem {
    Problem {
        message: cut(problem.message, MAX_MESSAGE),
        field: problem.field.map(|field| cut(field, MAX_NAME)),
        hint: problem.hint.map(|hint| cut(hint, MAX_MESSAGE)),
        ..problem
    }
}

fn tip_out(tip: &Tip) -> v1::SourceTip {
    let commit = |one: &Came| v1::SourceCommit {
        id: one.id.clone(),
        message: one.message.clone(),
        files: one.files.clone(),
    };
    v1::SourceTip {
        commit: tip.commit.clone(),
        name: tip.name.clone(),
        has_known: tip.has_known,
        commits: tip.history.commits.iter().map(commit).collect(),
        lists_all: tip.history.lists_all,
        is_forced: tip.history.is_forced,
        files: tip.files.iter().map(seen_out).collect(),
    }
}

fn seen_out(seen: &Seen) -> v1::SourceFile {
    let (kind, id, text) = match seen {
        Seen::Nothing => (1, "", ""),
        Seen::File(text) => (2, "", &**text),
        Seen::Folder(id) => (3, &**id, ""),
        Seen::Refused(why) => (4, "", &**why),
    };
    v1::SourceFile {
        kind,
        id: id.to_owned(),
        text: text.to_owned(),
    }
}

fn seen_in(message: v1::SourceFile) -> Result<Seen, Error> {
    Ok(match message.kind {
        1 => Seen::Nothing,
        2 if message.text.len() <= MAX_READ => Seen::File(message.text),
        3 if message.id.len() <= 64 => Seen::Folder(message.id),
        4 => Seen::Refused(cut(message.text, MAX_MESSAGE)),
        _ => return Err(error("files")),
    })
}

fn tip_in(message: v1::SourceTip) -> Result<Option<Tip>, Error> {
    if message.commit.is_empty() {
        return Ok(None);
    }
    let is_whole = matches!(message.commit.len(), 40 | 64);
    if !is_whole || !message.commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(error("commit"));
    }
    let has_room = message.commits.len() <= MAX_COMMITS;
    let files: usize = message.commits.iter().map(|one| one.files.len()).sum();
    let lists_all = message.lists_all && has_room && files <= MAX_FILES;
    let commits = message
        .commits
        .into_iter()
        .take(MAX_COMMITS)
        .map(|one| Came {
            id: cut(one.id, 64),
            message: cut(one.message, MAX_MESSAGE),
            files: one
                .files
                .into_iter()
                .take(MAX_FILES)
                .map(|it| cut(it, MAX_PATH))
                .collect(),
        });
    Ok(Some(Tip {
        name: cut(message.name, MAX_NAME),
        commit: message.commit.to_ascii_lowercase(),
        has_known: message.has_known,
        history: History {
            commits: commits.collect(),
            lists_all,
            is_forced: message.is_forced,
        },
        files: message
            .files
            .into_iter()
            .take(MAX_READS)
            .map(seen_in)
            .collect::<Result<_, Error>>()?,
    }))
}

impl From<&Polled> for v1::Polled {
    fn from(polled: &Polled) -> Self {
        Self {
            service: id_bytes(polled.service.as_u128()),
            repository: polled.repository.clone(),
            reference: polled.reference.clone(),
            tag: polled.tag.clone(),
            commit: polled.commit.clone(),
            problem: polled.problem.as_ref().map(Into::into),
            since_ms: polled.since_ms,
        }
    }
}

impl TryFrom<v1::Polled> for Polled {
    type Error = Error;

    fn try_from(message: v1::Polled) -> Result<Self, Error> {
        Ok(Self {
            service: ServiceId::from_u128(id_bits("service", &message.service)?),
            repository: message.repository,
            reference: message.reference,
            tag: message.tag,
            commit: message.commit,
            problem: problem(message.problem)?,
            since_ms: message.since_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tip() -> Tip {
        Tip {
            name: "main".into(),
            commit: "a".repeat(40),
            has_known: true,
            history: History {
                commits: vec![Came {
                    id: "a".repeat(40),
                    message: "a change".into(),
                    files: vec!["api/a.rs".into()],
                }],
                lists_all: true,
                is_forced: false,
            },
            files: vec![
                Seen::File("services:".into()),
                Seen::Folder("c".repeat(40)),
                Seen::Nothing,
                Seen::Refused("too large".into()),
            ],
        }
    }

    #[test]
    fn questions_and_answers_survive_the_way() {
        let wants = vec![
            Want {
                of: Wanted::Branch("main".into()),
                since: Some("b".repeat(40)),
            },
            Want {
                of: Wanted::Tags {
                    pattern: "v*".into(),
                    known: Some("v1".into()),
                },
                since: None,
            },
        ];
        let ask = Ask {
            repository: "https://forge.test/shop.git".into(),
            fetch: skep_model::build::Fetch {
                token: Some("TOKEN".into()),
                ..Default::default()
            },
            variables: vec![skep_model::assignment::BuildVariable {
                name: "TOKEN".into(),
                value: "t".into(),
                secret: true,
            }],
            wants,
            read: Some(Read {
                paths: vec!["compose.yaml".into()],
                unless: Some("b".repeat(40)),
            }),
        };
        assert_eq!(Ask::try_from(v1::SourceAsk::from(&ask)), Ok(ask));
        for found in [
            Ok(vec![Some(tip()), None]),
            Err(Problem::invalid("repository", "away").hint("look")),
        ] {
            assert_eq!(found_in(found_out(&found)), Ok(found));
        }
        let polled = Polled {
            service: ServiceId::from_u128(7),
            repository: "r".into(),
            reference: "refs/heads/main".into(),
            tag: None,
            commit: Some("c".into()),
            problem: Some(Problem::invalid("branch", "gone")),
            since_ms: 9,
        };
        assert_eq!(Polled::try_from(v1::Polled::from(&polled)), Ok(polled));
    }

    #[test]
    fn a_node_says_no_more_than_is_wanted() {
        let odd = |change: &dyn Fn(&mut v1::SourceTip)| {
            let mut message = found_out(&Ok(vec![Some(tip())]));
            change(&mut message.tips[0]);
            found_in(message)
        };
        assert!(odd(&|tip| tip.commit = "a".repeat(39)).is_err());
        assert!(odd(&|tip| tip.commit = "x".repeat(40)).is_err());
        let found = odd(&|tip| tip.commits = vec![tip.commits[0].clone(); MAX_COMMITS + 1]);
        let tips = found.expect("read").expect("no problem");
        let history = &tips[0].as_ref().expect("there").history;
        assert_eq!(
            (history.commits.len(), history.lists_all),
            (MAX_COMMITS, false)
        );
        let neither = v1::SourceWant::default();
        assert!(want_in(neither).is_err());
    }
}
