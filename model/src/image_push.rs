//! Where a workspace's images are pushed beside the nodes' own store, what they are called there, and what became of
//! one. Knows no registry: what one must look like is `registry`'s.

use serde::{Deserialize, Serialize};

use crate::deployment::{BuildOutcome, Deployment, Status};
use crate::id::WorkspaceId;
use crate::problem::{Code, Problem};
use crate::registry::{Bucket, check_host, host_of};
use crate::service::Image;
use crate::variable::Sealed;

/// Longest prefix, in bytes: with three names behind it a repository is within the 255 of the specification.
pub const MAX_PREFIX: usize = 120;
/// How long a deployment that must be pushed first waits for its registry, in ms. Then it has failed.
pub const REQUIRED_WAIT_MS: u64 = 30 * 60_000;

/// The registry or bucket that a workspace's images are pushed to. Written by operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRegistry {
    /// Whose.
    pub workspace: WorkspaceId,
    /// As in [`crate::registry::RegistryLogin`].
    pub host: String,
    /// Folders before the image's own name, without slashes at its ends; empty: none.
    pub prefix: String,
    /// As whom images are pushed.
    pub user: String,
    /// With which password or token, sealed.
    pub password: Sealed,
    /// As whom they are pulled; none: as whoever pushes.
    pub pull: Option<PullLogin>,
    /// The host has this bucket, and no registry.
    pub bucket: Option<Bucket>,
    /// Nothing goes live that is not there.
    pub required: bool,
    /// Cluster time when it was first set: older deployments are not pushed. Ms since the epoch.
    pub made_ms: u64,
    /// Cluster time of the last change.
    pub changed_ms: u64,
}

/// As whom images of a push registry are pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullLogin {
    /// The user.
    pub user: String,
    /// Password or token, sealed.
    pub password: Sealed,
}

/// What became of a deployment's image at the push registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// As people name it there: `host/prefix/workspace/project/service:tag`.
    pub reference: String,
    /// The digest by which it is there; none: it is not.
    pub digest: Option<String>,
    /// What went wrong with the newest attempt.
    pub problem: Option<Problem>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last, at the leader's clock, ms since the epoch.
    pub at_ms: u64,
    /// When it is tried again, where it is not there.
    pub next_ms: u64,
}

/// A push registry as people see it: without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PushRegistryShown {
    /// As references begin.
    pub host: String,
    /// Folders before the images' own names; empty: none.
    pub prefix: String,
    /// As whom images are pushed.
    pub user: String,
    /// As whom they are pulled.
    pub pull_user: String,
    /// Absent: it is a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<Bucket>,
    /// Nothing goes live that is not there.
    pub required: bool,
    /// When it was set, ms since the epoch.
    pub changed_ms: u64,
}

impl From<&PushRegistry> for PushRegistryShown {
    fn from(registry: &PushRegistry) -> Self {
        let pull = registry.pull.as_ref();
        Self {
            host: registry.host.clone(),
            prefix: registry.prefix.clone(),
            user: registry.user.clone(),
            pull_user: pull.map_or(&registry.user, |pull| &pull.user).clone(),
            bucket: registry.bucket.clone(),
            required: registry.required,
            changed_ms: registry.changed_ms,
        }
    }
}

impl PushRegistry {
    /// What every server agrees on.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), Problem> {
        check_host(&self.host)?;
        if let Some(bucket) = &self.bucket {
            bucket.check(&self.host)?;
        }
        check_prefix(&self.prefix)
    }

    /// Where the images of a service are, without host and tag; a bucket is the first folder.
    pub fn repository(&self, workspace: &str, project: &str, service: &str) -> String {
        let bucket = self.bucket.as_ref().map_or("", |bucket| &bucket.name);
        let folders = [bucket, &self.prefix, workspace, project, service];
        let said: Vec<&str> = folders.into_iter().filter(|it| !it.is_empty()).collect();
        said.join("/")
    }

    /// Whether a reference leads to this registry.
    pub fn is_at(&self, reference: &str) -> bool {
        host_of(reference) == self.host
    }

    /// When a deployment's image is pushed as `reference`; none: it is not, or it is there.
    pub fn due_ms(&self, deployment: &Deployment, reference: &str) -> Option<u64> {
        let is_wanted = matches!(
            deployment.status,
            Status::Pushing | Status::Deploying | Status::Live
        );
        if !is_wanted || deployment.created_ms < self.made_ms {
            return None;
        }
        match &deployment.push {
            Some(push) if push.reference == reference => match push.digest {
                Some(_) => None,
                // Somebody has changed the login: it may be taken now.
                None if push.at_ms < self.changed_ms => Some(0),
                None => Some(push.next_ms),
            },
            // Nothing was tried, or it was for another registry.
            _ => Some(0),
        }
    }
}

impl Push {
    /// `host/repository@digest`; none: it is not there.
    pub fn by_digest(&self) -> Option<String> {
        let digest = self.digest.as_ref()?;
        let repository = match self.reference.rsplit_once(':') {
            // A colon before a slash belongs to the registry's port.
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => &self.reference,
        };
        Some(format!("{repository}@{digest}"))
    }
}

