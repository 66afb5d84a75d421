//! The leader's care for stacks: their files are read by nodes that build, and carried out service by service. What a
//! file means and what is next is `stacks`' to say. What is in memory here may go at any moment: the next leader reads
//! the file again, and what is done already it finds in the state.

mod ask;
mod carry;

use std::collections::BTreeMap;
use std::time::Duration;

use skep_model::id::EnvironmentId;
use skep_model::problem::Problem;
use skep_model::stack::Stack;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Change, State};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::stacks::due::{self, Memory};
use crate::stacks::{File, reading};
use crate::store::now_ms;
use ask::{Asked, Heard};

/// Files that are read at a time.
const ASKS_MAX: usize = 8;
/// Longest sleep: what a missed change costs.
const PERIOD: Duration = Duration::from_secs(30);
/// Least time from one look at all stacks to the next.
const GAP: Duration = Duration::from_millis(200);

/// Pause before what the cluster refused is tried again, in ms.
const TRY_AGAIN_MS: u64 = 1_000;

/// What is known of one stack for as long as this server leads.
#[derive(Debug, Default)]
struct Entry {
    memory: Memory,
    /// The file that is carried out, with the generation and the number of its reading.
    file: Option<(u64, u64, File)>,
    /// Services whose change the cluster refused, how often, and why.
    refused: BTreeMap<String, (u32, Problem)>,
}

struct Desk {
    began_ms: u64,
    entries: BTreeMap<EnvironmentId, Entry>,
}

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut changes = parts.store.consensus().changes();
    let mut desk = Desk {
        began_ms: now_ms(),
        entries: BTreeMap::new(),
    };
    let mut asks: JoinSet<Asked> = JoinSet::new();
    let mut wake_at = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(wake_at) => {
                let sleep = desk.look(parts, &mut asks).await;
                wake_at = Instant::now() + sleep;
            }
            Some(done) = asks.join_next() => {
                if let Ok(asked) = done {
                    desk.take(parts, asked).await;
                }
                wake_at = Instant::now();
            }
            batch = changes.recv() => match batch {
                Ok(batch) if !batch.changes.iter().any(concerns) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => wake_at = wake_at.min(Instant::now() + GAP),
                Err(RecvError::Closed) => return,
            },
            () = token.cancelled() => return,
        }
    }
}

/// Whether a stack may be asked for, or may go on.
fn concerns(change: &Change) -> bool {
    matches!(
        change,
        Change::Stack(_)
            | Change::Service(_)
            | Change::ServiceDropped(_)
            | Change::Deployment(_)
            | Change::Node(_)
    )
}

impl Desk {
    /// Begins to read what is due, and goes on with what was read; answers how long nothing else is to be done.
    async fn look(&mut self, parts: &Parts, asks: &mut JoinSet<Asked>) -> Duration {
        let view = parts.store.view();
        self.entries.retain(|id, _| view.stack(*id).is_some());
        let mut next_ms: Option<u64> = None;
        for stack in view.stacks() {
            let entry = self.entries.entry(stack.environment).or_default();
            entry.forget_older(stack);
            let now = now_ms();
            match due::at_ms(stack, entry.memory, self.began_ms) {
                Some(at_ms) if at_ms <= now && asks.len() < ASKS_MAX => {
                    entry.memory.asked_ms = Some(now);
                    match ask::begin(parts, &view, (stack, entry.memory), asks) {
                        true => entry.memory.is_asking = true,
                        // Nobody is there to be asked; a node that comes wakes us.
                        false => entry.memory.unheard += 1,
                    }
                }
                Some(at_ms) => next_ms = Some(next_ms.map_or(at_ms, |it| it.min(at_ms))),
                None => {}
            }
            if carry::go_on(parts, stack.environment, entry).await {
                let again_ms = now_ms() + TRY_AGAIN_MS;
                next_ms = Some(next_ms.map_or(again_ms, |it| it.min(again_ms)));
            }
        }
        let pause = next_ms.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms())));
        pause.unwrap_or(PERIOD).clamp(GAP, PERIOD)
    }

    /// Keeps what came of a question, as far as it is new.
    async fn take(&mut self, parts: &Parts, asked: Asked) {
        let view = parts.store.view();
        let Some(entry) = self.entries.get_mut(&asked.environment) else {
            return;
        };
        entry.memory.is_asking = false;
        entry.memory.unheard = match asked.heard {
            Heard::Nothing => entry.memory.unheard + 1,
            _ => 0,
        };
        let Some(stack) = view.stack(asked.environment) else {
            return;
        };
        // By other settings it would be another file.
        if stack.generation != asked.generation {
            return;
        }
        let Some(command) = entry.meaning(parts, &view, stack, asked) else {
            return;
        };
        if let Err(problem) = parts.store.propose(command).await {
            tracing::warn!(%problem, "what a stack's file says was not taken");
            entry.file = None;
            entry.memory.has_file = false;
        }
        // The number of the reading was given where it was obeyed.
        let view = parts.store.view();
        let number = view
            .stack(stack.environment)
            .and_then(|it| it.reading.as_ref())
            .map(|it| it.number);
        if let (Some((_, kept, _)), Some(number)) = (&mut entry.file, number) {
            *kept = number;
        }
    }
}

impl Entry {
    /// What was read by other settings, or is not the newest any more, is not carried out.
    fn forget_older(&mut self, stack: &Stack) {
        let number = stack.reading.as_ref().map(|it| it.number);
        let is_over = stack.reading.as_ref().is_some_and(|it| it.end.is_some());
        let is_current = |(generation, kept, _): &(u64, u64, File)| {
            *generation == stack.generation && Some(*kept) == number && !is_over
        };
        if !self.file.as_ref().is_some_and(is_current) {
            self.file = None;
            self.refused.clear();
        }
        self.memory.has_file = self.file.is_some();
    }

    /// The command that what was heard calls for; none: it is known.
    fn meaning(
        &mut self,
        parts: &Parts,
        view: &State,
        stack: &Stack,
        asked: Asked,
    ) -> Option<Kind> {
        let is_wanted = asked.asked > stack.answered;
        let mut message = v1::TakeReading {
            environment: id_bytes(stack.environment.as_u128()),
            generation: stack.generation,
            asked: asked.asked,
            ..v1::TakeReading::default()
        };
        match asked.heard {
            Heard::Nothing => return None,
            Heard::Known(commit) => {
                let trouble = stack.trouble.as_ref()?;
                if trouble.commit.as_ref() == Some(&commit) {
                    return None;
                }
                message.commit = Some(commit);
            }
            Heard::Trouble { commit, problem } => {
                let known = stack.trouble.as_ref();
                let is_known = known.is_some_and(|it| it.commit == commit && it.problem == problem);
                if is_known && !is_wanted {
                    return None;
                }
                tracing::warn!(environment = %stack.environment, %problem, "a stack's file is not carried out");
                message.commit = commit;
                message.trouble = Some((&problem).into());
            }
            Heard::File(file) => {
                let known = stack.reading.as_ref().filter(|it| it.commit == file.commit);
                let number = stack.reading.as_ref().map_or(0, |it| it.number);
                self.refused.clear();
                self.memory.has_file = true;
                let is_same = known.is_some() && !is_wanted;
                let people = carry::people(parts, view, stack, &file);
                let taken = reading(stack, &file, |name| people.there(name));
                message.commit = Some(file.commit.clone());
                self.file = Some((stack.generation, number, *file));
                // Another leader had read it, and this one carries it on.
                if is_same {
                    return None;
                }
                message.reading = Some((&taken).into());
            }
        }
        Some(Kind::TakeReading(message))
    }
}
