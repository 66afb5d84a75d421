//! What is read as a reference, how references resolve, and laws about both.

use proptest::prelude::*;

use super::*;

const WEB: &str = "web";

fn web() -> Owner {
    Owner::Service(WEB.into())
}

fn value(text: &str, secret: bool) -> Value {
    Value {
        text: text.into(),
        secret,
    }
}

/// An environment: `service.NAME=value` or `shared.NAME=value`, a `!` before it for secrets.
fn environment(lines: &[&str]) -> BTreeMap<Place, Value> {
    let line = |line: &&str| {
        let (key, text) = line.split_once('=').expect("a line");
        let secret = key.starts_with('!');
        let (whose, name) = key.trim_start_matches('!').split_once('.').expect("a key");
        let place = match whose {
            SHARED => Place::shared(name),
            service => Place::of_service(service, name),
        };
        (place, value(text, secret))
    };
    lines.iter().map(line).collect()
}

fn resolved(all: &BTreeMap<Place, Value>, place: &Place) -> (Result<Value, Problem>, Vec<Problem>) {
    let find = |place: &Place| {
        Ok(match all.get(place) {
            Some(value) => Found::Said(value.clone()),
            None => Found::Missing(format!("there is no {place}")),
        })
    };
    let mut resolver = Resolver::new(&find);
    let result = resolver.resolve(place);
    (result, resolver.missing)
}

#[test]
fn values_are_read_in_parts() {
    let text = |text: &str| Part::Text(text.into());
    let of = |whose: &str, name: &str| Part::Reference(Place::of_service(whose, name));
    let cases = [
        ("", vec![]),
        (
            "plain $X ${Y} $$ {{z}}",
            vec![text("plain $X ${Y} $$ {{z}}")],
        ),
        ("${{NAME}}", vec![of(WEB, "NAME")]),
        ("${{ db . URL }}", vec![of("db", "URL")]),
        ("${{shared.A}}", vec![Part::Reference(Place::shared("A"))]),
        (
            "postgres://${{db.USER}}:${{db.PASSWORD}}@${{db.SKEP_PRIVATE_HOST}}:5432/",
            vec![
                text("postgres://"),
                of("db", "USER"),
                text(":"),
                of("db", "PASSWORD"),
                text("@"),
                of("db", "SKEP_PRIVATE_HOST"),
                text(":5432/"),
            ],
        ),
        ("$${{NAME}}", vec![text("${{NAME}}")]),
        ("a$$${{NAME}}", vec![text("a$${{NAME}}")]),
        ("$${{A}}${{B}}", vec![text("${{A}}"), of(WEB, "B")]),
    ];
    for (given, parts) in cases {
        assert_eq!(read(&web(), given).expect(given), parts, "{given}");
    }
}

#[test]
fn what_is_no_reference_is_refused_with_what_is() {
    for (given, why) in [
        ("${{", "no `}}`"),
        ("${{A", "no `}}`"),
        ("${{}}", "names no variable"),
        ("${{1A}}", "names no variable"),
        ("${{a.b.C}}", "names no variable"),
        ("${{A-B}}", "names no variable"),
        ("${{Db.URL}}", "names no service"),
        ("${{.URL}}", "names no service"),
        ("${{staging/db.URL}}", "leads out of the environment"),
        ("${{staging:db.URL}}", "leads out of the environment"),
    ] {
        let problem = read(&web(), given).expect_err(given);
        assert!(problem.message.contains(why), "{given}: {problem}");
        assert!(problem.hint.is_some_and(|hint| hint.contains("$${{")));
    }
}

#[test]
fn values_are_made_of_what_they_refer_to_and_secret_if_that_is() {
    let all = environment(&[
        "web.URL=postgres://${{db.LOGIN}}@db/${{shared.NAME}}",
        "db.LOGIN=${{USER}}:${{PASSWORD}}",
        "db.USER=app",
        "!db.PASSWORD=a$${{b}}",
        "shared.NAME=shop-${{REGION}}",
        "shared.REGION=eu",
    ]);
    let (found, missing) = resolved(&all, &Place::of_service(WEB, "URL"));
    let expected = value("postgres://app:a${{b}}@db/shop-eu", true);
    assert_eq!((found, missing), (Ok(expected), vec![]));
    let (found, _) = resolved(&all, &Place::shared("NAME"));
    assert_eq!(found, Ok(value("shop-eu", false)));
}

#[test]
fn circles_and_what_does_not_exist_are_told_with_the_way_there() {
    let all = environment(&[
        "web.A=${{api.B}}",
        "api.B=x${{shared.C}}",
        "shared.C=${{web.A}}",
        "web.SELF=${{SELF}}",
        "web.GONE=${{api.LOST}}",
        "api.LOST=${{db.NOWHERE}}-${{db.NOWHERE}}",
    ]);
    let (circle, _) = resolved(&all, &Place::of_service(WEB, "A"));
    let message = circle.expect_err("a circle").message;
    assert!(
        message.ends_with("web.A -> api.B -> shared.C -> web.A"),
        "{message}"
    );
    let (own, _) = resolved(&all, &Place::of_service(WEB, "SELF"));
    assert!(own.is_err());
    let (lost, missing) = resolved(&all, &Place::of_service(WEB, "GONE"));
    assert_eq!(lost, Ok(value("-", false)));
    let [problem] = &missing[..] else {
        panic!("once: {missing:?}")
    };
    assert_eq!(problem.code, Code::NotFound);
    assert!(
        problem
            .message
            .ends_with("web.GONE -> api.LOST -> db.NOWHERE"),
        "{problem}"
    );
}

