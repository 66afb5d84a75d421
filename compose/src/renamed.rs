//! Names of the file by which services are not reached here, where values use them as hosts: told with the variable,
//! never rewritten, for a word of a value may mean anything.

use crate::draft::Draft;
use crate::report::At;

/// Parts of a variable's name that say that its value is a host.
const HOSTS: [&str; 4] = ["HOST", "SERVER", "ADDR", "ENDPOINT"];

/// Tells them.
pub(crate) fn tell(drafts: &[(&str, Draft<'_>)], all: &[(&str, At<'_>)]) {
    let renamed = renamed(drafts);
    for (said, draft) in drafts {
        let Some((_, at)) = all.iter().find(|(name, _)| name == said) else {
            continue;
        };
        let at = at.clone().of_service(said);
        for (old, new) in &renamed {
            let variables = draft.variables.values();
            let naming: Vec<_> = variables
                .filter(|it| is_host(old, (&it.name, &it.value)))
                .map(|it| it.name.as_str())
                .collect();
            if !naming.is_empty() {
                let old = old.escape_debug();
                at.note(
                    format!(
                        "{} names `{old}`, which is reached as `{new}`",
                        naming.join(", ")
                    ),
                    format!("say `{new}` there: values are not rewritten"),
                );
            }
        }
    }
}

/// Names that are said in the file, and what is to be said here.
fn renamed<'d>(drafts: &'d [(&'d str, Draft<'_>)]) -> Vec<(&'d str, &'d str)> {
    let of_each = drafts.iter().flat_map(|(said, draft)| {
        let others = draft.other_names.iter().map(String::as_str);
        others.chain([*said]).map(|old| (old, draft.name.as_str()))
    });
    let is_known = |old: &str| drafts.iter().any(|(_, draft)| draft.name == old);
    of_each.filter(|(old, _)| !is_known(old)).collect()
}

/// Whether a variable's value uses that name as a host.
fn is_host(name: &str, (variable, value): (&str, &str)) -> bool {
    let variable = variable.to_ascii_uppercase();
    if value == name {
        return HOSTS.iter().any(|part| variable.contains(part));
    }
    value.match_indices(name).any(|(at, _)| {
        let (before, after) = (&value[..at], &value[at + name.len()..]);
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let is_port = after
            .strip_prefix(':')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let is_begun = before.ends_with("//") || before.ends_with('@');
        (is_begun && !after.starts_with(is_word)) || (is_port && !before.ends_with(is_word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_host_by_what_is_around_it() {
        for (variable, value, wanted) in [
            ("DATABASE_URL", "postgres://u:p@my_db:5432/x", true),
            ("DATABASE_URL", "postgres://u:p@my_db/x", true),
            ("URL", "http://my_db", true),
            ("CACHE", "my_db:6379", true),
            ("DB_HOST", "my_db", true),
            ("redis_hostname", "my_db", true),
            ("POSTGRES_USER", "my_db", false),
            ("CACHE", "not_my_db:6379", false),
            ("URL", "http://my_db.example.com", false),
            ("URL", "http://my_db2:80", false),
            ("TEXT", "the my_db: a story", false),
        ] {
            assert_eq!(
                is_host("my_db", (variable, value)),
                wanted,
                "{variable}={value}"
            );
        }
    }
}
