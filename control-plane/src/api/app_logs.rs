//! What an app writes, across its allocations: relayed from the nodes, merged by time, stored nowhere
//! here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use skep_model::allocation::Allocation;
use skep_model::id::{AllocationId, ServiceId};
use skep_model::problem::Problem;
use skep_proto::v1::{LogChunk, LogLine};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Path, Query};
use super::find::{self, ServiceKey};
use super::merge::{Merge, Next, Patience};
use super::stream::{self, Feed};
use super::types::{AppLine, LostLines};
use super::{App, Here};
use crate::agents::relay::{Ask, Lines};

/// Lines to begin with, of each allocation, where the caller does not say.
const DEFAULT_TAIL: u32 = 100;
/// A log that ended while its allocation lives is asked for again after this: its container is
/// being started anew, which nothing tells of when it comes up at once.
const AGAIN: Duration = Duration::from_secs(2);
/// Longest expression: the nodes refuse longer ones, too.
const GREP_MAX: usize = 1_024;
/// Without a reason to look earlier.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Which lines.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct LineRange {
    /// Go on as lines come, and as allocations come and go.
    follow: bool,
    /// Newest lines of each allocation to begin with; 0: all. 100 where neither this nor `after` is
    /// given.
    tail: Option<u32>,
    /// Only lines after this time, ns since the epoch.
    after: u64,
    /// Only lines before this time, ns since the epoch; 0: all. Not with `follow`.
    until: u64,
    /// Only lines that this regular expression is found in. It is matched at the nodes.
    grep: String,
    /// Only this allocation, also if it has ended.
    #[param(value_type = Option<String>)]
    allocation: Option<AllocationId>,
}

impl LineRange {
    fn check(&self) -> Result<(), Problem> {
        if self.follow && self.until > 0 {
            let text = "a log that ends at a time is not followed";
            return Err(Problem::invalid("until", text).hint("leave out `follow` or `until`"));
        }
        if self.grep.len() > GREP_MAX {
            let text = format!("it is longer than {GREP_MAX} bytes");
            return Err(Problem::invalid("grep", text));
        }
        Ok(())
    }
}

/// Reads what a service's allocations write, in the order of time: one JSON document a line (`AppLine`), or server-sent
/// events `line` and `problem` with the same data where `Accept: text/event-stream` asks for them;
/// an event's id is the newest time so far and `Last-Event-ID` resumes after it. Where Docker turned
/// lines over before they were read, a line with `lost` says how much.
#[utoipa::path(get,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/logs",
    tag = "services", params(ServiceKey, LineRange), operation_id = "read_service_logs",
    responses((status = 200, content(
        (AppLine = "application/x-ndjson"), (String = "text/event-stream")))))]
pub(super) async fn read(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Query(range): Query<LineRange>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let service = find::service(&app.store.view(), &key)?.id;
    range.check()?;
    let place = stream::place(&app)?;
    let last = stream::last_event_id(&headers);
    let after = last.unwrap_or(range.after);
    let tail = range
        .tail
        .unwrap_or(if after == 0 { DEFAULT_TAIL } else { 0 });
    let begin = Cursor {
        after_ns: after,
        tail,
        ..Cursor::default()
    };
    let patience = match range.follow {
        true => Patience::FOLLOWING,
        false => Patience::READING,
    };
    let (queue, lines) = mpsc::channel(stream::QUEUE);
    let follower = Follower {
        app,
        service,
        only: range.allocation,
        follow: range.follow,
        until_ns: range.until,
        grep: range.grep.into(),
        queue,
        logs: FuturesUnordered::new(),
        merge: Merge::new(patience),
        idle: BTreeMap::new(),
        open: BTreeSet::new(),
        is_ending: false,
        cursors: BTreeMap::new(),
    };
    tokio::spawn(async move {
        let _place = place;
        // A reader who goes away is how most of these end.
        let _ = follower.run(begin).await;
    });
    if !stream::wants_events(&headers) {
        return Ok(stream::lines(lines));
    }
    let mut newest_ns = after;
    Ok(stream::events(ReceiverStream::new(lines).map(
        move |line| {
            newest_ns = newest_ns.max(line.at_ns);
            message(&line, newest_ns)
        },
    )))
}

fn message(line: &AppLine, newest_ns: u64) -> axum::response::sse::Event {
    match &line.problem {
        None => stream::event("line", line).id(newest_ns.to_string()),
        Some(_) => stream::event("problem", line),
    }
}

