//! Jobs: what the commands do, what they refuse, and that what is kept is bounded.

use skep_model::id::JobId;
use skep_model::job::{Cause, Job, KEEP_ENDED, MAX_ACTIVE, MAX_OWN_BYTES, Status as JobStatus};

use super::*;

const LIVE: Target = Target {
    release: 1,
    deployment: DeploymentId::from_u128(50),
};

fn job(id: u128, status: JobStatus) -> Job {
    Job {
        status,
        ..Job::new(
            JobId::from_u128(id),
            SERVICE,
            LIVE,
            Cause::Schedule { at_ms: 60_000 },
        )
    }
}

fn asked(id: u128, command: &str) -> Job {
    let cause = Cause::Request {
        by: "admin".into(),
        command: vec![command.to_owned()],
        variables: BTreeMap::new(),
    };
    Job::new(JobId::from_u128(id), SERVICE, LIVE, cause)
}

fn create_job(job: &Job) -> Kind {
    Kind::CreateJob(v1::CreateJob {
        job: Some(job.into()),
    })
}

fn plan(expected_generation: u64, jobs: &[Job]) -> v1::PlanJobs {
    v1::PlanJobs {
        service: id_bytes(SERVICE.as_u128()),
        expected_generation,
        jobs: jobs.iter().map(Into::into).collect(),
        ..v1::PlanJobs::default()
    }
}

/// A plan that makes a job and begins its first attempt.
fn begin(world: &World, id: u128, attempt: u128) -> v1::PlanJobs {
    let allocation = AllocationId::from_u128(attempt);
    let Kind::ApplyPlan(mut starts) = start(&world.state, allocation, LIVE) else {
        unreachable!("that is what it makes");
    };
    starts.starts[0].job = id_bytes(id);
    let begun = Job {
        allocation: Some(allocation),
        node: Some(NODE),
        attempts: 1,
        ..job(id, JobStatus::Running)
    };
    let generation = world.state.job_book(SERVICE).generation;
    v1::PlanJobs {
        plan: Some(starts),
        following: Some(v1::Following {
            schedule: "@hourly (UTC)".into(),
            until_ms: 60_000,
        }),
        ..plan(generation, &[begun])
    }
}

impl World {
    fn job(&self, id: u128) -> &Job {
        self.state.job(JobId::from_u128(id)).expect("job")
    }
}

#[test]
fn an_attempt_belongs_to_a_job_and_is_no_replica() {
    let (mut world, _) = World::with_live_release();
    let message = begin(&world, 200, 201);
    let applied = world.apply(Kind::PlanJobs(message.clone()));
    assert_eq!(applied.outcome, Ok(Reply::Done));
    let allocation = AllocationId::from_u128(201);
    let changes = [
        crate::Change::Job {
            job: JobId::from_u128(200),
            service: SERVICE,
        },
        crate::Change::Node(NODE),
        crate::Change::Allocation {
            allocation,
            node: NODE,
            service: SERVICE,
        },
    ];
    assert_eq!(applied.changes, changes);
    let now = world.state.time_ms();
    assert_eq!(
        (world.job(200).created_ms, world.job(200).started_ms),
        (now, now)
    );
    let book = world.state.job_book(SERVICE);
    assert_eq!((book.generation, book.until_ms), (1, 60_000));
    // Healthy, as an old agent might say, it takes no traffic all the same.
    let revision = world.state.routes_revision();
    world.observe(allocation, Seen::Healthy);
    assert_eq!(world.state.routes_revision(), revision);
    let table = world.state.route_table();
    assert_eq!(table.routes[0].backends.len(), 1, "the replica alone");
    // The same plan again was made on an older page.
    assert_eq!(world.refused(Kind::PlanJobs(message)), Code::Conflict);
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
}

#[test]
fn what_does_not_fit_is_refused_whole() {
    let (mut world, _) = World::with_live_release();
    let good = begin(&world, 200, 201);
    let mut of_nobody = good.clone();
    of_nobody.jobs.clear();
    assert_eq!(world.refused(Kind::PlanJobs(of_nobody)), Code::NotFound);
    let mut of_another = good.clone();
    of_another.jobs[0].allocation = id_bytes(999);
    assert_eq!(world.refused(Kind::PlanJobs(of_another)), Code::NotFound);
    let mut stale_node = good.clone();
    stale_node.plan.as_mut().expect("starts").nodes[0].generation += 1;
    assert_eq!(world.refused(Kind::PlanJobs(stale_node)), Code::Conflict);
    world.ok(Kind::PlanJobs(good));
    let over = Job {
        exit_code: Some(0),
        ..job(200, JobStatus::Succeeded)
    };
    world.ok(Kind::PlanJobs(plan(1, std::slice::from_ref(&over))));
    let ended_ms = world.job(200).ended_ms;
    assert_eq!(ended_ms, world.state.time_ms());
    // What has ended stays as it is.
    let again = plan(2, &[job(200, JobStatus::Running)]);
    assert_eq!(world.refused(Kind::PlanJobs(again)), Code::Conflict);
}

