//! Recorded deliveries of each forge, and what becomes of bodies that somebody has broken.

#![allow(
    clippy::disallowed_methods,
    reason = "tests may read their own samples and write what a person then reads"
)]

mod mutations;
mod nasty;

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Event, Forge, parse};

/// One recorded delivery.
struct Sample {
    name: String,
    forge: Forge,
    event: &'static str,
    body: Vec<u8>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The event that a recording was sent with, by its name.
fn event_of(forge: Forge, file: &str) -> &'static str {
    let is_pull = file.starts_with("HookPull");
    match forge {
        Forge::GitLab if is_pull => "Merge Request Hook",
        Forge::GitLab if file == "HookTag" => "Tag Push Hook",
        Forge::GitLab => "Push Hook",
        Forge::BitbucketDataCenter if is_pull => "pr:from_ref_updated",
        Forge::BitbucketDataCenter => "repo:refs_changed",
        Forge::BitbucketCloud => match file {
            "HookPullRequestDeclined" => "pullrequest:rejected",
            "HookPullRequestMerged" => "pullrequest:fulfilled",
            "HookPull" => "pullrequest:created",
            _ => "repo:push",
        },
        _ if is_pull => "pull_request",
        _ if file == "HookRelease" => "release",
        Forge::Forgejo | Forge::Gitea if file == "HookTag" => "create",
        _ => "push",
    }
}

fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    for forge in Forge::ALL {
        let Ok(files) = fs::read_dir(folder().join(forge.as_str())) else {
            continue;
        };
        for file in files {
            let path = file.expect("listed").path();
            let file = path.file_stem().and_then(|name| name.to_str());
            let file = file.expect("a name").to_owned();
            all.push(Sample {
                event: event_of(forge, &file),
                name: format!("{}-{file}", forge.as_str()),
                forge,
                body: fs::read(&path).expect("readable"),
            });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(all.len() > 40, "only {} samples", all.len());
    all
}

#[test]
fn recorded_deliveries_say_what_is_expected_of_them() {
    let is_blessed = std::env::var_os("SKEP_BLESS").is_some();
    let mut differ = Vec::new();
    for sample in samples() {
        let events = parse(sample.forge, sample.event, &sample.body);
        let events = events.unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        let found = serde_json::to_string_pretty(&events).expect("plain") + "\n";
        let path = folder().join(format!("golden/{}.json", sample.name));
        if is_blessed {
            fs::write(&path, &found).expect("writable");
        } else if fs::read_to_string(&path).ok().as_deref() != Some(&found) {
            differ.push(format!("{}: {found}", sample.name));
        }
    }
    assert!(
        differ.is_empty(),
        "SKEP_BLESS=1 rewrites, read it: {differ:#?}"
    );
}

#[test]
fn a_form_says_what_its_payload_says() {
    let samples = samples();
    let sample = samples.iter().find(|it| it.name == "github-HookPush");
    let sample = sample.expect("recorded");
    let text = String::from_utf8(sample.body.clone()).expect("text");
    let form: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &text)
        .finish();
    let plain = parse(sample.forge, sample.event, &sample.body);
    assert!(matches!(plain.as_deref(), Ok([Event::Push(_)])));
    assert_eq!(parse(sample.forge, sample.event, form.as_bytes()), plain);
}
