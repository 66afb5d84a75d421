//! Logins at registries.

use skep_model::id::WorkspaceId;
use skep_model::problem::Problem;
use skep_model::registry::{Ask, Bucket, Found, RegistryAccess, RegistryLogin, Wanted};
use skep_model::variable::Sealed;

use super::{Error, error, id_bits, id_bytes};
use crate::v1;
use crate::v1::registry_ask::{Push, Wanted as Wants};

impl From<&RegistryLogin> for v1::RegistryLogin {
    fn from(login: &RegistryLogin) -> Self {
        Self {
            host: login.host.clone(),
            user: login.user.clone(),
            sealed_password: login.password.0.clone(),
            changed_ms: login.changed_ms,
        }
    }
}

impl TryFrom<v1::RegistryLogin> for RegistryLogin {
    type Error = Error;

    fn try_from(message: v1::RegistryLogin) -> Result<Self, Error> {
        Ok(Self {
            host: message.host,
            user: message.user,
            password: Sealed(message.sealed_password),
            changed_ms: message.changed_ms,
        })
    }
}

impl From<RegistryAccess> for v1::RegistryAccess {
    fn from(access: RegistryAccess) -> Self {
        Self {
            host: access.host,
            user: access.user,
            password: access.password,
            workspace: workspace_out(access.workspace),
            bucket: access.bucket.map(Into::into),
        }
    }
}

impl From<Bucket> for v1::Bucket {
    fn from(bucket: Bucket) -> Self {
        Self {
            name: bucket.name,
            region: bucket.region,
            path_style: bucket.path_style,
        }
    }
}

impl From<v1::Bucket> for Bucket {
    fn from(message: v1::Bucket) -> Self {
        Self {
            name: message.name,
            region: message.region,
            path_style: message.path_style,
        }
    }
}

impl From<v1::RegistryAccess> for RegistryAccess {
    fn from(message: v1::RegistryAccess) -> Self {
        Self {
            // A login of nobody who is known is used for nobody.
            workspace: workspace_in(&message.workspace).unwrap_or(Some(WorkspaceId::from_u128(0))),
            host: message.host,
            user: message.user,
            password: message.password,
            bucket: message.bucket.map(Into::into),
        }
    }
}

impl From<&Ask> for v1::RegistryAsk {
    fn from(ask: &Ask) -> Self {
        Self {
            request: 0,
            host: ask.host.clone(),
            repository: ask.repository.clone(),
            access: ask.access.clone().map(Into::into),
            wanted: Some(match ask.wanted.clone() {
                Wanted::Push { digest, tag } => Wants::Push(Push { digest, tag }),
                Wanted::Digest { tag } => Wants::DigestOf(tag),
            }),
        }
    }
}

impl TryFrom<v1::RegistryAsk> for Ask {
    type Error = Error;

    fn try_from(message: v1::RegistryAsk) -> Result<Self, Error> {
        let wanted = message.wanted.ok_or_else(|| error("wanted"))?;
        Ok(Self {
            host: message.host,
            repository: message.repository,
            access: message.access.map(Into::into),
            wanted: match wanted {
                Wants::Push(Push { digest, tag }) => Wanted::Push { digest, tag },
                Wants::DigestOf(tag) => Wanted::Digest { tag },
            },
        })
    }
}

/// A workspace, or none.
pub(super) fn workspace_out(workspace: Option<WorkspaceId>) -> Vec<u8> {
    workspace.map_or_else(Vec::new, |id| id_bytes(id.as_u128()))
}

/// The other way.
pub(super) fn workspace_in(bytes: &[u8]) -> Result<Option<WorkspaceId>, Error> {
    match bytes.is_empty() {
        true => Ok(None),
        false => Ok(Some(WorkspaceId::from_u128(id_bits("workspace", bytes)?))),
    }
}

/// What a node did or found at a registry, as a message without its request.
pub fn registry_out(found: &Found) -> v1::RegistryFound {
    match found {
        Ok(digest) => v1::RegistryFound {
            digest: digest.clone(),
            ..v1::RegistryFound::default()
        },
        Err(problem) => v1::RegistryFound {
            problem: Some(problem.into()),
            ..v1::RegistryFound::default()
        },
    }
}

/// The other way.
///
/// # Errors
/// The problem means nothing.
pub fn registry_in(message: v1::RegistryFound) -> Result<Found, Error> {
    match message.problem {
        None => Ok(Ok(message.digest)),
        Some(problem) => Ok(Err(Problem::try_from(problem)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_survive_the_bytes() {
        let access = RegistryAccess {
            workspace: Some(WorkspaceId::from_u128(3)),
            host: "r:5000".into(),
            user: "ci".into(),
            password: "secret".into(),
            bucket: Some(Bucket {
                name: "sites".into(),
                region: "auto".into(),
                path_style: true,
            }),
        };
        let (digest, tag) = ("sha256:1".to_owned(), "v1".to_owned());
        let push = Wanted::Push {
            digest,
            tag: tag.clone(),
        };
        for (access, wanted) in [(Some(access), push), (None, Wanted::Digest { tag })] {
            let ask = Ask {
                host: "r:5000".into(),
                repository: "a/b".into(),
                access,
                wanted,
            };
            assert_eq!(Ask::try_from(v1::RegistryAsk::from(&ask)), Ok(ask));
        }
        assert!(Ask::try_from(v1::RegistryAsk::default()).is_err());
        for found in [
            Ok("sha256:1".to_owned()),
            Err(Problem::invalid("tag", "gone").hint("push it")),
        ] {
            assert_eq!(registry_in(registry_out(&found)), Ok(found));
        }
    }
}
