//! Bitbucket Cloud. One push has several changes; none lists its files.

use serde::Deserialize;

use super::checks;
use super::{ParseError, commit, lenient, maybe_commit, moment, name, read, some, whole};
use crate::event::{Action, Change, Event, Gone, Push, PushedCommit, Repository, Tag};

#[derive(Debug, Deserialize, Default)]
struct Link {
    #[serde(default, deserialize_with = "lenient")]
    href: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
struct Links {
    #[serde(default, deserialize_with = "lenient")]
    html: Link,
}

#[derive(Debug, Deserialize, Default)]
struct Repo {
    #[serde(default, deserialize_with = "lenient")]
    full_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    links: Links,
}

impl From<Repo> for Repository {
    fn from(repo: Repo) -> Self {
        let full_name = repo.full_name.unwrap_or_default();
        let url = |start: &str| (!full_name.is_empty()).then(|| format!("{start}{full_name}.git"));
        Self {
            // They are not sent: there is one Bitbucket Cloud.
            http_url: url("https://bitbucket.org/"),
            ssh_url: url("git@bitbucket.org:"),
            html_url: some(repo.links.html.href),
            default_branch: None,
            full_name,
        }
    }
}

#[derive(Debug, Deserialize, Default)]
struct Person {
    #[serde(default, deserialize_with = "lenient")]
    nickname: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    username: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    display_name: Option<String>,
}

impl Person {
    fn shown(self) -> Option<String> {
        some(self.nickname)
            .or(some(self.username))
            .or(some(self.display_name))
    }
}

#[derive(Debug, Deserialize)]
struct Target {
    #[serde(default)]
    hash: String,
    #[serde(default, deserialize_with = "lenient")]
    message: Option<String>,
}

/// A branch or a tag, before or after.
#[derive(Debug, Deserialize)]
struct State {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    target: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct PushedChange {
    #[serde(default)]
    new: Option<State>,
    #[serde(default)]
    old: Option<State>,
    #[serde(default, deserialize_with = "lenient")]
    forced: bool,
    /// There are more commits than are listed.
    #[serde(default, deserialize_with = "lenient")]
    truncated: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    commits: Option<Vec<Target>>,
}

#[derive(Debug, Deserialize)]
struct Pushed {
    changes: Vec<PushedChange>,
}

#[derive(Debug, Deserialize)]
struct PushBody {
    push: Pushed,
    #[serde(default, deserialize_with = "lenient")]
    repository: Repo,
    #[serde(default, deserialize_with = "lenient")]
    actor: Person,
}

#[derive(Debug, Deserialize)]
struct Branch {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Deserialize)]
struct Side {
    branch: Branch,
    #[serde(default)]
    commit: Option<Target>,
    #[serde(default, deserialize_with = "lenient")]
    repository: Option<Repo>,
}

#[derive(Debug, Deserialize)]
struct PullRequest {
    id: u64,
    #[serde(default, deserialize_with = "lenient")]
    updated_on: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    title: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    draft: bool,
    #[serde(default, deserialize_with = "lenient")]
    author: Person,
    #[serde(default, deserialize_with = "lenient")]
    links: Links,
    source: Side,
    destination: Side,
}

#[derive(Debug, Deserialize)]
struct PullBody {
    pullrequest: PullRequest,
    #[serde(default, deserialize_with = "lenient")]
    repository: Repo,
}

pub(super) fn events(event: &str, body: &[u8]) -> Result<Vec<Event>, ParseError> {
    if event == "repo:push" {
        return push(read(body)?);
    }
    let Some(action) = event.strip_prefix("pullrequest:") else {
        let checks = checks::event::<Repo>(event, body, "repository");
        return Ok(vec![
            checks.unwrap_or_else(|| Event::Other(event.to_owned())),
        ]);
    };
    let action = match action {
        "created" => Action::Opened,
        "updated" => Action::Synchronized,
        "fulfilled" => Action::Closed { merged: true },
        "rejected" => Action::Closed { merged: false },
        other => Action::Other(other.to_owned()),
    };
    Ok(vec![change(action, read(body)?)?])
}

fn push(body: PushBody) -> Result<Vec<Event>, ParseError> {
    let repository: Repository = body.repository.into();
    let pusher = body.actor.shown();
    let changes = body.push.changes.into_iter().enumerate();
    changes
        .map(|(at, pushed)| one(at, pushed, &repository, &pusher))
        .collect()
}

fn one(
    at: usize,
    pushed: PushedChange,
    repository: &Repository,
    pusher: &Option<String>,
) -> Result<Event, ParseError> {
    let field = |rest: &str| format!("push.changes[{at}].{rest}");
    let repository = repository.clone();
    let is_branch = |state: &State| matches!(state.kind.as_str(), "branch" | "named_branch" | "");
    let Some(new) = pushed.new else {
        let old = pushed
            .old
            .ok_or_else(|| ParseError::missing(field("new")))?;
        let gone = Gone {
            repository,
            name: name(&field("old.name"), &old.name)?,
        };
        return Ok(match is_branch(&old) {
            true => Event::BranchDeleted(gone),
            false => Event::TagDeleted(gone),
        });
    };
    let called = name(&field("new.name"), &new.name)?;
    let is_branch = is_branch(&new);
    let target = new
        .target
        .ok_or_else(|| ParseError::missing(field("new.target")))?;
    let after = whole(&field("new.target.hash"), &target.hash)?;
    if !is_branch {
        return Ok(Event::Tag(Tag {
            repository,
            name: called,
            commit: after,
            message: some(target.message),
        }));
    }
    let old = pushed.old.and_then(|old| old.target);
    let old = old.as_ref().map(|old| old.hash.as_str());
    let listed = pushed.commits.unwrap_or_default();
    Ok(Event::Push(Push {
        repository,
        branch: called,
        before: maybe_commit(&field("old.target.hash"), old)?,
        after,
        forced: pushed.forced,
        commits: listed.into_iter().map(Into::into).collect(),
        lists_all: pushed.truncated == Some(false),
        // Five commits at most are listed, and no file.
        is_complete: false,
        head_message: some(target.message),
        pusher: pusher.clone(),
    }))
}

impl From<Target> for PushedCommit {
    fn from(target: Target) -> Self {
        Self {
            id: target.hash,
            message: target.message.unwrap_or_default(),
            added: Vec::new(),
            modified: Vec::new(),
            removed: Vec::new(),
        }
    }
}

fn change(action: Action, body: PullBody) -> Result<Event, ParseError> {
    let pull = body.pullrequest;
    let full_name = |side: &Side| some(side.repository.as_ref()?.full_name.clone());
    let base = full_name(&pull.destination).or(some(body.repository.full_name.clone()));
    let is_fork = match (full_name(&pull.source), base) {
        (Some(source), Some(base)) => !source.eq_ignore_ascii_case(&base),
        _ => true,
    };
    let head = match &pull.source.commit {
        Some(target) => Some(commit("pullrequest.source.commit.hash", &target.hash)?),
        None => None,
    };
    Ok(Event::Change(Box::new(Change {
        action,
        repository: body.repository.into(),
        number: pull.id,
        head,
        head_branch: name("pullrequest.source.branch.name", &pull.source.branch.name)?,
        head_repository: pull.source.repository.map(Into::into),
        base_branch: name(
            "pullrequest.destination.branch.name",
            &pull.destination.branch.name,
        )?,
        is_fork,
        title: pull.title.unwrap_or_default(),
        author: pull.author.shown(),
        draft: pull.draft,
        url: some(pull.links.html.href),
        updated_ms: moment(pull.updated_on.as_deref()),
    })))
}
