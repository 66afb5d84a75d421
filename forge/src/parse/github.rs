//! GitHub, and those that took its form over: Gitea, Forgejo, Gogs.

use serde::Deserialize;

use super::checks;
use super::{
    ListedCommit, ParseError, Reference, commit, gone, lenient, maybe_commit, moment, name, read,
    reference, some, whole,
};
use crate::event::{Action, Change, Event, Push, Repository, Tag, is_none};
use crate::kind::Forge;

/// GitHub lists this many commits of a push at most, and this many files of a commit.
const MAX_COMMITS: usize = 2_048;
/// See [`MAX_COMMITS`].
const MAX_FILES: usize = 3_000;
/// Gitea and Gogs list this many by default; newer ones say how many there are.
const MAX_UNCOUNTED: usize = 5;

#[derive(Debug, Deserialize, Default)]
struct Repo {
    #[serde(default, deserialize_with = "lenient")]
    full_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    clone_url: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    ssh_url: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    html_url: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    default_branch: Option<String>,
}

impl From<Repo> for Repository {
    fn from(repo: Repo) -> Self {
        Self {
            full_name: repo.full_name.unwrap_or_default(),
            http_url: some(repo.clone_url),
            ssh_url: some(repo.ssh_url),
            html_url: some(repo.html_url),
            default_branch: some(repo.default_branch),
        }
    }
}

#[derive(Debug, Deserialize, Default)]
struct Person {
    #[serde(default, deserialize_with = "lenient")]
    login: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    username: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
}

impl Person {
    fn shown(self) -> Option<String> {
        some(self.login).or(some(self.username)).or(some(self.name))
    }
}

#[derive(Debug, Deserialize)]
struct PushBody {
    #[serde(rename = "ref", default)]
    reference: String,
    #[serde(default)]
    before: Option<String>,
    #[serde(default)]
    after: String,
    #[serde(default, deserialize_with = "lenient")]
    deleted: bool,
    #[serde(default, deserialize_with = "lenient")]
    forced: bool,
    #[serde(default, deserialize_with = "lenient")]
    repository: Repo,
    #[serde(default, deserialize_with = "lenient")]
    commits: Option<Vec<ListedCommit>>,
    #[serde(default, deserialize_with = "lenient")]
    total_commits: Option<usize>,
    #[serde(default, deserialize_with = "lenient")]
    head_commit: Option<ListedCommit>,
    #[serde(default, deserialize_with = "lenient")]
    pusher: Person,
}

/// `create` and `delete` of a branch or a tag.
#[derive(Debug, Deserialize)]
struct RefBody {
    #[serde(rename = "ref", default)]
    reference: String,
    #[serde(default)]
    ref_type: String,
    #[serde(default, deserialize_with = "lenient")]
    sha: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    repository: Repo,
}

#[derive(Debug, Deserialize)]
struct Side {
    #[serde(rename = "ref", default)]
    branch: String,
    #[serde(default)]
    sha: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    repo_id: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    repo: Option<Repo>,
}

#[derive(Debug, Deserialize)]
struct PullRequest {
    #[serde(default, deserialize_with = "lenient")]
    number: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    title: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    user: Person,
    #[serde(default, deserialize_with = "lenient")]
    draft: bool,
    #[serde(default, deserialize_with = "lenient")]
    html_url: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    merged: bool,
    #[serde(default, deserialize_with = "lenient")]
    updated_at: Option<String>,
    head: Side,
    base: Side,
}

#[derive(Debug, Deserialize)]
struct PullBody {
    action: String,
    #[serde(default, deserialize_with = "lenient")]
    number: Option<u64>,
    pull_request: PullRequest,
    #[serde(default, deserialize_with = "lenient")]
    repository: Repo,
}

pub(super) fn events(forge: Forge, event: &str, body: &[u8]) -> Result<Vec<Event>, ParseError> {
    Ok(vec![match event {
        "ping" => Event::Ping,
        "push" => push(forge, read(body)?)?,
        "create" if forge != Forge::GitHub => created(read(body)?)?,
        "delete" => deleted(read(body)?)?,
        "pull_request" | "pull_request_sync" | "pull_request_label" => change(read(body)?)?,
        other => checks::event::<Repo>(other, body, "repository")
            .unwrap_or_else(|| Event::Other(other.to_owned())),
    }])
}

