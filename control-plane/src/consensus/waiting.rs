//! Who waits for what: proposals for their index, reads for theirs.
//!
//! Owns the open replies, and gives each exactly one answer. Never blocks.

use super::handle::{Error, Reply};
use super::machine::StateMachine;
use skep_raft_core::{Accepted, ReadState, Refused};
use std::collections::{BTreeMap, HashMap};
use tokio::sync::OwnedSemaphorePermit;

struct Waiter<T> {
    reply: Reply<T>,
    /// Held until answered, so that what is in flight counts as queued.
    _room: OwnedSemaphorePermit,
}

impl<T> Waiter<T> {
    fn answer(self, answer: Result<T, Error>) {
        // Whoever asked may have gone away; then nobody needs the answer.
        let _gone = self.reply.send(answer);
    }
}

/// An answer that is given only after the state it speaks of can be seen.
pub(super) struct Answer<T> {
    waiter: Waiter<T>,
    result: Result<T, Error>,
}

impl<T> Answer<T> {
    pub(super) fn give(self) {
        self.waiter.answer(self.result);
    }
}

/// Proposals, first without a place in the log, then by index.
pub(super) struct Proposals<M: StateMachine> {
    next_id: u64,
    placeless: HashMap<u64, Waiter<M::Outcome>>,
    placed: BTreeMap<u64, (u64, Waiter<M::Outcome>)>,
}