#[test]
fn what_people_ask_for_is_bounded() {
    let (mut world, _) = World::with_live_release();
    let made = world.ok(create_job(&asked(300, "x")));
    assert_eq!(made, Reply::Job(JobId::from_u128(300)));
    assert_eq!(world.job(300).status, JobStatus::Pending);
    assert_eq!(
        world.state.job_book(SERVICE).generation,
        1,
        "what was planned before is void"
    );
    assert_eq!(
        world.refused(create_job(&asked(300, "x"))),
        Code::Conflict,
        "twice"
    );
    let large = asked(301, &"x".repeat(MAX_OWN_BYTES + 1));
    assert_eq!(world.refused(create_job(&large)), Code::Invalid);
    let gone = Job {
        target: Target { release: 9, ..LIVE },
        ..asked(301, "x")
    };
    assert_eq!(world.refused(create_job(&gone)), Code::NotFound);
    // Only the leader says what is due.
    assert_eq!(
        world.refused(create_job(&job(301, JobStatus::Pending))),
        Code::Internal
    );
    for id in 1..MAX_ACTIVE as u128 {
        world.ok(create_job(&asked(300 + id, "x")));
    }
    assert_eq!(world.refused(create_job(&asked(999, "x"))), Code::Busy);
}

#[test]
fn a_cancellation_is_remembered_until_the_leader_acts() {
    let (mut world, _) = World::with_live_release();
    world.ok(create_job(&asked(300, "x")));
    let cancel = |id| Kind::CancelJob(v1::CancelJob { job: id_bytes(id) });
    world.ok(cancel(300));
    assert!(world.job(300).cancel && world.job(300).status.is_active());
    assert_eq!(world.refused(cancel(301)), Code::NotFound);
    let ended = Job {
        status: JobStatus::Canceled,
        ..asked(300, "x")
    };
    world.ok(Kind::PlanJobs(plan(2, &[ended])));
    assert_eq!(world.refused(cancel(300)), Code::Conflict);
}

#[test]
fn ended_jobs_are_forgotten_the_book_is_not() {
    let (mut world, replica) = World::with_live_release();
    for round in 0..KEEP_ENDED as u128 + 5 {
        let generation = world.state.job_book(SERVICE).generation;
        let missed = job(400 + round, JobStatus::Missed);
        let mut message = plan(generation, &[missed]);
        message.deployment = id_bytes(50);
        world.ok(Kind::PlanJobs(message));
    }
    let kept: Vec<u128> = world
        .state
        .jobs_of(SERVICE)
        .map(|job| job.id.as_u128())
        .collect();
    assert_eq!((kept.len(), kept[0]), (KEEP_ENDED, 405));
    assert_eq!(
        world.state.job_book(SERVICE).deployment,
        Some(DeploymentId::from_u128(50))
    );
    // All of it goes with its service.
    let removing = Service {
        removing: true,
        ..world.service().clone()
    };
    world.ok(put_service(&removing, removing.generation));
    world.observe(replica, Seen::Stopped);
    world.ok(Kind::DropService(v1::DropService {
        service: id_bytes(SERVICE.as_u128()),
    }));
    assert_eq!(world.state.jobs().count(), 0);
    assert_eq!(world.state.job_book(SERVICE), Default::default());
}

#[test]
fn below_their_level_there_are_no_jobs_and_no_modes() {
    let mut world = super::levels::version_1();
    let mut spec = ServiceSpec::default();
    spec.run.retries = 1;
    let service = Service { spec, ..service() };
    let create = v1::CreateJob::default();
    let mut observed = Observed::pending();
    observed.exit_code = Some(0);
    let seen = v1::AllocationObservation {
        allocation: id_bytes(1),
        observed: Some((&observed).into()),
    };
    for kind in [
        put_service(&service, 0),
        Kind::CreateJob(create),
        Kind::PlanJobs(plan(0, &[])),
        Kind::Observe(v1::Observe {
            node: id_bytes(NODE.as_u128()),
            allocations: vec![seen],
            ..v1::Observe::default()
        }),
    ] {
        let problem = world.apply(kind).outcome.expect_err("level 3");
        assert!(problem.message.contains("feature level 3"), "{problem}");
    }
}
