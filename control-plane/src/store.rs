//! The one way to read and change the replicated state from within the server: proposals with the
//! server's clock in them, seen through to the leader wherever it is, and views.

mod attempt;
mod forward;
mod freshness;
mod scope;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skep_model::problem::{Code, Problem};
use skep_proto::LEVEL_SERVERS;
use skep_proto::v1::command::Kind;
use skep_state::{KEY_FIELD, Repeat, Reply, State, command, name};
use tokio::time::Instant;

use crate::consensus;
use crate::consensus::handle::{Error, READ_DEADLINE};
use crate::machine::Machine;
use attempt::{Attempt, changed, problem};
use freshness::Freshness;
use scope::Scope;

pub use attempt::DEADLINE;
pub use forward::{Forward, ForwardError, Forwarded};
pub use freshness::UNAWARE;

/// Attempts of a read-change-write before the caller is told that others keep changing the thing.
const MAX_ATTEMPTS: usize = 16;

/// A write that is committed, and shown by this server's views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What came of it.
    pub reply: Reply,
    /// Its index in the log.
    pub index: u64,
    /// Nothing was done now: an earlier command under the same key was, and `reply` is its reply. What
    /// the caller drew for this one (ids, secrets) is not in the state.
    pub is_replayed: bool,
}

/// Reads and changes the replicated state. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    consensus: consensus::Handle<Machine>,
    forward: Option<Arc<dyn Forward>>,
    freshness: Freshness,
    scope: Option<Arc<Scope>>,
    deadline: Duration,
}

impl Store {
    /// Over a consensus service; without a way to other servers. Within a tokio runtime.
    pub fn new(consensus: consensus::Handle<Machine>) -> Self {
        Self {
            freshness: Freshness::follow(consensus.group()),
            consensus,
            forward: None,
            scope: None,
            deadline: DEADLINE,
        }
    }

    /// With a way to the leader, for when this server does not lead.
    pub fn with_forward(mut self, forward: Arc<dyn Forward>) -> Self {
        self.forward = Some(forward);
        self
    }

    /// For one request that a caller may send again under the same key: what was done for it once is
    /// not done again, and its replies are the first ones. The same key with another `request` (any
    /// bytes that say what it asks) is refused with `Conflict`.
    pub fn with_request(&self, key: &[u8], request: &[u8]) -> Self {
        Self {
            scope: Some(Arc::new(Scope::new(key, request))),
            ..self.clone()
        }
    }

    /// Proposes a command and waits until it is applied, here too.
    ///
    /// # Errors
    /// What the state machine refused, or why the command could not be committed within [`DEADLINE`].
    pub async fn propose(&self, kind: Kind) -> Result<Reply, Problem> {
        Ok(self.write(kind).await?.reply)
    }

    /// [`Store::propose`], with where the command is in the log.
    ///
    /// # Errors
    /// As [`Store::propose`].
    pub async fn write(&self, kind: Kind) -> Result<Written, Problem> {
        let (_, result) = self.submit(kind).await?;
        result
    }

    /// Makes a command from the newest state until it is accepted: a conflict means that the state
    /// moved on meanwhile, and the command is made again from the new one.
    ///
    /// # Errors
    /// What `make` or the state machine refused, or `Conflict` when others keep changing the thing.
    pub async fn change<F>(&self, mut make: F) -> Result<Reply, Problem>
    where
        F: FnMut(&State) -> Result<Kind, Problem>,
    {
        let mut last = Problem::new(Code::Conflict, "the state keeps changing");
        for _ in 0..MAX_ATTEMPTS {
            let view = self.consensus.view();
            let seen = view.index();
            let (was_stale, result) = match self.submit(make(&view)?).await? {
                (Place::Log(index), result) => (index > seen + 1, result),
                // An earlier request's conflict: what it did next, it did under the next key.
                (Place::Past, result) => (true, result),
            };
            match result {
                // Its next command would have a key that is not used yet.
                Err(problem) if problem.field.as_deref() == Some(KEY_FIELD) => return Err(problem),
                // Only a conflict with something that `make` could not see yet is worth another try.
                Err(problem) if problem.code == Code::Conflict && was_stale => last = problem,
                other => return other.map(|written| written.reply),
            }
        }
        Err(last)
    }

    async fn submit(&self, kind: Kind) -> Result<(Place, Result<Written, Problem>), Problem> {
        if self.consensus.view().check_command(&kind).is_err() {
            // The level may have risen while this server was behind.
            self.read().await?.check_command(&kind)?;
        }
        let key = self.scope.as_ref().map(|scope| scope.next(name(&kind)));
        let since = self.consensus.view().index();
        let attempt = Attempt::new(command(now_ms(), kind), key, since);
        let (index, answer) = self.see_through(attempt).await?;
        let is_replayed = answer.repeat == Repeat::Replayed;
        let place = if is_replayed {
            Place::Past
        } else {
            Place::Log(index)
        };
        let written = answer.outcome.map(|reply| Written {
            reply,
            index,
            is_replayed,
        });
        Ok((place, written))
    }

    /// Whether a command that was sent can be sent again without being obeyed twice.
    fn remembers_keys(&self) -> bool {
        self.consensus.view().feature_level() >= LEVEL_SERVERS
    }

    /// The newest state applied here: free, and never older than what this server has answered.
    pub fn view(&self) -> State {
        self.consensus.view()
    }

    /// At most this old is what [`Store::view`] shows: 0 on a server that is alone, [`UNAWARE`] where a
    /// leader is known and all that it committed is applied, else that and the time since.
    pub fn view_age(&self) -> Duration {
        self.freshness.age()
    }

    /// A state at least as new as every write acknowledged before the call, by any server.
    ///
    /// # Errors
    /// No leader answers.
    pub async fn read(&self) -> Result<State, Problem> {
        let deadline = Instant::now() + READ_DEADLINE;
        let mut leadership = self.consensus.leadership();
        loop {
            leadership.borrow_and_update();
            let error = match self.consensus.read().await {
                Ok(view) => return Ok(view),
                Err(error) => error,
            };
            if !matches!(error, Error::NotLeader { .. } | Error::NotReady) {
                return Err(problem(&error));
            }
            tokio::time::timeout_at(deadline, changed(&mut leadership))
                .await
                .map_err(|_| problem(&error))??;
        }
    }

    /// The consensus service itself: feed, leadership, metrics.
    pub fn consensus(&self) -> &consensus::Handle<Machine> {
        &self.consensus
    }
}

/// Where a command had its effect.
enum Place {
    /// At this index.
    Log(u64),
    /// In an earlier command with the same key.
    Past,
}

/// The server's clock, ms since the epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
