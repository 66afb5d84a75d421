//! Docker's networks: those that are ours carry this node's labels and the environment's.

use std::collections::HashMap;

use bollard::models::{Network, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptions;
use skep_model::assignment::Assignment;
use skep_model::id::{EnvironmentId, NodeId};

use super::container::{LABEL_CLUSTER, LABEL_NODE};
use super::{CHANGE_TIMEOUT, Error, READ_TIMEOUT, Runtime};
use crate::network::{Bridge, Bridges, label};
use tokio::sync::watch;

/// The environment that a network is for, by id.
const LABEL_ENVIRONMENT: &str = "sh.skep.environment";

/// The environment that a network of ours is for.
pub(crate) fn network_environment(network: &Network) -> Option<EnvironmentId> {
    label(network, LABEL_ENVIRONMENT)?.parse().ok()
}

impl Runtime {
    /// The bridges that containers are put on; whoever makes them says so here.
    pub(crate) fn bridges(&self) -> &watch::Sender<Bridges> {
        &self.bridges
    }

    /// The bridge of an assignment's environment, where there is one.
    pub(super) fn bridge_of(&self, assignment: &Assignment) -> Option<Bridge> {
        let environment = assignment.network?;
        self.bridges.borrow().get(&environment).cloned()
    }

    /// Labels of the network of an environment.
    pub(crate) fn network_labels(&self, environment: EnvironmentId) -> HashMap<String, String> {
        let all = [
            (LABEL_CLUSTER, self.labels.cluster.to_string()),
            (LABEL_NODE, self.labels.node.to_string()),
            (LABEL_ENVIRONMENT, environment.to_string()),
        ];
        all.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// All networks of the daemon, or those of ours.
    pub(crate) async fn networks(&self, of: Option<NodeId>) -> Result<Vec<Network>, Error> {
        let filters = of.map(|_| [("label".to_owned(), self.labels.filter())].into());
        let options = ListNetworksOptions { filters };
        let asked = self.docker.list_networks(Some(options));
        self.call("list networks", READ_TIMEOUT, asked).await
    }

    /// Makes one.
    pub(crate) async fn create_network(&self, request: NetworkCreateRequest) -> Result<(), Error> {
        let asked = self.docker.create_network(request);
        self.call("create a network", CHANGE_TIMEOUT, asked).await?;
        Ok(())
    }

    /// Removes one; Docker refuses while a container is on it. One that is gone is removed already.
    pub(crate) async fn remove_network(&self, name: &str) -> Result<(), Error> {
        let asked = self.docker.remove_network(name);
        match self.call("remove a network", CHANGE_TIMEOUT, asked).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }
}
