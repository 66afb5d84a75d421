//! Attempts of jobs, case by case.

use skep_model::id::JobId;

use super::super::{Failure, Fitness, Local, observe};
use super::*;
use crate::testing::assignment;

const NOW: u64 = 1_000_000;

fn attempt(desired: Desired) -> Assignment {
    Assignment {
        desired,
        job: Some(Attempt {
            job: JobId::from_u128(5),
            limit_ms: 60_000,
        }),
        ..assignment(1)
    }
}

fn seen(phase: Phase) -> Vec<Seen> {
    vec![Seen {
        id: "c1".into(),
        attempt: 1,
        phase,
        grant: Default::default(),
        service: None,
    }]
}

fn running(started_ms: u64) -> Phase {
    Phase::Running {
        spot: None,
        pid: 9,
        started_ms,
    }
}

fn exit(code: i64, witnessed: bool) -> Phase {
    Phase::Exited(Exit {
        code,
        oom: false,
        ran_ms: Some(10),
        at_ms: NOW - 5,
        witnessed,
        tail: "last".into(),
        usual: None,
    })
}

fn failed(counted: bool) -> Failure {
    Failure {
        problem: Problem::new(Code::ImageFailed, "no such image"),
        at_ms: NOW - RETRY_MS,
        counted,
    }
}

/// What is done next, in words.
fn step(desired: Desired, begun: u32, containers: &[Seen], failure: Option<&Failure>) -> String {
    step_in_reach(desired, begun, containers, (failure, false))
}

fn step_in_reach(
    desired: Desired,
    begun: u32,
    containers: &[Seen],
    (failure, is_cut_off): (Option<&Failure>, bool),
) -> String {
    let assignment = attempt(desired);
    let local = Local {
        attempt: begun,
        ..Local::default()
    };
    let step = super::super::plan(&View {
        assignment: Some(&assignment),
        authoritative: true,
        local: &local,
        containers,
        failure,
        is_cut_off,
        is_unconfirmed: false,
        is_left: false,
        is_dead: false,
        ran_ms: None,
        now_ms: NOW,
    });
    match step {
        Step::Start { attempt, counted } => format!("start {attempt} {counted}"),
        Step::Conclude(observed) => {
            let why = observed
                .problem
                .map_or(String::new(), |problem| format!(": {problem}"));
            let code = observed
                .exit_code
                .map_or(String::new(), |code| format!(" {code}"));
            format!("{}{code}{why}", observed.state.as_str())
        }
        Step::Stop { containers, .. } => format!("stop {}", containers.join(" ")),
        Step::Remove(containers) => format!("remove {}", containers.join(" ")),
        Step::Examine(container) => format!("examine {container}"),
        Step::Wait(at) => format!("wait {}", at - NOW),
        Step::Rest => "rest".into(),
        other => format!("{other:?}"),
    }
}

#[test]
fn one_container_begun_once_and_run_to_its_end() {
    use Desired::{Run, Stop};
    let cases: Vec<(&str, String, &str)> = vec![
        ("first", step(Run, 0, &[], None), "start 1 false"),
        (
            "runs",
            step(Run, 1, &seen(running(NOW - 1_000)), None),
            "wait 59000",
        ),
        (
            "ended",
            step(Run, 1, &seen(Phase::Ended), None),
            "examine c1",
        ),
        (
            "done",
            step(Run, 1, &seen(exit(0, true)), None),
            "stopped 0",
        ),
        (
            "ended while the agent was away",
            step(Run, 1, &seen(exit(-1, false)), None),
            "examine c1",
        ),
        (
            "done before it was to stop",
            step(Stop, 1, &seen(exit(0, true)), None),
            "stopped 0",
        ),
        (
            "stopped",
            step(Stop, 1, &seen(running(NOW)), None),
            "stop c1",
        ),
        ("never begun", step(Stop, 0, &[], None), "stopped"),
        (
            "made, never started",
            step(Run, 1, &seen(Phase::Created), None),
            "remove c1",
        ),
        (
            "docker did not answer",
            step(Run, 1, &[], Some(&failed(false))),
            "start 2 false",
        ),
    ];
    for (name, found, wanted) in cases {
        assert_eq!(found, wanted, "{name}");
    }
    let failing = step(Run, 1, &seen(exit(3, true)), None);
    assert!(
        failing.starts_with("failed 3: exited with code 3"),
        "{failing}"
    );
    let no_image = step(Run, 1, &[], Some(&failed(true)));
    assert_eq!(no_image, "failed: no such image");
    let late = step(Run, 1, &seen(running(NOW - 60_000)), None);
    assert!(
        late.starts_with("failed: stopped: the job's deadline"),
        "{late}"
    );
    // Whatever it did, it is not done twice.
    let gone = step(Run, 1, &[], None);
    assert!(gone.starts_with("failed: its container is gone"), "{gone}");
}

#[test]
fn what_ended_stays_for_its_log_until_it_is_to_stop() {
    let local = Local {
        attempt: 1,
        verdict: Some(Observed {
            state: State::Stopped,
            exit_code: Some(0),
            ..Observed::pending()
        }),
        ..Local::default()
    };
    let containers = seen(exit(0, true));
    let at = |desired| {
        let assignment = attempt(desired);
        let step = super::super::plan(&View {
            assignment: Some(&assignment),
            authoritative: true,
            local: &local,
            containers: &containers,
            failure: None,
            is_cut_off: false,
            is_unconfirmed: false,
            is_left: false,
            is_dead: false,
            ran_ms: None,
            now_ms: NOW,
        });
        let how = (None, &Fitness::Unknown, None);
        (step, observe(&assignment, &local, &containers, how).state)
    };
    assert_eq!(at(Desired::Run), (Step::Rest, State::Stopped));
    let (step, _) = at(Desired::Stop);
    assert!(matches!(step, Step::Stop { .. }), "{step:?}");
}

#[test]
fn cut_off_it_ends_and_is_never_begun() {
    let cut =
        |begun, containers: &[Seen]| step_in_reach(Desired::Run, begun, containers, (None, true));
    assert_eq!(cut(0, &[]), "rest");
    let ended = cut(1, &seen(running(NOW - 1_000)));
    assert!(
        ended.starts_with("failed: stopped: no server was in reach"),
        "{ended}"
    );
}

#[test]
fn a_job_has_its_time_whatever_the_wall_clock_says() {
    let assignment = attempt(Desired::Run);
    let local = Local {
        attempt: 1,
        ..Local::default()
    };
    // Started now, a day ago or in a day, as the wall clock has it.
    for started_ms in [NOW, NOW - 900_000, NOW + 86_400_000] {
        let containers = seen(running(started_ms));
        let step = |ran_ms| {
            super::super::plan(&View {
                assignment: Some(&assignment),
                authoritative: true,
                local: &local,
                containers: &containers,
                failure: None,
                is_cut_off: false,
                is_unconfirmed: false,
                is_left: false,
                is_dead: false,
                ran_ms: Some(ran_ms),
                now_ms: NOW,
            })
        };
        assert_eq!(step(20_000), Step::Wait(NOW + 40_000));
        assert!(matches!(step(60_000), Step::Conclude(_)));
    }
}
