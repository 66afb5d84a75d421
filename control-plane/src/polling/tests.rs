//! What is asked when, and what each answer means.

use skep_model::deployment::Status;
use skep_model::id::{DeploymentId, EnvironmentId, ProjectId, WorkspaceId};
use skep_model::polling::{Came, History};
use skep_model::spec::ServiceSpec;
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::command;

use super::*;
use crate::api::queued;

pub(super) const SERVICE: ServiceId = ServiceId::from_u128(2);
const REPOSITORY: &str = "https://forge.test/shop.git";

/// A commit of 40 digits.
fn commit(digit: &str) -> String {
    digit.repeat(40)
}

/// A state, built by commands alone.
pub(super) struct World {
    pub(super) state: State,
    pub(super) now_ms: u64,
}

impl World {
    pub(super) fn new(tags: Option<&str>, watch: &[&str]) -> Self {
        let mut world = Self {
            state: State::default(),
            now_ms: 1_000_000,
        };
        let (workspace, project, environment) = (
            WorkspaceId::from_u128(7),
            ProjectId::from_u128(8),
            EnvironmentId::from_u128(9),
        );
        world.apply(Kind::InitCluster(v1::InitCluster {
            cluster: id_bytes(5),
            workspace: Some(
                (&Workspace {
                    id: workspace,
                    name: "default".into(),
                })
                    .into(),
            ),
            ..Default::default()
        }));
        world.apply(Kind::EnsureEnvironment(v1::EnsureEnvironment {
            workspace: id_bytes(workspace.as_u128()),
            project: Some(
                (&Project {
                    id: project,
                    workspace,
                    name: "p".into(),
                })
                    .into(),
            ),
            environment: Some(
                (&Environment {
                    id: environment,
                    project,
                    name: "e".into(),
                })
                    .into(),
            ),
        }));
        let mut spec = ServiceSpec {
            source: Some(Source::Git {
                repository: REPOSITORY.into(),
                branch: "main".into(),
                directory: String::new(),
            }),
            ..ServiceSpec::default()
        };
        spec.pushes.tags = tags.map(str::to_owned);
        spec.pushes.watch = watch.iter().map(|&it| it.to_owned()).collect();
        let service = Service {
            id: SERVICE,
            environment,
            name: "s".into(),
            spec,
            variables: Default::default(),
            webhook_secret: None,
            live: None,
            rollout: None,
            progress: Default::default(),
            last_release: 0,
            stopped: false,
            removing: false,
            generation: 0,
            created_ms: 0,
            scaling: None,
            pinned: None,
        };
        world.put(&service);
        world
    }

    pub(super) fn apply(&mut self, kind: Kind) {
        self.now_ms += 1;
        let bytes = command(self.now_ms, kind);
        let applied = self.state.apply(self.state.index() + 1, &bytes);
        applied.outcome.expect("accepted");
    }

    pub(super) fn put(&mut self, service: &Service) {
        self.apply(Kind::PutService(v1::PutService {
            service: Some(service.into()),
            expected_generation: service.generation,
        }));
    }

    fn deploy(&mut self, number: u128, trigger: Trigger, of: Option<&str>) {
        let origin = Origin::Git {
            repository: REPOSITORY.into(),
            branch: "main".into(),
            commit: of.map(commit),
            directory: String::new(),
        };
        let deployment = queued(DeploymentId::from_u128(number), SERVICE, (trigger, origin));
        self.apply(Kind::CreateDeployment(v1::CreateDeployment {
            deployment: Some((&deployment).into()),
            delivery: None,
        }));
    }

    fn question(&self) -> Question {
        let service = self.state.service(SERVICE).expect("there");
        question(&self.state, service).expect("it is asked for").0
    }

    /// What an answer means, in one line; it is carried out.
    fn hears(&mut self, found: &Found) -> String {
        let step = meaning(&self.state, &self.question(), (0, found));
        let Some(step) = step else {
            return "nothing".to_owned();
        };
        let shown = match (&step.deploy, &step.polled.problem) {
            (
                Some((
                    Origin::Git {
                        commit: Some(commit),
                        ..
                    },
                    _,
                )),
                None,
            ) => format!("deploy {}", &commit[..1]),
            (None, Some(problem)) => format!("say {}", problem.message),
            (None, None) => format!(
                "note {}",
                &step.polled.commit.as_deref().unwrap_or("-")[..1]
            ),
            other => panic!("{other:?}"),
        };
        self.apply(Kind::TakePolled(v1::TakePolled {
            polled: Some((&step.polled).into()),
            wanted: None,
        }));
        if let Some((
            Origin::Git {
                commit: Some(commit),
                ..
            },
            _,
        )) = &step.deploy
        {
            let number = 1_000 + u128::from(self.now_ms);
            self.deploy(number, Trigger::Poll, Some(&commit[..1]));
        }
        shown
    }
}

fn tip(name: &str, of: &str, came: &[(&str, &str)]) -> Found {
    let came = came.iter().map(|(message, file)| Came {
        id: commit(of),
        message: (*message).to_owned(),
        files: vec![(*file).to_owned()],
    });
    Ok(vec![Some(Tip {
        name: name.into(),
        commit: commit(of),
        has_known: true,
        history: History {
            commits: came.collect(),
            lists_all: true,
            is_forced: false,
        },
        files: Vec::new(),
    })])
}

fn main(of: &str) -> Found {
    tip("main", of, &[("a change", "api/a.rs")])
}

fn away(text: &str) -> Found {
    Err(Problem::new(Code::SourceFailed, text))
}

