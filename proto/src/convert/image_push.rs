//! Push registries, and what became of images there.

use skep_model::id::WorkspaceId;
use skep_model::image_push::{PullLogin, Push, PushRegistry};
use skep_model::variable::Sealed;

use super::{Error, id, id_bytes};
use crate::v1;

impl From<&PushRegistry> for v1::PushRegistry {
    fn from(registry: &PushRegistry) -> Self {
        let pull = registry.pull.clone();
        let (pull_user, sealed_pull_password) =
            pull.map_or_else(Default::default, |pull| (pull.user, pull.password.0));
        Self {
            workspace: id_bytes(registry.workspace.as_u128()),
            host: registry.host.clone(),
            prefix: registry.prefix.clone(),
            user: registry.user.clone(),
            sealed_password: registry.password.0.clone(),
            pull_user,
            sealed_pull_password,
            required: registry.required,
            made_ms: registry.made_ms,
            changed_ms: registry.changed_ms,
            bucket: registry.bucket.clone().map(Into::into),
        }
    }
}

impl TryFrom<v1::PushRegistry> for PushRegistry {
    type Error = Error;

    fn try_from(message: v1::PushRegistry) -> Result<Self, Error> {
        let pull = (!message.pull_user.is_empty()).then_some(PullLogin {
            user: message.pull_user,
            password: Sealed(message.sealed_pull_password),
        });
        Ok(Self {
            workspace: id!(WorkspaceId, message.workspace),
            host: message.host,
            prefix: message.prefix,
            user: message.user,
            password: Sealed(message.sealed_password),
            pull,
            bucket: message.bucket.map(Into::into),
            required: message.required,
            made_ms: message.made_ms,
            changed_ms: message.changed_ms,
        })
    }
}

impl From<&Push> for v1::ImagePush {
    fn from(push: &Push) -> Self {
        Self {
            reference: push.reference.clone(),
            digest: push.digest.clone().unwrap_or_default(),
            problem: push.problem.as_ref().map(Into::into),
            attempts: push.attempts,
            at_ms: push.at_ms,
            next_ms: push.next_ms,
        }
    }
}

impl TryFrom<v1::ImagePush> for Push {
    type Error = Error;

    fn try_from(message: v1::ImagePush) -> Result<Self, Error> {
        Ok(Self {
            reference: message.reference,
            digest: Some(message.digest).filter(|digest| !digest.is_empty()),
            problem: message.problem.map(TryInto::try_into).transpose()?,
            attempts: message.attempts,
            at_ms: message.at_ms,
            next_ms: message.next_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::problem::Problem;
    use skep_model::registry::Bucket;

    #[test]
    fn a_push_registry_survives_the_bytes() {
        let pull = PullLogin {
            user: "reader".into(),
            password: Sealed(vec![2]),
        };
        for pull in [None, Some(pull)] {
            let registry = PushRegistry {
                workspace: WorkspaceId::from_u128(1),
                host: "r:5000".into(),
                prefix: "team".into(),
                user: "ci".into(),
                password: Sealed(vec![1]),
                pull,
                bucket: Some(Bucket {
                    name: "sites".into(),
                    region: "auto".into(),
                    path_style: true,
                }),
                required: true,
                made_ms: 1,
                changed_ms: 2,
            };
            let read = PushRegistry::try_from(v1::PushRegistry::from(&registry));
            assert_eq!(read, Ok(registry));
        }
    }

    #[test]
    fn what_became_of_an_image_survives_the_bytes() {
        for (digest, problem) in [
            (Some("sha256:1".to_owned()), None),
            (None, Some(Problem::invalid("host", "away").hint("look"))),
        ] {
            let push = Push {
                reference: "r:5000/a:1".into(),
                digest,
                problem,
                attempts: 3,
                at_ms: 4,
                next_ms: 5,
            };
            assert_eq!(Push::try_from(v1::ImagePush::from(&push)), Ok(push));
        }
    }
}
