//! What a pull request is told of its preview, as Markdown. What people and builds wrote is in it as code alone: there
//! nothing is a heading, a link, a mention or a cell.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use skep_model::forge::Kind;
use skep_model::preview::Why;

use super::State;
use crate::event::Commit;

/// Most services that are listed; of the others it is said how many there are.
const MAX_ROWS: usize = 30;
/// Most characters of a reason.
const MAX_REASON: usize = 200;
/// Longest address that is shown.
const MAX_URL: usize = 300;

/// What a pull request is told of its preview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Names the comment among those of the pull request.
    pub mark: String,
    /// `owner/name`, as a service's source writes it.
    pub repository: String,
    /// Of the pull request.
    pub number: u64,
    /// Name of the preview.
    pub preview: String,
    /// Name of its project.
    pub project: String,
    /// Name of the environment that it is a copy of.
    pub base: String,
    /// How long it lives.
    pub life: Life,
    /// Its services.
    pub services: Vec<Line>,
}

/// How long a preview lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It ends by itself then, ms since the epoch.
    Until(u64),
    /// It ended then, and why.
    Ended(u64, Why),
}

/// A service of a preview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub service: String,
    /// How its newest deployment stands, and why; none: there is none.
    pub standing: Option<(State, String)>,
    /// Where it answers.
    pub url: Option<String>,
    /// All digits of the commit that is deployed.
    pub commit: Option<String>,
}

impl Notice {
    /// The comment, as this forge shows it.
    pub fn text(&self, kind: Kind) -> String {
        let (preview, project) = (code(&self.preview), code(&self.project));
        let mut text = format!(
            "{}\n\n### Preview {preview} of {project}\n",
            self.marker(kind)
        );
        match self.life {
            Life::Until(at_ms) => {
                text.push_str(&table(&self.services));
                let base = code(&self.base);
                write!(
                    text,
                    "\nA copy of {base}. It ends by itself on {}; a push puts that off.\n",
                    moment(at_ms)
                )
            }
            Life::Ended(at_ms, why) => {
                writeln!(text, "\nIt ended on {}: {}.", moment(at_ms), said(why))
            }
        }
        .expect("text takes everything");
        text
    }

    /// What the comment is known by: a line that is not seen. Bitbucket shows comments of HTML, and hides references
    /// that nothing refers to.
    pub(super) fn marker(&self, kind: Kind) -> String {
        let mark = &self.mark;
        match kind {
            Kind::Bitbucket => format!("[skep]: # (preview:{mark})"),
            _ => format!("<!-- skep:preview:{mark} -->"),
        }
    }
}

/// By which two texts are told apart.
pub fn digest(text: &str) -> u64 {
    let hash = Sha256::digest(text);
    let first = hash.first_chunk::<8>().expect("it has 32 bytes");
    u64::from_be_bytes(*first)
}

fn table(services: &[Line]) -> String {
    let mut text = "\n| service | state | URL | commit |\n|---|---|---|---|\n".to_owned();
    for line in services.iter().take(MAX_ROWS) {
        let state = match &line.standing {
            None => "not deployed".to_owned(),
            Some((State::Pending | State::Running | State::Success, how)) => plain(how),
            Some((State::Failure | State::Error, why)) => format!("failed: {}", code(why)),
            Some((State::Canceled, why)) => format!("canceled: {}", code(why)),
        };
        let url = line.url.as_deref().map_or_else(String::new, link);
        let commit = line.commit.as_deref().and_then(Commit::new);
        let commit = commit.map_or_else(String::new, |it| it.as_str().chars().take(7).collect());
        let service = code(&line.service);
        writeln!(text, "| {service} | {state} | {url} | {commit} |").expect("text");
    }
    let more = services.len().saturating_sub(MAX_ROWS);
    if more > 0 {
        writeln!(text, "\nAnd {more} more.").expect("text");
    }
    text
}

const fn said(why: Why) -> &'static str {
    match why {
        Why::Closed => "the pull request was merged or closed; opened again it gets another one",
        Why::Expired => "nothing was pushed for too long; the next push makes another one",
        Why::Removed => "somebody removed it; the next push makes another one",
    }
}

/// To the minute: text that is the same must not look new.
fn moment(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok();
    let at = at.and_then(|at_ms| jiff::Timestamp::from_millisecond(at_ms).ok());
    at.map_or_else(
        || "a day far away".to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

/// Words of our own: letters and spaces.
fn plain(text: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-');
    text.chars().filter(is_plain).take(MAX_REASON).collect()
}

/// One line of code: forges read nothing in it but the two characters that end it, or its cell.
fn code(text: &str) -> String {
    let mut inside: String = text
        .chars()
        .map(|c| match c {
            '`' => '\'',
            '|' => '¦',
            '\\' => '/',
            c if c.is_control() => ' ',
            c => c,
        })
        .take(MAX_REASON)
        .collect();
    if text.chars().count() > MAX_REASON {
        inside.push('…');
    }
    match inside.trim() {
        "" => String::new(),
        inside => format!("`{inside}`"),
    }
}

/// A link, where nothing in the address can end it; else the address as code.
fn link(url: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ":/.-%~".contains(c);
    let shown = url.split_once("://").map_or(url, |(_, place)| place);
    match url.len() <= MAX_URL && url.chars().all(is_plain) {
        true => format!("[{shown}]({url})"),
        false => code(url),
    }
}

#[cfg(test)]
mod tests;
