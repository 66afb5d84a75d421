//! Webhooks of repositories. Never opens what is sealed.

use std::sync::Arc;

use skep_model::id::HookId;
use skep_model::problem::{Code, Problem};
use skep_model::webhook::{Hook, MAX_HOOKS, MAX_REPOSITORY};
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, missing, not_found, understood};

impl Context<'_> {
    /// Makes a repository's webhook, or gives the one that it has another secret: its URL stays.
    pub(super) fn put_hook(&mut self, message: v1::PutHook) -> Outcome {
        let mut hook: Hook = understood(message.hook.ok_or_else(|| missing("hook"))?)?;
        if hook.repository.is_empty() || hook.repository.len() > MAX_REPOSITORY {
            let text = format!("1 to {MAX_REPOSITORY} bytes are accepted");
            return Err(Problem::invalid("repository", text));
        }
        if self.state.workspace(hook.workspace).is_none() {
            return Err(not_found("workspace", hook.workspace));
        }
        let known = self.state.hook_of(hook.workspace, &hook.repository);
        match known.map(|known| known.id) {
            Some(id) => hook.id = id,
            None if self.state.hooks.len() >= MAX_HOOKS => {
                let text = format!("there are {MAX_HOOKS} webhooks of repositories already");
                return Err(Problem::new(Code::TooLarge, text)
                    .hint("`skep webhook repository rm` removes one"));
            }
            None if self.state.hooks.contains_key(&hook.id) => {
                let text = "there is a webhook with this id already";
                return Err(Problem::new(Code::Conflict, text));
            }
            None => {}
        }
        hook.changed_ms = self.state.time_ms;
        self.state.hooks.insert(hook.id, Arc::new(hook));
        Ok(Reply::Done)
    }

    pub(super) fn remove_hook(&mut self, message: &v1::RemoveHook) -> Outcome {
        let id = HookId::from_u128(bits("id", &message.id)?);
        match self.state.hooks.remove(&id) {
            Some(_) => Ok(Reply::Done),
            None => Err(not_found("webhook", id)),
        }
    }
}
