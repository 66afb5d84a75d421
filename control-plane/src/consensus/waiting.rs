//! Who waits for what: proposals for their index, reads for theirs.
//!
//! Owns the open replies, and gives each exactly one answer. Never blocks.

use super::handle::{Error, Reply};
use super::machine::StateMachine;
use skep_raft_core::{Accepted, ReadState, Refused};
use std::collections::{BTreeMap, HashMap, VecDeque};
use tokio::sync::OwnedSemaphorePermit;

pub(super) struct Waiter<T> {
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

/// Who waits for an entry.
pub(super) enum Proposer<M: StateMachine> {
    Command(Waiter<(u64, M::Outcome)>),
    Members(Waiter<()>),
}

impl<M: StateMachine> Proposer<M> {
    pub(super) fn command(reply: Reply<(u64, M::Outcome)>, room: OwnedSemaphorePermit) -> Self {
        Self::Command(Waiter { reply, _room: room })
    }

    pub(super) fn members(reply: Reply<()>, room: OwnedSemaphorePermit) -> Self {
        Self::Members(Waiter { reply, _room: room })
    }

    fn fail(self, error: Error) {
        match self {
            Self::Command(waiter) => waiter.answer(Err(error)),
            Self::Members(waiter) => waiter.answer(Err(error)),
        }
    }
}

/// What became of an entry.
pub(super) enum Fate<M: StateMachine> {
    Applied(M::Outcome),
    Changed,
    /// It holds nothing: a leader's first entry, or a change of members that came too early.
    Empty,
}

/// An answer that is given only after the state it speaks of can be seen.
pub(super) struct Answer<M: StateMachine> {
    proposer: Proposer<M>,
    index: u64,
    fate: Option<Fate<M>>,
}

impl<M: StateMachine> Answer<M> {
    pub(super) fn give(self) {
        match (self.proposer, self.fate) {
            (Proposer::Command(waiter), Some(Fate::Applied(outcome))) => {
                waiter.answer(Ok((self.index, outcome)));
            }
            (Proposer::Members(waiter), Some(Fate::Changed)) => waiter.answer(Ok(())),
            (Proposer::Members(waiter), Some(Fate::Empty)) => {
                let why = "another change of members is under way".to_owned();
                waiter.answer(Err(Error::Refused { why }));
            }
            (proposer, _) => proposer.fail(Error::Superseded),
        }
    }
}

struct Placed<M: StateMachine> {
    index: u64,
    term: u64,
    proposer: Proposer<M>,
}

/// Proposals, first without a place in the log, then by index. Both queues are in order of
/// arrival, which is the order of places.
pub(super) struct Proposals<M: StateMachine> {
    next_id: u64,
    placeless: VecDeque<(u64, Proposer<M>)>,
    placed: VecDeque<Placed<M>>,
}

impl<M: StateMachine> Proposals<M> {
    pub(super) fn new() -> Self {
        Self {
            next_id: 0,
            placeless: VecDeque::new(),
            placed: VecDeque::new(),
        }
    }

    pub(super) fn add(&mut self, proposer: Proposer<M>) -> u64 {
        self.next_id += 1;
        self.placeless.push_back((self.next_id, proposer));
        self.next_id
    }

    /// Answers in the order in which they were fed, accepted and refused ones mixed.
    pub(super) fn settle_places(&mut self, accepted: &[Accepted], refused: Vec<Refused>) {
        let mut accepted = accepted.iter().peekable();
        let mut refused = refused.into_iter().peekable();
        while let Some((id, proposer)) = self.placeless.pop_front() {
            if let Some(place) = accepted.next_if(|place| place.id == id) {
                self.place(place, proposer);
            } else if let Some(refusal) = refused.next_if(|refusal| refusal.id == id) {
                proposer.fail(refusal.reason.into());
            } else {
                self.placeless.push_front((id, proposer));
                return;
            }
        }
    }

    fn place(&mut self, place: &Accepted, proposer: Proposer<M>) {
        // A new term's entries take the places of those that were never committed.
        while let Some(older) = self.placed.pop_back_if(|older| older.index >= place.index) {
            older.proposer.fail(Error::Superseded);
        }
        self.placed.push_back(Placed {
            index: place.index,
            term: place.term,
            proposer,
        });
    }

    /// Matches what was applied at `index` with the proposal that waits there.
    pub(super) fn settle(&mut self, index: u64, term: u64, fate: Fate<M>) -> Option<Answer<M>> {
        let placed = self.placed.pop_front_if(|placed| placed.index <= index)?;
        let is_this = placed.index == index && placed.term == term;
        Some(Answer {
            proposer: placed.proposer,
            index,
            fate: is_this.then_some(fate),
        })
    }

