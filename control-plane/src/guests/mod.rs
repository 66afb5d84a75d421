//! Nodes that are made by themselves: what a pool lacks and what it has too many of, decided from a view of the state; who
//! is asked to make them; and how they learn to join. How one guest comes and goes is `skep-pools`' question.

pub(crate) mod clients;
pub(crate) mod introduce;
pub(crate) mod plan;
pub(crate) mod privileges;
pub(crate) mod resizing;
pub(crate) mod sizing;

use skep_model::node::Node;
use skep_model::problem::{Code, Problem};
use skep_state::State;

/// Nothing that a service needs is on a node alone.
///
/// # Errors
/// Something is: which volumes of which services.
pub(crate) fn keeps_volumes(view: &State, node: &Node) -> Result<(), Problem> {
    let held = node.facts.volumes.iter().filter_map(|held| {
        let service = view.service(held.service)?;
        Some(format!("`{}` of `{}`", held.name, view.label_of(service)))
    });
    let held: Vec<String> = held.collect();
    if held.is_empty() {
        return Ok(());
    }
    let text = format!("node `{}` has volumes: {}", node.name, held.join(", "));
    Err(Problem::new(Code::Conflict, text)
        .at("node")
        .hint("move them to another node first, or give them up with `--lose-volumes` (`lose_volumes=true`)"))
}
