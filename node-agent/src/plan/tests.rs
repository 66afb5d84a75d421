use std::net::Ipv4Addr;

use super::*;
use crate::samples::Usual;
use crate::testing::assignment;

const NOW: u64 = 1_000_000;

fn seen(attempt: u32, phase: Phase) -> Seen {
    Seen {
        id: format!("c{attempt}"),
        attempt,
        phase,
        grant: Default::default(),
        service: None,
    }
}

fn running() -> Phase {
    Phase::Running {
        spot: Some(Spot::At(Ipv4Addr::new(172, 17, 0, 2).into())),
        pid: 9,
        started_ms: NOW - 1,
    }
}

fn exited(code: i64, at_ms: u64) -> Exit {
    Exit {
        code,
        oom: false,
        ran_ms: Some(1_234),
        at_ms,
        witnessed: true,
        tail: "boom".into(),
        usual: None,
    }
}

struct Case {
    desired: Option<Desired>,
    authoritative: bool,
    local: Local,
    containers: Vec<Seen>,
    failure: Option<Failure>,
    is_cut_off: bool,
    is_unconfirmed: bool,
    is_left: bool,
    is_dead: bool,
}

fn case(desired: Desired, containers: Vec<Seen>) -> Case {
    Case {
        desired: Some(desired),
        authoritative: true,
        local: Local {
            attempt: containers.last().map_or(0, |seen| seen.attempt),
            ..Local::default()
        },
        containers,
        failure: None,
        is_cut_off: false,
        is_unconfirmed: false,
        is_left: false,
        is_dead: false,
    }
}

impl Case {
    fn plan(&self) -> Step {
        let assignment = self.desired.map(|desired| Assignment {
            desired,
            ..assignment(1)
        });
        plan(&View {
            assignment: assignment.as_ref(),
            authoritative: self.authoritative,
            local: &self.local,
            containers: &self.containers,
            failure: self.failure.as_ref(),
            is_cut_off: self.is_cut_off,
            is_unconfirmed: self.is_unconfirmed,
            is_left: self.is_left,
            is_dead: self.is_dead,
            ran_ms: None,
            now_ms: NOW,
        })
    }
}

fn start(attempt: u32, counted: bool) -> Step {
    Step::Start { attempt, counted }
}

fn stop(containers: &[&str]) -> Step {
    Step::Stop {
        containers: containers.iter().map(|id| (*id).to_owned()).collect(),
        grace_ms: 10_000,
    }
}

