//! A body becomes events. Lenient in what is optional (missing, null or of another type: not said), strict in
//! what is acted upon: an error names the field.

mod bitbucket;
mod checks;
mod data_center;
mod generic;
mod github;
mod gitlab;

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::event::{Commit, Event, Gone, PushedCommit, Repository, is_none};
use crate::kind::Forge;

/// Most events of one delivery: a push of more branches is refused, never cut.
const MAX_EVENTS: usize = 200;
/// Longest name of a branch, a tag or an event.
const MAX_NAME: usize = 1_024;

/// A body that does not say what its event has to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct ParseError {
    /// Path of the field at fault (`push.changes[0].new.name`); `body`: all of it.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl ParseError {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }

    fn missing(field: impl Into<String>) -> Self {
        Self::new(field, "it is missing or empty")
    }
}

/// The events of a delivery, in the forge's order.
///
/// # Errors
/// Names the field that is missing or cannot be read.
pub fn parse(forge: Forge, event: &str, body: &[u8]) -> Result<Vec<Event>, ParseError> {
    if event.len() > MAX_NAME {
        return Err(ParseError::new(forge.event_header(), "it is too long"));
    }
    let payload = form_payload(body).map_or(Cow::Borrowed(body), |json| {
        Cow::Owned(json.into_owned().into_bytes())
    });
    let events = match forge {
        Forge::GitHub | Forge::Forgejo | Forge::Gitea | Forge::Gogs => {
            github::events(forge, event, &payload)
        }
        Forge::GitLab => gitlab::events(event, &payload),
        Forge::BitbucketCloud => bitbucket::events(event, &payload),
        Forge::BitbucketDataCenter => data_center::events(event, &payload),
        Forge::Generic => generic::events(&payload),
    }?;
    match events.len() > MAX_EVENTS {
        true => Err(ParseError::new(
            "changes",
            format!("more than {MAX_EVENTS} in one push"),
        )),
        false => Ok(events),
    }
}

/// The JSON of a form post (`payload=...`); none: the body is no form.
pub(crate) fn form_payload(body: &[u8]) -> Option<Cow<'_, str>> {
    // JSON begins with a brace, a bracket or a blank: this is never one.
    if !body.starts_with(b"payload=") {
        return None;
    }
    form_urlencoded::parse(body)
        .find(|(name, _)| name == "payload")
        .map(|(_, value)| value)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ParseError> {
    // A list would be taken for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(ParseError::new("body", "it is not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "body".to_owned() } else { path };
        ParseError::new(field, error.into_inner().to_string())
    })?;
    json.end()
        .map_err(|error| ParseError::new("body", error.to_string()))?;
    Ok(value)
}

/// What is optional: of another type it was not said. (The value is read whole first: a body that is no JSON
/// stays an error.)
fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// Text that is not empty.
fn some(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// A moment as forges write it, ms since the epoch: RFC 3339, or GitLab's `2026-01-02 03:04:05 UTC`.
fn moment(text: Option<&str>) -> Option<u64> {
    let text = text?;
    let whole = match text.strip_suffix(" UTC") {
        Some(text) => format!("{text}Z"),
        None => text.to_owned(),
    };
    let moment: jiff::Timestamp = whole.parse().ok()?;
    u64::try_from(moment.as_millisecond()).ok()
}

fn name(field: &str, text: &str) -> Result<String, ParseError> {
    if text.is_empty() {
        return Err(ParseError::missing(field));
    }
    if text.len() > MAX_NAME {
        return Err(ParseError::new(field, "it is too long"));
    }
    Ok(text.to_owned())
}

/// A commit that has to be there.
fn commit(field: &str, text: &str) -> Result<Commit, ParseError> {
    if text.is_empty() {
        return Err(ParseError::missing(field));
    }
    Commit::new(text).ok_or_else(|| {
        let shown = crate::event::clean(text);
        ParseError::new(field, format!("`{shown}` is not a commit"))
    })
}

/// A commit that has to be there with all its digits: what is built is fetched by it.
fn whole(field: &str, text: &str) -> Result<Commit, ParseError> {
    let found = commit(field, text)?;
    match found.is_whole() {
        true => Ok(found),
        false => Err(ParseError::new(field, "the commit's id is abbreviated")),
    }
}

/// A commit that may be missing; what is no commit is an error still.
fn maybe_commit(field: &str, text: Option<&str>) -> Result<Option<Commit>, ParseError> {
    match text {
        None => Ok(None),
        Some(text) if is_none(text) => Ok(None),
        Some(text) => commit(field, text).map(Some),
    }
}

/// A reference by its whole name.
enum Reference<'a> {
    Branch(&'a str),
    Tag(&'a str),
    Other,
}

fn reference<'a>(field: &str, text: &'a str) -> Result<Reference<'a>, ParseError> {
    name(field, text)?;
    let is_named = |name: &&str| !name.is_empty();
    if let Some(branch) = text.strip_prefix("refs/heads/").filter(is_named) {
        return Ok(Reference::Branch(branch));
    }
    if let Some(tag) = text.strip_prefix("refs/tags/").filter(is_named) {
        return Ok(Reference::Tag(tag));
    }
    match text
        .strip_prefix("refs/")
        .is_some_and(|rest| !rest.is_empty())
    {
        true => Ok(Reference::Other),
        false => Err(ParseError::new(
            field,
            format!(
                "`{}` is not refs/heads/... or refs/tags/...",
                crate::event::clean(text)
            ),
        )),
    }
}

/// An event for the end of a reference.
fn gone(reference: &Reference<'_>, repository: Repository) -> Event {
    match reference {
        Reference::Branch(name) => Event::BranchDeleted(Gone {
            repository,
            name: (*name).to_owned(),
        }),
        Reference::Tag(name) => Event::TagDeleted(Gone {
            repository,
            name: (*name).to_owned(),
        }),
        Reference::Other => Event::Other("end of a reference".to_owned()),
    }
}

/// One commit of a push, as GitHub, GitLab and Gitea list them.
#[derive(Debug, Deserialize)]
struct ListedCommit {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    message: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    added: Option<Vec<String>>,
    #[serde(default, deserialize_with = "lenient")]
    modified: Option<Vec<String>>,
    #[serde(default, deserialize_with = "lenient")]
    removed: Option<Vec<String>>,
}

impl ListedCommit {
    /// The three lists are there. Empty ones are one of null for some forges: at least one has to be a list.
    fn has_files(&self) -> bool {
        self.added.is_some() || self.modified.is_some() || self.removed.is_some()
    }
}

impl From<ListedCommit> for PushedCommit {
    fn from(listed: ListedCommit) -> Self {
        Self {
            id: listed.id.unwrap_or_default(),
            message: listed.message.unwrap_or_default(),
            added: listed.added.unwrap_or_default(),
            modified: listed.modified.unwrap_or_default(),
            removed: listed.removed.unwrap_or_default(),
        }
    }
}