fn push(forge: Forge, body: PushBody) -> Result<Event, ParseError> {
    let named = reference("ref", &body.reference)?;
    let repository = body.repository.into();
    if body.deleted || (!body.after.is_empty() && is_none(&body.after)) {
        return Ok(gone(&named, repository));
    }
    let head = body.head_commit;
    let branch = match named {
        Reference::Branch(branch) => branch.to_owned(),
        Reference::Tag(tag) => {
            let after = whole("after", &body.after)?;
            let (id, message) = head.map_or((None, None), |head| (head.id, head.message));
            // Of an annotated tag, `after` is the tag itself.
            let commit = id.and_then(|id| crate::event::Commit::new(&id));
            return Ok(Event::Tag(Tag {
                repository,
                name: tag.to_owned(),
                commit: commit.filter(|commit| commit.is_whole()).unwrap_or(after),
                message: some(message),
            }));
        }
        Reference::Other => return Ok(Event::Other(format!("push of {}", body.reference))),
    };
    let after = whole("after", &body.after)?;
    let before = maybe_commit("before", body.before.as_deref())?;
    let listed = body.commits.unwrap_or_default();
    let lists_all = lists_all(forge, &listed, body.total_commits);
    let is_complete = lists_all && !listed.is_empty() && listed.iter().all(has_all_files);
    Ok(Event::Push(Push {
        repository,
        branch,
        before,
        after,
        forced: body.forced,
        lists_all,
        is_complete,
        head_message: head.and_then(|head| some(head.message)),
        commits: listed.into_iter().map(Into::into).collect(),
        pusher: body.pusher.shown(),
    }))
}

fn lists_all(forge: Forge, listed: &[ListedCommit], total: Option<usize>) -> bool {
    match (forge, total) {
        (_, Some(total)) => total == listed.len(),
        (Forge::GitHub, None) => listed.len() < MAX_COMMITS,
        (_, None) => listed.len() < MAX_UNCOUNTED,
    }
}

fn has_all_files(commit: &ListedCommit) -> bool {
    let lists = [&commit.added, &commit.modified, &commit.removed];
    let files: usize = lists.into_iter().flatten().map(Vec::len).sum();
    commit.has_files() && files < MAX_FILES
}

/// Gitea tells of a new tag twice: by this, and by a push.
fn created(body: RefBody) -> Result<Event, ParseError> {
    let named = name("ref", short(&body.reference))?;
    if body.ref_type != "tag" {
        return Ok(Event::Other(format!("create {}", body.ref_type)));
    }
    Ok(Event::Tag(Tag {
        repository: body.repository.into(),
        name: named,
        commit: whole("sha", body.sha.as_deref().unwrap_or_default())?,
        message: None,
    }))
}

fn deleted(body: RefBody) -> Result<Event, ParseError> {
    let name = name("ref", short(&body.reference))?;
    let named = match body.ref_type.as_str() {
        "branch" => Reference::Branch(&name),
        "tag" => Reference::Tag(&name),
        _ => Reference::Other,
    };
    Ok(gone(&named, body.repository.into()))
}

fn short(reference: &str) -> &str {
    let branch = reference.strip_prefix("refs/heads/");
    branch
        .or_else(|| reference.strip_prefix("refs/tags/"))
        .unwrap_or(reference)
}

fn change(body: PullBody) -> Result<Event, ParseError> {
    let pull = body.pull_request;
    let action = match body.action.as_str() {
        "" => return Err(ParseError::missing("action")),
        "opened" => Action::Opened,
        "reopened" => Action::Reopened,
        "synchronize" | "synchronized" => Action::Synchronized,
        "closed" => Action::Closed {
            merged: pull.merged,
        },
        "edited" | "ready_for_review" | "converted_to_draft" => Action::Edited,
        "labeled" | "unlabeled" | "label_updated" | "label_cleared" => Action::Labelled,
        other => Action::Other(other.to_owned()),
    };
    let number = body.number.or(pull.number).filter(|number| *number > 0);
    let (head, base) = (pull.head, pull.base);
    let repository: Repository = body.repository.into();
    let is_fork = is_fork(&head, &base, &repository);
    Ok(Event::Change(Box::new(Change {
        action,
        repository,
        number: number.ok_or_else(|| ParseError::missing("number"))?,
        head: match &head.sha {
            Some(sha) => Some(commit("pull_request.head.sha", sha)?),
            None => None,
        },
        head_branch: name("pull_request.head.ref", &head.branch)?,
        head_repository: head.repo.map(Into::into),
        base_branch: name("pull_request.base.ref", &base.branch)?,
        is_fork,
        title: pull.title.unwrap_or_default(),
        author: pull.user.shown(),
        draft: pull.draft,
        url: some(pull.html_url),
        updated_ms: moment(pull.updated_at.as_deref()),
    })))
}

/// Where the repository of the head is gone or not said, nobody can tell: then it is treated as a stranger's.
fn is_fork(head: &Side, base: &Side, repository: &Repository) -> bool {
    if let (Some(head), Some(base)) = (head.repo_id, base.repo_id) {
        return head != base;
    }
    let full_name = |side: &Side| some(side.repo.as_ref()?.full_name.clone());
    let base = full_name(base).unwrap_or_else(|| repository.full_name.clone());
    full_name(head).is_none_or(|head| !head.eq_ignore_ascii_case(&base))
}