impl Deployment {
    /// The image that this deployment's build made, where nodes have it and no registry does.
    pub fn made(&self) -> Option<&Image> {
        match self.build.as_ref()?.outcome.as_ref()? {
            BuildOutcome::Built(built) => Some(&built.image).filter(|image| image.shared),
            BuildOutcome::Failed(_) => None,
        }
    }
}

/// Checks the folders of a push registry, as repositories of the OCI specification have them.
///
/// # Errors
/// Says what is accepted.
pub fn check_prefix(prefix: &str) -> Result<(), Problem> {
    let is_sound = prefix.is_empty() || prefix.split('/').all(is_component);
    if is_sound && prefix.len() <= MAX_PREFIX {
        return Ok(());
    }
    let text = format!("folders of a registry are at most {MAX_PREFIX} of a-z, 0-9 and . _ - /");
    Err(Problem::new(Code::Invalid, text)
        .at("prefix")
        .hint("as they are behind the host: registry.example.com/team/apps"))
}

/// Letters and digits, with one `.`, one or two `_`, or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_between =
        |run: &str| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-');
    !text.is_empty()
        && text.starts_with(is_word)
        && text.ends_with(is_word)
        && text.split(is_word).all(is_between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::{Origin, Trigger};
    use crate::id::{DeploymentId, ServiceId, UploadId};

    fn registry() -> PushRegistry {
        PushRegistry {
            workspace: WorkspaceId::from_u128(1),
            host: "r.example:5000".into(),
            prefix: "team".into(),
            user: "ci".into(),
            password: Sealed(vec![1]),
            pull: None,
            bucket: None,
            required: false,
            made_ms: 500,
            changed_ms: 500,
        }
    }

    fn deployment(status: Status, push: Option<Push>) -> Deployment {
        Deployment {
            id: DeploymentId::from_u128(1),
            service: ServiceId::from_u128(2),
            trigger: Trigger::Api,
            origin: Origin::Upload {
                upload: UploadId::from_u128(3),
            },
            status,
            problem: None,
            build: None,
            release: None,
            steps: Vec::new(),
            created_ms: 1_000,
            status_ms: 1_000,
            generation: 1,
            source: None,
            no_cache: false,
            told: None,
            push,
            held: None,
            shown: None,
        }
    }

    #[test]
    fn what_is_there_or_not_wanted_any_more_is_not_pushed() {
        let here = "r.example:5000/team/default/shop/web:1";
        let push = |reference: &str, digest: Option<&str>| {
            Some(Push {
                reference: reference.into(),
                digest: digest.map(str::to_owned),
                problem: None,
                attempts: 1,
                at_ms: 2_000,
                next_ms: 9_000,
            })
        };
        let live = Status::Live;
        for (name, status, push, due) in [
            ("new", live, None, Some(0)),
            ("on its way to be live", Status::Deploying, None, Some(0)),
            ("before it is rolled out", Status::Pushing, None, Some(0)),
            ("in vain", live, push(here, None), Some(9_000)),
            ("there", live, push(here, Some("sha256:1")), None),
            (
                "at another place",
                live,
                push("old/web:1", Some("sha256:1")),
                Some(0),
            ),
            ("overtaken", Status::Superseded, push(here, None), None),
            ("failed", Status::Failed, None, None),
            ("still built", Status::Building, None, None),
        ] {
            let found = registry().due_ms(&deployment(status, push), here);
            assert_eq!(found, due, "{name}");
        }
        let mut changed = registry();
        changed.changed_ms = 3_000;
        let waits = deployment(live, push(here, None));
        assert_eq!(changed.due_ms(&waits, here), Some(0), "another login");
        changed.made_ms = 1_001;
        assert_eq!(
            changed.due_ms(&waits, here),
            None,
            "older than the registry"
        );
    }

    #[test]
    fn repositories_have_the_folders_that_were_said() {
        let mut one = registry();
        assert_eq!(one.repository("acme", "shop", "web"), "team/acme/shop/web");
        one.prefix = String::new();
        assert_eq!(one.repository("acme", "shop", "web"), "acme/shop/web");
        one.bucket = Some(Bucket {
            name: "sites".into(),
            region: "auto".into(),
            path_style: false,
        });
        assert_eq!(one.repository("acme", "shop", "web"), "sites/acme/shop/web");
        assert!(one.is_at("r.example:5000/x:1") && !one.is_at("r.example/x:1"));
        for good in ["", "a", "a/b", "a.b", "a_b", "a__b", "a---b", "0/9"] {
            assert_eq!(check_prefix(good), Ok(()), "{good}");
        }
        let long = "a".repeat(MAX_PREFIX + 1);
        for bad in [
            "/", "a/", "/a", "A", "a..b", "a___b", "a._b", "-a", "a b", &long,
        ] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }
}
