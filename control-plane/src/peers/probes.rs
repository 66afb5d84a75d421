//! Nodes that are connected to another server, asked through it to knock at others, or to dial them.

use skep_model::id::{NodeId, ServerId};
use skep_model::network_check::{self, Found};
use skep_model::polling;
use skep_model::probe::{MAX_TARGETS, Reach, Target};
use skep_model::registry;
use skep_proto::convert::{self, id_bits, id_bytes, reaches, reaches_of};
use skep_proto::v1;

use super::links::{Lane, Links};
use crate::agents::relay::Relay;
use crate::agents::sources::is_whole;

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

/// What `node` finds when it dials others; none: it, or the server, does not answer.
pub(super) async fn ask_network(
    links: &Links,
    server: ServerId,
    (node, ask): (NodeId, network_check::Ask),
) -> Option<Found> {
    let contact = links.directory().of_server(server)?;
    let mut client = links.shared(&contact, Lane::Calls).ok()?;
    let asked = ask.doors.len();
    let message = v1::NetworkAskThere {
        node: id_bytes(node.as_u128()),
        ask: Some((&ask).into()),
    };
    let answered = client.check_network(message).await.ok()?.into_inner();
    let found = Found::from(answered.found?);
    (found.dialed.len() == asked).then_some(found)
}

/// Serves another server.
///
/// # Errors
/// The message means nothing.
pub(super) async fn serve_network(
    relay: &Relay,
    message: v1::NetworkAskThere,
) -> Result<v1::NetworkFoundThere, convert::Error> {
    let node = NodeId::from_u128(id_bits("node", &message.node)?);
    let ask = message.ask.unwrap_or_default().try_into()?;
    let found = relay.check_network_here(node, ask).await;
    Ok(v1::NetworkFoundThere {
        found: found.as_ref().map(Into::into),
    })
}

/// What `node` finds in a repository; none: it, or the server, does not answer.
pub(super) async fn ask_source(
    links: &Links,
    server: ServerId,
    (node, ask): (NodeId, polling::Ask),
) -> Option<polling::Found> {
    let contact = links.directory().of_server(server)?;
    let mut client = links.shared(&contact, Lane::Calls).ok()?;
    let asked = ask.wants.len();
    let message = v1::SourceAskThere {
        node: id_bytes(node.as_u128()),
        ask: Some((&ask).into()),
    };
    let answered = client.ask_source(message).await.ok()?.into_inner();
    let found = convert::found_in(answered.found?).ok()?;
    is_whole(&found, asked).then_some(found)
}

/// Serves another server.
///
/// # Errors
/// The message means nothing.
pub(super) async fn serve_source(
    relay: &Relay,
    message: v1::SourceAskThere,
) -> Result<v1::SourceFoundThere, convert::Error> {
    let node = NodeId::from_u128(id_bits("node", &message.node)?);
    let ask = message.ask.unwrap_or_default().try_into()?;
    let found = relay.ask_source_here(node, ask).await;
    Ok(v1::SourceFoundThere {
        found: found.as_ref().map(convert::found_out),
    })
}

/// What `node` does or finds at a registry; none: it, or the server, does not answer.
pub(super) async fn ask_registry(
    links: &Links,
    server: ServerId,
    (node, ask): (NodeId, registry::Ask),
) -> Option<registry::Found> {
    let contact = links.directory().of_server(server)?;
    let mut client = links.shared(&contact, Lane::Calls).ok()?;
    let message = v1::RegistryAskThere {
        node: id_bytes(node.as_u128()),
        ask: Some((&ask).into()),
    };
    let answered = client.ask_registry(message).await.ok()?.into_inner();
    convert::registry_in(answered.found?).ok()
}

/// Serves another server.
///
/// # Errors
/// The message means nothing.
pub(super) async fn serve_registry(
    relay: &Relay,
    message: v1::RegistryAskThere,
) -> Result<v1::RegistryFoundThere, convert::Error> {
    let node = NodeId::from_u128(id_bits("node", &message.node)?);
    let ask = message.ask.unwrap_or_default().try_into()?;
    let found = relay.ask_registry_here(node, ask).await;
    Ok(v1::RegistryFoundThere {
        found: found.as_ref().map(convert::registry_out),
    })
}
