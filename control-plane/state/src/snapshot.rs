//! The state as bytes and back. Ordered maps make the bytes a function of the content.

use prost::Message as _;
use skep_model::id::{ClusterId, DeploymentId};
use skep_model::variable::Sealed;
use skep_proto::convert::{self, id_bits, id_bytes};
use skep_proto::{FORMAT, v1};

use crate::state::{Cluster, Delivery, State};

/// Bytes that are not a state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not even the message.
    #[error("the snapshot does not decode")]
    Decode(#[from] prost::DecodeError),
    /// A message without meaning.
    #[error("the snapshot does not make sense")]
    Content(#[from] convert::Error),
    /// Written by a newer Skep.
    #[error(
        "the snapshot has format {found}, this build reads up to {FORMAT}: start the newer version of skep"
    )]
    Newer {
        /// Its format.
        found: u32,
    },
}

impl From<&Cluster> for v1::Cluster {
    fn from(cluster: &Cluster) -> Self {
        Self {
            id: id_bytes(cluster.id.as_u128()),
            incarnation: cluster.incarnation,
            feature_level: cluster.feature_level,
            ca_cert_pem: cluster.ca_cert_pem.clone(),
            sealed_ca_key: cluster.sealed_ca_key.0.clone(),
            wrapped_data_key: cluster.wrapped_data_key.0.clone(),
            base_domain: cluster.base_domain.clone(),
            admin_token_hash: cluster.admin_token_hash.clone(),
        }
    }
}

impl TryFrom<v1::Cluster> for Cluster {
    type Error = convert::Error;

    fn try_from(message: v1::Cluster) -> Result<Self, convert::Error> {
        Ok(Self {
            id: ClusterId::from_u128(id_bits("cluster", &message.id)?),
            incarnation: message.incarnation,
            feature_level: message.feature_level,
            ca_cert_pem: message.ca_cert_pem,
            sealed_ca_key: Sealed(message.sealed_ca_key),
            wrapped_data_key: Sealed(message.wrapped_data_key),
            base_domain: message.base_domain,
            admin_token_hash: message.admin_token_hash,
        })
    }
}

impl State {
    /// The state as the bytes of a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let deliveries = self.deliveries.iter().map(|(key, delivery)| v1::Delivery {
            key: key.clone(),
            deployment: id_bytes(delivery.deployment.as_u128()),
            at_ms: delivery.at_ms,
        });
        v1::Snapshot {
            version: FORMAT,
            time_ms: self.time_ms,
            index: self.index,
            routes_revision: self.routes_revision,
            cluster: self.cluster.as_deref().map(Into::into),
            workspaces: self.workspaces.values().map(|x| (&**x).into()).collect(),
            projects: self.projects.values().map(|x| (&**x).into()).collect(),
            environments: self.environments.values().map(|x| (&**x).into()).collect(),
            services: self.services.values().map(|x| (&**x).into()).collect(),
            releases: self.releases.values().map(|x| (&**x).into()).collect(),
            deployments: self.deployments.values().map(|x| (&**x).into()).collect(),
            allocations: self.allocations.values().map(|x| (&**x).into()).collect(),
            nodes: self.nodes.values().map(|x| (&**x).into()).collect(),
            tokens: self.tokens.values().map(|x| (&**x).into()).collect(),
            deliveries: deliveries.collect(),
        }
        .encode_to_vec()
    }

    /// The state that these bytes are a snapshot of.
    ///
    /// # Errors
    /// Damaged bytes, or a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let message = v1::Snapshot::decode(bytes)?;
        if message.version > FORMAT {
            return Err(Error::Newer {
                found: message.version,
            });
        }
        let mut state = Self {
            time_ms: message.time_ms,
            index: message.index,
            routes_revision: message.routes_revision,
            ..Self::default()
        };
        state.cluster = message
            .cluster
            .map(Cluster::try_from)
            .transpose()?
            .map(std::sync::Arc::new);
        message
            .workspaces
            .into_iter()
            .try_for_each(|x| x.try_into().map(|x| state.put_workspace(x)))?;
        message
            .projects
            .into_iter()
            .try_for_each(|x| x.try_into().map(|x| state.put_project(x)))?;
        message
            .environments
            .into_iter()
            .try_for_each(|x| x.try_into().map(|x| state.put_environment(x)))?;
        message
            .services
            .into_iter()
            .try_for_each(|x| x.try_into().map(|x| state.put_service(x)))?;
        for release in message.releases {
            let release = skep_model::service::Release::try_from(release)?;
            state.releases.insert(
                (release.service, release.number),
                std::sync::Arc::new(release),
            );
        }
        message
            .deployments
            .into_iter()
            .try_for_each(|x| x.try_into().map(|x| state.put_deployment(x)))?;
        message
            .allocations
            .into_iter()
            .try_for_each(|x| x.try_into().map(|x| state.put_allocation(x)))?;
        message
            .nodes
            .into_iter()
            .try_for_each(|x| x.try_into().map(|x| state.put_node(x)))?;
        for token in message.tokens {
            let token = skep_model::node::JoinToken::try_from(token)?;
            state.tokens.insert(token.id, std::sync::Arc::new(token));
        }
        for delivery in message.deliveries {
            let deployment = DeploymentId::from_u128(id_bits("deployment", &delivery.deployment)?);
            state.put_delivery(
                delivery.key,
                Delivery {
                    deployment,
                    at_ms: delivery.at_ms,
                },
            );
        }
        Ok(state)
    }
}
