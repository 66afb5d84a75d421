//! Shells as the command line uses them: the WebSocket with its windows, the terminal, tars, and this
//! process' own input and output. What is asked for is known to the commands.

pub(crate) mod keys;
pub(crate) mod line;
pub(crate) mod pack;
pub(crate) mod stdio;
pub(crate) mod terminal;
pub(crate) mod unpack;

use skep_control_plane::api::types::AllocationsView;
use skep_model::problem::{Code, Problem};
use skep_model::shell::Opened;

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::session::Session;
use crate::target::Target;

/// The query that names an allocation of `target`: by its id in full, or as lists show it.
///
/// # Errors
/// None or several fit.
pub(crate) async fn allocation(
    client: &Client,
    target: &Target,
    text: Option<&str>,
) -> Result<String, Failure> {
    let Some(text) = text else {
        return Ok(String::new());
    };
    let path = format!("/v1/allocations?{}&all=true", target.query());
    let found: AllocationsView = client.get(&path).await?;
    let mut meant = found
        .allocations
        .iter()
        .filter(|one| one.id.to_string() == text || one.id.short() == text);
    let hint = "`skep ps` lists them; with --json, with ids in full";
    match (meant.next(), meant.next()) {
        (Some(one), None) => Ok(format!("&allocation={}", one.id)),
        (None, _) => {
            let text = format!("{text} is no allocation of {target}");
            Err(Problem::new(Code::NotFound, text).hint(hint).into())
        }
        (Some(_), Some(_)) => Err(Problem::invalid("alloc", "more than one has this end")
            .hint(hint)
            .into()),
    }
}

/// Says which allocation was chosen, where the user has not.
pub(crate) fn tell(session: &Session, opened: &Opened, is_named: bool) {
    if !is_named {
        let Opened {
            allocation, node, ..
        } = opened;
        let text = format!("allocation {} on {node}", allocation.short());
        session.out.aside(&text);
    }
}

/// A query with one value more.
pub(crate) fn with(query: &mut String, name: &str, value: &str) {
    query.push_str(&format!("&{name}={}", escape(value)));
}
