//! Paths of the node itself: only within what its operator offered, also behind every link.

use std::fs;
use std::path::{Path, PathBuf};

use skep_model::problem::{Code, Problem};

use super::refused;

/// Where `wanted` really is, if that is within what is offered. To be asked anew for each container:
/// what a link shows may have changed.
///
/// # Errors
/// It is not offered, or not there.
pub(super) fn allowed(wanted: &str, offered: &[PathBuf]) -> Result<PathBuf, Problem> {
    let path = Path::new(wanted);
    if !offered.iter().any(|prefix| path.starts_with(prefix)) {
        let text = format!("the host path `{wanted}` is not offered by this node");
        let hint = format!("its operator can start the agent with `--allow-host-path {wanted}`");
        return Err(Problem::new(Code::Forbidden, text).hint(hint));
    }
    let real = fs::canonicalize(path).map_err(|error| {
        refused("the host path", path, &error).hint("make it on the node: the agent makes none")
    })?;
    let mut offered = offered
        .iter()
        .filter_map(|prefix| fs::canonicalize(prefix).ok());
    if offered.any(|prefix| real.starts_with(prefix)) {
        return Ok(real);
    }
    let text = format!(
        "the host path `{wanted}` leads to `{}`, which is not offered by this node",
        real.display()
    );
    Err(Problem::new(Code::Forbidden, text)
        .hint("a path that no link leads out of what is offered"))
}
