//! Whether single fields are what they may be.

use crate::problem::Problem;

pub(crate) fn between(field: &str, value: u64, low: u64, high: u64) -> Result<(), Problem> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Problem::invalid(field, format!("{value} is out of range"))
        .hint(format!("{low} to {high}")))
}

/// A path that stays inside its folder.
///
/// # Errors
/// Names the field when the path is absolute or climbs out.
pub fn inside(field: &str, path: &str) -> Result<(), Problem> {
    let climbs = path.starts_with('/')
        || path.split('/').any(|part| part == "..")
        || path.contains(['\0', '\n']);
    if climbs {
        return Err(Problem::invalid(
            field,
            format!("`{}` leaves the app's folder", path.escape_debug()),
        )
        .hint("a relative path without `..`"));
    }
    Ok(())
}

/// A repository or branch that git will not take for an option.
pub(crate) fn check_git(field: &str, text: &str) -> Result<(), Problem> {
    let odd = text.is_empty()
        || text.starts_with('-')
        || text.chars().any(|c| c.is_control() || c == ' ');
    // `ext::` and other remote helpers run programs named in the URL.
    if odd || text.len() > 2_048 || text.contains("::") {
        return Err(
            Problem::invalid(field, format!("`{}` is not accepted", text.escape_debug()))
                .hint("an https or ssh URL, or a path; no spaces, not beginning with -"),
        );
    }
    Ok(())
}

/// An image reference, loosely: Docker judges the rest.
///
/// # Errors
/// Names the field when the text cannot be a reference.
pub fn check_image(field: &str, text: &str) -> Result<(), Problem> {
    let ok = !text.is_empty()
        && text.len() <= 512
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._/:@".contains(&b))
        && text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
    if ok {
        return Ok(());
    }
    Err(
        Problem::invalid(field, format!("`{}` is not an image", text.escape_debug()))
            .hint("name[:tag] or name@sha256:..., for example nginx:1.27"),
    )
}
