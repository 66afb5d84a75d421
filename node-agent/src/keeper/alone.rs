//! A node with no server in sight for an hour and for a week, its apps ending all the while and its agent now
//! and then: the real plan and the real ledger, a model of Docker, and a clock that is turned.

use proptest::prelude::*;
use skep_identity::seal::SealingKey;
use skep_model::allocation::State;
use skep_model::assignment::{Assignment, Generation};
use skep_model::id::AllocationId;
use tempfile::TempDir;

use crate::ledger::{Change, Contents, Ledger, SledLedger};
use crate::plan::{self, Exit, Failure, Local, Phase, Seen, Step, View};
use crate::testing::assignment;

const HOUR_MS: u64 = 3_600_000;
const WEEK_MS: u64 = 7 * 24 * HOUR_MS;
/// More than one allocation ever needs until it rests.
const STEPS_MAX: usize = 16;
/// The newest container, and the one before it, whose log tells why it ended.
const CONTAINERS_MAX: usize = 2;

/// One allocation on such a node.
struct Alone {
    now_ms: u64,
    assignment: Assignment,
    local: Local,
    containers: Vec<Seen>,
    failure: Option<Failure>,
    /// The longest that was ever waited for a start.
    waited_ms: u64,
    ledger: SledLedger,
    _folder: TempDir,
}

impl Alone {
    /// An agent that was told what to run and has heard of nobody since.
    fn begin() -> Self {
        let (folder, key) = (
            tempfile::tempdir().expect("a folder"),
            SealingKey::generate(),
        );
        let opened = SledLedger::open_or_rebuild(&folder.path().join("ledger"), &key);
        let (mut ledger, _) = opened.expect("opens");
        let assignment = assignment(1);
        let generation = Generation {
            incarnation: 1,
            number: 7,
        };
        let told = [
            Change::Generation(generation),
            Change::Assign(Box::new(assignment.clone())),
        ];
        ledger.apply(&told).expect("written");
        let mut alone = Self {
            now_ms: 1_000_000_000_000,
            assignment,
            local: Local::default(),
            containers: Vec::new(),
            failure: None,
            waited_ms: 0,
            ledger,
            _folder: folder,
        };
        alone.settle();
        alone
    }

    fn remember(&mut self) {
        let change = Change::Local(AllocationId::from_u128(1), self.local.clone());
        self.ledger.apply(&[change]).expect("written");
    }

