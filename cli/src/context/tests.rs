//! Contexts on disk: round trip, privacy, and what a person is told.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn context(server: &str) -> Context {
    Context {
        server: server.to_owned(),
        fingerprint: "ab".repeat(32),
        token: "secret-token".to_owned(),
        hooks: None,
        servers: Vec::new(),
    }
}

#[test]
fn a_file_round_trips_private_and_the_first_context_is_current() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("skep").join(FILE);
    assert_eq!(
        Contexts::load_from(&path).expect("none yet").contexts.len(),
        0
    );
    for name in ["dev", "prod"] {
        Contexts::update_in(&path, |contexts| {
            contexts.put(name, context("https://127.0.0.1:7070"));
            Ok(())
        })
        .expect("written");
    }
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let contexts = Contexts::load_from(&path).expect("read");
    assert_eq!(contexts.current.as_deref(), Some("dev"));
    assert_eq!(
        contexts.pick(Some("prod")).expect("known"),
        &context("https://127.0.0.1:7070")
    );
}

#[test]
fn an_unknown_context_names_those_that_exist() {
    let mut contexts = Contexts::default();
    assert_eq!(
        contexts.pick(None).expect_err("none").exit,
        Exit::Unreachable
    );
    contexts.put("dev", context("https://127.0.0.1:7070"));
    let failure = contexts.pick(Some("prd")).expect_err("unknown");
    assert_eq!(failure.exit, Exit::Usage);
    assert_eq!(failure.problem.hint.as_deref(), Some("there are: dev"));
}

#[test]
fn the_last_context_left_becomes_the_current_one() {
    let mut contexts = Contexts::default();
    for name in ["a", "b", "c"] {
        contexts.put(name, context("https://127.0.0.1:7070"));
    }
    contexts.remove("a").expect("known");
    let failure = contexts.pick(None).expect_err("none is current");
    assert!(
        failure
            .problem
            .hint
            .is_some_and(|hint| hint.ends_with("there are: b, c"))
    );
    contexts.remove("c").expect("known");
    assert_eq!(contexts.current.as_deref(), Some("b"));
    assert!(contexts.remove("a").is_err());
}

#[test]
fn a_broken_file_is_refused_without_showing_the_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(FILE);
    secret_file::write_private(&path, b"version = 1\ntoken = \"hush hush\nx").expect("written");
    let failure = Contexts::load_from(&path).expect_err("broken");
    assert!(!failure.to_string().contains("hush"), "{failure}");
    let newer = b"version = 2\n";
    secret_file::write_private(&path, newer).expect("written");
    let failure = Contexts::load_from(&path).expect_err("newer");
    assert!(failure.to_string().contains("version 2"), "{failure}");
}

#[test]
fn what_people_type_is_checked() {
    assert!(context("https://example.org:7070").check().is_ok());
    for bad in ["http://127.0.0.1:7071", "127.0.0.1:7070", "https://", ""] {
        let problem = context(bad).check().expect_err(bad);
        assert_eq!(problem.field.as_deref(), Some("server"), "{bad}");
    }
    let mut odd = context("https://example.org");
    odd.fingerprint = "xyz".to_owned();
    let problem = odd.check().expect_err("no fingerprint");
    assert_eq!(problem.field.as_deref(), Some("fingerprint"));
    odd = context("https://example.org");
    odd.token = "two words".to_owned();
    assert_eq!(
        odd.check().expect_err("no token").field.as_deref(),
        Some("token")
    );
}