/// A part of one allocation's log, none: it has ended; and the log, to be read on.
type Part = (AllocationId, Option<LogChunk>, Lines);

/// How far an allocation's log has been read.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    /// Time of the last line, ns since the epoch.
    after_ns: u64,
    /// Newest lines to begin with; 0: all after `after_ns`.
    tail: u32,
    /// A problem was told, and no line came since.
    was_told: bool,
    /// Not asked for again before this.
    not_before: Option<Instant>,
}

struct Follower {
    app: App,
    service: ServiceId,
    only: Option<AllocationId>,
    follow: bool,
    until_ns: u64,
    grep: Arc<str>,
    queue: mpsc::Sender<AppLine>,
    /// Logs of which the next lines are awaited.
    logs: FuturesUnordered<BoxFuture<'static, Part>>,
    /// What has come of them.
    merge: Merge,
    /// Logs of which there are lines that have not gone on.
    idle: BTreeMap<AllocationId, Lines>,
    /// Allocations whose log is being read.
    open: BTreeSet<AllocationId>,
    /// What is left of the one that was asked for by itself is being read.
    is_ending: bool,
    /// Allocations that were asked for.
    cursors: BTreeMap<AllocationId, Cursor>,
}

/// The reader has gone.
struct Over;

impl Follower {
    /// Reads until every log has ended, or, following, until the reader or the service has gone.
    async fn run(mut self, begin: Cursor) -> Result<(), Over> {
        // Open before the first look: no change after it is missed.
        let mut feed = Feed::open(&self.app);
        let mut fleet = self.app.fleet.changed();
        let mut again = self.open_missing(begin).await?;
        while !self.open.is_empty() || self.may_go_on() {
            let due = self.pass_on().await?;
            self.ask_on();
            let woken = tokio::select! {
                Some(part) = self.logs.next(), if !self.logs.is_empty() => {
                    self.take(part).await?;
                    true
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => true,
                goes_on = feed.allocations(self.service), if self.follow => goes_on,
                _ = fleet.changed(), if self.follow => {
                    self.cursors.values_mut().for_each(|cursor| cursor.not_before = None);
                    true
                }
                () = sleep_until(again), if self.follow => true,
                () = self.queue.closed() => false,
            };
            if !woken {
                return Ok(());
            }
            if self.follow {
                let begin = self.turn_to_the_rest();
                again = self.open_missing(begin).await?;
            }
        }
        self.open.iter().for_each(|id| self.merge.close(*id));
        self.pass_on().await?;
        Ok(())
    }

    /// Passes on what is in order. Answers when there may be more without any more coming.
    async fn pass_on(&mut self) -> Result<Option<Instant>, Over> {
        loop {
            match self.merge.next(Instant::now()) {
                Next::Line(id, line) => self.pass(id, *line).await?,
                Next::Wait(until) => return Ok(until),
            }
        }
    }

    /// Reads on in those logs of which everything has gone on.
    fn ask_on(&mut self) {
        let merge = &self.merge;
        let empty = self.idle.extract_if(.., |id, _| merge.is_empty(*id));
        self.logs
            .extend(empty.map(|(id, lines)| next_part(id, lines)));
    }

    /// One that was asked for by itself has ended, and its container may stay: instead of waiting for
    /// more, what is left is read once, from where it has been read to.
    fn turn_to_the_rest(&mut self) -> Cursor {
        let ended = self.only.filter(|id| {
            let view = self.app.store.view();
            view.allocation(*id).is_some_and(|one| !one.is_live())
        });
        let Some(id) = ended.filter(|_| !std::mem::replace(&mut self.is_ending, ended.is_some()))
        else {
            return Cursor::default();
        };
        self.logs = FuturesUnordered::new();
        self.idle.clear();
        self.open.iter().for_each(|id| self.merge.close(*id));
        self.open.clear();
        let read = self.cursors.remove(&id).unwrap_or_default();
        Cursor {
            was_told: false,
            not_before: None,
            ..read
        }
    }

    fn may_go_on(&self) -> bool {
        let view = self.app.store.view();
        // One that was asked for by itself is followed to its end.
        let is_over = self.only.is_some_and(|id| {
            let ended = view.allocation(id).is_none_or(|one| !one.is_live());
            ended && self.cursors.contains_key(&id)
        });
        self.follow && !is_over && view.service(self.service).is_some()
    }

    /// Asks for the logs that should be read and are not; new ones from `begin`. Answers when to do
    /// so again at the latest.
    async fn open_missing(&mut self, begin: Cursor) -> Result<Instant, Over> {
        let now = Instant::now();
        let mut again = now + LONGEST_SLEEP;
        let view = self.app.store.view();
        let all = view.allocations_of(self.service).map(|of| &**of);
        for allocation in wanted(all, self.only) {
            let id = allocation.id;
            let cursor = self.cursors.get(&id).copied();
            // An allocation that has ended is read once.
            let is_done = self.open.contains(&id) || (cursor.is_some() && !allocation.is_live());
            let cursor = cursor.unwrap_or(begin);
            if is_done {
                continue;
            }
            if let Some(at) = cursor.not_before.filter(|at| *at > now) {
                again = again.min(at);
                continue;
            }
            let ask = Ask {
                allocation: id,
                node: allocation.node,
                follow: self.follow && allocation.is_live(),
                tail: cursor.tail,
                after_ns: cursor.after_ns,
                until_ns: self.until_ns,
                grep: Arc::clone(&self.grep),
            };
            self.cursors.insert(
                id,
                Cursor {
                    not_before: Some(now + AGAIN),
                    ..cursor
                },
            );
            match self.app.relay.open(ask) {
                Ok(lines) => {
                    self.open.insert(id);
                    self.merge.open(id, now);
                    self.logs.push(next_part(id, lines));
                }
                Err(problem) => {
                    again = again.min(now + AGAIN);
                    self.tell(id, problem).await?;
                }
            }
        }
        Ok(again)
    }

    async fn take(&mut self, (id, chunk, lines): Part) -> Result<(), Over> {
        let Some(chunk) = chunk else {
            self.open.remove(&id);
            self.merge.close(id);
            let again = Some(Instant::now() + AGAIN);
            self.cursors
                .entry(id)
                .and_modify(|cursor| cursor.not_before = again);
            return Ok(());
        };
        self.idle.insert(id, lines);
        if let Some(newest) = chunk.lines.last() {
            let cursor = Cursor {
                after_ns: newest.at_ns,
                ..Cursor::default()
            };
            self.cursors.insert(id, cursor);
        }
        self.merge.push(id, chunk.lines, Instant::now());
        match chunk.problem.map(Problem::try_from) {
            Some(Ok(problem)) => self.tell(id, problem).await,
            _ => Ok(()),
        }
    }

    async fn pass(&mut self, id: AllocationId, line: LogLine) -> Result<(), Over> {
        let line = AppLine {
            allocation: id,
            node: self.node_of(id),
            at_ns: line.at_ns,
            stderr: line.stderr,
            text: line.text,
            lost: line.lost.map(|lost| LostLines {
                bytes: lost.bytes,
                at_least: lost.at_least,
            }),
            problem: None,
        };
        self.queue.send(line).await.map_err(|_| Over)
    }

    /// Says once why an allocation's lines cannot be read.
    async fn tell(&mut self, id: AllocationId, problem: Problem) -> Result<(), Over> {
        let cursor = self.cursors.entry(id).or_default();
        if std::mem::replace(&mut cursor.was_told, true) {
            return Ok(());
        }
        let line = AppLine {
            allocation: id,
            node: self.node_of(id),
            at_ns: 0,
            stderr: false,
            text: String::new(),
            lost: None,
            problem: Some(problem),
        };
        self.queue.send(line).await.map_err(|_| Over)
    }

    fn node_of(&self, id: AllocationId) -> String {
        let view = self.app.store.view();
        let node = view
            .allocation(id)
            .and_then(|allocation| view.node(allocation.node));
        node.map_or_else(String::new, |node| node.name.clone())
    }
}

/// The allocations to read: those that live, else the newest that ended; or the one asked for.
fn wanted<'a>(
    all: impl Iterator<Item = &'a Allocation>,
    only: Option<AllocationId>,
) -> Vec<&'a Allocation> {
    let all: Vec<_> = all.collect();
    if let Some(only) = only {
        return all
            .into_iter()
            .filter(|allocation| allocation.id == only)
            .collect();
    }
    let live: Vec<_> = all
        .iter()
        .copied()
        .filter(|allocation| allocation.is_live())
        .collect();
    if live.is_empty() {
        all.last().copied().into_iter().collect()
    } else {
        live
    }
}

/// The next part of a log.
fn next_part(id: AllocationId, mut lines: Lines) -> BoxFuture<'static, Part> {
    Box::pin(async move {
        let chunk = lines.next().await;
        (id, chunk, lines)
    })
}
