//! One write until it is answered: here where this server leads, else at the leader, again as often as
//! leadership moves. Owns which retries are safe; a write is obeyed at most once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use skep_identity::random;
use skep_model::problem::{Code, Problem};
use skep_state::{Answer, Key, Repeat, with_key};
use tokio::time::Instant;

use super::{ForwardError, Store};
use crate::consensus::handle::Error;
use crate::consensus::{Leadership, StateMachine as _};
use crate::machine::Machine;

/// From the first try to the answer.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// First and longest wait before the leader is asked again where nothing here tells that it is ready.
const BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_millis(320);

/// A command on its way.
pub(super) struct Attempt {
    /// Without a key, or with the caller's.
    plain: Vec<u8>,
    is_callers: bool,
    /// Under a key of this server: from the first time that it leaves it.
    own: Option<Vec<u8>>,
    /// Index before which the command cannot be in the log.
    since: u64,
    /// An earlier try may have been, or may yet be, obeyed.
    is_unknown: bool,
    /// Whom the last server that was asked holds for the leader.
    hint: Option<u64>,
    backoff: Duration,
}

/// What to do after a try.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// It is answered.
    Answer(u64, Answer),
    /// At once, at this member.
    Forward(u64),
    /// As soon as leadership changes.
    AfterChange,
    /// As soon as leadership changes, or after a while.
    AfterBackoff,
    /// At once.
    Again,
    /// Never.
    Fail(Problem),
}

impl Attempt {
    pub(super) fn new(command: Vec<u8>, key: Option<Key>, since: u64) -> Self {
        let is_callers = key.is_some();
        Self {
            plain: match key {
                Some(key) => with_key(command, key),
                None => command,
            },
            is_callers,
            own: None,
            since,
            is_unknown: false,
            hint: None,
            backoff: BACKOFF,
        }
    }

    /// What is proposed here.
    fn local(&self) -> Vec<u8> {
        self.own.as_ref().unwrap_or(&self.plain).clone()
    }

    /// What is sent elsewhere.
    fn remote(&mut self) -> Vec<u8> {
        if self.is_callers {
            return self.plain.clone();
        }
        let (plain, since) = (&self.plain, self.since);
        self.own
            .get_or_insert_with(|| {
                let key = random::bytes();
                with_key(plain.clone(), Key::Own { key, since })
            })
            .clone()
    }

    fn after_local(&mut self, result: Result<(u64, Answer), Error>) -> Next {
        match result {
            Ok((index, answer)) => self.answered(index, answer),
            Err(Error::NotLeader { leader }) => match self.hint.take().or(leader) {
                Some(leader) => Next::Forward(leader),
                None => Next::AfterChange,
            },
            // It hands leadership on, and that may fail without anybody else being elected.
            Err(Error::NotReady) => Next::AfterBackoff,
            // Not in the log, and never will be.
            Err(Error::Superseded) => Next::Again,
            Err(error) => Next::Fail(problem(&error)),
        }
    }

    /// `is_keyed`: the cluster remembers keys, so that what was sent can be sent again.
    fn after_forward(
        &mut self,
        result: Result<(u64, Answer), ForwardError>,
        is_keyed: bool,
    ) -> Next {
        match result {
            Ok((index, answer)) => self.answered(index, answer),
            Err(ForwardError::NotTaken { leader }) => {
                self.hint = leader;
                Next::AfterBackoff
            }
            Err(ForwardError::Unknown) if is_keyed => {
                self.is_unknown = true;
                Next::AfterBackoff
            }
            Err(ForwardError::Unknown) => Next::Fail(unknown()),
        }
    }

    fn answered(&mut self, index: u64, answer: Answer) -> Next {
        if answer.repeat != Repeat::TooLate {
            return Next::Answer(index, answer);
        }
        if self.is_unknown {
            return Next::Fail(unknown());
        }
        // Nothing else is under way: this server's state is only far behind the leader's. A new key,
        // and what was refused at `index` cannot be in the log before it.
        self.own = None;
        self.since = index;
        Next::Again
    }
}

impl Store {
    /// Sees a command through.
    pub(super) async fn see_through(&self, attempt: Attempt) -> Result<(u64, Answer), Problem> {
        let deadline = Instant::now() + self.deadline;
        // Whether the deadline strikes while the command may be on its way decides what is known.
        let is_out = AtomicBool::new(false);
        tokio::time::timeout_at(
            deadline,
            self.try_until_answered(attempt, deadline, &is_out),
        )
        .await
        .unwrap_or_else(|_| {
            Err(if is_out.load(Ordering::Relaxed) {
                unknown()
            } else {
                no_leader()
            })
        })
    }

