//! Which pushes are deployed, and the words for it.

use super::*;
use crate::event::{Commit, PushedCommit, Repository};

fn commit(message: &str, files: &[&str]) -> PushedCommit {
    PushedCommit {
        id: "1".repeat(40),
        message: message.to_owned(),
        added: files.iter().map(|&file| file.to_owned()).collect(),
        modified: Vec::new(),
        removed: Vec::new(),
    }
}

fn push(commits: Vec<PushedCommit>) -> Push {
    Push {
        repository: Repository::default(),
        branch: "main".to_owned(),
        before: Commit::new(&"a".repeat(40)),
        after: Commit::new(&"b".repeat(40)).expect("a commit"),
        forced: false,
        lists_all: true,
        is_complete: !commits.is_empty(),
        head_message: commits.last().map(|it| it.message.clone()),
        commits,
        pusher: None,
    }
}

fn judge(watch: &[&str], directory: &str, push: &Push) -> Verdict {
    let pushes = Pushes {
        watch: watch.iter().map(|&text| text.to_owned()).collect(),
        tags: None,
        ..Pushes::default()
    };
    let rules = Rules {
        branch: "main",
        directory,
        pushes: &pushes,
    };
    rules.of_push(push)
}

#[test]
fn only_a_push_whose_every_commit_is_marked_is_skipped() {
    let cases: [(&[&str], bool); 9] = [
        (&["x [skip ci]"], true),
        (&["[CI Skip] x"], true),
        (&["x\n\n[skip deploy]", "y [no ci]"], true),
        (&["[skip cd]", "[skip actions]", "[actions skip]"], true),
        (&["x [skip ci]", "y"], false),
        (&["y", "x [skip ci]"], false),
        (&["skip ci"], false),
        (&["[ skip ci ]"], false),
        (&["x"], false),
    ];
    for (messages, is_skipped) in cases {
        let commits = messages.iter().map(|text| commit(text, &["a"])).collect();
        let mut push = push(commits);
        let verdict = judge(&[], "", &push);
        assert_eq!(
            matches!(verdict, Verdict::Skip(_)),
            is_skipped,
            "{messages:?}"
        );
        // Who does not see all commits does not know.
        push.lists_all = false;
        assert!(matches!(judge(&[], "", &push), Verdict::Deploy(_)));
    }
    let mut new_branch = push(Vec::new());
    new_branch.head_message = Some("old [skip ci]".to_owned());
    assert!(matches!(judge(&[], "", &new_branch), Verdict::Skip(_)));
    new_branch.head_message = None;
    assert!(matches!(judge(&[], "", &new_branch), Verdict::Deploy(_)));
}

#[test]
fn paths_decide_only_where_all_of_them_are_known() {
    let docs = push(vec![commit("x", &["docs/a"]), commit("y", &["README.md"])]);
    let both = push(vec![commit("x", &["docs/a"]), commit("y", &["api/b"])]);
    let untouched = Verdict::Untouched(
        "none of the 2 changed files is one that the service watches".to_owned(),
    );
    assert_eq!(judge(&["api/**"], "", &docs), untouched);
    assert_eq!(judge(&[], "api", &docs), untouched);
    let deployed = Verdict::Deploy("`api/b` changed".to_owned());
    assert_eq!(judge(&["api/**"], "", &both), deployed);
    assert_eq!(
        judge(&["docs/"], "api", &push(vec![commit("y", &["api/b"])])),
        deployed
    );
    assert!(matches!(judge(&[], "", &docs), Verdict::Deploy(_)));
    let unknown = [
        (
            "new",
            Push {
                before: None,
                ..docs.clone()
            },
        ),
        (
            "forced",
            Push {
                forced: true,
                ..docs.clone()
            },
        ),
        (
            "list",
            Push {
                is_complete: false,
                ..docs.clone()
            },
        ),
        ("list", push(Vec::new())),
    ];
    for (word, push) in unknown {
        match judge(&["api/**"], "", &push) {
            Verdict::Deploy(why) => {
                assert!(why.contains(word) && why.contains("not known"), "{why}")
            }
            other => panic!("{word}: {other:?}"),
        }
    }
    // A pattern of a newer version keeps nothing from being deployed.
    assert!(matches!(judge(&["["], "", &docs), Verdict::Deploy(_)));
}

#[test]
fn a_branch_or_tags_never_both() {
    let tagged = Pushes {
        watch: Vec::new(),
        tags: Some("v*".to_owned()),
        ..Pushes::default()
    };
    let plain = Pushes::default();
    let rules = |pushes| Rules {
        branch: "main",
        directory: "",
        pushes,
    };
    let tag = |name: &str| Tag {
        repository: Repository::default(),
        name: name.to_owned(),
        commit: Commit::new(&"c".repeat(40)).expect("a commit"),
        message: Some("[skip ci]".to_owned()),
    };
    let other = Push {
        branch: "dev\u{1b}[2J".to_owned(),
        ..push(Vec::new())
    };
    let cases = [
        (rules(&plain).of_push(&push(Vec::new())), "was pushed"),
        (
            rules(&plain).of_push(&other),
            "deploys `main`, not `dev\\u{1b}[2J`",
        ),
        (
            rules(&plain).of_tag(&tag("v1")),
            "deploys the branch `main`",
        ),
        (
            rules(&tagged).of_push(&push(Vec::new())),
            "deploys tags `v*`",
        ),
        (rules(&tagged).of_tag(&tag("v1")), "tag `v1`"),
        (rules(&tagged).of_tag(&tag("w1")), "not `w1`"),
    ];
    let deployed: Vec<bool> = cases
        .into_iter()
        .map(|(verdict, words)| {
            assert!(verdict.to_string().contains(words), "{verdict}");
            matches!(verdict, Verdict::Deploy(_))
        })
        .collect();
    assert_eq!(deployed, [true, false, false, false, true, false]);
}
