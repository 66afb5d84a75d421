//! Look-ups of what makes the cluster itself: servers, tokens, CA, level, quarantine.

use std::sync::Arc;

use skep_model::id::{AllocationId, NodeId, ServerId};
use skep_model::quarantine::Quarantined;
use skep_model::rebalance::Rebalance;
use skep_model::server::{JoinToken, Server};
use skep_model::variable::Sealed;

use crate::state::{Cluster, FIRST_MEMBER, State};

impl Cluster {
    /// Every CA that is trusted, newest first, as one PEM text.
    pub fn trusted_ca_pem(&self) -> String {
        let Some(other) = &self.other_ca else {
            return self.ca_cert_pem.clone();
        };
        let (first, second) = if other.is_older {
            (&self.ca_cert_pem, &other.cert_pem)
        } else {
            (&other.cert_pem, &self.ca_cert_pem)
        };
        format!("{}\n{}\n", first.trim_end(), second.trim_end())
    }
}

impl State {
    /// How the cluster is rebalanced, and what is being moved.
    pub fn rebalance(&self) -> &Rebalance {
        &self.rebalance
    }

    /// The same state with its data key wrapped by another operator's key: what a backup is restored to
    /// under a key file that is not the founder's.
    #[must_use]
    pub fn rewrapped(mut self, wrapped_data_key: Sealed) -> Self {
        self.cluster = self.cluster.map(|cluster| {
            Arc::new(Cluster {
                wrapped_data_key,
                ..(*cluster).clone()
            })
        });
        self
    }

    /// The cluster's feature level; before there is a cluster, the first.
    pub fn feature_level(&self) -> u32 {
        self.cluster.as_ref().map_or(1, |c| c.feature_level)
    }

    /// All servers, by id. Their members are the wanted members of the Raft group.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.values()
    }

    /// A server.
    pub fn server(&self, id: ServerId) -> Option<&Arc<Server>> {
        self.servers.get(&id)
    }

    /// A server by name.
    pub fn server_named(&self, name: &str) -> Option<&Arc<Server>> {
        let id = self.names.servers.get(name)?;
        self.servers.get(id)
    }

    /// The server that has this member id now.
    pub fn server_by_member(&self, member: u64) -> Option<&Arc<Server>> {
        let id = self.members.get(&member)?;
        self.servers.get(id)
    }

    /// The member id that the next server gets: no server ever had it.
    pub fn next_member(&self) -> u64 {
        let given = self.cluster.as_ref().map_or(0, |c| c.next_member);
        given.max(FIRST_MEMBER + 1)
    }

    /// All join tokens, by id (oldest first); some may have expired.
    pub fn tokens(&self) -> impl Iterator<Item = &Arc<JoinToken>> {
        self.tokens.values()
    }

    /// Everything in quarantine, by node and allocation.
    pub fn quarantine(&self) -> impl Iterator<Item = &Arc<Quarantined>> {
        self.quarantine.values()
    }

    /// What one node has in quarantine.
    pub fn quarantine_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<Quarantined>> {
        self.quarantine.range(all_of(node)).map(|(_, entry)| entry)
    }

    /// What one node still has of what somebody dismissed: it is told to stop these.
    pub fn dismissed_on(&self, node: NodeId) -> impl Iterator<Item = AllocationId> + '_ {
        self.dismissed.range(all_of(node)).map(|(_, id)| *id)
    }
}

fn all_of(node: NodeId) -> std::ops::RangeInclusive<(NodeId, AllocationId)> {
    (node, AllocationId::from_u128(0))..=(node, AllocationId::from_u128(u128::MAX))
}
