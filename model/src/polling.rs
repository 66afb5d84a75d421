//! What a repository is asked between pushes, what a node that builds finds there, and what the cluster remembers
//! of it.

use crate::assignment::BuildVariable;
use crate::build::Fetch;
use crate::id::ServiceId;
use crate::problem::Problem;

/// How often a repository is asked where nothing is said, in ms: what a forge never sent is late by this.
pub const DEFAULT_POLL_MS: u64 = 300_000;
/// Shortest pause between two questions, in ms: forges count them.
pub const MIN_POLL_MS: u64 = 10_000;
/// Longest, in ms.
pub const MAX_POLL_MS: u64 = 86_400_000;
/// Most references that are asked for at once.
pub const MAX_WANTS: usize = 200;
/// Commits that are listed between two looks.
pub const MAX_COMMITS: usize = 500;
/// Files that are listed of them.
pub const MAX_FILES: usize = 3_000;
/// Places of a repository that are read at once.
pub const MAX_READS: usize = 1_000;
/// Largest file that is read, in bytes.
pub const MAX_READ: usize = 1 << 20;
/// Most that is read at once, in bytes: an answer is one message of a session.
pub const MAX_READ_TOTAL: usize = 2 << 20;
/// What is kept of a commit's message, in bytes: markers are in it.
pub const MAX_MESSAGE: usize = 1_000;

/// One question to one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// URL, or a path on the node.
    pub repository: String,
    /// As whom.
    pub fetch: Fetch,
    /// The variables that `fetch` names.
    pub variables: Vec<BuildVariable>,
    /// What of it.
    pub wants: Vec<Want>,
    /// What is to be read at the tip of the first of them, too.
    pub read: Option<Read>,
}

/// Places in a repository that somebody wants to know of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Read {
    /// Relative to its top, none of them climbs out.
    pub paths: Vec<String>,
    /// Nothing is read where the tip is this commit.
    pub unless: Option<String>,
}

/// What is at a place in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Nothing,
    /// A file with this text.
    File(String),
    /// A folder, by git's name for all that is in it.
    Folder(String),
    /// Something that is not read, and why.
    Refused(String),
}

/// A reference that somebody deploys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Want {
    /// Which.
    pub of: Wanted,
    /// The commit that is known of it: what came since is listed. None: nothing is.
    pub since: Option<String>,
}

/// Which reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// This branch.
    Branch(String),
    /// Of the tags of a pattern the newest by version.
    Tags {
        /// As in [`crate::pushes::Pushes::tags`].
        pattern: String,
        /// The tag that was the newest.
        known: Option<String>,
    },
}

impl Wanted {
    /// One text for what is asked for, whatever is known of it.
    pub fn text(&self) -> String {
        match self {
            Self::Branch(name) => format!("refs/heads/{name}"),
            Self::Tags { pattern, .. } => format!("refs/tags/{pattern}"),
        }
    }
}

/// What a node found, in the order of what was asked for; none: there is no such reference.
pub type Found = Result<Vec<Option<Tip>>, Problem>;

/// Where a reference is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    /// Name of the branch or tag.
    pub name: String,
    /// All digits of its commit.
    pub commit: String,
    /// The tag that was known is there still, or none was.
    pub has_known: bool,
    /// What came since the known commit.
    pub history: History,
    /// What is at the places that were asked for, in their order; empty: none was, or the commit was known.
    pub files: Vec<Seen>,
}

/// The commits between two looks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Those that came, as far as they are listed.
    pub commits: Vec<Came>,
    /// They are all that came.
    pub lists_all: bool,
    /// The known commit is not among what came before.
    pub is_forced: bool,
}

/// A commit that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// All its digits.
    pub id: String,
    /// Its message, cut.
    pub message: String,
    /// Files that it touches.
    pub files: Vec<String>,
}

/// What the cluster remembers of a service's repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polled {
    /// Whose.
    pub service: ServiceId,
    /// The repository that was asked.
    pub repository: String,
    /// For what, see [`Wanted::text`].
    pub reference: String,
    /// The tag that was the newest.
    pub tag: Option<String>,
    /// The commit that was found last, and decided on.
    pub commit: Option<String>,
    /// Why nothing is found since then.
    pub problem: Option<Problem>,
    /// Since when this holds; cluster time in ms since the epoch.
    pub since_ms: u64,
}