    async fn try_until_answered(
        &self,
        mut attempt: Attempt,
        deadline: Instant,
        is_out: &AtomicBool,
    ) -> Result<(u64, Answer), Problem> {
        let mut leadership = self.consensus.leadership();
        loop {
            leadership.borrow_and_update();
            is_out.store(true, Ordering::Relaxed);
            let result = self.consensus.propose_indexed(attempt.local()).await;
            let mut next = attempt.after_local(result);
            if let Next::Forward(leader) = next {
                let Some(forward) = &self.forward else {
                    return Err(problem(&Error::NotLeader {
                        leader: Some(leader),
                    }));
                };
                let sent = forward.forward(leader, attempt.remote()).await;
                let result = match sent {
                    Ok((index, bytes)) => Ok((index, self.arrived(index, &bytes, deadline).await?)),
                    Err(error) => Err(error),
                };
                next = attempt.after_forward(result, self.remembers_keys());
            }
            is_out.store(attempt.is_unknown, Ordering::Relaxed);
            match next {
                Next::Answer(index, answer) => return Ok((index, answer)),
                Next::Fail(problem) => return Err(problem),
                Next::Forward(_) | Next::Again => {}
                Next::AfterChange => changed(&mut leadership).await?,
                Next::AfterBackoff => {
                    let wait = attempt.backoff;
                    attempt.backoff = (wait * 2).min(MAX_BACKOFF);
                    tokio::select! {
                        changed = changed(&mut leadership) => changed?,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// The answer of the leader, once this server's own state shows what it speaks of.
    async fn arrived(
        &self,
        index: u64,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<Answer, Problem> {
        let answer = Machine::decode_outcome(bytes).map_err(|reason| {
            let text = format!("the leader's answer is not understood here: {reason}");
            Problem::new(Code::Internal, text).hint("do all servers run the same version?")
        })?;
        self.consensus
            .wait_applied(index, deadline.saturating_duration_since(Instant::now()))
            .await
            .map_err(|_| {
                Problem::new(
                    Code::Unavailable,
                    "the write is done, but this server does not show it yet",
                )
                .hint("read again in a moment, or at another server")
            })?;
        Ok(answer)
    }
}

pub(super) async fn changed(
    leadership: &mut tokio::sync::watch::Receiver<Leadership>,
) -> Result<(), Problem> {
    let stopped = |_| problem(&Error::Stopped);
    leadership.changed().await.map_err(stopped)
}

fn unknown() -> Problem {
    Problem::new(
        Code::Unavailable,
        "the leader did not answer; the write may or may not have been done",
    )
    .hint("look before you repeat it, or repeat it under the same Idempotency-Key")
}

fn no_leader() -> Problem {
    Problem::new(
        Code::Unavailable,
        "no server leads, and none came to lead while the write waited",
    )
    .hint("more than half of the servers must run and reach each other: `skep server ls`")
}

/// What an error of consensus means for whoever asked.
pub(super) fn problem(error: &Error) -> Problem {
    let code = match error {
        Error::TooLarge { .. } => Code::TooLarge,
        Error::Busy => Code::Busy,
        _ => Code::Unavailable,
    };
    Problem::new(code, error.to_string())
        .hint("try again; `skep status` tells whether the servers have a leader")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_late() -> Answer {
        Answer {
            outcome: Err(Problem::new(Code::Timeout, "too late")),
            repeat: Repeat::TooLate,
        }
    }

    #[test]
    fn a_key_that_may_be_forgotten_is_drawn_anew_only_while_nothing_is_unknown() {
        let mut attempt = Attempt::new(vec![8, 1], None, 5);
        let first = attempt.remote();
        assert_eq!(attempt.remote(), first, "one key for every try");
        assert_eq!(
            attempt.after_forward(Ok((90, too_late())), true),
            Next::Again
        );
        assert!(attempt.remote() != first && attempt.since == 90);
        let lost = attempt.after_forward(Err(ForwardError::Unknown), true);
        assert_eq!(lost, Next::AfterBackoff);
        let next = attempt.after_forward(Ok((99, too_late())), true);
        assert_eq!(next, Next::Fail(unknown()));
    }

    #[test]
    fn where_keys_mean_nothing_a_lost_answer_is_not_asked_for_again() {
        let mut attempt = Attempt::new(vec![8, 1], None, 5);
        let lost = attempt.after_forward(Err(ForwardError::Unknown), false);
        assert_eq!(lost, Next::Fail(unknown()));
    }
}
