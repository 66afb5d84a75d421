//! What a template becomes, and what is refused, where it stands and with which advice.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::fill::Words;
use super::{Setting, Template};
use crate::project::{Change, Current, Found, Given, Place, Plan, Project, Running, plan};

const HEAD: &str = "name = \"t\"\nversion = \"1.0.0\"\ndescription = \"one\"\n";
const BODY: &str = r#"
after = "{{ prefix }}a in {{ environment }}: ${{{{ prefix }}a.URL}}"
[questions.host]
text = "Where?"
example = "a.example.com"
[questions.more]
text = "And where else?"
default = ""
[questions.key]
text = "Which key?"
secret = true
[secrets.a]
PASSWORD = { length = 40, alphabet = "hex" }
KEY = { question = "key" }
[variables]
REGION = "of ${{ a.URL }}"
[services.a]
from = { image = "a:1" }
domains = ["{{ host }}", "{{more}}"]
[services.a.variables]
PASSWORD = { secret = true }
KEY = { secret = true }
URL = "https://{{ host }}/${{PASSWORD}}/$${{x"
[services.b]
type = "worker"
[services.b.variables]
OF = "${{a.URL}} ${{b.ME}} ${{other.X}} ${{shared.REGION}}"
ME = "{{ project }}"
"#;

/// A template's text after its first three lines, then the field, the line and a part of the advice.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    (
        "qestions = {}",
        "qestions",
        "line 4",
        "`questions` perhaps?",
    ),
    ("environments = {}", "environments", "line 4", "there are:"),
    (
        "version = \"2\"",
        "skep.template.toml",
        "line 4",
        "say it once",
    ),
    (
        "[services.a.variables]\nX = \"{{ hots }}\"\n[questions.host]\ntext = \"?\"\ndefault = \"\"",
        "services.a.variables.X",
        "line 5",
        "`host` perhaps?",
    ),
    (
        "[services.a]\ndomains = [\n\"a.example.com\",\n\"{{ x }}\"]",
        "services.a.domains",
        "line 7",
        "environment",
    ),
    (
        "[services.a.variables]\nX = \"{{ x\"",
        "services.a.variables.X",
        "line 5",
        "{{ question }}",
    ),
    (
        "after = \"{{ projct }}\"",
        "after",
        "line 4",
        "`project` perhaps?",
    ),
    (
        "[services.a]\nreplica = 2",
        "services.a.replica",
        "line 5",
        "`replicas` perhaps?",
    ),
    (
        "[questions.a]\ntext = \"?\"",
        "questions.a.example",
        "line 4",
        "default",
    ),
    (
        "[questions.a]\ntxt = \"?\"",
        "questions.a.txt",
        "line 5",
        "`text` perhaps?",
    ),
    (
        "[questions.a]\ntext = \" \"\ndefault = \"\"",
        "questions.a.text",
        "line 4",
        "",
    ),
    (
        "[questions.A]\ntext = \"?\"",
        "questions.A",
        "line 4",
        "a-z",
    ),
    (
        "[questions.project]\ntext = \"?\"",
        "questions.project",
        "line 4",
        "another name",
    ),
    (
        "[questions.a]\ntext = \"?\"\npattern = \"(\"\ndefault = \"\"",
        "questions.a.pattern",
        "line 4",
        "",
    ),
    (
        "[questions.a]\ntext = \"?\"\npattern = \"[0-9]+\"\ndefault = \"1a\"",
        "questions.a.default",
        "line 4",
        "matching [0-9]+",
    ),
    (
        "[questions.a]\ntext = \"?\"\nchoices = [\"x\"]\ndefault = \"y\"",
        "questions.a.default",
        "line 4",
        "one of: x",
    ),
    (
        "[questions.a]\ntext = \"?\"\nsecret = true\ndefault = \"y\"",
        "questions.a.secret",
        "line 4",
        "[secrets]",
    ),
    (
        "[questions.a]\ntext = \"?\"\nsecret = true\n[services.a.variables]\nX = \"{{ a }}\"",
        "services.a.variables.X",
        "line 8",
        "question = \"a\"",
    ),
    (
        "[secrets.a]\nX = { length = 3 }",
        "secrets.a.X.length",
        "line 5",
        "16 to 256",
    ),
    (
        "[secrets.a]\nX = { size = 3 }",
        "secrets.a.X.size",
        "line 5",
        "length",
    ),
    (
        "[secrets.a]\nX = { question = \"q\" }",
        "secrets.a.X.question",
        "line 5",
        "secret = true",
    ),
    (
        "[secrets.a]\nX = {}",
        "secrets.a.X",
        "",
        "[services.a.variables]",
    ),
    (
        "[services.a.variables]\nX = { secret = true }",
        "services.a.variables.X",
        "",
        "[secrets.a] X",
    ),
    (
        "[variables]\nX = { secret = true }",
        "variables.X",
        "",
        "give it to a service",
    ),
];

