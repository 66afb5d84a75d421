//! Reading webhooks of repositories, what was found there without one, and what was pushed.

use std::sync::Arc;

use skep_model::id::{HookId, ServiceId, WorkspaceId};
use skep_model::polling::Polled;
use skep_model::pushed::Pushed;
use skep_model::webhook::Hook;

use crate::state::State;

impl State {
    /// What was found in a service's repository when it was last asked.
    pub fn polled(&self, service: ServiceId) -> Option<&Arc<Polled>> {
        self.polled.get(&service)
    }

    /// What was pushed to a service.
    pub fn pushed(&self, service: ServiceId) -> Option<&Arc<Pushed>> {
        self.pushed.get(&service)
    }

    /// Every webhook of a repository, oldest first.
    pub fn hooks(&self) -> impl Iterator<Item = &Arc<Hook>> {
        self.hooks.values()
    }

    /// A webhook of a repository.
    pub fn hook(&self, id: HookId) -> Option<&Arc<Hook>> {
        self.hooks.get(&id)
    }

    /// The webhook of a repository by its one name.
    pub fn hook_of(&self, workspace: WorkspaceId, repository: &str) -> Option<&Arc<Hook>> {
        let mut all = self.hooks.values();
        all.find(|hook| hook.workspace == workspace && hook.repository == repository)
    }
}
