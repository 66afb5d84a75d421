//! Whether a push or a tag is one that a service deploys, and why, in words for a person. Knows nothing of
//! services but these rules.

use std::fmt;

use skep_model::pushes::Pushes;

use crate::event::{Push, Tag, clean};

/// What in a commit's message keeps it from being deployed, in any case of letters.
const MARKERS: [&str; 7] = [
    "[skip ci]",
    "[ci skip]",
    "[no ci]",
    "[skip actions]",
    "[actions skip]",
    "[skip deploy]",
    "[skip cd]",
];

/// What a service says of pushes.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The branch that it deploys.
    pub branch: &'a str,
    /// Its folder in the repository; empty: the root.
    pub directory: &'a str,
    /// Paths and tags.
    pub pushes: &'a Pushes,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The service is to be deployed, for this reason.
    Deploy(String),
    /// Nothing, for a reason that holds whatever was deployed before.
    Skip(String),
    /// Nothing, because no file that counts was touched: it holds where what was there before is deployed.
    Untouched(String),
}

/// Whether files that count were touched.
#[derive(Debug, PartialEq, Eq)]
enum Touched {
    All,
    Some(String),
    None(usize),
    /// The push does not say enough.
    Unknown(&'static str),
}

/// The marker in this text that says that it is not to be deployed.
pub fn skip_marker(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    MARKERS.into_iter().find(|marker| text.contains(marker))
}

/// The marker in the title of a pull request that says that it is to have no environment of its own.
pub fn skips_preview(title: &str) -> Option<&'static str> {
    const MARKER: &str = "[skip preview]";
    let has_own = title.to_ascii_lowercase().contains(MARKER);
    has_own.then_some(MARKER).or_else(|| skip_marker(title))
}

impl Rules<'_> {
    /// Whether this push is deployed.
    pub fn of_push(&self, push: &Push) -> Verdict {
        if let Some(tags) = &self.pushes.tags {
            let tags = clean(tags);
            return Verdict::Skip(format!("the service deploys tags `{tags}`, not a branch"));
        }
        if push.branch != self.branch {
            let (wanted, pushed) = (self.branch, clean(&push.branch));
            return Verdict::Skip(format!("the service deploys `{wanted}`, not `{pushed}`"));
        }
        if let Some(marker) = marker_of(push) {
            return Verdict::Skip(format!("every commit of the push says {marker}"));
        }
        match self.touched(push) {
            Touched::All => Verdict::Deploy("the service's branch was pushed".to_owned()),
            Touched::Some(file) => Verdict::Deploy(format!("`{}` changed", clean(&file))),
            Touched::Unknown(why) => Verdict::Deploy(format!(
                "{why}: it is not known which files changed, so it is deployed"
            )),
            Touched::None(files) => Verdict::Untouched(format!(
                "none of the {files} changed files is one that the service watches"
            )),
        }
    }

    /// Whether this tag is deployed. A tag is made on purpose: markers of its commit say nothing.
    pub fn of_tag(&self, tag: &Tag) -> Verdict {
        let name = clean(&tag.name);
        match self.pushes.takes_tag(&tag.name) {
            None => Verdict::Skip(format!(
                "the service deploys the branch `{}`, and tag `{name}` is none",
                self.branch
            )),
            Some(false) => {
                let pattern = clean(self.pushes.tags.as_deref().unwrap_or_default());
                Verdict::Skip(format!(
                    "the service deploys tags `{pattern}`, not `{name}`"
                ))
            }
            Some(true) => Verdict::Deploy(format!("tag `{name}`")),
        }
    }

    fn touched(&self, push: &Push) -> Touched {
        let paths = match self.pushes.paths(self.directory) {
            Ok(Some(paths)) => paths,
            Ok(None) => return Touched::All,
            Err(_) => return Touched::Unknown("a pattern of `watch` cannot be read"),
        };
        if push.before.is_none() {
            return Touched::Unknown("the branch is new");
        }
        if push.forced {
            return Touched::Unknown("the push was forced");
        }
        if !push.is_complete {
            return Touched::Unknown("the forge does not list all files");
        }
        let mut files = push.commits.iter().flat_map(|commit| commit.files());
        match files.find(|file| paths.has(file)) {
            Some(file) => Touched::Some(file.to_owned()),
            None => Touched::None(push.commits.iter().map(|it| it.files().count()).sum()),
        }
    }
}

/// The marker of a push whose commits are all known and all marked. A branch that has no new commit has the
/// message of the one it is at.
fn marker_of(push: &Push) -> Option<&'static str> {
    if !push.lists_all {
        return None;
    }
    let mut messages = push.commits.iter().map(|commit| commit.message.as_str());
    let first = match messages.next() {
        Some(first) => skip_marker(first)?,
        None => return skip_marker(push.head_message.as_deref()?),
    };
    messages
        .all(|message| skip_marker(message).is_some())
        .then_some(first)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy(why) | Self::Skip(why) | Self::Untouched(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests;
