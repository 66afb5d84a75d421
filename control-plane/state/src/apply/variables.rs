//! Variables that the services of an environment share. Never opens what is sealed.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::problem::Problem;
use skep_model::variable::{MAX_TOTAL, SharedVariables, Variable};
use skep_proto::v1;

use super::{Context, Outcome, Reply, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;

impl Context<'_> {
    pub(super) fn put_shared_variables(&mut self, message: v1::PutSharedVariables) -> Outcome {
        let shared = message.shared.ok_or_else(|| missing("shared"))?;
        let wanted: SharedVariables = understood(shared)?;
        let id = wanted.environment;
        if self.state.environment(id).is_none() {
            return Err(not_found("environment", id));
        }
        check_total(&wanted.variables)?;
        let old = self.state.shared_variables.get(&id);
        if old.map_or(0, |old| old.generation) != wanted.generation {
            return Err(changed_meanwhile("environment's variables"));
        }
        let next = SharedVariables {
            generation: wanted.generation + 1,
            ..wanted
        };
        self.state.shared_variables.insert(id, Arc::new(next));
        self.changes.push(Change::Settings);
        Ok(Reply::Done)
    }
}

/// Refuses variables that together are more than one command holds.
///
/// # Errors
/// Says how large they are, and what is accepted.
pub(super) fn check_total(variables: &BTreeMap<String, Variable>) -> Result<(), Problem> {
    let size = |(name, variable): (&String, &Variable)| name.len() + variable.value.0.len();
    let bytes: usize = variables.iter().map(size).sum();
    if bytes > MAX_TOTAL {
        return Err(
            Problem::invalid("variables", format!("together they have {bytes} bytes"))
                .hint(format!("at most {MAX_TOTAL}")),
        );
    }
    Ok(())
}