    /// Does what is planned until there is nothing to do; waiting is done by turning the clock.
    fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            let step = plan::plan(&View {
                assignment: Some(&self.assignment),
                authoritative: true,
                local: &self.local,
                containers: &self.containers,
                failure: self.failure.as_ref(),
                is_cut_off: false,
                is_unconfirmed: false,
                is_left: false,
                is_dead: false,
                ran_ms: None,
                now_ms: self.now_ms,
            });
            match step {
                Step::Rest => return,
                Step::Wait(until_ms) => {
                    self.waited_ms = self.waited_ms.max(until_ms - self.now_ms);
                    self.now_ms = until_ms;
                }
                Step::Start { attempt, counted } => self.start(attempt, counted),
                Step::Stop { containers, .. } | Step::Remove(containers) => {
                    self.containers
                        .retain(|seen| !containers.contains(&seen.id));
                }
                Step::Conclude(verdict) => {
                    self.local.verdict.get_or_insert(verdict);
                    self.remember();
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("it never rests: {:?} {:?}", self.local, self.containers);
    }

    fn start(&mut self, attempt: u32, counted: bool) {
        let view = (&self.assignment.restart, self.now_ms);
        self.local = plan::apply_start(&self.local, attempt, counted, view);
        // Written down before it is done.
        self.remember();
        self.containers.push(Seen {
            id: format!("c{attempt}"),
            attempt,
            phase: Phase::Running {
                spot: None,
                pid: 0,
                started_ms: self.now_ms,
            },
            grant: Default::default(),
            service: None,
        });
    }

    /// The container ends by itself; `witnessed` by an agent that runs.
    fn end(&mut self, witnessed: bool) {
        let last = self.containers.last_mut().expect("a container");
        last.phase = Phase::Exited(Exit {
            code: 1,
            oom: false,
            ran_ms: None,
            at_ms: self.now_ms,
            witnessed,
            usual: None,
            tail: String::new(),
        });
    }

    /// The agent ends and begins anew: it knows what its ledger knows, and what Docker lists.
    fn kill_agent(&mut self) -> Contents {
        self.failure = None;
        for seen in &mut self.containers {
            if let Phase::Exited(exit) = &mut seen.phase {
                exit.witnessed = false;
            }
        }
        let contents = self.ledger.load().expect("readable");
        let known = contents.locals.get(&AllocationId::from_u128(1)).cloned();
        self.local = known.expect("remembered");
        contents
    }

    fn one_runs(&self) -> bool {
        let running = self.containers.iter().filter(|seen| seen.is_running());
        running.count() == 1
            && self.local.verdict.is_none()
            && self.containers.len() <= CONTAINERS_MAX
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// The app ends.
    End,
    /// The agent ends, and begins anew.
    Kill,
    /// Both at once, as when the machine is switched off.
    PowerCut,
}

fn events(within_ms: u64, most: usize) -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![
        4 => Just(Event::End),
        1 => Just(Event::Kill),
        1 => Just(Event::PowerCut),
    ];
    // Never so often that it is a loop: that is another test.
    let apart_ms = 350_000..2 * within_ms / most as u64;
    prop::collection::vec((apart_ms, event), most)
}

fn live(alone: &mut Alone, events: &[(u64, Event)]) {
    let mut ends = alone.local.restarts;
    for (after_ms, event) in events {
        alone.now_ms += after_ms;
        match event {
            Event::End => alone.end(true),
            Event::Kill => drop(alone.kill_agent()),
            Event::PowerCut => {
                alone.end(false);
                alone.kill_agent();
            }
        }
        ends += u32::from(!matches!(event, Event::Kill));
        alone.settle();
        assert!(alone.one_runs(), "{:?} {:?}", alone.local, alone.containers);
        assert_eq!(alone.local.restarts, ends, "each end is one restart");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn what_is_to_run_runs_however_long_no_server_is_there(
        hour in events(HOUR_MS, 8),
        week in events(WEEK_MS, 60),
    ) {
        for events in [hour, week] {
            let mut alone = Alone::begin();
            live(&mut alone, &events);
            prop_assert!(alone.waited_ms <= alone.assignment.restart.max_delay_ms);
            // What a server finds when it is back.
            let contents = alone.kill_agent();
            prop_assert!(contents.generation.is_some());
            prop_assert_eq!(contents.assignments.len(), 1);
            prop_assert_eq!(contents.locals.len(), 1);
            let most = alone.assignment.restart.attempts as usize;
            prop_assert!(alone.local.counted_ms.len() <= most, "{:?}", alone.local);
            alone.settle();
            prop_assert!(alone.one_runs());
        }
    }

    #[test]
    fn a_clock_that_is_set_neither_ends_an_app_nor_keeps_it_waiting(
        before in events(HOUR_MS, 4),
        jump_ms in -(WEEK_MS as i64)..WEEK_MS as i64,
        after in events(HOUR_MS, 4),
        ended in any::<bool>(),
    ) {
        let mut alone = Alone::begin();
        live(&mut alone, &before);
        // Also between the end of a container and the start of the next.
        if ended {
            alone.end(true);
        }
        alone.now_ms = alone.now_ms.saturating_add_signed(jump_ms);
        alone.settle();
        prop_assert!(alone.one_runs());
        live(&mut alone, &after);
        let longest_ms = alone.assignment.restart.max_delay_ms;
        prop_assert!(alone.waited_ms <= longest_ms, "{} ms", alone.waited_ms);
    }
}

#[test]
fn an_app_that_cannot_run_is_given_up_and_stays_so_for_a_week() {
    let mut alone = Alone::begin();
    for _ in 0..=alone.assignment.restart.attempts {
        assert!(alone.one_runs());
        alone.now_ms += 10;
        alone.end(true);
        alone.settle();
    }
    let verdict = |alone: &Alone| alone.local.verdict.clone().expect("given up");
    let told = verdict(&alone);
    assert_eq!((told.state, told.restarts), (State::Failed, 3));
    for _ in 0..7 {
        alone.now_ms += WEEK_MS / 7;
        alone.kill_agent();
        alone.settle();
        assert_eq!(verdict(&alone), told, "the last word");
        assert!(!alone.containers.iter().any(Seen::is_running));
    }
}
