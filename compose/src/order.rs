//! In which order services are deployed: those that others depend on first, else as the file has them.

use std::collections::BTreeSet;

use skep_model::problem::Problem;

use crate::Service;

/// The services in that order.
///
/// # Errors
/// Some depend on each other in a circle.
pub(crate) fn sorted(mut waiting: Vec<Service>) -> Result<Vec<Service>, Problem> {
    let mut done = BTreeSet::new();
    let mut sorted = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let next = waiting
            .iter()
            .position(|service| service.depends_on.is_subset(&done));
        let Some(next) = next else {
            let names: Vec<_> = waiting
                .iter()
                .map(|service| service.name.as_str())
                .collect();
            let text = format!("{} wait for each other", names.join(", "));
            return Err(Problem::invalid("services", text).hint("take one `depends_on` out"));
        };
        let service = waiting.remove(next);
        done.insert(service.name.clone());
        sorted.push(service);
    }
    Ok(sorted)
}
