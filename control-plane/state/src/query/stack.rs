//! Reading stacks, and whose services are.

use std::sync::Arc;

use skep_model::id::EnvironmentId;
use skep_model::service::Service;
use skep_model::stack::Stack;

use crate::state::State;

impl State {
    /// Every stack, by the id of its environment.
    pub fn stacks(&self) -> impl Iterator<Item = &Arc<Stack>> {
        self.stacks.values()
    }

    /// The stack of an environment.
    pub fn stack(&self, environment: EnvironmentId) -> Option<&Arc<Stack>> {
        self.stacks.get(&environment)
    }

    /// The stack that a service is of: what it is and when it is deployed, that one's file says.
    pub fn stack_around(&self, service: &Service) -> Option<&Arc<Stack>> {
        let stack = self.stack(service.environment)?;
        stack.has(service.id).then_some(stack)
    }
}
