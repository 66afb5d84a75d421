//! The one way to read and change the replicated state from within the server: proposals with the
//! server's clock in them, and views.

use std::time::{SystemTime, UNIX_EPOCH};

use skep_model::problem::{Code, Problem};
use skep_proto::v1::command::Kind;
use skep_state::{Reply, State, command};

use crate::consensus;
use crate::machine::Machine;

/// Attempts of a read-change-write before the caller is told that others keep changing the thing.
const MAX_ATTEMPTS: usize = 16;

/// Reads and changes the replicated state. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    consensus: consensus::Handle<Machine>,
}

impl Store {
    /// Over a running consensus service.
    pub fn new(consensus: consensus::Handle<Machine>) -> Self {
        Self { consensus }
    }

    /// Proposes a command and waits until it is applied.
    ///
    /// # Errors
    /// What the state machine refused, or why the command could not be committed.
    pub async fn propose(&self, kind: Kind) -> Result<Reply, Problem> {
        self.consensus
            .propose(command(now_ms(), kind))
            .await
            .map_err(problem)?
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
            match self.propose(make(&view)?).await {
                // Only a conflict with something that `make` could not see yet is worth another try.
                Err(problem)
                    if problem.code == Code::Conflict
                        && self.consensus.view().index() > seen + 1 =>
                {
                    last = problem;
                }
                other => return other,
            }
        }
        Err(last)
    }

    /// The newest state applied here: free, and never older than what this server has answered.
    pub fn view(&self) -> State {
        self.consensus.view()
    }

    /// A state at least as new as every write acknowledged before the call, by any server.
    ///
    /// # Errors
    /// No leader answers.
    pub async fn read(&self) -> Result<State, Problem> {
        self.consensus.read().await.map_err(problem)
    }

    /// The consensus service itself: feed, leadership, metrics.
    pub fn consensus(&self) -> &consensus::Handle<Machine> {
        &self.consensus
    }
}

/// The server's clock, ms since the epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn problem(error: consensus::handle::Error) -> Problem {
    let hint = "try again; `skep status` tells whether the servers have a leader";
    Problem::new(Code::Unavailable, error.to_string()).hint(hint)
}
