//! Logins at registries. Never opens what is sealed.

use std::sync::Arc;

use skep_model::problem::{Code, Problem};
use skep_model::registry::{MAX_REGISTRIES, RegistryLogin, check_host};
use skep_proto::v1;

use super::{Context, Outcome, Reply, missing, understood};
use crate::change::Change;

impl Context<'_> {
    pub(super) fn put_registry(&mut self, message: v1::PutRegistry) -> Outcome {
        let login = message.login.ok_or_else(|| missing("login"))?;
        let mut login: RegistryLogin = understood(login)?;
        check_host(&login.host)?;
        login.changed_ms = self.state.time_ms;
        let is_new = !self.state.registries.contains_key(&login.host);
        if is_new && self.state.registries.len() >= MAX_REGISTRIES {
            let text = format!("there are {MAX_REGISTRIES} logins at registries already");
            return Err(Problem::new(Code::TooLarge, text).hint("`skep registry rm` removes one"));
        }
        self.state
            .registries
            .insert(login.host.clone(), Arc::new(login));
        self.changes.push(Change::Registries);
        Ok(Reply::Done)
    }

    pub(super) fn remove_registry(&mut self, message: &v1::RemoveRegistry) -> Outcome {
        if self.state.registries.remove(&message.host).is_none() {
            let text = format!("there is no login at `{}`", message.host.escape_debug());
            return Err(Problem::new(Code::NotFound, text)
                .at("host")
                .hint("`skep registry ls` lists those that there are"));
        }
        self.changes.push(Change::Registries);
        Ok(Reply::Done)
    }
}
