//! A plan as people read it: what goes first, since it does not come back.

use std::fmt::Write as _;

use skep_model::project::{Change, Deploy, Field, Missing, Plan, ServiceChange};

use crate::output::{Output, Style};

/// Longest value that is shown in full.
const MAX_VALUE: usize = 160;

/// The whole plan.
pub(super) fn plan(out: Output, project: &str, plan: &Plan) -> String {
    if plan.is_empty() {
        return format!("nothing differs: {project} is as the file says");
    }
    let mut text = String::new();
    for change in &plan.changes {
        if let Change::Remove(place) = change {
            let sign = out.styled(Style::Bad, "-");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{sign} {place} goes, its volumes stay");
        }
    }
    for change in &plan.changes {
        match change {
            Change::Remove(_) => {}
            Change::Shared(it) => {
                let sign = out.styled(Style::Warning, "~");
                let _ = writeln!(text, "{sign} {} shares variables", it.environment);
                fields(&mut text, &it.fields, false);
            }
            Change::Service(it) => {
                let sign = match it.is_new {
                    true => out.styled(Style::Good, "+"),
                    false => out.styled(Style::Warning, "~"),
                };
                let _ = writeln!(text, "{sign} {}{}", it.place, how(it));
                fields(&mut text, &it.fields, it.is_new);
            }
        }
    }
    for one in &plan.missing {
        let sign = out.styled(Style::Bad, "!");
        let _ = writeln!(text, "{sign} {}", missing(project, one));
    }
    let _ = writeln!(text, "{}", summary(plan));
    text.truncate(text.trim_end().len());
    text
}

/// What becomes of what runs.
fn how(change: &ServiceChange) -> &'static str {
    match (change.deploy, change.is_new) {
        (Deploy::Nothing, true) => " is made",
        (Deploy::Nothing, false) => "",
        (Deploy::Redeploy, _) if change.fields.is_empty() => {
            " is deployed: what runs has another configuration"
        }
        (Deploy::Redeploy, _) => " is deployed with another configuration",
        (Deploy::Source, true) => " is made, and deployed from its source",
        (Deploy::Source, false) if change.fields.is_empty() => {
            " is deployed from its source: that is still to be done"
        }
        (Deploy::Source, false) => " is deployed from its source",
        (Deploy::Folder, true) => " is made; `skep up` brings its folder",
        (Deploy::Folder, false) => "; in force with the next `skep up` of its folder",
    }
}

fn fields(text: &mut String, fields: &[Field], is_new: bool) {
    for field in fields {
        let usual = match field.path.starts_with("variables.") {
            true => "nothing",
            false => "as usual",
        };
        let value = |value: &Option<String>| value.as_deref().map_or(usual.to_owned(), cut);
        let (old, new) = (value(&field.old), value(&field.new));
        let _ = match is_new {
            true => writeln!(text, "    {}: {new}", field.path),
            false => writeln!(text, "    {}: {old} -> {new}", field.path),
        };
    }
}

/// On one line, and not without end.
fn cut(value: &str) -> String {
    let value = value.replace('\n', "\\n");
    match value.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value,
    }
}

/// Which secret, and the command that sets it.
fn missing(project: &str, one: &Missing) -> String {
    let Missing {
        environment,
        service,
        name,
        is_new,
    } = one;
    let whose = match service {
        Some(service) => format!(
            "--service {service}{}",
            if *is_new { " --create" } else { "" }
        ),
        None => "--shared".to_owned(),
    };
    let of = service
        .as_deref()
        .map_or(String::new(), |it| format!("/{it}"));
    format!(
        "{environment}{of} wants the secret {name}: \
         skep env set --secret --stdin {name} {whose} --project {project} --environment {environment}"
    )
}

fn summary(plan: &Plan) -> String {
    let count = |is: fn(&Change) -> bool| plan.changes.iter().filter(|it| is(it)).count();
    let made = count(|it| matches!(it, Change::Service(it) if it.is_new));
    let gone = count(|it| matches!(it, Change::Remove(_)));
    let changed = plan.changes.len() - made - gone;
    let mut parts = Vec::new();
    for (number, word) in [
        (made, "to make"),
        (changed, "to change"),
        (gone, "to remove"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {word}"));
        }
    }
    match plan.missing.len() {
        0 => {}
        1 => parts.push("1 secret to set".to_owned()),
        number => parts.push(format!("{number} secrets to set")),
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use skep_model::project::{Current, Project, plan as compare};

    use super::*;

    const FILE: &str = r#"
project = "shop"
[variables]
REGION = "eu"
[services.api]
from = { image = "shop/api:1" }
replicas = 2
[services.api.variables]
KEY = { secret = true }
NOTE = "two\nlines"
[services.web]
"#;

    #[test]
    fn a_plan_says_what_goes_first_and_how_the_rest_comes() {
        let file = Project::parse(FILE).expect("accepted");
        let mut there = Current::default();
        let old = "project = \"shop\"\n[services.old]\n[services.web]\nport = 80\n";
        let old = Project::parse(old).expect("accepted");
        for place in old.places() {
            let spec = old.spec(&place, &Default::default()).expect("accepted");
            let found = skep_model::project::Found {
                spec,
                variables: Default::default(),
                running: skep_model::project::Running::Behind,
            };
            there.services.insert(place, found);
        }
        let made = compare(&file, &there, true).expect("accepted");
        let text = plan(Output::new(false), "shop", &made);
        assert_eq!(
            text,
            "- production/old goes, its volumes stay
~ production shares variables
    variables.REGION: nothing -> \"eu\"
+ production/api is made, and deployed from its source
    from.image: \"shop/api:1\"
    replicas: 2
    variables.NOTE: \"\"\"\\ntwo\\nlines\"\"\"
~ production/web is deployed: what runs has another configuration
! production/api wants the secret KEY: skep env set --secret --stdin KEY --service api --create \
             --project shop --environment production
1 to make, 2 to change, 1 to remove, 1 secret to set"
        );
    }

    #[test]
    fn long_values_are_cut_between_letters() {
        let long = "ä".repeat(MAX_VALUE + 1);
        assert_eq!(cut(&long).chars().count(), MAX_VALUE + 3);
        assert_eq!(cut("a\nb"), "a\\nb");
    }
}
