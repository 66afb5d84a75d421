//! Ends what a host that moved its guests, or came back, may have left: all replicas of a service on one
//! physical host, while another one has room.

use skep_model::id::{AllocationId, NodeId};

use super::Move;
use crate::draft::Draft;
use crate::filter::Ask;
use crate::place::place;

/// The one move after which the service's replicas are on two hosts: the last of them goes where the
/// scheduler itself would place it beside the others. `there`: all of its replicas, in the order in which they stay.
/// None: they are on several hosts, there are fewer than two, or no other host takes one.
pub fn apart(draft: &Draft<'_>, ask: &Ask, there: &[(AllocationId, NodeId)]) -> Option<Move> {
    let cluster = draft.cluster();
    let ((leaver, from), others) = there.split_last()?;
    let host = cluster.host_of(*from);
    let is_together = |(_, node): &(AllocationId, NodeId)| cluster.host_of(*node) == host;
    if others.is_empty() || !others.iter().all(is_together) {
        return None;
    }
    // Beside those that stay, and with the one that goes still there: it goes when the new one is well.
    let ask = Ask {
        staying: Some(others.iter().map(|(_, node)| *node).collect()),
        ..ask.clone()
    };
    let to = place(draft, &ask).ok()?.node;
    (cluster.host_of(to) != host).then_some(Move {
        allocation: *leaver,
        from: *from,
        to,
    })
}
