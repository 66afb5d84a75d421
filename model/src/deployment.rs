//! Deployments: the act of moving a service to a release, and the build within it.

use serde::{Deserialize, Serialize};

use crate::forge::{Kept, Told};
use crate::gate::Held;
use crate::id::{DeploymentId, NodeId, ServiceId, UploadId};
use crate::image_push::Push;
use crate::problem::Problem;
use crate::service::Image;
use crate::spec::Source;

/// Most steps kept in a deployment's timeline.
pub const MAX_STEPS: usize = 64;

/// Where a deployment is. Only forward; the last five are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Made, waiting for a builder or at a gate.
    Queued,
    /// Waits for a person.
    AwaitingApproval,
    /// A node is building.
    Building,
    /// The image is on its way to where it is needed.
    Pushing,
    /// Allocations are being replaced.
    Deploying,
    /// It serves.
    Live,
    /// It ended without serving, or stopped serving for a reason of its own.
    Failed,
    /// Somebody ended it.
    Canceled,
    /// A newer deployment took its place.
    Superseded,
    /// It served, and the service went back to an older release.
    RolledBack,
}

impl Status {
    /// Every status, in the order of the stored format: append only.
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::AwaitingApproval,
        Self::Building,
        Self::Pushing,
        Self::Deploying,
        Self::Live,
        Self::Failed,
        Self::Canceled,
        Self::Superseded,
        Self::RolledBack,
    ];

    /// Still on its way.
    pub const fn is_active(self) -> bool {
        matches!(
            self,
            Self::Queued
                | Self::AwaitingApproval
                | Self::Building
                | Self::Pushing
                | Self::Deploying
        )
    }

    /// Whether a deployment may go from here to `next`.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Live => matches!(next, Self::Superseded | Self::RolledBack),
            active if active.is_active() => next > active && next != Self::RolledBack,
            _ => false,
        }
    }

    /// The word, as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Building => "building",
            Self::Pushing => "pushing",
            Self::Deploying => "deploying",
            Self::Live => "live",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Superseded => "superseded",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// What asked for a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// `skep up`, `skep deploy` or the API.
    Api,
    /// A forge's webhook.
    Webhook,
    /// The same image with today's configuration.
    Redeploy,
    /// The same release, new containers.
    Restart,
    /// An older release.
    Rollback,
    /// Found in the repository; no forge had told of it.
    Poll,
    /// A release of the same service in another environment.
    Promote,
}

impl Trigger {
    /// Whether it brings something new: what runs again as it is, and what goes back, no gate holds up.
    pub const fn is_held(self) -> bool {
        !matches!(self, Self::Restart | Self::Rollback)
    }

    /// Every trigger, in the order of the stored format: append only.
    pub const ALL: [Self; 7] = [
        Self::Api,
        Self::Webhook,
        Self::Redeploy,
        Self::Restart,
        Self::Rollback,
        Self::Poll,
        Self::Promote,
    ];
}

/// What a deployment starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Origin {
    /// A folder that the client streams through a server to the building node.
    Upload {
        /// Names the stream.
        upload: UploadId,
    },
    /// A git repository.
    Git {
        /// What to clone.
        repository: String,
        /// The branch.
        branch: String,
        /// The commit; none: the branch's newest.
        commit: Option<String>,
        /// Folder inside the repository; empty: its root.
        #[serde(default)]
        directory: String,
    },
    /// A commit that was pushed to the cluster itself.
    Pushed {
        /// The branch.
        branch: String,
        /// The commit.
        commit: String,
        /// Folder inside the repository; empty: its root.
        #[serde(default)]
        directory: String,
    },
    /// A ready image.
    Image {
        /// `name[:tag][@digest]`.
        reference: String,
    },
    /// A release that exists (rollback, restart) or its image with new configuration (redeploy).
    Release {
        /// Its number.
        number: u64,
    },
    /// The image of another service's release, of the same project, with this one's configuration.
    Promoted {
        /// Whose it is.
        from: ServiceId,
        /// Its number.
        number: u64,
    },
}