#[test]
fn mistakes_are_named_with_their_line_and_what_was_meant() {
    for (text, field, line, advice) in MISTAKES {
        let problem = Template::parse(&format!("{HEAD}{text}\n")).expect_err(text);
        assert_eq!(problem.field.as_deref(), Some(*field), "{text}: {problem}");
        assert!(problem.message.contains(line), "{text}: {problem}");
        let hint = problem.hint.unwrap_or_default();
        assert!(hint.contains(advice), "{text}: {hint}");
    }
    for (text, field) in [
        ("", "name"),
        ("name = \"t\"\ndescription = \"d\"", "version"),
        ("version = \"1\"", "version"),
        (
            "name = \"T\"\nversion = \"1.0.0\"\ndescription = \"d\"",
            "name",
        ),
    ] {
        let problem = Template::parse(text).expect_err(text);
        assert_eq!(problem.field.as_deref(), Some(field), "{text}: {problem}");
    }
}

fn template() -> Template {
    Template::parse(&format!("{HEAD}{BODY}")).expect("good")
}

fn project(prefix: &str, answers: &[(&str, &str)]) -> (Project, String) {
    let answers: BTreeMap<String, String> = (answers.iter())
        .map(|(name, answer)| ((*name).to_owned(), (*answer).to_owned()))
        .collect();
    let setting = Setting {
        project: "shop",
        environment: "staging",
        prefix,
        answers: &answers,
    };
    let template = template();
    let file = template.project(setting).expect("good");
    (file, template.after(&setting))
}

fn value(file: &Project, service: &str, name: &str) -> Given {
    file.services[service].variables[name].clone()
}

fn text(value: &str) -> Given {
    Given::Value(value.to_owned())
}

#[test]
fn answers_are_in_texts_and_references_stay() {
    let (file, after) = project("", &[("host", "x.example.com"), ("more", "")]);
    assert_eq!(after, "a in staging: ${{a.URL}}");
    assert_eq!(
        value(&file, "a", "URL"),
        text("https://x.example.com/${{PASSWORD}}/$${{x")
    );
    assert_eq!(value(&file, "a", "KEY"), Given::Made);
    assert_eq!(value(&file, "b", "ME"), text("shop"));
    let environments: Vec<&str> = file.environments().into_iter().collect();
    assert_eq!(environments, ["staging"]);
}

#[test]
fn a_text_of_a_list_that_comes_to_nothing_is_left_out() {
    let domains = |more: &str| {
        let (file, _) = project("", &[("host", "x.example.com"), ("more", more)]);
        file.services["a"].manifest.domains.clone().expect("some")
    };
    assert_eq!(domains(""), ["x.example.com"]);
    assert_eq!(domains("y.example.com"), ["x.example.com", "y.example.com"]);
}

