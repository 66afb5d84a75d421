//! Comments of a pull request: how each forge is asked for them, and to take one.

use http::Method;
use serde_json::{Value, json};
use skep_model::forge::Kind;

use super::{Notice, Request, Site};

/// Comments that are asked for at once.
const PAGE: usize = 50;

/// A comment that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: u64,
    /// Who wrote it, by the name that never changes; none: the forge does not say.
    pub(super) author: Option<String>,
    pub(super) text: String,
}

/// Some comments of a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) found: Vec<Found>,
    /// There are no more.
    pub(super) is_last: bool,
}

impl Site<'_> {
    /// Comments of the pull request, oldest first; pages are counted from 1. Gitea and Forgejo give all at once.
    pub(super) fn comments(&self, notice: &Notice, page: u32) -> Option<Request> {
        let mut path = self.comments_of(notice)?;
        let size = PAGE.to_string();
        let page = page.to_string();
        let query: &[(&str, &str)] = match self.kind {
            Kind::GitHub => &[("per_page", &size), ("page", &page)],
            Kind::GitLab => &[
                ("sort", "asc"),
                ("order_by", "created_at"),
                ("per_page", &size),
                ("page", &page),
            ],
            Kind::Gitea | Kind::Forgejo => &[],
            Kind::Bitbucket => &[("pagelen", &size), ("page", &page)],
        };
        let parts: Vec<&str> = path.iter_mut().map(|part| part.as_str()).collect();
        let mut request = self.request(Method::GET, &parts, None)?;
        if !query.is_empty() {
            let mut text = form_urlencoded::Serializer::new(String::new());
            request.url = format!("{}?{}", request.url, text.extend_pairs(query).finish());
        }
        Some(request)
    }

    /// A new comment.
    pub(super) fn comment(&self, notice: &Notice) -> Option<Request> {
        let path = self.comments_of(notice)?;
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        self.request(Method::POST, &parts, Some(self.said(notice)))
    }

    /// Another text for a comment that there is.
    pub(super) fn edit(&self, notice: &Notice, id: u64) -> Option<Request> {
        let id = id.to_string();
        let (method, path) = match self.kind {
            Kind::GitHub | Kind::Gitea | Kind::Forgejo => {
                let (owner, name) = notice.repository.split_once('/')?;
                let path = ["repos", owner, name, "issues", "comments", &id];
                (Method::PATCH, path.map(str::to_owned).to_vec())
            }
            Kind::GitLab | Kind::Bitbucket => {
                let mut path = self.comments_of(notice)?;
                path.push(id);
                (Method::PUT, path)
            }
        };
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        self.request(method, &parts, Some(self.said(notice)))
    }

    fn comments_of(&self, notice: &Notice) -> Option<Vec<String>> {
        let (owner, name) = notice.repository.split_once('/')?;
        let number = notice.number.to_string();
        let path: &[&str] = match self.kind {
            Kind::GitHub | Kind::Gitea | Kind::Forgejo => {
                &["repos", owner, name, "issues", &number, "comments"]
            }
            Kind::GitLab => &[
                "projects",
                &notice.repository,
                "merge_requests",
                &number,
                "notes",
            ],
            Kind::Bitbucket => &[
                "repositories",
                owner,
                name,
                "pullrequests",
                &number,
                "comments",
            ],
        };
        Some(path.iter().map(|part| (*part).to_owned()).collect())
    }

    fn said(&self, notice: &Notice) -> Value {
        let text = notice.text(self.kind);
        match self.kind {
            Kind::Bitbucket => json!({ "content": { "raw": text } }),
            _ => json!({ "body": text }),
        }
    }
}

/// Comments, of an answer; none: it is not one, or was cut off.
pub(super) fn listed(kind: Kind, body: &[u8]) -> Option<Page> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let all = match kind {
        Kind::Bitbucket => body["values"].as_array()?,
        _ => body.as_array()?,
    };
    let is_last = match kind {
        Kind::GitHub | Kind::GitLab => all.len() < PAGE,
        Kind::Gitea | Kind::Forgejo => true,
        Kind::Bitbucket => body["next"].is_null(),
    };
    let found = all.iter().filter_map(|one| {
        let (author, text) = match kind {
            Kind::GitHub | Kind::Gitea | Kind::Forgejo => (&one["user"], &one["body"]),
            Kind::GitLab => (&one["author"], &one["body"]),
            Kind::Bitbucket if one["deleted"] == true => return None,
            Kind::Bitbucket => (&one["user"], &one["content"]["raw"]),
        };
        Some(Found {
            id: one["id"].as_u64()?,
            author: identity(kind, author),
            text: text.as_str()?.to_owned(),
        })
    });
    Some(Page {
        found: found.collect(),
        is_last,
    })
}

/// What a user is known by for ever, as forges write users; none: it does not say.
pub(super) fn identity(kind: Kind, user: &Value) -> Option<String> {
    match kind {
        Kind::Bitbucket => user["uuid"].as_str().map(str::to_owned),
        _ => user["id"].as_u64().map(|id| id.to_string()),
    }
}

/// The number of a comment that was made.
pub(super) fn made(body: &[u8]) -> Option<u64> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["id"].as_u64()
}