impl Origin {
    /// Whether there is an image already, so that nothing is built.
    pub const fn is_release(&self) -> bool {
        matches!(self, Self::Release { .. } | Self::Promoted { .. })
    }
}

/// The build (or image resolution) of a deployment: work for one node's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Where it runs. Written by the leader.
    pub node: NodeId,
    /// How it ended; none: not yet. Written by that node's agent.
    pub outcome: Option<BuildOutcome>,
    /// How many nodes it was given to before and that were lost.
    pub lost: u32,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildOutcome {
    /// An image.
    Built(Built),
    /// None, and why.
    Failed(Problem),
}

/// What a build found and made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// TCP ports that the image exposes.
    pub exposed: Vec<u16>,
    /// The commit that was fetched.
    pub commit: Option<String>,
    /// Text of the app's own `skep.toml`, where it has one: checked again where it is read.
    pub manifest: Option<String>,
}

/// One line of a deployment's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    /// Cluster time, ms since the epoch.
    pub at_ms: u64,
    /// What happened, for a person.
    pub text: String,
}

/// The act of moving a service to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Identity.
    pub id: DeploymentId,
    /// Whose.
    pub service: ServiceId,
    /// Why it exists.
    pub trigger: Trigger,
    /// What it starts from.
    pub origin: Origin,
    /// Where it is.
    pub status: Status,
    /// Why it did not become live, or why it waits.
    pub problem: Option<Problem>,
    /// Its build, once a node has it.
    pub build: Option<Build>,
    /// The release that it brings, once there is one.
    pub release: Option<u64>,
    /// The timeline.
    pub steps: Vec<Step>,
    /// Cluster time of creation, ms since the epoch.
    pub created_ms: u64,
    /// When it entered its present status.
    pub status_ms: u64,
    /// Raised by every change.
    pub generation: u64,
    /// Becomes the service's source together with the release: a source that cannot be fetched or
    /// built is never the one that webhooks and later deployments begin from. None: stays.
    pub source: Option<Source>,
    /// Built even where there is an image of the same source.
    pub no_cache: bool,
    /// What the forge of its commit was told of it. Raises no generation: nothing else depends on it.
    pub told: Option<Told>,
    /// It waits at the gates of its environment, and takes nobody's place; none: it is through, or there was none.
    pub held: Option<Held>,
    /// What GitHub calls a deployment, of this one; none: it was not shown.
    pub shown: Option<Kept>,
    /// What became of its image at the workspace's push registry; none: nothing was tried. Raises no generation.
    pub push: Option<Push>,
}

impl Deployment {
    /// Whether it is through every gate and nothing was begun for it.
    pub const fn may_begin(&self) -> bool {
        matches!(self.status, Status::Queued | Status::AwaitingApproval) && self.held.is_none()
    }

    /// The commit that it was made of, or is to be; none: it is of no commit, or nobody knows it yet.
    pub fn commit(&self) -> Option<&str> {
        let commit = match &self.origin {
            Origin::Git { commit, .. } => commit,
            Origin::Pushed { commit, .. } => return Some(commit),
            _ => return None,
        };
        let outcome = self.build.as_ref().and_then(|it| it.outcome.as_ref());
        commit.as_deref().or(match outcome {
            Some(BuildOutcome::Built(built)) => built.commit.as_deref(),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_states_stay_and_nothing_goes_back() {
        for from in Status::ALL {
            for to in Status::ALL {
                if from.may_become(to) {
                    assert!(to > from, "{from:?} -> {to:?}");
                    assert!(from.is_active() || from == Status::Live);
                }
            }
        }
        assert!(!Status::Deploying.may_become(Status::RolledBack));
        assert!(Status::Live.may_become(Status::RolledBack));
    }
}