#[test]
fn a_prefix_renames_services_and_whoever_refers_to_them() {
    let (file, after) = project("blue", &[("host", "x.example.com"), ("more", "")]);
    assert_eq!(after, "blue-a in staging: ${{blue-a.URL}}");
    let names: Vec<&String> = file.services.keys().collect();
    assert_eq!(names, ["blue-a", "blue-b"]);
    assert_eq!(
        value(&file, "blue-b", "OF"),
        text("${{blue-a.URL}} ${{ME}} ${{other.X}} ${{shared.REGION}}")
    );
    assert_eq!(
        value(&file, "blue-a", "URL"),
        text("https://x.example.com/${{PASSWORD}}/$${{x")
    );
    assert_eq!(file.variables["REGION"], text("of ${{blue-a.URL}}"));
}

#[test]
fn answers_that_are_none_are_refused() {
    let template = template();
    for (answers, field) in [
        (&[("more", "")][..], "host"),
        (&[("more", ""), ("host", "a\nb")][..], "host"),
        (
            &[("more", ""), ("host", "no host")][..],
            "services.a.domains",
        ),
    ] {
        let answers = (answers.iter()).map(|it| (it.0.to_owned(), it.1.to_owned()));
        let answers = answers.collect();
        let problem = template.project(Setting {
            project: "shop",
            environment: "production",
            prefix: "",
            answers: &answers,
        });
        let problem = problem.expect_err(field);
        let found = problem.field.clone().unwrap_or_default();
        assert!(found.starts_with(field), "{problem}");
    }
}

/// The plan where the service has these variables.
fn planned(variables: Option<&[(&str, Given)]>) -> Plan {
    let (file, _) = project("", &[("host", "x.example.com"), ("more", "")]);
    let mut current = Current::default();
    if let Some(variables) = variables {
        for place in file.places() {
            let mut has = file.variables(&place);
            has.retain(|_, given| *given != Given::Made);
            if place.service == "a" {
                has.extend(variables.iter().map(|it| (it.0.to_owned(), it.1.clone())));
            }
            let found = Found {
                spec: file.spec(&place, &Default::default()).expect("good"),
                variables: has,
                running: Running::Current,
            };
            current.services.insert(place, found);
        }
        current
            .shared
            .insert("staging".to_owned(), file.shared("staging"));
    }
    plan(&file, &current, false).expect("good")
}

fn made(plan: &Plan) -> Vec<String> {
    let of = |change: &Change| match change {
        Change::Service(it) if it.place == Place::new("staging", "a") => it.make.clone(),
        _ => Vec::new(),
    };
    plan.changes.iter().flat_map(of).collect()
}

#[test]
fn secrets_are_made_once_and_never_in_place_of_a_text() {
    assert_eq!(made(&planned(None)), ["KEY", "PASSWORD"]);
    let both = [("KEY", Given::Secret), ("PASSWORD", Given::Secret)];
    assert!(
        planned(Some(&both)).is_empty(),
        "the second time nothing is done"
    );
    let half = planned(Some(&both[..1]));
    assert_eq!(made(&half), ["PASSWORD"]);
    assert!(half.missing.is_empty());
    let plain = planned(Some(&[("KEY", Given::Secret), ("PASSWORD", text("old"))]));
    assert!(made(&plain).is_empty());
    assert_eq!(plain.missing[0].name, "PASSWORD");
}

proptest! {
    #[test]
    fn what_is_no_word_stays_as_it_is(text in "[a-z$ }\n]{0,20}(\\$\\{\\{[a-z. ]{0,9}\\}\\})?[a-z}]{0,9}") {
        let words = Words::new(BTreeMap::new(), Vec::new());
        prop_assert_eq!(words.fill(&text).expect("no word in it"), text);
    }

    #[test]
    fn an_answer_is_not_read_again(answer in "[{}$a ]{0,20}", before in "[a-z ]{0,9}") {
        let words = Words::new(BTreeMap::from([("a", answer.clone())]), Vec::new());
        let filled = words.fill(&format!("{before}{{{{ a }}}}!")).expect("a word");
        prop_assert_eq!(filled, format!("{before}{answer}!"));
    }
}
