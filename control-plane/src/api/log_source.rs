//! Where a deployment's log is read: here, or at the server whose history holds the build's lines. Each
//! numbers events for itself, so this keeps apart what a reader got from whom. Never follows a log.

use std::collections::BTreeMap;

use skep_model::deployment::MAX_STEPS;
use skep_model::id::{DeploymentId, ServerId};
use skep_model::problem::{Code, Problem};

use super::App;
use super::nodes::unavailable;
use crate::history::journal::Holder;
use crate::history::{Ask, Event, EventKind, Page};

/// Who is asked for events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The own history.
    Here,
    /// Another server's.
    At(ServerId),
}

/// Whom to ask, and who holds lines that are not shown then: a build whose node went over to another
/// server has its log in two places.
fn choose(holders: &[Holder]) -> (Source, Vec<ServerId>) {
    let source = match holders.last() {
        _ if holders.iter().any(|holder| holder.is_here) => Source::Here,
        Some(newest) => Source::At(newest.server),
        None => Source::Here,
    };
    let others = holders.iter().filter(|holder| !holder.is_here);
    let mut others: Vec<ServerId> = others
        .map(|holder| holder.server)
        .filter(|server| source != Source::At(*server))
        .collect();
    others.dedup();
    (source, others)
}

/// How far a reader has come with each source.
#[derive(Debug)]
struct Passed {
    /// Where it began, in the numbers of the first source that has something for it.
    first: u64,
    cursors: BTreeMap<Source, u64>,
    /// Steps of the timeline that it has; none: nothing was read yet.
    steps: Option<u64>,
}

impl Passed {
    fn new(first: u64) -> Self {
        Self {
            first,
            cursors: BTreeMap::new(),
            steps: None,
        }
    }

    /// After which number to ask this source.
    fn after(&self, source: Source) -> u64 {
        let begin = if self.steps.is_none() { self.first } else { 0 };
        self.cursors.get(&source).copied().unwrap_or(begin)
    }

    /// What of a page the reader does not have: steps are known by their place in the timeline, lines
    /// by their source.
    fn admit(&mut self, source: Source, page: Page) -> Vec<Event> {
        let mut position = page.steps_before;
        let mut new = Vec::with_capacity(page.events.len());
        for event in page.events {
            self.cursors.insert(source, event.seq);
            let had = self.steps.get_or_insert(page.steps_before);
            if event.kind == EventKind::Step {
                position += 1;
                if position <= *had {
                    continue;
                }
                *had = position;
            }
            new.push(event);
        }
        new
    }
}

/// What was read.
pub(super) struct Read {
    /// New events, in order.
    pub(super) events: Vec<Event>,
    /// There were no more.
    pub(super) is_all: bool,
    /// What of the log is not shown, and why.
    pub(super) problems: Vec<Problem>,
}

/// Reads one deployment's log from wherever it is.
pub(super) struct Reader {
    app: App,
    id: DeploymentId,
    passed: Passed,
    source: Source,
}

impl Reader {
    pub(super) fn new(app: App, id: DeploymentId, after: u64) -> Self {
        Self {
            app,
            id,
            passed: Passed::new(after),
            source: Source::Here,
        }
    }

    /// The number of the last event that was read; where it began, if there was none.
    pub(super) fn last(&self) -> u64 {
        let cursor = self.passed.cursors.get(&self.source);
        cursor.copied().unwrap_or(self.passed.first)
    }

    /// Reads on. While the server with the build's log is away the timeline is read here.
    ///
    /// # Errors
    /// The own history does not answer.
    pub(super) async fn read(&mut self, limit: u32) -> Result<Read, Problem> {
        let holders = self.app.history.holders(self.id).await;
        let holders = holders.map_err(|error| unavailable(&error))?;
        let (source, others) = choose(&holders);
        let mut problems = Vec::new();
        problems.extend(others.into_iter().map(|server| self.further(server)));
        self.source = source;
        let page = match source {
            Source::Here => self.here(limit).await?,
            Source::At(server) => match self.at(server, limit).await {
                Ok(page) => page,
                Err(problem) => {
                    problems.push(problem);
                    self.source = Source::Here;
                    self.here(limit).await?
                }
            },
        };
        Ok(Read {
            is_all: page.events.len() < limit as usize,
            events: self.passed.admit(self.source, page),
            problems,
        })
    }

    /// Steps that the state has here and the server with the log has not told: it may be behind.
    pub(super) async fn rest(&mut self) -> Vec<Event> {
        match (self.source, self.here(MAX_STEPS as u32).await) {
            (Source::At(_), Ok(page)) => self.passed.admit(Source::Here, page),
            _ => Vec::new(),
        }
    }

    /// Returns when the other server has more; never while the log is read here.
    ///
    /// # Errors
    /// That server does not answer.
    pub(super) async fn news(&self) -> Result<(), Problem> {
        let holders = self.app.history.holders(self.id).await;
        match choose(&holders.unwrap_or_default()).0 {
            Source::At(server) => self.ask(server, (1, true)).await.map(drop),
            Source::Here => std::future::pending().await,
        }
    }

