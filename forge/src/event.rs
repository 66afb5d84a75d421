//! What a delivery says, in one form for every forge. Says what was sent, never what is to be done.

use serde::Serialize;

/// One thing that happened at a forge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The webhook was made, or somebody tries it.
    Ping,
    /// A branch has a new commit.
    Push(Push),
    /// A tag was made or moved.
    Tag(Tag),
    /// A branch is gone.
    BranchDeleted(Gone),
    /// A tag is gone.
    TagDeleted(Gone),
    /// A pull or merge request.
    Change(Box<Change>),
    /// Something is new about the checks of a commit.
    Checks(Reported),
    /// A signed request of no forge.
    Asked(Asked),
    /// Anything else, by the forge's name for it.
    Other(String),
}

impl Event {
    /// What it is, in a few words for a person.
    pub fn shown(&self) -> String {
        match self {
            Self::Ping => "ping".to_owned(),
            Self::Push(push) => format!("push of the branch `{}`", clean(&push.branch)),
            Self::Tag(tag) => format!("tag `{}`", clean(&tag.name)),
            Self::BranchDeleted(gone) => format!("end of the branch `{}`", clean(&gone.name)),
            Self::TagDeleted(gone) => format!("end of the tag `{}`", clean(&gone.name)),
            Self::Change(change) => format!("pull request {}", change.number),
            Self::Checks(reported) => format!("checks of {}", &reported.commit.as_str()[..10]),
            Self::Asked(_) => "a signed request".to_owned(),
            Self::Other(name) => format!("`{}`", clean(name)),
        }
    }
}

/// Text of a payload for a person: short, and nothing that a terminal obeys.
pub fn clean(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    short.escape_debug().to_string()
}

/// A commit's id in hex. It may be abbreviated: Bitbucket's pull requests have 12 digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Commit(String);

impl Commit {
    /// The commit of this id: 7 to 64 hex digits, not all of them 0.
    pub fn new(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|b| b.is_ascii_hexdigit());
        let is_sound = is_hex && (7..=64).contains(&text.len()) && !is_none(text);
        is_sound.then(|| Self(text.to_ascii_lowercase()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether all digits are there (SHA-1 or SHA-256): only then it can be fetched by its id.
    pub fn is_whole(&self) -> bool {
        matches!(self.0.len(), 40 | 64)
    }
}

/// Whether forges mean "there is none" by this id.
pub(crate) fn is_none(text: &str) -> bool {
    text.bytes().all(|b| b == b'0')
}

/// A repository, as its forge names it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Repository {
    /// `owner/name`; empty: it was not said.
    pub full_name: String,
    /// Where it is cloned over http(s).
    pub http_url: Option<String>,
    /// Where it is cloned over ssh.
    pub ssh_url: Option<String>,
    /// Where people look at it.
    pub html_url: Option<String>,
    /// The branch that is checked out where none is named.
    pub default_branch: Option<String>,
}

/// Something is new about the checks of a commit; what, the forge is to be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reported {
    /// Where.
    pub repository: Repository,
    /// All digits of it.
    pub commit: Commit,
}

/// A branch has a new commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Push {
    /// Where.
    pub repository: Repository,
    /// Without `refs/heads/`.
    pub branch: String,
    /// The commit before; none: the branch is new.
    pub before: Option<Commit>,
    /// The commit now.
    pub after: Commit,
    /// Commits that were there are not any more. Not every forge says so.
    pub forced: bool,
    /// The commits that came, as far as the forge lists them.
    pub commits: Vec<PushedCommit>,
    /// `commits` are all that came.
    pub lists_all: bool,
    /// `commits` are all that came, each with all its files.
    pub is_complete: bool,
    /// Message of the commit now.
    pub head_message: Option<String>,
    /// Who pushed, as the forge names them.
    pub pusher: Option<String>,
}

/// One commit of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PushedCommit {
    /// Its id, as it was sent.
    pub id: String,
    /// Its message.
    pub message: String,
    /// Files that it made, changed and removed.
    pub added: Vec<String>,
    /// See `added`.
    pub modified: Vec<String>,
    /// See `added`.
    pub removed: Vec<String>,
}

impl PushedCommit {
    /// Every file that it touches.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let all = self.added.iter().chain(&self.modified).chain(&self.removed);
        all.map(String::as_str)
    }
}

/// A tag was made or moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tag {
    /// Where.
    pub repository: Repository,
    /// Without `refs/tags/`.
    pub name: String,
    /// What it names; of an annotated tag the commit, where the forge says that.
    pub commit: Commit,
    /// Message of the commit, where the forge says that.
    pub message: Option<String>,
}

/// A branch or a tag that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// Where.
    pub repository: Repository,
    /// Without `refs/heads/` or `refs/tags/`.
    pub name: String,
}

/// What was done to a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Opened,
    /// Its branch has a new commit, or it may have: Bitbucket Cloud does not tell that from other changes.
    Synchronized,
    /// It was closed before.
    Reopened,
    /// It has ended.
    Closed {
        /// Its commits are in the base branch now.
        merged: bool,
    },
    /// Title, text, base or draft.
    Edited,
    /// Its labels.
    Labelled,
    /// Anything else, by the forge's name for it.
    Other(String),
}

/// A pull or merge request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What was done.
    pub action: Action,
    /// Where it would be merged.
    pub repository: Repository,
    /// Its number there.
    pub number: u64,
    /// Newest commit; none: its branch is gone.
    pub head: Option<Commit>,
    /// The branch that it comes from.
    pub head_branch: String,
    /// Where that is; none: that repository is gone, or was not said.
    pub head_repository: Option<Repository>,
    /// The branch that it would be merged into.
    pub base_branch: String,
    /// It comes from another repository, or nobody can tell: its author may not be one of the owner's people.
    pub is_fork: bool,
    /// Title, for a person.
    pub title: String,
    /// Who made it, as the forge names them.
    pub author: Option<String>,
    /// Not to be merged yet.
    pub draft: bool,
    /// Where people look at it.
    pub url: Option<String>,
    /// When this happened, ms since the epoch; none: it was not said.
    pub updated_ms: Option<u64>,
}

/// A signed request of no forge: `{"ref": ..., "commit": ..., "image": ...}`, each optional.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Asked {
    /// A branch, with or without `refs/heads/`, or `refs/tags/` and a tag.
    pub reference: Option<String>,
    /// A commit of it.
    pub commit: Option<Commit>,
    /// A ready image.
    pub image: Option<String>,
}
