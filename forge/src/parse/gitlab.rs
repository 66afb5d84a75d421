//! GitLab: hooks of a project, of a group and of the system.

use serde::Deserialize;

use super::checks;
use super::{
    ListedCommit, ParseError, Reference, commit, gone, lenient, maybe_commit, moment, name, read,
    reference, some, whole,
};
use crate::event::{Action, Change, Event, Push, Repository, Tag, is_none};

#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(default, deserialize_with = "lenient")]
    object_kind: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    event_name: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
struct Project {
    #[serde(default, deserialize_with = "lenient")]
    path_with_namespace: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    git_http_url: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    git_ssh_url: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    web_url: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    default_branch: Option<String>,
}

impl From<Project> for Repository {
    fn from(project: Project) -> Self {
        Self {
            full_name: project.path_with_namespace.unwrap_or_default(),
            http_url: some(project.git_http_url),
            ssh_url: some(project.git_ssh_url),
            html_url: some(project.web_url),
            default_branch: some(project.default_branch),
        }
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
    checkout_sha: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    user_username: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    user_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    project: Project,
    #[serde(default, deserialize_with = "lenient")]
    commits: Option<Vec<ListedCommit>>,
    #[serde(default, deserialize_with = "lenient")]
    total_commits_count: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct LastCommit {
    #[serde(default)]
    id: String,
}

#[derive(Debug, Deserialize)]
struct Attributes {
    #[serde(default, deserialize_with = "lenient")]
    updated_at: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    action: Option<String>,
    iid: u64,
    #[serde(default, deserialize_with = "lenient")]
    title: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    url: Option<String>,
    source_branch: String,
    target_branch: String,
    #[serde(default, deserialize_with = "lenient")]
    source_project_id: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    target_project_id: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    source: Option<Project>,
    #[serde(default)]
    last_commit: Option<LastCommit>,
    #[serde(default, deserialize_with = "lenient")]
    oldrev: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    work_in_progress: bool,
    #[serde(default, deserialize_with = "lenient")]
    draft: bool,
}

#[derive(Debug, Deserialize, Default)]
struct User {
    #[serde(default, deserialize_with = "lenient")]
    username: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
struct Changes {
    #[serde(default, deserialize_with = "lenient")]
    labels: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct MergeBody {
    #[serde(default, deserialize_with = "lenient")]
    user: User,
    #[serde(default, deserialize_with = "lenient")]
    project: Project,
    object_attributes: Attributes,
    #[serde(default, deserialize_with = "lenient")]
    changes: Changes,
}

pub(super) fn events(event: &str, body: &[u8]) -> Result<Vec<Event>, ParseError> {
    let kind = match event {
        "Push Hook" => "push".to_owned(),
        "Tag Push Hook" => "tag_push".to_owned(),
        "Merge Request Hook" => "merge_request".to_owned(),
        // Hooks of the system say in the body what they are.
        "System Hook" | "" => {
            let kind: Kind = read(body)?;
            some(kind.object_kind)
                .or(some(kind.event_name))
                .unwrap_or_else(|| event.to_owned())
        }
        other => other.to_owned(),
    };
    Ok(vec![match kind.as_str() {
        "push" | "tag_push" => push(read(body)?)?,
        "merge_request" => change(read(body)?)?,
        _ => checks::event::<Project>(&kind, body, "project").unwrap_or(Event::Other(kind)),
    }])
}

fn push(body: PushBody) -> Result<Event, ParseError> {
    let named = reference("ref", &body.reference)?;
    let repository = body.project.into();
    if !body.after.is_empty() && is_none(&body.after) {
        return Ok(gone(&named, repository));
    }
    let after = whole("after", &body.after)?;
    let listed = body.commits.unwrap_or_default();
    let head = listed
        .iter()
        .find(|commit| commit.id.as_deref() == Some(after.as_str()));
    let head_message = head.and_then(|head| some(head.message.clone()));
    let branch = match named {
        Reference::Branch(branch) => branch.to_owned(),
        Reference::Tag(tag) => {
            // Of an annotated tag, `after` is the tag itself.
            let commit = body.checkout_sha.as_deref();
            let commit = commit.and_then(crate::event::Commit::new);
            return Ok(Event::Tag(Tag {
                repository,
                name: tag.to_owned(),
                commit: commit.filter(|commit| commit.is_whole()).unwrap_or(after),
                message: head_message,
            }));
        }
        Reference::Other => return Ok(Event::Other(format!("push of {}", body.reference))),
    };
    // Of more than 20 commits only the newest 20 are listed.
    let lists_all = body.total_commits_count == Some(listed.len());
    let is_complete = lists_all && !listed.is_empty() && listed.iter().all(ListedCommit::has_files);
    Ok(Event::Push(Push {
        repository,
        branch,
        before: maybe_commit("before", body.before.as_deref())?,
        after,
        // It is not said.
        forced: false,
        commits: listed.into_iter().map(Into::into).collect(),
        lists_all,
        is_complete,
        head_message,
        pusher: some(body.user_username).or(some(body.user_name)),
    }))
}

fn change(body: MergeBody) -> Result<Event, ParseError> {
    let it = body.object_attributes;
    let action = match it.action.as_deref().unwrap_or_default() {
        "open" => Action::Opened,
        "reopen" => Action::Reopened,
        "close" => Action::Closed { merged: false },
        "merge" => Action::Closed { merged: true },
        "update" if some(it.oldrev).is_some() => Action::Synchronized,
        "update" if body.changes.labels.is_some() => Action::Labelled,
        "update" => Action::Edited,
        other => Action::Other(other.to_owned()),
    };
    let repository: Repository = body.project.into();
    let source: Option<Repository> = it.source.map(Into::into);
    let is_fork = match (it.source_project_id, it.target_project_id) {
        (Some(source), Some(target)) => source != target,
        _ => true,
    };
    Ok(Event::Change(Box::new(Change {
        action,
        repository,
        number: it.iid,
        head: match &it.last_commit {
            Some(last) => Some(commit("object_attributes.last_commit.id", &last.id)?),
            None => None,
        },
        head_branch: name("object_attributes.source_branch", &it.source_branch)?,
        head_repository: source,
        base_branch: name("object_attributes.target_branch", &it.target_branch)?,
        is_fork,
        title: it.title.unwrap_or_default(),
        author: some(body.user.username).or(some(body.user.name)),
        draft: it.draft || it.work_in_progress,
        url: some(it.url),
        updated_ms: moment(it.updated_at.as_deref()),
    })))
}