    /// The state was replaced: whether these are in it, nobody here can tell.
    pub(super) fn give_up(&mut self) {
        for placed in self.placed.drain(..) {
            placed.proposer.fail(Error::Unknown);
        }
    }
}

type ReadWaiters<V> = Vec<Waiter<(u64, V)>>;

/// A question without an answer is asked again after so many ticks: its message, or a leader that
/// had only just been elected, may have dropped it.
const ASK_AGAIN_TICKS: u32 = 5;

struct Asked<V> {
    waiters: ReadWaiters<V>,
    ticks: u32,
}

/// Reads, first without an index, then by index.
pub(super) struct Reads<M: StateMachine> {
    next_ctx: u64,
    asked: HashMap<u64, Asked<M::View>>,
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
        let waiters = std::mem::take(&mut self.gathering);
        let asked = Asked { waiters, ticks: 0 };
        self.asked.insert(self.next_ctx, asked);
        Some(self.next_ctx)
    }

    pub(super) fn park(&mut self, states: &[ReadState]) {
        for &ReadState { ctx, index } in states {
            if let Some(asked) = self.asked.remove(&ctx) {
                self.parked.entry(index).or_default().extend(asked.waiters);
            }
        }
    }

    pub(super) fn refuse(&mut self, refused: Vec<Refused>) {
        for Refused { id, reason } in refused {
            for waiter in self.asked.remove(&id).into_iter().flat_map(|it| it.waiters) {
                waiter.answer(Err(reason.clone().into()));
            }
        }
    }

    /// A tick has passed.
    pub(super) fn tick(&mut self) {
        for (_, asked) in self.asked.extract_if(|_, asked| {
            asked.ticks += 1;
            asked.ticks > ASK_AGAIN_TICKS
        }) {
            // Asked again, the answer covers at least what it would have covered.
            self.gathering.extend(asked.waiters);
        }
    }

    /// A change of term drops open questions without a word.
    pub(super) fn forget(&mut self, leader: Option<u64>) {
        let asked = std::mem::take(&mut self.asked).into_values();
        for waiter in asked.flat_map(|it| it.waiters) {
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

        fn encode_outcome(_outcome: &u64) -> Vec<u8> {
            Vec::new()
        }

        fn decode_outcome(_bytes: &[u8]) -> Result<u64, String> {
            Ok(0)
        }
    }

    fn room(all: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        all.clone().try_acquire_owned().unwrap()
    }

    #[test]
    fn each_proposal_gets_one_answer_and_never_another_ones() {
        let all = Arc::new(Semaphore::new(5));
        let mut proposals = Proposals::<Echo>::new();
        let add = |proposals: &mut Proposals<Echo>| {
            let (reply, answer) = oneshot::channel();
            (proposals.add(Proposer::command(reply, room(&all))), answer)
        };
        let (kept, mut kept_answer) = add(&mut proposals);
        let (refused, mut refused_answer) = add(&mut proposals);
        let (lost, mut lost_answer) = add(&mut proposals);
        let (replaced, mut replaced_answer) = add(&mut proposals);
        let place = |id, index, term| Accepted { id, index, term };
        let reason = Reason::NotLeader { leader: Some(9) };
        let refusal = Refused {
            id: refused,
            reason,
        };
        proposals.settle_places(
            &[place(kept, 5, 2), place(lost, 6, 2), place(replaced, 7, 2)],
            vec![refusal],
        );
        let (newer, mut newer_answer) = add(&mut proposals);
        proposals.settle_places(&[place(newer, 7, 4)], Vec::new());
        let mut apply = |index, term, outcome| {
            let fate = Fate::Applied(outcome);
            proposals.settle(index, term, fate).map(Answer::give)
        };
        assert!(apply(5, 2, 50).is_some());
        assert!(apply(6, 3, 60).is_some());
        assert!(apply(7, 4, 70).is_some());
        assert!(apply(8, 4, 80).is_none());
        assert_eq!(kept_answer.try_recv(), Ok(Ok((5, 50))));
        assert_eq!(lost_answer.try_recv(), Ok(Err(Error::Superseded)));
        assert_eq!(replaced_answer.try_recv(), Ok(Err(Error::Superseded)));
        assert_eq!(newer_answer.try_recv(), Ok(Ok((7, 70))));
        assert_eq!(
            refused_answer.try_recv(),
            Ok(Err(Error::NotLeader { leader: Some(9) }))
        );
        assert_eq!(all.available_permits(), 5);
    }

    #[test]
    fn a_change_of_members_that_was_emptied_is_refused_and_a_replaced_state_leaves_it_open() {
        let all = Arc::new(Semaphore::new(2));
        let mut proposals = Proposals::<Echo>::new();
        let mut add = |index| {
            let (reply, answer) = oneshot::channel();
            let id = proposals.add(Proposer::members(reply, room(&all)));
            proposals.settle_places(&[Accepted { id, index, term: 2 }], Vec::new());
            answer
        };
        let (mut emptied, mut open) = (add(5), add(6));
        let answer = proposals.settle(5, 2, Fate::Empty);
        answer.expect("somebody waits there").give();
        proposals.give_up();
        assert!(matches!(emptied.try_recv(), Ok(Err(Error::Refused { .. }))));
        assert_eq!(open.try_recv(), Ok(Err(Error::Unknown)));
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
