//! Reading webhooks of repositories.

use std::sync::Arc;

use skep_model::id::{HookId, WorkspaceId};
use skep_model::webhook::Hook;

use crate::state::State;

impl State {
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