#[test]
fn values_that_grow_by_references_have_the_limit_of_all_values() {
    let doubling =
        |number: usize| format!("web.V{}=${{{{V{number}}}}}${{{{V{number}}}}}", number + 1);
    let mut lines: Vec<String> = (0..20).map(doubling).collect();
    lines.push("web.V0=ab".into());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let all = environment(&lines);
    let (fits, _) = resolved(&all, &Place::of_service(WEB, "V15"));
    assert_eq!(fits.expect("64 KiB").text.len(), MAX_VALUE);
    let (large, _) = resolved(&all, &Place::of_service(WEB, "V16"));
    assert!(large.expect_err("128 KiB").message.contains("65536 bytes"));
    let chain = |number: usize| format!("web.C{number}=${{{{C{}}}}}", number + 1);
    let lines: Vec<String> = (0..40).map(chain).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (long, _) = resolved(&environment(&lines), &Place::of_service(WEB, "C0"));
    assert!(long.expect_err("long").message.contains("more than 32"));
}

#[test]
fn dependents_are_found_through_others() {
    let all = environment(&[
        "web.A=${{api.B}}",
        "api.B=${{shared.C}}",
        "api.D=${{api.D2}}",
        "api.D2=x",
        "shared.C=c",
        "job.E=none",
    ]);
    let graph = all
        .iter()
        .map(|(place, value)| (place.clone(), targets(&place.owner, &value.text)))
        .collect();
    let found = |place: Place| {
        let places = dependents(&graph, &[place].into());
        places.iter().map(Place::to_string).collect::<Vec<_>>()
    };
    assert_eq!(found(Place::shared("C")), ["api.B", "web.A"]);
    assert_eq!(found(Place::of_service("api", "D2")), ["api.D"]);
    assert_eq!(found(Place::of_service("job", "E")), [""; 0]);
}

fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("${{".to_owned()),
        Just("}}".to_owned()),
        Just("$".to_owned()),
        Just("shared.A".to_owned()),
        Just("db.B".to_owned()),
        "[ -~äß\\n]{0,6}",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Six variables in a row of which some refer to others by their numbers.
fn graphs() -> impl Strategy<Value = Vec<Vec<usize>>> {
    proptest::collection::vec(proptest::collection::vec(0..6usize, 0..3), 6)
}

fn has_circle(graph: &[Vec<usize>], from: usize, way: &mut Vec<usize>) -> bool {
    if way.contains(&from) {
        return true;
    }
    way.push(from);
    let found = graph[from].iter().any(|next| has_circle(graph, *next, way));
    way.pop();
    found
}

proptest! {
    #[test]
    fn reading_never_panics_and_an_escaped_text_is_itself(text in texts()) {
        let _ = read(&web(), &text);
        let parts = read(&web(), &escape(&text)).expect("nothing in it is a reference");
        let joined: String = parts
            .into_iter()
            .map(|part| match part {
                Part::Text(text) => text,
                Part::Reference(place) => panic!("{place}"),
            })
            .collect();
        prop_assert_eq!(joined, text);
    }

    #[test]
    fn what_is_resolved_resolves_to_itself(text in texts(), a in texts(), b in texts()) {
        let mut all = environment(&[]);
        all.insert(Place::of_service(WEB, "V"), value(&text, false));
        all.insert(Place::shared("A"), value(&escape(&a), false));
        all.insert(Place::of_service("db", "B"), value(&escape(&b), true));
        if let (Ok(first), _) = resolved(&all, &Place::of_service(WEB, "V")) {
            let again = value(&escape(&first.text), first.secret);
            all.insert(Place::of_service(WEB, "V"), again);
            let (second, missing) = resolved(&all, &Place::of_service(WEB, "V"));
            prop_assert_eq!((second, missing), (Ok(first), vec![]));
        }
    }

    #[test]
    fn circles_are_always_found_and_nothing_else_is_one(graph in graphs()) {
        let said = |(number, to): (usize, &Vec<usize>)| {
            let text: String = to.iter().map(|next| format!("${{{{V{next}}}}}")).collect();
            (Place::of_service(WEB, &format!("V{number}")), value(&text, false))
        };
        let all: BTreeMap<Place, Value> = graph.iter().enumerate().map(said).collect();
        for number in 0..graph.len() {
            let (found, _) = resolved(&all, &Place::of_service(WEB, &format!("V{number}")));
            prop_assert_eq!(found.is_err(), has_circle(&graph, number, &mut Vec::new()));
        }
    }
}
