//! Bodies that forges do send, or that somebody may: a text table of each.

use serde_json::{Value, json};

use crate::{Action, Event, Forge, parse};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const NONE: &str = "0000000000000000000000000000000000000000";

fn events(forge: Forge, event: &str, body: &Value) -> Vec<Event> {
    let found = parse(forge, event, body.to_string().as_bytes());
    found.unwrap_or_else(|error| panic!("{forge} {event} {body}: {error}"))
}

fn one(forge: Forge, event: &str, body: &Value) -> Event {
    let mut all = events(forge, event, body);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn an_error_names_the_field() {
    let cases = [
        (Forge::GitHub, "push", json!([]), "body"),
        (Forge::GitHub, "push", json!({"after": A}), "ref"),
        (
            Forge::GitHub,
            "push",
            json!({"ref": "refs/heads/main"}),
            "after",
        ),
        (
            Forge::GitHub,
            "push",
            json!({"ref": "main", "after": A}),
            "ref",
        ),
        (Forge::GitHub, "push", json!({"ref": 1, "after": A}), "ref"),
        (
            Forge::GitHub,
            "push",
            json!({"ref": "refs/heads/m", "after": "--x"}),
            "after",
        ),
        (
            Forge::GitHub,
            "push",
            json!({"ref": "refs/heads/m", "after": "abcdef123456"}),
            "after",
        ),
        (
            Forge::GitHub,
            "push",
            json!({"ref": "refs/heads/m", "after": A, "before": "x"}),
            "before",
        ),
        (
            Forge::GitHub,
            "pull_request",
            json!({"action": "opened"}),
            "body",
        ),
        (
            Forge::Gitea,
            "pull_request",
            json!({"action": "opened", "number": 1, "pull_request": {"head": {"ref": "a", "sha": "?"}, "base": {"ref": "b"}}}),
            "pull_request.head.sha",
        ),
        (
            Forge::Gitea,
            "create",
            json!({"ref": "v1", "ref_type": "tag"}),
            "sha",
        ),
        (
            Forge::GitLab,
            "Push Hook",
            json!({"ref": "refs/heads/m", "after": ""}),
            "after",
        ),
        (
            Forge::GitLab,
            "Merge Request Hook",
            json!({"object_attributes": {"iid": "x"}}),
            "object_attributes.iid",
        ),
        (
            Forge::BitbucketCloud,
            "repo:push",
            json!({"push": {"changes": [{"new": {"type": "branch", "name": "m", "target": {"hash": "?"}}}]}}),
            "push.changes[0].new.target.hash",
        ),
        (
            Forge::BitbucketCloud,
            "repo:push",
            json!({"push": {"changes": [{"new": null, "old": null}]}}),
            "push.changes[0].new",
        ),
        (
            Forge::BitbucketDataCenter,
            "repo:refs_changed",
            json!({"changes": [{"ref": {"id": "refs/heads/m"}, "toHash": "1"}]}),
            "changes[0].toHash",
        ),
        (
            Forge::Generic,
            "",
            json!({"ref": "main", "cmd": "x"}),
            "cmd",
        ),
        (Forge::Generic, "", json!({"commit": "main"}), "commit"),
        (
            Forge::Generic,
            "",
            json!({"image": "a:1", "ref": "main"}),
            "image",
        ),
    ];
    for (forge, event, body, field) in cases {
        let error = parse(forge, event, body.to_string().as_bytes());
        let error = error.expect_err(field);
        assert_eq!(error.field, field, "{error}");
    }
    for odd in [
        "",
        "{",
        "{}x",
        "payload=%7B",
        "payload=",
        &"[".repeat(5_000),
    ] {
        assert!(
            parse(Forge::GitHub, "push", odd.as_bytes()).is_err(),
            "{odd:.20}"
        );
    }
}

#[test]
fn the_end_of_a_branch_is_no_push() {
    let named = |event: &Event| match event {
        Event::BranchDeleted(gone) => format!("branch {}", gone.name),
        Event::TagDeleted(gone) => format!("tag {}", gone.name),
        other => panic!("{other:?}"),
    };
    let cases = [
        (
            Forge::GitHub,
            "push",
            json!({"ref": "refs/heads/m", "after": NONE, "deleted": true}),
            "branch m",
        ),
        (
            Forge::GitHub,
            "push",
            json!({"ref": "refs/tags/v", "after": NONE}),
            "tag v",
        ),
        (
            Forge::Gitea,
            "delete",
            json!({"ref": "a/b", "ref_type": "branch"}),
            "branch a/b",
        ),
        (
            Forge::GitHub,
            "delete",
            json!({"ref": "v", "ref_type": "tag"}),
            "tag v",
        ),
        (
            Forge::GitLab,
            "Push Hook",
            json!({"ref": "refs/heads/m", "after": NONE, "checkout_sha": null, "commits": null}),
            "branch m",
        ),
        (
            Forge::GitLab,
            "Tag Push Hook",
            json!({"ref": "refs/tags/v", "after": NONE}),
            "tag v",
        ),
        (
            Forge::BitbucketCloud,
            "repo:push",
            json!({"push": {"changes": [{"new": null, "closed": true, "old": {"type": "tag", "name": "v"}}]}}),
            "tag v",
        ),
        (
            Forge::BitbucketDataCenter,
            "repo:refs_changed",
            json!({"changes": [{"ref": {"id": "refs/heads/m"}, "fromHash": A, "toHash": NONE, "type": "DELETE"}]}),
            "branch m",
        ),
    ];
    for (forge, event, body, wanted) in cases {
        assert_eq!(named(&one(forge, event, &body)), wanted);
    }
}

#[test]
fn the_list_of_files_is_complete_or_it_is_not() {
    let commit = json!({"id": B, "message": "x", "added": ["a"], "modified": [], "removed": null});
    let without = json!({"id": B, "message": "x"});
    let cases = [
        (Forge::GitHub, json!([commit]), json!(null), true),
        (Forge::GitHub, json!([]), json!(null), false),
        (Forge::GitHub, json!(["text"]), json!(null), false),
        (Forge::GitHub, json!([commit, without]), json!(null), false),
        (
            Forge::GitHub,
            json!(vec![commit.clone(); 2_048]),
            json!(null),
            false,
        ),
        (Forge::Gitea, json!([commit]), json!(null), true),
        (
            Forge::Gitea,
            json!(vec![commit.clone(); 5]),
            json!(null),
            false,
        ),
        (Forge::Gitea, json!(vec![commit.clone(); 5]), json!(5), true),
        (
            Forge::Gitea,
            json!(vec![commit.clone(); 5]),
            json!(9),
            false,
        ),
        (Forge::GitLab, json!([commit]), json!(1), true),
        (Forge::GitLab, json!([commit]), json!(null), false),
        (
            Forge::GitLab,
            json!(vec![commit.clone(); 20]),
            json!(35),
            false,
        ),
    ];
    for (forge, commits, total, wanted) in cases {
        let body = json!({"ref": "refs/heads/m", "before": A, "after": B, "commits": commits,
            "total_commits": total, "total_commits_count": total});
        let event = if forge == Forge::GitLab {
            "Push Hook"
        } else {
            "push"
        };
        match one(forge, event, &body) {
            Event::Push(push) => assert_eq!(push.is_complete, wanted, "{forge} {total}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_head_that_nobody_can_place_is_a_strangers() {
    let github = |head: Value, base: Value| {
        json!({"action": "synchronize", "number": 3, "repository": {"full_name": "o/r"},
            "pull_request": {"head": head, "base": base}})
    };
    let side = |repo: Value| json!({"ref": "b", "sha": A, "repo": repo});
    let own = json!({"full_name": "o/r"});
    let cases = [
        (github(side(own.clone()), side(own.clone())), false),
        (
            github(side(json!({"full_name": "O/R"})), side(own.clone())),
            false,
        ),
        (
            github(side(json!({"full_name": "x/r"})), side(own.clone())),
            true,
        ),
        (github(side(Value::Null), side(own.clone())), true),
        (github(side(own.clone()), side(Value::Null)), false),
        (
            github(
                json!({"ref": "b", "repo_id": 6}),
                json!({"ref": "m", "repo_id": 6}),
            ),
            false,
        ),
        (
            github(
                json!({"ref": "b", "repo_id": 6}),
                json!({"ref": "m", "repo_id": 7}),
            ),
            true,
        ),
        (github(json!({"ref": "b"}), json!({"ref": "m"})), true),
    ];
    for (body, wanted) in cases {
        match one(Forge::GitHub, "pull_request", &body) {
            Event::Change(change) => assert_eq!(change.is_fork, wanted, "{body}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn gitlab_tells_a_new_commit_from_a_new_label() {
    let merge = |action: Value, more: Value| {
        let mut it = json!({"iid": 4, "source_branch": "a", "target_branch": "b", "action": action,
            "source_project_id": 1, "target_project_id": 1});
        it.as_object_mut()
            .expect("one")
            .extend(more.as_object().cloned().unwrap_or_default());
        json!({"object_kind": "merge_request", "object_attributes": it, "changes": {"labels": {}}})
    };
    let cases = [
        (json!("update"), json!({"oldrev": A}), Action::Synchronized),
        (json!("update"), json!({}), Action::Labelled),
        (json!("merge"), json!({}), Action::Closed { merged: true }),
        (json!("close"), json!({}), Action::Closed { merged: false }),
        (
            json!("approved"),
            json!({}),
            Action::Other("approved".to_owned()),
        ),
        (json!(null), json!({}), Action::Other(String::new())),
    ];
    for (action, more, wanted) in cases {
        // Hooks of the system name it in the body only.
        match one(Forge::GitLab, "System Hook", &merge(action, more)) {
            Event::Change(change) => {
                assert_eq!((change.action, change.is_fork), (wanted, false));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn of_checks_their_commit_is_heard_and_nothing_else_is_an_error() {
    let sha = "366701fde727cb7a9e7f21eb88264f59f6f9b89c";
    let github = r#""repository": {"full_name": "team/shop"}"#;
    let gitlab = r#""project": {"path_with_namespace": "team/shop"}"#;
    let cases = [
        (
            Forge::GitHub,
            "status",
            format!(r#"{{"sha": "{sha}", {github}}}"#),
        ),
        (
            Forge::GitHub,
            "check_run",
            format!(r#"{{"check_run": {{"head_sha": "{sha}"}}, {github}}}"#),
        ),
        (
            Forge::GitHub,
            "workflow_run",
            format!(r#"{{"workflow_run": {{"head_sha": "{sha}"}}, {github}}}"#),
        ),
        (
            Forge::Gitea,
            "status",
            format!(r#"{{"sha": "{sha}", {github}}}"#),
        ),
        (
            Forge::Forgejo,
            "action_run_success",
            format!(r#"{{"run": {{"commit_sha": "{sha}"}}, {github}}}"#),
        ),
        (
            Forge::GitLab,
            "Pipeline Hook",
            format!(
                r#"{{"object_kind": "pipeline", "object_attributes": {{"sha": "{sha}"}}, {gitlab}}}"#
            ),
        ),
        (
            Forge::BitbucketCloud,
            "repo:commit_status_updated",
            format!(
                r#"{{"commit_status": {{"links": {{"commit": {{"href": "https://x.test/c/{sha}"}}}}}}, {github}}}"#
            ),
        ),
    ];
    for (forge, event, body) in cases {
        let found = parse(forge, event, body.as_bytes());
        let Ok([Event::Checks(reported)]) = found.as_deref() else {
            panic!("{event}: {found:?}");
        };
        assert_eq!(reported.commit.as_str(), sha);
        assert_eq!(reported.repository.full_name, "team/shop");
        for odd in [
            body.replace(sha, "366701f"),
            body.replace("commit", "x"),
            "{}".into(),
        ] {
            if odd != body {
                let found = parse(forge, event, odd.as_bytes());
                assert_eq!(found, Ok(vec![Event::Other(event.to_owned())]), "{odd}");
            }
        }
    }
}

#[test]
fn what_is_not_known_is_named_and_nothing_else_is_read() {
    for (forge, event) in [
        (Forge::GitHub, "issues"),
        (Forge::GitHub, "pull_request_review"),
        (Forge::GitHub, "create"),
        (Forge::Gitea, "pull_request_comment"),
        (Forge::GitLab, "Pipeline Hook"),
        (Forge::BitbucketCloud, "repo:fork"),
        (Forge::BitbucketDataCenter, "repo:comment:added"),
    ] {
        let found = parse(forge, event, b"not json");
        assert_eq!(found, Ok(vec![Event::Other(event.to_owned())]));
    }
    assert_eq!(parse(Forge::GitHub, "ping", b"{}"), Ok(vec![Event::Ping]));
    assert_eq!(
        parse(
            Forge::BitbucketDataCenter,
            "diagnostics:ping",
            b"{\"test\":true}"
        ),
        Ok(vec![Event::Ping])
    );
}

#[test]
fn an_annotated_tag_names_its_commit() {
    let github = json!({"ref": "refs/tags/v1", "after": A, "head_commit": {"id": B}});
    let gitlab =
        json!({"object_kind": "tag_push", "ref": "refs/tags/v1", "after": A, "checkout_sha": B});
    for (forge, event, body) in [
        (Forge::GitHub, "push", github),
        (Forge::GitLab, "Tag Push Hook", gitlab),
    ] {
        match one(forge, event, &body) {
            Event::Tag(tag) => assert_eq!((tag.name.as_str(), tag.commit.as_str()), ("v1", B)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn too_many_changes_are_refused_whole() {
    let change = json!({"ref": {"id": "refs/heads/m"}, "toHash": A});
    let many = json!({"changes": vec![change; 201]}).to_string();
    let error = parse(
        Forge::BitbucketDataCenter,
        "repo:refs_changed",
        many.as_bytes(),
    );
    assert_eq!(error.expect_err("too many").field, "changes");
    assert_eq!(
        events(
            Forge::BitbucketCloud,
            "repo:push",
            &json!({"push": {"changes": []}})
        ),
        []
    );
}
