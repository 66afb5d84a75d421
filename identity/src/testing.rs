//! Clusters for tests: a CA and its members, made on the spot.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_model::id::{ClusterId, NodeId, OperatorId, ServerId};

use crate::ca::{ClusterCa, Grant};
use crate::keypair::{Credentials, KeyAndRequest};
use crate::name::Identity;
use crate::tls::Reloadable;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A cluster with its CA.
pub(crate) struct Cluster {
    pub(crate) ca: ClusterCa,
}

impl Cluster {
    pub(crate) fn new(id: u128) -> Self {
        let ca = ClusterCa::generate(ClusterId::from_u128(id), SystemTime::now()).expect("ca");
        Self { ca }
    }

    pub(crate) fn server_identity(&self, id: u128) -> Identity {
        Identity::server(self.ca.cluster(), ServerId::from_u128(id))
    }

    pub(crate) fn node_identity(&self, id: u128) -> Identity {
        Identity::node(self.ca.cluster(), NodeId::from_u128(id))
    }

    pub(crate) fn credentials(&self, identity: Identity) -> Credentials {
        self.credentials_at(identity, SystemTime::now())
    }

    pub(crate) fn credentials_at(&self, identity: Identity, now: SystemTime) -> Credentials {
        let key = KeyAndRequest::generate().expect("key");
        let grant = Grant {
            identity,
            addresses: &[],
            lifetime: HOUR,
        };
        let cert = self.ca.issue(&key.csr_pem, &grant, now).expect("issue");
        key.certified(cert, self.ca.cert_pem().to_owned())
    }

    pub(crate) fn server(&self, id: u128) -> Arc<Reloadable> {
        Reloadable::new(&self.credentials(self.server_identity(id))).expect("server")
    }

    pub(crate) fn node(&self, id: u128) -> Arc<Reloadable> {
        Reloadable::new(&self.credentials(self.node_identity(id))).expect("node")
    }

    pub(crate) fn operator(&self, id: u128) -> Arc<Reloadable> {
        let identity = Identity::operator(self.ca.cluster(), OperatorId::from_u128(id));
        Reloadable::new(&self.credentials(identity)).expect("operator")
    }
}
