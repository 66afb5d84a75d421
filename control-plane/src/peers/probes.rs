//! Nodes that are connected to another server, asked through it to knock at others.

use skep_model::id::{NodeId, ServerId};
use skep_model::probe::{MAX_TARGETS, Reach, Target};
use skep_proto::convert::{self, id_bits, id_bytes, reaches, reaches_of};
use skep_proto::v1;

use super::links::{Lane, Links};
use crate::agents::relay::Relay;

/// What `node` finds; none: it, or the server, does not answer.
pub(super) async fn ask(
    links: &Links,
    server: ServerId,
    (node, targets): (NodeId, Vec<Target>),
) -> Option<Vec<Reach>> {
    let contact = links.directory().of_server(server)?;
    let mut client = links.shared(&contact, Lane::Calls).ok()?;
    let asked = targets.len();
    let message = v1::ProbeThere {
        node: id_bytes(node.as_u128()),
        probe: Some(v1::Probe {
            request: 0,
            targets: targets.iter().map(Into::into).collect(),
        }),
    };
    let answered = client.probe(message).await.ok()?.into_inner();
    let found = reaches_of(&answered.found);
    (found.len() == asked).then_some(found)
}

/// Serves another server.
///
/// # Errors
/// The message means nothing.
pub(super) async fn serve(
    relay: &Relay,
    message: v1::ProbeThere,
) -> Result<v1::Probed, convert::Error> {
    let node = NodeId::from_u128(id_bits("node", &message.node)?);
    let targets = message.probe.unwrap_or_default().targets;
    let targets = targets.into_iter().take(MAX_TARGETS).map(Target::try_from);
    let targets: Vec<Target> = targets.collect::<Result<_, _>>()?;
    // Nothing found at nobody: no answer.
    let found = relay.probe_here(node, targets).await.unwrap_or_default();
    Ok(v1::Probed {
        request: 0,
        found: reaches(&found),
    })
}
