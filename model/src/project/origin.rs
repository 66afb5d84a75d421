//! `from`: where a service comes from, and who may read that.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::spec::{ServiceSpec, Source};

/// The branch where none is said.
const BRANCH: &str = "main";

/// An image, or a git repository. It replaces all that was said of that.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Origin {
    /// A ready image: `name[:tag][@digest]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Anything `git clone` takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Its branch; none: `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The app's folder in it; none: its root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The variable with a deploy key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_key: Option<String>,
    /// The only keys that the repository's host may show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<String>,
    /// The variable with a token or password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The user that goes with the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Origin {
    /// As a file says what a service has; none: folders are uploaded, or commits are pushed.
    pub(super) fn of(spec: &ServiceSpec) -> Option<Self> {
        let it = match spec.source.as_ref()? {
            Source::Image { reference } => Self {
                image: Some(reference.clone()),
                ..Self::default()
            },
            // That people push says the service, not the file: what they push is nowhere else.
            Source::Pushed { .. } => return None,
            Source::Git {
                repository,
                branch,
                directory,
            } => Self {
                repository: Some(repository.clone()),
                branch: (branch != BRANCH).then(|| branch.clone()),
                directory: (!directory.is_empty()).then(|| directory.clone()),
                ssh_key: spec.fetch.ssh_key.clone(),
                known_hosts: spec.fetch.known_hosts.clone(),
                token: spec.fetch.token.clone(),
                user: spec.fetch.user.clone(),
                ..Self::default()
            },
        };
        Some(it)
    }

    /// Wants one of the two, and nothing that belongs to the other.
    pub(super) fn check(&self, field: &str) -> Result<(), Problem> {
        let of_git = Self {
            image: None,
            repository: None,
            ..self.clone()
        };
        match (&self.image, &self.repository) {
            (Some(_), None) if of_git == Self::default() => Ok(()),
            (None, Some(_)) => Ok(()),
            (Some(_), None) => Err(Problem::invalid(field, "an image has nothing but its name")
                .hint("leave the rest out, or name a `repository` instead of an `image`")),
            _ => Err(
                Problem::invalid(field, "it does not say where the service comes from").hint(
                    "{ image = \"nginx:1.27\" } or { repository = \"https://...\", branch = \"main\" }",
                ),
            ),
        }
    }

    pub(super) fn apply(&self, spec: &mut ServiceSpec) {
        if let Some(reference) = &self.image {
            spec.source = Some(Source::Image {
                reference: reference.clone(),
            });
            return;
        }
        let Some(repository) = &self.repository else {
            return;
        };
        let branch = self.branch.as_deref();
        spec.source = Some(Source::Git {
            repository: repository.clone(),
            branch: branch.unwrap_or(BRANCH).to_owned(),
            directory: self.directory.clone().unwrap_or_default(),
        });
        spec.fetch.ssh_key.clone_from(&self.ssh_key);
        spec.fetch.known_hosts.clone_from(&self.known_hosts);
        spec.fetch.token.clone_from(&self.token);
        spec.fetch.user.clone_from(&self.user);
    }
}
