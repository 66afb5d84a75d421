//! Reading previews, and the rules that they are made by.

use std::sync::Arc;

use skep_model::id::EnvironmentId;
use skep_model::preview::{Preview, Rules};
use skep_model::service::Service;

use crate::state::State;

impl State {
    /// What an environment says of its previews; none: pull requests get none.
    pub fn preview_rules(&self, base: EnvironmentId) -> Option<&Arc<Rules>> {
        self.preview_rules.get(&base)
    }

    /// Every environment's.
    pub fn all_preview_rules(&self) -> impl Iterator<Item = &Arc<Rules>> {
        self.preview_rules.values()
    }

    /// Every preview, by the id of its environment; also those that have ended a while ago.
    pub fn previews(&self) -> impl Iterator<Item = &Arc<Preview>> {
        self.previews.values()
    }

    /// The preview that an environment is, with the pull request that it is for; none: it is no preview.
    /// Where a service of it answers, `host_of` says, as of any other.
    pub fn preview_of(&self, environment: EnvironmentId) -> Option<&Arc<Preview>> {
        self.previews.get(&environment)
    }

    /// The previews of an environment that have not ended.
    pub fn previews_from(&self, base: EnvironmentId) -> impl Iterator<Item = &Arc<Preview>> {
        let all = self.previews.values();
        all.filter(move |preview| preview.base == base && preview.ended.is_none())
    }

    /// The newest preview of a pull request, also where it has ended.
    pub fn preview_for(
        &self,
        base: EnvironmentId,
        (repository, number): (&str, u64),
    ) -> Option<&Arc<Preview>> {
        let all = self.previews.values();
        all.filter(|preview| preview.base == base && preview.is_for(repository, number))
            .max_by_key(|preview| (preview.ended.is_none(), preview.created_ms))
    }

    /// The preview of which a service is a part.
    pub fn preview_around(&self, service: &Service) -> Option<&Arc<Preview>> {
        self.preview_of(service.environment)
    }
}