    async fn here(&self, limit: u32) -> Result<Page, Problem> {
        let after = self.passed.after(Source::Here);
        let page = self.app.history.page(self.id, after, limit).await;
        page.map_err(|error| unavailable(&error))
    }

    async fn at(&self, server: ServerId, limit: u32) -> Result<Page, Problem> {
        let is_own = server == self.app.own.neighbours.own();
        let page = match is_own {
            // The history that held it is not the one that is here now.
            true => Page::default(),
            false => self.ask(server, (limit, false)).await?,
        };
        if page.holds_log {
            return Ok(page);
        }
        let name = self.name(server);
        let text = format!(
            "the build log was in a history of server `{name}` that is no more in use there"
        );
        Err(Problem::new(Code::NotFound, text).hint(
            "it was lost, or the server writes to another database now: `skep server history copy` carries \
             a file over",
        ))
    }

    async fn ask(&self, server: ServerId, (limit, wait): (u32, bool)) -> Result<Page, Problem> {
        let ask = Ask {
            deployment: self.id,
            after: self.passed.after(Source::At(server)),
            limit,
            wait,
            index: self.app.store.view().index(),
        };
        let page = self.app.elsewhere.events(server, ask).await;
        page.map_err(|why| {
            let name = self.name(server);
            let text = format!(
                "the build log is at server `{name}`, which does not give it: {}",
                why.message
            );
            Problem::new(Code::Unavailable, text).hint(
                "it is shown again when that server is back; `skep server ls` shows the servers",
            )
        })
    }

    fn further(&self, server: ServerId) -> Problem {
        let name = self.name(server);
        let text = format!(
            "server `{name}` holds a part of this build's log, too: the builder's node changed servers"
        );
        Problem::new(Code::Unavailable, text).hint("ask that server for the deployment's log")
    }

    fn name(&self, server: ServerId) -> String {
        let view = self.app.store.view();
        let known = view.servers().find(|known| known.id == server);
        known.map_or_else(|| server.to_string(), |known| known.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Source = Source::At(ServerId::from_u128(1));
    const B: Source = Source::At(ServerId::from_u128(2));

    fn holder(server: u128, since_ms: u64, is_here: bool) -> Holder {
        Holder {
            server: ServerId::from_u128(server),
            since_ms,
            is_here,
        }
    }

    /// `s` is a step, `l` a line; numbered on from `after`.
    fn page(after: u64, steps_before: u64, kinds: &str) -> Page {
        let event = |(kind, seq): (char, u64)| Event {
            seq,
            at_ms: 0,
            kind: match kind {
                's' => EventKind::Step,
                _ => EventKind::Log,
            },
            text: String::new(),
        };
        Page {
            events: kinds.chars().zip(after + 1..).map(event).collect(),
            steps_before,
            holds_log: true,
        }
    }

    fn numbers(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn the_log_is_read_where_it_is() {
        let servers = |ids: &[u128]| ids.iter().map(|id| ServerId::from_u128(*id)).collect();
        for (holders, source, others) in [
            (vec![], Source::Here, servers(&[])),
            (vec![holder(1, 5, true)], Source::Here, servers(&[])),
            (vec![holder(1, 5, false)], A, servers(&[])),
            (
                vec![holder(1, 5, false), holder(2, 6, false)],
                B,
                servers(&[1]),
            ),
            (
                vec![holder(1, 5, true), holder(2, 6, false)],
                Source::Here,
                servers(&[2]),
            ),
        ] {
            assert_eq!(choose(&holders), (source, others), "{holders:?}");
        }
    }

    #[test]
    fn a_reader_who_goes_over_to_the_log_gets_each_step_once() {
        let mut passed = Passed::new(0);
        assert_eq!(
            numbers(&passed.admit(Source::Here, page(0, 0, "ss"))),
            [1, 2]
        );
        // The log turns out to be elsewhere: it begins there, without the steps that were seen.
        assert_eq!(passed.after(A), 0);
        assert_eq!(
            numbers(&passed.admit(A, page(0, 0, "sllsls"))),
            [2, 3, 5, 6]
        );
        // That server goes away: what happens meanwhile is told from here.
        assert_eq!(passed.after(Source::Here), 2);
        assert_eq!(numbers(&passed.admit(Source::Here, page(2, 2, "ss"))), [4]);
        // It is back: lines alone are new.
        assert_eq!(passed.after(A), 6);
        assert_eq!(numbers(&passed.admit(A, page(6, 3, "lsl"))), [7, 9]);
        // The builder went over to another server.
        assert_eq!(numbers(&passed.admit(B, page(0, 0, "ssssls"))), [5, 6]);
    }

    #[test]
    fn a_reader_who_comes_back_goes_on_where_it_was() {
        let mut passed = Passed::new(50);
        // Nothing here is that far: the number is another server's.
        assert!(passed.admit(Source::Here, page(50, 2, "")).is_empty());
        assert_eq!(passed.after(A), 50);
        assert_eq!(numbers(&passed.admit(A, page(50, 1, "ls"))), [51, 52]);
        assert_eq!(passed.after(Source::Here), 0);
        assert!(passed.admit(Source::Here, page(0, 0, "ss")).is_empty());
    }
}
