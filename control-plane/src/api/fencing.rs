//! A person's word that a lost node is dead: what has data on shared storage goes on elsewhere then.

use axum::Json;
use axum::extract::Extension;
use skep_model::node::{Node, NodeStatus};
use skep_proto::convert::{id_bytes, optional_id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;

use super::Here;
use super::access::Principal;
use super::error::Failure;
use super::extract::{Body, Path};
use super::nodes::{NodeKey, find_node};
use super::types::{FenceRequest, NodePlanView};

/// Confirms that a lost node is dead, or, without `confirm`, says what that would do and what has to be made sure of first.
/// What ran there is lost: what has data on shared storage, or may not run twice, goes on elsewhere. Its agent is refused
/// until it has stopped all that it had. Refused for a node that is not lost.
#[utoipa::path(post, path = "/v1/nodes/{node}/fence", tag = "cluster", params(NodeKey),
    operation_id = "fence_node", request_body = FenceRequest,
    responses((status = 200, body = NodePlanView)))]
pub(super) async fn fence(
    Here(app): Here,
    Extension(principal): Extension<Principal>,
    Path(key): Path<NodeKey>,
    Body(request): Body<FenceRequest>,
) -> Result<Json<NodePlanView>, Failure> {
    // What is confirmed is what this says, not what a replica that is behind says.
    let view = app.store.read().await?;
    let node = find_node(&view, &key.node)?;
    let told = foreseen(&view, &node);
    if request.confirm {
        app.store
            .propose(Kind::FenceNode(v1::FenceNode {
                node: id_bytes(node.id.as_u128()),
                expected_seat: optional_id_bytes(node.seat),
                by: principal.as_str().to_owned(),
                why: "a person has made sure that it is off".to_owned(),
            }))
            .await?;
    }
    Ok(Json(told))
}

/// What fencing a node does, and what is against it.
fn foreseen(view: &State, node: &Node) -> NodePlanView {
    let name = &node.name;
    if node.fencing.fenced.is_some() {
        return NodePlanView {
            steps: vec![format!("nothing: {name} is fenced already")],
            against: Vec::new(),
        };
    }
    let live: Vec<_> = view
        .allocations_on(node.id)
        .filter(|it| it.is_live())
        .collect();
    let shared: Vec<String> = view
        .shared_work_on(node.id)
        .filter_map(|it| Some(view.label_of(view.service(it.service)?)))
        .collect();
    let mut steps = vec![format!(
        "what {name} ran is lost: {} allocations",
        live.len()
    )];
    steps.push(match shared.is_empty() {
        true => "nothing there has data on shared storage: nothing waits for this".to_owned(),
        false => format!(
            "with their data on shared storage go elsewhere: {}",
            shared.join(", ")
        ),
    });
    steps.push(format!(
        "the agent of {name}, should it come back, stops all that it has before it is let in"
    ));
    steps.push(format!(
        "make sure first that {name} is off: its machine is stopped and stays so, or has no way to the storage. \
         Where it runs on, two write to the same data"
    ));
    let against = match node.status {
        NodeStatus::Lost => Vec::new(),
        _ => vec![format!("{name} is not lost: its agent is there")],
    };
    NodePlanView { steps, against }
}