impl<M: StateMachine> Proposals<M> {
    pub(super) fn new() -> Self {
        Self {
            next_id: 0,
            placeless: HashMap::new(),
            placed: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, reply: Reply<M::Outcome>, room: OwnedSemaphorePermit) -> u64 {
        self.next_id += 1;
        self.placeless
            .insert(self.next_id, Waiter { reply, _room: room });
        self.next_id
    }

    pub(super) fn accept(&mut self, accepted: &[Accepted]) {
        for &Accepted { id, index, term } in accepted {
            let Some(waiter) = self.placeless.remove(&id) else {
                continue;
            };
            if let Some((_, older)) = self.placed.insert(index, (term, waiter)) {
                older.answer(Err(Error::Superseded));
            }
        }
    }

    pub(super) fn refuse(&mut self, refused: &[Refused]) {
        for &Refused { id, reason } in refused {
            if let Some(waiter) = self.placeless.remove(&id) {
                waiter.answer(Err(reason.into()));
            }
        }
    }

    /// Matches what was applied at `index` with the proposal that waits there; `None` as the
    /// outcome stands for an entry that was no command.
    pub(super) fn settle(
        &mut self,
        index: u64,
        term: u64,
        outcome: Option<M::Outcome>,
    ) -> Option<Answer<M::Outcome>> {
        let (proposed_in, waiter) = self.placed.remove(&index)?;
        let outcome = outcome.filter(|_| proposed_in == term);
        Some(Answer {
            waiter,
            result: outcome.ok_or(Error::Superseded),
        })
    }
}

type ReadWaiters<V> = Vec<Waiter<(u64, V)>>;

/// Reads, first without an index, then by index.
pub(super) struct Reads<M: StateMachine> {
    next_ctx: u64,
    asked: HashMap<u64, ReadWaiters<M::View>>,
    parked: BTreeMap<u64, ReadWaiters<M::View>>,
    gathering: ReadWaiters<M::View>,
}

impl<M: StateMachine> Reads<M> {
    /// `first_ctx` must differ from run to run: an answer that comes late, to a read of an
    /// earlier run, must not be taken for one of this run.
    pub(super) fn new(first_ctx: u64) -> Self {
        Self {
            next_ctx: first_ctx,
            asked: HashMap::new(),
            parked: BTreeMap::new(),
            gathering: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, reply: Reply<(u64, M::View)>, room: OwnedSemaphorePermit) {
        self.gathering.push(Waiter { reply, _room: room });
    }

    /// One question to the group for all reads gathered so far.
    pub(super) fn ask(&mut self) -> Option<u64> {
        if self.gathering.is_empty() {
            return None;
        }
        self.next_ctx = self.next_ctx.wrapping_add(1);
        self.asked
            .insert(self.next_ctx, std::mem::take(&mut self.gathering));
        Some(self.next_ctx)
    }

    pub(super) fn park(&mut self, states: &[ReadState]) {
        for &ReadState { ctx, index } in states {
            if let Some(waiters) = self.asked.remove(&ctx) {
                self.parked.entry(index).or_default().extend(waiters);
            }
        }
    }

    pub(super) fn refuse(&mut self, refused: &[Refused]) {
        for &Refused { id, reason } in refused {
            for waiter in self.asked.remove(&id).into_iter().flatten() {
                waiter.answer(Err(reason.into()));
            }
        }
    }

    /// A change of term drops open questions without a word.
    pub(super) fn forget(&mut self, leader: Option<u64>) {
        for waiter in std::mem::take(&mut self.asked).into_values().flatten() {
            waiter.answer(Err(Error::NotLeader { leader }));
        }
    }

    pub(super) fn serve(&mut self, index: u64, view: impl Fn() -> M::View) {
        while let Some(entry) = self.parked.first_entry()
            && *entry.key() <= index
        {
            for waiter in entry.remove() {
                waiter.answer(Ok((index, view())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_raft_core::Reason;
    use std::sync::Arc;
    use tokio::sync::{Semaphore, oneshot};

    struct Echo;

    impl StateMachine for Echo {
        type View = ();
        type Outcome = u64;
        type Change = ();

        fn apply(&mut self, index: u64, _command: &[u8]) -> (u64, Vec<()>) {
            (index, Vec::new())
        }

        fn view(&self) {}

        fn encode((): &()) -> Vec<u8> {
            Vec::new()
        }

        fn restore(&mut self, _bytes: &[u8]) -> Result<(), String> {
            Ok(())
        }
    }

    fn room(all: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        all.clone().try_acquire_owned().unwrap()
    }

    #[test]
    fn each_proposal_gets_one_answer_and_never_another_ones() {
        let all = Arc::new(Semaphore::new(4));
        let mut proposals = Proposals::<Echo>::new();
        let add = |proposals: &mut Proposals<Echo>| {
            let (reply, answer) = oneshot::channel();
            (proposals.add(reply, room(&all)), answer)
        };
        let (kept, mut kept_answer) = add(&mut proposals);
        let (lost, mut lost_answer) = add(&mut proposals);
        let (replaced, mut replaced_answer) = add(&mut proposals);
        let (refused, mut refused_answer) = add(&mut proposals);
        let place = |id, index| Accepted { id, index, term: 2 };
        proposals.accept(&[place(kept, 5), place(lost, 6), place(replaced, 7)]);
        let reason = Reason::NotLeader { leader: Some(9) };
        proposals.refuse(&[Refused {
            id: refused,
            reason,
        }]);
        proposals.settle(5, 2, Some(50)).unwrap().give();
        proposals.settle(6, 3, Some(60)).unwrap().give();
        proposals.settle(7, 2, None).unwrap().give();
        assert!(proposals.settle(8, 2, Some(80)).is_none());
        assert_eq!(kept_answer.try_recv(), Ok(Ok(50)));
        assert_eq!(lost_answer.try_recv(), Ok(Err(Error::Superseded)));
        assert_eq!(replaced_answer.try_recv(), Ok(Err(Error::Superseded)));
        assert_eq!(
            refused_answer.try_recv(),
            Ok(Err(Error::NotLeader { leader: Some(9) }))
        );
        assert_eq!(all.available_permits(), 4);
    }

    #[test]
    fn reads_wait_for_their_index_and_are_dropped_with_the_term() {
        let all = Arc::new(Semaphore::new(2));
        let mut reads = Reads::<Echo>::new(u64::MAX);
        let (reply, mut parked) = oneshot::channel();
        reads.add(reply, room(&all));
        let ctx = reads.ask().unwrap();
        let (reply, mut forgotten) = oneshot::channel();
        reads.add(reply, room(&all));
        reads.ask().unwrap();
        assert_eq!(reads.ask(), None);
        reads.park(&[ReadState { ctx, index: 5 }]);
        reads.forget(None);
        assert_eq!(
            forgotten.try_recv(),
            Ok(Err(Error::NotLeader { leader: None }))
        );
        reads.serve(4, || ());
        assert!(parked.try_recv().is_err());
        reads.serve(6, || ());
        assert_eq!(parked.try_recv(), Ok(Ok((6, ()))));
        assert_eq!(all.available_permits(), 2);
    }
}
