use skep_model::id::{ClusterId, EnvironmentId, ProjectId, WorkspaceId};
use skep_model::preview::{Preview, Why};
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_state::command;

use super::*;

const PREVIEW: EnvironmentId = EnvironmentId::from_u128(7);

/// A state with a preview of an environment that lives for ten seconds.
struct World {
    state: State,
    index: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::default(),
            index: 0,
        };
        let (workspace, project) = (WorkspaceId::from_u128(1), ProjectId::from_u128(2));
        let base = EnvironmentId::from_u128(3);
        world.apply(Kind::InitCluster(v1::InitCluster {
            cluster: id_bytes(ClusterId::from_u128(9).as_u128()),
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
                    name: "shop".into(),
                })
                    .into(),
            ),
            environment: Some(
                (&Environment {
                    id: base,
                    project,
                    name: "production".into(),
                })
                    .into(),
            ),
        }));
        let preview = Preview {
            environment: PREVIEW,
            base,
            name: "pr-1".into(),
            request: None,
            branch: None,
            commit: None,
            ttl_ms: 10_000,
            expires_ms: 0,
            created_ms: 0,
            idle_ms: 0,
            seed: None,
            ended: None,
            comment: None,
        };
        world.apply(Kind::MakePreview(v1::MakePreview {
            preview: Some((&preview).into()),
            ..Default::default()
        }));
        world
    }

    fn apply(&mut self, kind: Kind) {
        self.index += 1;
        let applied = self.state.apply(self.index, &command(1_000, kind));
        applied.outcome.expect("accepted");
    }
}

#[test]
fn a_preview_ends_when_its_time_is_over_and_is_forgotten_once() {
    let mut world = World::new();
    let early = plan(&world.state, 10_999);
    assert_eq!((early.steps.len(), early.next_ms), (0, Some(11_000)));
    let mut late = plan(&world.state, 11_000);
    assert_eq!((late.steps.len(), late.next_ms), (1, None));
    let end = late.steps.remove(0);
    let Kind::EndPreview(message) = &end else {
        panic!("{end:?}");
    };
    assert_eq!(
        message.expected_expires_ms,
        Some(11_000),
        "unless it is put off"
    );
    assert_eq!(message.why, enum_number(&Why::ALL, &Why::Expired));
    world.apply(end);
    let mut next = plan(&world.state, 11_000);
    assert!(
        matches!(&next.steps[..], [Kind::ForgetPreview(_)]),
        "{next:?}"
    );
    world.apply(next.steps.remove(0));
    assert!(world.state.environment(PREVIEW).is_none());
    assert_eq!(
        plan(&world.state, 11_000),
        Plan::default(),
        "nothing is left to do"
    );
}