#[test]
fn one_step_for_each_situation() {
    use Desired::{Drain, Run, Stop};
    let unwitnessed = Exit {
        witnessed: false,
        ..exited(137, NOW)
    };
    let old = || seen(1, Phase::Exited(exited(1, 5)));
    let cases = [
        ("first start", case(Run, vec![]), start(1, false)),
        ("runs", case(Run, vec![seen(1, running())]), Step::Rest),
        ("drains", case(Drain, vec![seen(1, running())]), Step::Rest),
        (
            "runs, one before kept",
            case(Run, vec![old(), seen(2, running())]),
            Step::Rest,
        ),
        (
            "runs, older ones go",
            case(Run, vec![old(), seen(2, Phase::Ended), seen(3, running())]),
            Step::Remove(vec!["c1".into()]),
        ),
        (
            "never two at once",
            case(Run, vec![seen(1, running()), seen(2, running())]),
            stop(&["c1"]),
        ),
        (
            "a double goes before a restart",
            case(
                Run,
                vec![seen(1, running()), seen(2, Phase::Exited(exited(1, 0)))],
            ),
            stop(&["c1"]),
        ),
        (
            "a start that failed half way",
            case(Run, vec![seen(1, Phase::Created)]),
            Step::Remove(vec!["c1".into()]),
        ),
        (
            "ended",
            case(Run, vec![seen(1, Phase::Ended)]),
            Step::Examine("c1".into()),
        ),
        (
            "crashed just now",
            case(Run, vec![seen(1, Phase::Exited(exited(3, NOW)))]),
            Step::Wait(NOW + 250),
        ),
        (
            "crashed",
            case(Run, vec![seen(1, Phase::Exited(exited(3, NOW - 250)))]),
            start(2, true),
        ),
        (
            "gone meanwhile",
            case(Run, vec![seen(4, Phase::Exited(unwitnessed))]),
            start(5, false),
        ),
        (
            "stop",
            case(Stop, vec![old(), seen(2, running())]),
            stop(&["c1", "c2"]),
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(case.plan(), expected, "{name}");
    }
}

#[test]
fn what_is_over_stays_over() {
    let concluded = |case: Case| match case.plan() {
        Step::Conclude(observed) => observed.state,
        other => panic!("{other:?}"),
    };
    assert_eq!(concluded(case(Desired::Stop, vec![])), State::Stopped);
    assert_eq!(concluded(case(Desired::Drain, vec![])), State::Stopped);
    let ended = vec![seen(1, Phase::Exited(exited(0, NOW)))];
    assert_eq!(concluded(case(Desired::Drain, ended)), State::Stopped);

    let failed = || {
        Some(super::ended(
            &Local::default(),
            State::Failed,
            None,
            String::new(),
        ))
    };
    let mut revived = case(Desired::Run, vec![]);
    revived.local.verdict = failed();
    assert_eq!(revived.plan(), Step::Rest);
    let mut left = case(Desired::Run, vec![seen(1, running())]);
    left.local.verdict = failed();
    assert_eq!(left.plan(), stop(&["c1"]));
}

#[test]
fn what_nobody_assigned_waits_for_a_full_set() {
    let mut orphan = case(Desired::Run, vec![seen(1, running())]);
    orphan.desired = None;
    assert_eq!(orphan.plan(), stop(&["c1"]));
    orphan.authoritative = false;
    assert_eq!(orphan.plan(), Step::Rest);
    orphan.containers.clear();
    assert_eq!(orphan.plan(), Step::Rest);
    orphan.authoritative = true;
    assert_eq!(orphan.plan(), Step::Forget);
}

#[test]
fn restarts_back_off_and_end() {
    let crashed_after = |counted: &[u64]| {
        let mut crashed = case(Desired::Run, vec![seen(7, Phase::Exited(exited(3, NOW)))]);
        crashed.local.counted_ms = counted.to_vec();
        crashed.local.restarts = 6;
        crashed.plan()
    };
    assert_eq!(crashed_after(&[NOW]), Step::Wait(NOW + 500));
    assert_eq!(crashed_after(&[NOW - 1, NOW]), Step::Wait(NOW + 1_000));
    // Outside the window of ten minutes: forgiven.
    assert_eq!(crashed_after(&[1, NOW - 1, NOW]), Step::Wait(NOW + 1_000));
    let Step::Conclude(observed) = crashed_after(&[NOW - 2, NOW - 1, NOW]) else {
        panic!("three are the limit");
    };
    assert_eq!((observed.state, observed.restarts), (State::Failed, 6));
    assert_eq!(observed.log_tail, "boom");
    let problem = observed.problem.expect("a reason");
    assert_eq!(problem.code, Code::Crashed);
    assert_eq!(problem.message, "exited with code 3 after 1.2 s");
}

#[test]
fn starts_that_fail_are_counted_unless_docker_is_to_blame() {
    let mut failing = case(Desired::Run, vec![]);
    failing.local.attempt = 1;
    let fail = |at_ms, counted| {
        Some(Failure {
            problem: Problem::new(Code::ImageFailed, "no such image"),
            at_ms,
            counted,
        })
    };
    failing.failure = fail(NOW, true);
    assert_eq!(failing.plan(), Step::Wait(NOW + 250));
    failing.failure = fail(NOW - 250, true);
    assert_eq!(failing.plan(), start(2, true));
    failing.failure = fail(NOW, false);
    assert_eq!(failing.plan(), Step::Wait(NOW + RETRY_MS));
    failing.local.counted_ms = vec![NOW; 3];
    failing.failure = fail(NOW - RETRY_MS, false);
    assert_eq!(failing.plan(), start(2, false), "for ever");
    failing.failure = fail(NOW, true);
    let Step::Conclude(observed) = failing.plan() else {
        panic!("three are the limit");
    };
    assert_eq!(
        observed.problem.map(|problem| problem.code),
        Some(Code::ImageFailed)
    );
    // The clock was set back by a day, or by minutes: no day and no minutes of waiting.
    for back_ms in [86_400_000, 120_000] {
        failing.failure = fail(NOW + back_ms, false);
        assert_eq!(failing.plan(), start(2, false));
    }
}

#[test]
fn a_clock_that_was_set_back_holds_nothing_against_an_app() {
    // Counted before: three of them would be the end.
    let mut crashed = case(Desired::Run, vec![seen(1, Phase::Exited(exited(1, NOW)))]);
    crashed.local.counted_ms = vec![NOW + 60_000; 3];
    assert_eq!(crashed.plan(), Step::Wait(NOW + 250));
    let next = apply_start(&crashed.local, 2, true, (&Restart::default(), NOW));
    assert_eq!(next.counted_ms, [NOW]);
    // The start after an end failed, and the clock was set back between the two: nobody's fault still.
    let mut failed = case(
        Desired::Run,
        vec![seen(1, Phase::Exited(exited(1, NOW + 86_400_000)))],
    );
    failed.failure = Some(Failure {
        problem: Problem::new(Code::Runtime, "docker is away"),
        at_ms: NOW,
        counted: false,
    });
    assert_eq!(failed.plan(), Step::Wait(NOW + RETRY_MS));
}

#[test]
fn starting_counts_what_is_to_be_counted() {
    let restart = Restart::default();
    let first = apply_start(&Local::default(), 1, false, (&restart, NOW));
    assert_eq!(
        (first.attempt, first.restarts, first.counted_ms.len()),
        (1, 0, 0)
    );
    let mut healthy = first.clone();
    healthy.healthy = true;
    healthy.counted_ms = vec![1];
    let next = apply_start(&healthy, 2, true, (&restart, NOW));
    assert_eq!(
        (next.restarts, next.healthy, next.counted_ms),
        (1, false, vec![NOW])
    );
}

#[test]
fn exits_are_explained() {
    let mut small = assignment(1);
    small.resources.memory_bytes = 256 << 20;
    let say = |exit: Exit| explain_exit(&exit, &small).message;
    let oom = Exit {
        oom: true,
        ..exited(137, 0)
    };
    assert_eq!(say(oom.clone()), "killed: out of memory at 256 MiB");
    let known = Exit {
        usual: Some(Usual {
            p95_bytes: 250 << 20,
            peak_bytes: 255 << 20,
        }),
        ..oom
    };
    assert_eq!(
        say(known),
        "killed: out of memory at 256 MiB; p95 was 250 MiB, the most 255 MiB"
    );
    assert_eq!(
        say(exited(139, 0)),
        "ended by signal 11 (SIGSEGV) after 1.2 s"
    );
    assert_eq!(say(exited(0, 0)), "exited with code 0 after 1.2 s");
    let unknown = Exit {
        ran_ms: None,
        ..exited(255, 0)
    };
    assert_eq!(say(unknown), "exited with code 255");
}

#[test]
fn observations_follow_the_container() {
    let say = |wanted: Desired, containers: &[Seen], fitness: Fitness, work| {
        let mut assignment = assignment(1);
        assignment.desired = wanted;
        observe(
            &assignment,
            &Local::default(),
            containers,
            (None, &fitness, work),
        )
        .state
    };
    use Fitness::{Healthy, Unknown};
    let up = [seen(1, running())];
    let down = [seen(1, Phase::Exited(exited(1, 1)))];
    let sick = Fitness::Unhealthy(Problem::new(Code::NeverHealthy, "x"));
    assert_eq!(say(Desired::Run, &[], Unknown, None), State::Pending);
    assert_eq!(
        say(Desired::Run, &[], Unknown, Some(Work::Pulling)),
        State::Pulling
    );
    assert_eq!(
        say(Desired::Run, &[], Unknown, Some(Work::Starting)),
        State::Starting
    );
    assert_eq!(say(Desired::Run, &up, Unknown, None), State::Running);
    assert_eq!(say(Desired::Drain, &up, Healthy, None), State::Healthy);
    assert_eq!(say(Desired::Run, &up, sick, None), State::Unhealthy);
    assert_eq!(say(Desired::Run, &down, Healthy, None), State::Starting);
    assert_eq!(
        say(Desired::Stop, &up, Healthy, Some(Work::Stopping)),
        State::Stopping
    );

    let mut failed = Local::default();
    failed.verdict = Some(ended(&failed, State::Failed, None, String::new()));
    let how = (None, &Unknown, None);
    let last = observe(&assignment(1), &failed, &up, how).state;
    assert_eq!(last, State::Stopping, "its container is still there");
    assert_eq!(
        observe(&assignment(1), &failed, &[], how).state,
        State::Failed
    );
}

#[test]
fn what_is_cut_off_stops_and_begins_again_with_a_server_in_reach() {
    let running = |is_cut_off| Case {
        is_cut_off,
        ..case(Desired::Run, vec![seen(1, running())])
    };
    assert_eq!(running(false).plan(), Step::Rest);
    let Step::Stop { containers, .. } = running(true).plan() else {
        panic!("it has to stop");
    };
    assert_eq!(containers, ["c1"]);
    let stopped = |is_cut_off| Case {
        is_cut_off,
        local: Local {
            attempt: 1,
            ..Local::default()
        },
        ..case(Desired::Run, Vec::new())
    };
    assert_eq!(
        stopped(true).plan(),
        Step::Rest,
        "no last word: it may go on"
    );
    let again = Step::Start {
        attempt: 2,
        counted: false,
    };
    assert_eq!(stopped(false).plan(), again);
}

#[test]
fn what_is_not_alive_stops_and_begins_anew_at_the_cost_of_a_restart() {
    let mut dead = Case {
        is_dead: true,
        ..case(Desired::Run, vec![seen(1, running())])
    };
    assert_eq!(dead.plan(), stop(&["c1"]));
    dead.is_dead = false;
    dead.containers.clear();
    dead.failure = Some(Failure {
        problem: Problem::new(Code::NeverHealthy, "not alive"),
        at_ms: NOW - 60_000,
        counted: true,
    });
    assert_eq!(dead.plan(), start(2, true));
    dead.local.counted_ms = vec![NOW; 3];
    let Step::Conclude(failed) = dead.plan() else {
        panic!("it has been tried often enough");
    };
    assert_eq!(failed.state, State::Failed);
}

/// The first start, one after a boot, one after a crash.
fn starts() -> [Case; 3] {
    let unwitnessed = Exit {
        witnessed: false,
        ..exited(137, NOW)
    };
    [
        vec![],
        vec![seen(1, Phase::Exited(unwitnessed))],
        vec![seen(1, Phase::Exited(exited(1, NOW - 60_000)))],
    ]
    .map(|containers| case(Desired::Run, containers))
}

#[test]
fn what_no_server_has_confirmed_is_not_begun_and_what_runs_goes_on() {
    for mut case in starts() {
        let step = case.plan();
        assert!(matches!(step, Step::Start { .. }), "{step:?}");
        case.is_unconfirmed = true;
        assert_eq!(case.plan(), Step::Rest, "{:?}", case.containers);
    }
    let runs = Case {
        is_unconfirmed: true,
        ..case(Desired::Run, vec![seen(1, running())])
    };
    assert_eq!(runs.plan(), Step::Rest);
    let cut_off = Case {
        is_cut_off: true,
        ..runs
    };
    assert_eq!(cut_off.plan(), stop(&["c1"]));
}

#[test]
fn nothing_is_begun_on_volumes_that_somebody_leaves() {
    for mut case in starts() {
        case.is_left = true;
        assert_eq!(case.plan(), Step::Rest, "{:?}", case.containers);
    }
    let stops = Case {
        is_left: true,
        ..case(Desired::Stop, vec![seen(1, running())])
    };
    assert_eq!(stops.plan(), stop(&["c1"]), "nobody waits to stop");
}
