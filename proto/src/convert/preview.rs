//! Previews, and the rules that they are made by.

use skep_model::id::EnvironmentId;
use skep_model::preview::{Ended, Preview, Request, Rules, Seed, Why};

use super::entity::{variables_in, variables_out};
use super::{Error, enum_number, enum_value, id, id_bytes};
use crate::v1;

impl From<&Rules> for v1::PreviewRules {
    fn from(rules: &Rules) -> Self {
        Self {
            base: id_bytes(rules.base.as_u128()),
            services: rules.services.iter().cloned().collect(),
            variables: variables_out(&rules.variables),
            base_domain: rules.base_domain.clone(),
            ttl_ms: rules.ttl_ms,
            max: rules.max,
            forks: rules.forks,
            idle_ms: rules.idle_ms,
            seed: rules.seed.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::PreviewRules> for Rules {
    type Error = Error;

    fn try_from(message: v1::PreviewRules) -> Result<Self, Error> {
        Ok(Self {
            base: id!(EnvironmentId, message.base),
            services: message.services.into_iter().collect(),
            variables: variables_in(message.variables),
            base_domain: message.base_domain,
            ttl_ms: message.ttl_ms,
            max: message.max,
            forks: message.forks,
            idle_ms: message.idle_ms,
            seed: message.seed.map(Into::into),
        })
    }
}

impl From<&Seed> for v1::PreviewSeed {
    fn from(seed: &Seed) -> Self {
        Self {
            service: seed.service.clone(),
            command: seed.command.clone(),
        }
    }
}

impl From<v1::PreviewSeed> for Seed {
    fn from(message: v1::PreviewSeed) -> Self {
        Self {
            service: message.service,
            command: message.command,
        }
    }
}

impl From<&Request> for v1::PullRequest {
    fn from(request: &Request) -> Self {
        Self {
            repository: request.repository.clone(),
            number: request.number,
            is_fork: request.is_fork,
            title: request.title.clone(),
            url: request.url.clone(),
            heard_ms: request.heard_ms,
        }
    }
}

impl From<v1::PullRequest> for Request {
    fn from(message: v1::PullRequest) -> Self {
        Self {
            repository: message.repository,
            number: message.number,
            is_fork: message.is_fork,
            title: message.title,
            url: message.url,
            heard_ms: message.heard_ms,
        }
    }
}

impl From<&Preview> for v1::Preview {
    fn from(preview: &Preview) -> Self {
        Self {
            environment: id_bytes(preview.environment.as_u128()),
            base: id_bytes(preview.base.as_u128()),
            name: preview.name.clone(),
            request: preview.request.as_ref().map(Into::into),
            branch: preview.branch.clone(),
            commit: preview.commit.clone(),
            ttl_ms: preview.ttl_ms,
            expires_ms: preview.expires_ms,
            created_ms: preview.created_ms,
            idle_ms: preview.idle_ms,
            seed: preview.seed.as_ref().map(Into::into),
            ended: preview.ended.map(|ended| v1::PreviewEnd {
                at_ms: ended.at_ms,
                why: enum_number(&Why::ALL, &ended.why),
            }),
            comment: preview.comment.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::Preview> for Preview {
    type Error = Error;

    fn try_from(message: v1::Preview) -> Result<Self, Error> {
        let ended = message.ended.map(|ended| {
            Ok(Ended {
                at_ms: ended.at_ms,
                why: enum_value("why", &Why::ALL, ended.why)?,
            })
        });
        Ok(Self {
            environment: id!(EnvironmentId, message.environment),
            base: id!(EnvironmentId, message.base),
            name: message.name,
            request: message.request.map(Into::into),
            branch: message.branch,
            commit: message.commit,
            ttl_ms: message.ttl_ms,
            expires_ms: message.expires_ms,
            created_ms: message.created_ms,
            idle_ms: message.idle_ms,
            seed: message.seed.map(Into::into),
            ended: ended.transpose()?,
            comment: message.comment.map(TryInto::try_into).transpose()?,
        })
    }
}
