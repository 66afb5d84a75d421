//! What a backup says of itself. Everything but when and where it was made can be computed from the
//! state, and is compared with it.

use serde::{Deserialize, Serialize};
use skep_model::id::ClusterId;
use skep_state::{Cluster, State};

use super::FORMAT;
use super::archive::Maker;

/// The manifest, as `manifest.json`. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the file: [`FORMAT`].
    pub format: u32,
    /// Version of skep that made it.
    pub skep_version: String,
    /// Name of the server that made it.
    pub server: String,
    /// That server's clock when it made it, ms since the epoch.
    pub created_ms: u64,
    /// The data key as that server's operator's key wraps it, in hex: the state has it as the founder's
    /// does, whose key file may be gone with its machine.
    pub wrapped_data_key: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its incarnation.
    pub incarnation: u64,
    /// Its feature level, which is the format of the state.
    pub feature_level: u32,
    /// Index of the newest command in it.
    pub index: u64,
    /// The cluster's time then, ms since the epoch.
    pub time_ms: u64,
    /// Generated host names end in this.
    pub base_domain: String,
    /// How much there is.
    pub counts: Counts,
    /// Size of `state.bin`.
    pub state_bytes: u64,
    /// SHA-256 of `state.bin`, in hex.
    pub state_sha256: String,
}

/// How many there are of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Servers.
    pub servers: usize,
    /// Nodes.
    pub nodes: usize,
    /// Projects.
    pub projects: usize,
    /// Environments.
    pub environments: usize,
    /// Services.
    pub services: usize,
    /// Deployments that are remembered.
    pub deployments: usize,
    /// Allocations, ended ones that are remembered included.
    pub allocations: usize,
    /// Join tokens.
    pub tokens: usize,
    /// Allocations in quarantine.
    pub quarantine: usize,
}

impl Counts {
    fn of(state: &State) -> Self {
        Self {
            servers: state.servers().count(),
            nodes: state.nodes().count(),
            projects: state.projects().count(),
            environments: state.environments().count(),
            services: state.services().count(),
            deployments: state.deployments().count(),
            allocations: state.allocations().count(),
            tokens: state.tokens().count(),
            quarantine: state.quarantine().count(),
        }
    }
}

impl Manifest {
    /// Of a state and its encoding's size and sum.
    pub(super) fn of(
        (state, cluster): (&State, &Cluster),
        (state_bytes, state_sha256): (u64, String),
        maker: &Maker<'_>,
    ) -> Self {
        Self {
            format: FORMAT,
            skep_version: crate::version().to_owned(),
            server: maker.server.to_owned(),
            created_ms: maker.created_ms,
            wrapped_data_key: hex::encode(maker.wrapped_data_key),
            cluster: cluster.id,
            incarnation: cluster.incarnation,
            feature_level: cluster.feature_level,
            index: state.index(),
            time_ms: state.time_ms(),
            base_domain: cluster.base_domain.clone(),
            counts: Counts::of(state),
            state_bytes,
            state_sha256,
        }
    }

    /// The first thing in which it and `state` differ.
    pub(super) fn difference(&self, state: &State, cluster: &Cluster) -> Option<&'static str> {
        let checks = [
            ("the cluster", self.cluster == cluster.id),
            ("the incarnation", self.incarnation == cluster.incarnation),
            (
                "the feature level",
                self.feature_level == cluster.feature_level,
            ),
            ("the index", self.index == state.index()),
            ("the time", self.time_ms == state.time_ms()),
            ("the base domain", self.base_domain == cluster.base_domain),
            ("the counts", self.counts == Counts::of(state)),
        ];
        let wrong = checks.into_iter().find(|(_, is_same)| !is_same);
        wrong.map(|(what, _)| what)
    }
}