#[test]
fn what_was_pushed_is_deployed_once_and_trouble_is_said_once() {
    let mut world = World::new(None, &[]);
    let steps: [(Found, &str); 12] = [
        // Nobody has deployed anything: what is there was there before.
        (main("a"), "note a"),
        (main("a"), "nothing"),
        (main("b"), "deploy b"),
        (main("b"), "nothing"),
        (away("it is away"), "say it is away"),
        (away("it is away"), "nothing"),
        (away("it needs a login"), "say it needs a login"),
        (Ok(vec![None]), "say the repository has no branch `main`"),
        (Ok(vec![None]), "nothing"),
        // Back, and nothing is new.
        (main("b"), "note b"),
        // Pushed over, back to what was there.
        (main("a"), "deploy a"),
        (tip("main", "c", &[("[skip ci]", "a")]), "note c"),
    ];
    for (at, (found, expected)) in steps.into_iter().enumerate() {
        assert_eq!(world.hears(&found), expected, "step {at}");
    }
    assert_eq!(world.hears(&Ok(Vec::new())), "nothing");
}

#[test]
fn what_came_first_by_another_way_is_not_deployed_again() {
    // What made the newest deployment, of which commit, and what is done about b.
    let cases = [
        (Trigger::Webhook, Some("b"), "note b"),
        (Trigger::Webhook, Some("a"), "deploy b"),
        // Its own fetch takes the newest, and nobody knows yet which that is.
        (Trigger::Api, None, "nothing"),
        // Somebody has chosen that one.
        (Trigger::Api, Some("a"), "note b"),
    ];
    for (trigger, of, expected) in cases {
        let mut world = World::new(None, &[]);
        world.deploy(50, trigger, of);
        assert_eq!(world.hears(&main("b")), expected, "{trigger:?} {of:?}");
    }
    // What failed is for people to look at, not to be tried every few minutes.
    let mut world = World::new(None, &[]);
    world.deploy(50, Trigger::Webhook, Some("b"));
    let generation = world
        .state
        .deployment(DeploymentId::from_u128(50))
        .expect("there")
        .generation;
    world.apply(Kind::FinishDeployment(v1::FinishDeployment {
        deployment: id_bytes(50),
        expected_generation: generation,
        status: skep_proto::convert::enum_number(&Status::ALL, &Status::Failed),
        ..Default::default()
    }));
    assert_eq!(world.hears(&main("b")), "note b");
    // Later somebody goes back by hand: it stays so until the next push.
    world.deploy(51, Trigger::Api, Some("a"));
    assert_eq!(world.hears(&main("b")), "nothing");
    assert_eq!(world.question().want.since, Some(commit("a")));
    assert_eq!(world.hears(&main("c")), "deploy c");
}

#[test]
fn files_that_count_are_judged_by_what_came_since() {
    let mut world = World::new(None, &["api/**"]);
    world.deploy(50, Trigger::Webhook, Some("a"));
    assert_eq!(world.question().want.since, Some(commit("a")));
    assert_eq!(world.hears(&tip("main", "b", &[("m", "web/x")])), "note b");
    assert_eq!(
        world.hears(&tip("main", "c", &[("m", "api/x")])),
        "deploy c"
    );
    // A list that is not whole says nothing about what it lacks.
    let mut cut = tip("main", "d", &[("m", "web/x")]);
    if let Ok(tips) = &mut cut {
        tips[0].as_mut().expect("there").history.lists_all = false;
    }
    assert_eq!(world.hears(&cut), "deploy d");
}

#[test]
fn the_newest_tag_is_deployed_and_one_that_went_is_not_undone() {
    let mut world = World::new(Some("v*"), &[]);
    assert_eq!(world.hears(&tip("v1", "a", &[])), "note a");
    assert_eq!(world.hears(&tip("v2", "b", &[])), "deploy b");
    let mut went = tip("v1", "a", &[]);
    if let Ok(tips) = &mut went {
        tips[0].as_mut().expect("there").has_known = false;
    }
    assert_eq!(world.hears(&went), "note a");
    assert_eq!(world.hears(&tip("v3", "c", &[])), "deploy c");
}

#[test]
fn each_is_asked_in_its_time() {
    let mut world = World::new(None, &[]);
    let began_ms = world.now_ms;
    let mut book = Book::new(began_ms, Asked::default());
    let due = |book: &mut Book, world: &World, after_ms: u64| {
        book.due(&world.state, began_ms + after_ms).0.len()
    };
    // At once where nothing is known of it, then after its time, within a tenth.
    assert_eq!(due(&mut book, &world, 0), 1);
    book.ask(SERVICE, began_ms);
    assert_eq!(due(&mut book, &world, 269_999), 0);
    assert_eq!(due(&mut book, &world, 330_000), 1);
    // Another leader waits from its beginning, where something is known.
    assert_eq!(world.hears(&main("a")), "note a");
    let mut other = Book::new(began_ms, Asked::default());
    assert_eq!(due(&mut other, &world, 1_000), 0);
    assert_eq!(due(&mut other, &world, 330_000), 1);
    // A service that goes elsewhere is nothing known; one that wants no questions gets none.
    let mut service = (**world.state.service(SERVICE).expect("there")).clone();
    service.spec.source = Some(Source::Git {
        repository: REPOSITORY.into(),
        branch: "next".into(),
        directory: String::new(),
    });
    world.put(&service);
    assert_eq!(
        due(&mut Book::new(began_ms, Asked::default()), &world, 1_000),
        1
    );
    let mut service = (**world.state.service(SERVICE).expect("there")).clone();
    service.spec.pushes.poll_ms = Some(0);
    world.put(&service);
    assert_eq!(
        due(
            &mut Book::new(began_ms, Asked::default()),
            &world,
            1_000_000
        ),
        0
    );
}
