//! Names that people give: they become DNS labels, container names and URLs, so they are DNS
//! labels from the start.

use crate::problem::Problem;

/// Longest name of a workspace, project, environment or service: three of them and two hyphens
/// usually fit one DNS label of 63; longer combinations are shortened by `host_label`.
pub const MAX_LEN: usize = 40;

/// Longest DNS label (RFC 1035).
const MAX_LABEL: usize = 63;

/// Checks a name given in `field`.
///
/// # Errors
/// Says what is accepted: 1 to 40 of `a-z`, `0-9`, `-`, beginning with a letter, not ending in `-`.
pub fn check(field: &str, name: &str) -> Result<(), Problem> {
    let chars_ok = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let starts_ok = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if chars_ok && starts_ok && !name.ends_with('-') && name.len() <= MAX_LEN {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    let mut problem = Problem::invalid(field, format!("`{}` is not a name", shown.escape_debug()));
    let suggestion = suggest(name);
    let rule = "1 to 40 of a-z, 0-9 and -, beginning with a letter, not ending in -";
    problem.hint = Some(match suggestion {
        Some(better) => format!("{rule}; for example `{better}`"),
        None => rule.to_owned(),
    });
    Err(problem)
}

/// The nearest valid name to any text (a folder's name, say), if there is one.
pub fn suggest(text: &str) -> Option<String> {
    let mut out = String::new();
    for c in text.chars() {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_lowercase() || (c.is_ascii_digit() && !out.is_empty()) {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    out.truncate(MAX_LEN);
    let trimmed = out.trim_end_matches('-');
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

/// The generated host label of a service: `SERVICE-ENVIRONMENT-PROJECT`. Where that exceeds a DNS
/// label it is cut and made unique again by `tail` (part of the service's id).
pub fn host_label(service: &str, environment: &str, project: &str, tail: &str) -> String {
    let full = format!("{service}-{environment}-{project}");
    if full.len() <= MAX_LABEL {
        return full;
    }
    let room = MAX_LABEL - tail.len() - 1;
    format!("{}-{tail}", full[..room].trim_end_matches('-'))
}

/// Checks a host name for a route: dot-separated DNS labels, or `*.` and such labels.
///
/// # Errors
/// Says which part is not accepted.
pub fn check_host(field: &str, host: &str) -> Result<(), Problem> {
    let labels = host.strip_prefix("*.").unwrap_or(host);
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match labels.split('.').find(|label| !label_ok(label)) {
        None if host.len() <= 253 => Ok(()),
        bad => Err(Problem::invalid(
            field,
            format!("`{}` is not a host name", bad.unwrap_or(host).escape_debug()),
        )
        .hint("lower-case letters, digits and - in labels of at most 63; international names as punycode (xn--...)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_refused_with_a_suggestion() {
        for bad in [
            "",
            "Web",
            "1st",
            "a_b",
            "a-",
            "../x",
            "a b",
            "ünï",
            "a\n",
            &"x".repeat(41),
        ] {
            let error = check("name", bad).expect_err(bad);
            assert_eq!(error.field.as_deref(), Some("name"));
        }
        assert_eq!(suggest("My App (2)").as_deref(), Some("my-app-2"));
        assert_eq!(suggest("__").as_deref(), None);
        assert!(
            check(
                "name",
                &suggest(&"Å very long nåme ".repeat(9)).expect("letters")
            )
            .is_ok()
        );
    }

    #[test]
    fn host_labels_fit_dns() {
        assert_eq!(
            host_label("web", "production", "shop", "abc"),
            "web-production-shop"
        );
        let long = host_label(&"s".repeat(40), &"e".repeat(40), "p", "1234abcd");
        assert!(long.len() <= MAX_LABEL && long.ends_with("-1234abcd"));
    }

    #[test]
    fn hosts() {
        assert!(check_host("domains", "*.example.com").is_ok());
        for bad in ["", "a..b", "A.com", "x`.com", "*.*.com", "-a.com", "a.com."] {
            assert!(check_host("domains", bad).is_err(), "{bad}");
        }
    }
}
