//! The text as a file that a person has read; what strangers write stays text.

use super::*;

fn line(service: &str, standing: Option<(State, &str)>) -> Line {
    Line {
        service: service.into(),
        standing: standing.map(|(state, text)| (state, text.to_owned())),
        url: Some(format!("http://{service}-pr-12-shop.example.com:8080")),
        commit: Some("366701fde727cb7a9e7f21eb88264f59f6f9b89c".into()),
    }
}

fn notice() -> Notice {
    Notice {
        mark: "01j".into(),
        repository: "Team/shop".into(),
        number: 12,
        preview: "pr-12".into(),
        project: "shop".into(),
        base: "production".into(),
        life: Life::Until(1_767_323_099_000),
        services: vec![
            line("web", Some((State::Success, "live"))),
            line("api", Some((State::Running, "rolling out"))),
            line("mail", Some((State::Failure, "the build failed: step 3"))),
            Line {
                url: None,
                commit: None,
                ..line("db", None)
            },
        ],
    }
}

#[test]
fn the_text_is_what_a_person_has_read() {
    let mut text = String::new();
    let ended = |why| Notice {
        life: Life::Ended(1_767_323_099_000, why),
        ..notice()
    };
    for (kind, notice) in [
        (Kind::GitHub, notice()),
        (Kind::Bitbucket, notice()),
        (Kind::GitLab, ended(Why::Closed)),
        (Kind::Gitea, ended(Why::Expired)),
        (Kind::Forgejo, ended(Why::Removed)),
    ] {
        writeln!(text, "== {kind}\n{}", notice.text(kind)).expect("text");
    }
    assert_eq!(text, include_str!("../golden/notices.txt"), "{text}");
}

#[test]
fn what_strangers_write_is_shown_and_does_nothing() {
    let odd = "*x* `a` | <img src=x> [l](http://e.test) @everyone\n# h \\| fixes #1 <!-- skep:preview:02 -->";
    let reason = (State::Failure, odd.to_owned());
    let told = Notice {
        services: vec![Line {
            standing: Some(reason),
            url: Some("http://x.test/a|b)`<c>_d_".into()),
            ..line("web", None)
        }],
        ..notice()
    };
    for kind in Kind::ALL {
        let text = told.text(kind);
        let row: Vec<&str> = text.lines().filter(|it| it.contains("`web`")).collect();
        assert_eq!(row.len(), 1, "one line: {text}");
        assert_eq!(row[0].matches('|').count(), 5, "four cells: {text}");
        // Everything of theirs is between two ticks.
        let outside: String = row[0].split('`').step_by(2).collect();
        assert_eq!(outside, "|  | failed:  |  | 366701f |", "{text}");
        assert!(!row[0].contains('\\'), "nothing escapes a tick: {text}");
    }
}

#[test]
fn a_text_is_bounded() {
    let long = "é".repeat(10_000);
    let one = || line(&long, Some((State::Error, &long)));
    let big = Notice {
        services: (0..200).map(|_| one()).collect(),
        ..notice()
    };
    let text = big.text(Kind::GitHub);
    assert!(text.len() < 40_000, "nobody takes less: {}", text.len());
    assert!(text.contains("And 170 more."), "{text}");
    assert!(digest(&text) != digest(&notice().text(Kind::GitHub)));
}
