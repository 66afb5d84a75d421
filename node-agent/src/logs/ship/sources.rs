//! The logs that one shipper reads, each from where it has been taken to.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::batch::{Author, Batch};
use super::remember;
use crate::ledger::Change;
use crate::logs::files::{Position, Step, Tail, Watch, Watcher};
use crate::logs::places::Places;
use crate::runtime::Runtime;

/// Read of one log at a time, in bytes: a flood in one waits for its turn, the others do not.
const BUDGET: u64 = 256 << 10;
/// Containers that were here before are looked for so long: after the agent's start not all are known.
const SETTLE: Duration = Duration::from_secs(60);
/// Until a log that was out of reach is looked for again.
const AGAIN: Duration = Duration::from_secs(30);

struct Source {
    author: Author,
    tail: Tail,
    watch: Watch,
    /// Turns after which its files were held on to.
    turns: u64,
    /// Where it had come to when that was last written down.
    kept: Position,
    /// There is more than was read.
    has_more: bool,
    /// The container has ended, or is gone.
    is_over: bool,
    is_gone: bool,
    /// Everything of it was read.
    is_done: bool,
}

/// All of them, by container.
pub(super) struct Sources {
    destination: String,
    positions: BTreeMap<String, Position>,
    sources: BTreeMap<String, Source>,
    /// The container that was read last: the next one is the next to be read.
    last: String,
    /// Containers that went while nobody looked.
    stale: Vec<String>,
    /// Containers whose log was out of reach, and when to look again.
    again: BTreeMap<String, Instant>,
    began: Instant,
}

impl Sources {
    pub(super) fn new(destination: String, positions: BTreeMap<String, Position>) -> Self {
        let prefix = format!("{destination} ");
        let own = positions
            .into_iter()
            .filter_map(|(key, at)| Some((key.strip_prefix(&prefix)?.to_owned(), at)));
        Self {
            positions: own.collect(),
            destination,
            sources: BTreeMap::new(),
            last: String::new(),
            stale: Vec::new(),
            again: BTreeMap::new(),
            began: Instant::now(),
        }
    }

    /// Takes in what began and ended, and holds on to files that are about to be turned over.
    pub(super) async fn sync(
        &mut self,
        places: &watch::Receiver<Places>,
        runtime: &Runtime,
        watcher: &Watcher,
    ) {
        let mut fresh = Vec::new();
        {
            let places = places.borrow();
            let mut named: BTreeMap<&str, bool> = BTreeMap::new();
            for (allocation, place) in places.iter() {
                for container in &place.containers {
                    named.insert(&container.id, container.is_over);
                    let again = self.again.get(&container.id);
                    let is_due = again.is_none_or(|at| *at <= Instant::now());
                    if is_due && !self.sources.contains_key(&container.id) {
                        let author = Author {
                            allocation: *allocation,
                            names: place.names.clone(),
                        };
                        fresh.push((container.id.clone(), author));
                    }
                }
            }
            self.again.retain(|id, _| named.contains_key(id.as_str()));
            for (id, source) in &mut self.sources {
                let is_over = named.get(id.as_str()).copied();
                source.is_gone = is_over.is_none();
                source.is_over = is_over.unwrap_or(true);
            }
            if self.began.elapsed() > SETTLE && !places.is_empty() {
                let sources = &self.sources;
                let is_gone = |id: &str| !named.contains_key(id) && !sources.contains_key(id);
                let gone = self.positions.extract_if(.., |id, _| is_gone(id));
                self.stale.extend(gone.map(|(id, _)| id));
            }
        }
        for (id, author) in fresh {
            let Ok(Some(spool)) = runtime.spool(&id).await else {
                self.again.insert(id, Instant::now() + AGAIN);
                continue;
            };
            let watch = watcher.watch(spool.path());
            let position = self.positions.get(&id).copied().unwrap_or_default();
            let turns = watch.turns();
            let opened = spawn_blocking(move || {
                let mut tail = Tail::open(spool, turns)?;
                tail.resume(position);
                std::io::Result::Ok(tail)
            });
            if let Ok(Ok(tail)) = opened.await {
                let source = Source {
                    author,
                    kept: position,
                    tail,
                    watch,
                    turns,
                    has_more: true,
                    is_over: false,
                    is_gone: false,
                    is_done: false,
                };
                self.sources.insert(id, source);
            }
        }
        for source in self.sources.values_mut().filter(|it| !it.is_done) {
            let turns = source.watch.turns();
            if turns != source.turns {
                source.turns = turns;
                // What cannot be read now is told by the reading.
                let _ = source.tail.hold(turns);
            }
        }
    }

    /// Reads on in each log that has news, until the batch is full. None: it panicked.
    pub(super) async fn read(mut self, mut batch: Batch) -> Option<(Self, Batch)> {
        let read = spawn_blocking(move || {
            let behind = self.sources.range::<str, _>((
                std::ops::Bound::Excluded(self.last.as_str()),
                std::ops::Bound::Unbounded,
            ));
            let mut order: Vec<String> = behind.map(|(id, _)| id.clone()).collect();
            let rest = self.sources.range::<str, _>((
                std::ops::Bound::Unbounded,
                std::ops::Bound::Included(self.last.as_str()),
            ));
            order.extend(rest.map(|(id, _)| id.clone()));
            for id in order {
                if batch.is_full() {
                    break;
                }
                if let Some(source) = self.sources.get_mut(&id) {
                    source.read(&mut batch);
                    self.last = id;
                }
            }
            (self, batch)
        });
        read.await.ok()
    }

    /// What is to be remembered, now that what was read has been taken.
    pub(super) fn moved(&mut self) -> Vec<Change> {
        let destination = &self.destination;
        let key = |id: &str| format!("{destination} {id}");
        let stale = self.stale.drain(..);
        let mut changes: Vec<Change> = stale.map(|id| remember(key(&id), None)).collect();
        for (id, source) in &mut self.sources {
            let position = source.tail.position();
            if position != source.kept {
                source.kept = position;
                self.positions.insert(id.clone(), position);
                changes.push(remember(key(id), Some(position)));
            }
        }
        let gone = self
            .sources
            .extract_if(.., |_, source| source.is_done && source.is_gone);
        for (id, _) in gone {
            self.positions.remove(&id);
            changes.push(remember(key(&id), None));
        }
        changes
    }
}

impl Source {
    fn read(&mut self, batch: &mut Batch) {
        let has_news = self.has_more || self.watch.has_news() || self.is_over;
        if self.is_done || !has_news {
            return;
        }
        let is_over = self.is_over;
        let (author, tail) = (&self.author, &mut self.tail);
        let mut take = |line| batch.push(author, line);
        let step = tail.read(self.watch.turns(), BUDGET, &mut take);
        match step {
            Ok(Step::More) => self.has_more = true,
            Ok(Step::End) if !is_over => self.has_more = false,
            Ok(Step::End | Step::Gone) => {
                tail.rest(&mut take);
                self.is_done = true;
            }
            Err(error) => {
                let allocation = author.allocation;
                tracing::warn!(%error, %allocation, "a log cannot be read, hence not be shipped");
                self.is_done = true;
            }
        }
    }
}
