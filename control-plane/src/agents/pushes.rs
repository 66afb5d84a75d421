//! What nodes keep of services that are no more: said when a session begins, and taken away then.

use skep_model::id::{NodeId, ServiceId};
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use skep_state::State;

use super::service::Shared;

impl Shared {
    /// A node says whose pushes it keeps. Which of the services are no more, a state says that is not behind:
    /// another would have a service removed that was made a moment ago.
    pub(super) fn tidy_pushes(&self, node: NodeId, kept: &[Vec<u8>]) {
        let ids = kept
            .iter()
            .filter_map(|bytes| id_bits("pushed", bytes).ok());
        let kept: Vec<ServiceId> = ids.map(ServiceId::from_u128).collect();
        if kept.is_empty() {
            return;
        }
        let shared = self.clone();
        tokio::spawn(async move {
            // Without a leader nothing is removed: the next session says it again.
            let Ok(view) = shared.store.read().await else {
                return;
            };
            let gone = gone(&view, &kept);
            if gone.is_empty() {
                return;
            }
            let services = gone.iter().map(|it| id_bytes(it.as_u128())).collect();
            let message = v1::to_agent::Kind::DropStores(v1::DropStores { services });
            let _ = shared.relay.tell(node, message);
        });
    }
}

/// Those of these services that there are none of.
fn gone(view: &State, kept: &[ServiceId]) -> Vec<ServiceId> {
    let all = kept.iter().copied();
    all.filter(|id| view.service(*id).is_none()).collect()
}
