//! The leader's second path to the death of a machine: it lets nodes visit each other now and then, and
//! where one's session broke or has fallen silent it asks those who have reached it whether its machine
//! lives. What they testify is one input more of the judgement of nodes, and hastens it; without it
//! silence decides, as always.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use skep_model::id::NodeId;
use skep_model::node::NodeStatus;
use skep_model::probe::Reach;
use skep_state::State;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::Parts;
use crate::agents::fleet::{Suspect, Suspicion};
use crate::agents::relay::Relay;
use crate::witness::book::{Doors, Visit};
use crate::witness::decide::{Verdict, verdict};
use crate::witness::round::{self, Round};

/// How often the book is looked at for visits that are due.
const VISITS_EVERY: Duration = Duration::from_secs(2);
/// How often at least it is looked for suspects.
const LOOK: Duration = Duration::from_secs(1);
/// Least time from one look to the next: many nodes that come or go together are a few looks.
const GAP: Duration = Duration::from_millis(50);
/// Visits under way: each takes two seconds at most.
const VISITS_MAX: usize = 1_024;
/// What a round may take: a knock's patience, a name's, and the ways there and back.
const ROUND: Duration = Duration::from_millis(1_500);
/// From the end of a round to the next one for the same suspect: its machine may go after its agent.
const AGAIN: Duration = Duration::from_millis(500);

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts) {
    parts.witnesses.begin();
    tokio::join!(visit(parts), watch(parts));
}

fn doors(view: &State, node: NodeId) -> Option<Doors> {
    Doors::of(&view.node(node)?.facts)
}

/// Keeps the book of who has reached whom.
async fn visit(parts: &Parts) {
    let mut look = interval(VISITS_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut visits: JoinSet<(Visit, Option<Vec<Reach>>)> = JoinSet::new();
    loop {
        tokio::select! {
            _ = look.tick() => {}
            Some(done) = visits.join_next() => {
                if let Ok((visit, Some(found))) = done {
                    write_down(parts, &visit, &found);
                }
                continue;
            }
        }
        let view = parts.store.view();
        let sound = parts.fleet.suspicion().sound;
        let nodes: BTreeMap<NodeId, Doors> = (sound.iter())
            .filter_map(|node| Some((*node, doors(&view, *node)?)))
            .collect();
        let now = Instant::now();
        let due = match visits.len() < VISITS_MAX {
            true => parts.witnesses.with(|book| book.plan(&nodes, now)),
            false => Vec::new(),
        };
        for visit in due {
            let relay = parts.relay.clone();
            visits.spawn(async move {
                let found = relay.probe(visit.witness, visit.targets.clone()).await;
                (visit, found)
            });
        }
        let could = parts.witnesses.with(|book| {
            let has = |node: &&NodeId| {
                let at = nodes.get(*node);
                let doors = |node| nodes.get(&node).cloned();
                at.is_some_and(|at| round::plan(book, (**node, at), &sound, doors, now).is_some())
            };
            nodes.keys().filter(has).count()
        });
        parts.witnesses.set_witnessed(could);
    }
}

fn write_down(parts: &Parts, visit: &Visit, found: &[Reach]) {
    let now = Instant::now();
    parts.witnesses.with(|book| {
        let reached = visit.targets.iter().zip(found);
        for (target, _) in reached.filter(|(_, reach)| **reach == Reach::Itself) {
            book.reached(visit.witness, target, now);
        }
    });
}

/// What is under way for suspects.
#[derive(Default)]
struct Rounds {
    running: JoinSet<(Suspect, Verdict)>,
    asked: BTreeSet<NodeId>,
    /// Not to be asked for again before that.
    rests: BTreeMap<NodeId, Instant>,
    is_outage: bool,
}

/// Asks for whoever is suspect, and hands over what was testified.
async fn watch(parts: &Parts) {
    let mut changed = parts.fleet.changed();
    let mut rounds = Rounds::default();
    loop {
        changed.mark_unchanged();
        let wake_at = rounds.begin(parts);
        tokio::select! {
            // An end means that the fleet is gone, and this task with it.
            _ = changed.changed() => sleep(GAP).await,
            () = sleep_until(wake_at.into()) => {}
            Some(done) = rounds.running.join_next() => {
                if let Ok((suspect, verdict)) = done {
                    rounds.end(parts, &suspect, verdict);
                }
            }
        }
    }
}

impl Rounds {
    /// Begins a round for each suspect that has none; answers when to look again.
    fn begin(&mut self, parts: &Parts) -> Instant {
        let now = Instant::now();
        self.rests.retain(|_, until| *until > now);
        let view = parts.store.view();
        let Suspicion {
            mut suspects,
            sound,
            recent,
            look_again,
        } = parts.fleet.suspicion();
        suspects.retain(|suspect| {
            let node = view.node(suspect.node);
            node.is_some_and(|node| node.status != NodeStatus::Lost)
        });
        let is_outage = round::is_outage(suspects.len(), recent, sound.len());
        if is_outage && !self.is_outage {
            let suspects = suspects.len();
            tracing::warn!(
                suspects,
                recent,
                "too many nodes fail at once to ask for each: silence decides"
            );
        }
        self.is_outage = is_outage;
        for suspect in suspects.into_iter().filter(|_| !is_outage) {
            let rests = self.rests.contains_key(&suspect.node);
            if rests || self.asked.contains(&suspect.node) {
                continue;
            }
            let Some(at) = doors(&view, suspect.node) else {
                continue;
            };
            let planned = parts.witnesses.with(|book| {
                let doors = |node| doors(&view, node);
                round::plan(book, (suspect.node, &at), &sound, doors, now)
            });
            if let Some(round) = planned {
                self.asked.insert(suspect.node);
                let relay = parts.relay.clone();
                self.running.spawn(async move {
                    let verdict = ask(&relay, round).await;
                    (suspect, verdict)
                });
            }
        }
        let rests = self.rests.values().copied();
        rests
            .chain(look_again)
            .min()
            .map_or(now + LOOK, |at| at.min(now + LOOK))
    }

    fn end(&mut self, parts: &Parts, suspect: &Suspect, verdict: Verdict) {
        self.asked.remove(&suspect.node);
        self.rests.insert(suspect.node, Instant::now() + AGAIN);
        let node = suspect.node;
        match verdict {
            Verdict::Gone(witnesses) => {
                let broke = suspect.broke;
                if parts.fleet.condemn(suspect, witnesses) {
                    tracing::info!(%node, broke, "those who had reached a node find its machine gone");
                }
            }
            Verdict::Lives => tracing::debug!(%node, "its machine lives, say those who reach it"),
            Verdict::Unknown => tracing::debug!(%node, "nobody can tell whether its machine lives"),
        }
    }
}

/// Asks all witnesses in the same moment.
async fn ask(relay: &Relay, round: Round) -> Verdict {
    let mut answers = JoinSet::new();
    for ask in round.asks {
        let relay = relay.clone();
        answers.spawn(async move {
            let targets = vec![ask.suspect.clone(), ask.control.clone()];
            let found = timeout(ROUND, relay.probe(ask.witness, targets)).await;
            ask.testimony(found.ok().flatten().as_deref())
        });
    }
    let mut testimonies = Vec::new();
    while let Some(answer) = answers.join_next().await {
        testimonies.extend(answer.ok().flatten());
        // One sign of life is all there is to know.
        if let Verdict::Lives = verdict(round.needed, &testimonies) {
            return Verdict::Lives;
        }
    }
    verdict(round.needed, &testimonies)
}
