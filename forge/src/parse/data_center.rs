//! Bitbucket Data Center (and Server before it). No file is listed, and often no address to clone from.

use serde::Deserialize;

use super::{
    ParseError, Reference, gone, lenient, maybe_commit, name, read, reference, some, whole,
};
use crate::event::{Action, Change, Event, Push, Repository, Tag};

#[derive(Debug, Deserialize, Default)]
struct Project {
    #[serde(default, deserialize_with = "lenient")]
    key: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Link {
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    href: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
struct Links {
    #[serde(default, deserialize_with = "lenient")]
    clone: Option<Vec<Link>>,
    #[serde(default, rename = "self", deserialize_with = "lenient")]
    html: Option<Vec<Link>>,
}

impl Links {
    fn clone_url(&self, kind: &str) -> Option<String> {
        let mut all = self.clone.iter().flatten();
        let found = all.find(|link| {
            link.name
                .as_deref()
                .is_some_and(|name| name.starts_with(kind))
        });
        some(found?.href.clone())
    }

    fn page(&self) -> Option<String> {
        some(self.html.iter().flatten().next()?.href.clone())
    }
}

#[derive(Debug, Deserialize, Default)]
struct Repo {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    slug: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    project: Project,
    #[serde(default, deserialize_with = "lenient")]
    links: Links,
}

impl From<&Repo> for Repository {
    fn from(repo: &Repo) -> Self {
        let full_name = match (&repo.project.key, &repo.slug) {
            (Some(key), Some(slug)) => format!("{key}/{slug}"),
            _ => String::new(),
        };
        Self {
            full_name,
            http_url: repo.links.clone_url("http"),
            ssh_url: repo.links.clone_url("ssh"),
            html_url: repo.links.page(),
            default_branch: None,
        }
    }
}

#[derive(Debug, Deserialize, Default)]
struct Person {
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
struct Participant {
    #[serde(default, deserialize_with = "lenient")]
    user: Person,
}

#[derive(Debug, Deserialize)]
struct Ref {
    #[serde(default)]
    id: String,
}

#[derive(Debug, Deserialize)]
struct RefChange {
    #[serde(rename = "ref")]
    reference: Ref,
    #[serde(default, rename = "fromHash")]
    from: Option<String>,
    #[serde(default, rename = "toHash")]
    to: String,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct ToCommit {
    #[serde(default, deserialize_with = "lenient")]
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PushBody {
    changes: Vec<RefChange>,
    #[serde(default, deserialize_with = "lenient")]
    repository: Repo,
    #[serde(default, deserialize_with = "lenient")]
    actor: Person,
    #[serde(default, rename = "toCommit", deserialize_with = "lenient")]
    newest: Option<ToCommit>,
}

#[derive(Debug, Deserialize)]
struct Side {
    #[serde(default)]
    id: String,
    #[serde(default, rename = "latestCommit")]
    latest: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    repository: Option<Repo>,
}

#[derive(Debug, Deserialize)]
struct PullRequest {
    id: u64,
    #[serde(rename = "updatedDate", default, deserialize_with = "lenient")]
    updated_ms: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    title: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    draft: bool,
    #[serde(default, deserialize_with = "lenient")]
    author: Participant,
    #[serde(default, deserialize_with = "lenient")]
    links: Links,
    #[serde(rename = "fromRef")]
    from: Side,
    #[serde(rename = "toRef")]
    to: Side,
}

#[derive(Debug, Deserialize)]
struct PullBody {
    #[serde(rename = "pullRequest")]
    pull: PullRequest,
}

pub(super) fn events(event: &str, body: &[u8]) -> Result<Vec<Event>, ParseError> {
    match event {
        "diagnostics:ping" => return Ok(vec![Event::Ping]),
        "repo:refs_changed" => return push(&read(body)?),
        _ => {}
    }
    let Some(action) = event.strip_prefix("pr:") else {
        return Ok(vec![Event::Other(event.to_owned())]);
    };
    let action = match action {
        "opened" => Action::Opened,
        "from_ref_updated" => Action::Synchronized,
        "modified" => Action::Edited,
        "reopened" => Action::Reopened,
        "merged" => Action::Closed { merged: true },
        "declined" | "deleted" => Action::Closed { merged: false },
        other => Action::Other(other.to_owned()),
    };
    Ok(vec![change(action, read(body)?)?])
}

fn push(body: &PushBody) -> Result<Vec<Event>, ParseError> {
    let message = body.newest.as_ref().and_then(|it| it.message.clone());
    // It is said of one: of several changes nobody knows of which.
    let message = message.filter(|_| body.changes.len() == 1);
    let changes = body.changes.iter().enumerate();
    changes
        .map(|(at, change)| one(at, change, body, message.clone()))
        .collect()
}

fn one(
    at: usize,
    change: &RefChange,
    body: &PushBody,
    message: Option<String>,
) -> Result<Event, ParseError> {
    let field = |rest: &str| format!("changes[{at}].{rest}");
    let repository = Repository::from(&body.repository);
    let named = reference(&field("ref.id"), &change.reference.id)?;
    if change.kind == "DELETE" || (!change.to.is_empty() && crate::event::is_none(&change.to)) {
        return Ok(gone(&named, repository));
    }
    let after = whole(&field("toHash"), &change.to)?;
    Ok(match named {
        Reference::Branch(branch) => Event::Push(Push {
            repository,
            branch: branch.to_owned(),
            before: maybe_commit(&field("fromHash"), change.from.as_deref())?,
            after,
            forced: false,
            commits: Vec::new(),
            lists_all: false,
            is_complete: false,
            head_message: some(message),
            pusher: some(body.actor.name.clone()),
        }),
        Reference::Tag(tag) => Event::Tag(Tag {
            repository,
            name: tag.to_owned(),
            commit: after,
            message: some(message),
        }),
        Reference::Other => Event::Other(format!("push of {}", change.reference.id)),
    })
}

fn change(action: Action, body: PullBody) -> Result<Event, ParseError> {
    let pull = body.pull;
    let ids = (&pull.from.repository, &pull.to.repository);
    let is_fork = match ids {
        (Some(Repo { id: Some(from), .. }), Some(Repo { id: Some(to), .. })) => from != to,
        _ => true,
    };
    let short = |id: &str| id.strip_prefix("refs/heads/").unwrap_or(id).to_owned();
    let repository = pull.to.repository.as_ref();
    Ok(Event::Change(Box::new(Change {
        action,
        repository: repository.map_or_else(Repository::default, Repository::from),
        number: pull.id,
        head: maybe_commit(
            "pullRequest.fromRef.latestCommit",
            pull.from.latest.as_deref(),
        )?,
        head_branch: name("pullRequest.fromRef.id", &short(&pull.from.id))?,
        head_repository: pull.from.repository.as_ref().map(Repository::from),
        base_branch: name("pullRequest.toRef.id", &short(&pull.to.id))?,
        is_fork,
        title: pull.title.unwrap_or_default(),
        author: some(pull.author.user.name),
        draft: pull.draft,
        url: pull.links.page(),
        updated_ms: pull.updated_ms,
    })))
}
