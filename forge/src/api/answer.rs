//! What an answer means: taken, never to be taken, or not now.

use http::{HeaderMap, StatusCode};
use serde_json::Value;
use skep_model::forge::Kind;

use crate::event::clean;

/// Longest that a forge may have us wait, in ms: GitHub counts by the hour.
const LONGEST_WAIT_MS: u64 = 3_600_000;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Who the token is.
    Token,
    /// To take a commit's status.
    Status,
    /// Of comments of a pull request, or to take one.
    Comment,
    /// Of what GitHub calls deployments, or to take one.
    Deployment,
}

impl About {
    /// What the token may not do where it is forbidden.
    const fn right(self) -> &'static str {
        match self {
            Self::Token => "the token may not ask who it is",
            Self::Status => "the token may not write statuses of this repository",
            Self::Deployment => "the token may not write deployments of this repository",
            Self::Comment => {
                "the token may not write comments at pull requests of this repository, or this one takes none"
            }
        }
    }

    /// What may be missing where something is.
    const fn missing(self) -> &'static str {
        match self {
            Self::Token => "this is no API of this kind of forge",
            Self::Status | Self::Deployment => {
                "the token does not see this repository, or the commit is not there"
            }
            Self::Comment => {
                "the token does not see this repository, or the pull request is not there"
            }
        }
    }
}

/// An answer, as it came.
#[derive(Debug, Clone)]
pub struct Answered<'a> {
    /// To what.
    pub about: About,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// What was read of the body.
    pub body: &'a [u8],
    /// What `Retry-After` says.
    pub retry_after_ms: Option<u64>,
    /// The clock, s since the epoch.
    pub now_s: u64,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Taken,
    /// The forge does not know the token: nothing else will be taken, either.
    Unknown(String),
    /// This will not be taken, however often it is told.
    Never(String),
    /// The forge wants to be left in peace for so long.
    Later {
        /// In ms.
        pause_ms: u64,
        /// Why.
        why: String,
    },
    /// Something is wrong there: it may be taken the next time.
    Again(String),
}

/// What an answer to a request means.
pub fn judge(kind: Kind, answer: &Answered<'_>) -> Verdict {
    let status = answer.status;
    if status.is_success() {
        return Verdict::Taken;
    }
    let said = said(answer.body);
    // A status that stands already, or one that came late: it has what it wants to know.
    if kind == Kind::GitLab
        && status == StatusCode::BAD_REQUEST
        && said.contains("Cannot transition status")
    {
        return Verdict::Taken;
    }
    let told = match said.is_empty() {
        true => status.to_string(),
        false => format!("{status}: {said}"),
    };
    if let Some(pause_ms) = pause_ms(answer) {
        return Verdict::Later {
            pause_ms,
            why: told,
        };
    }
    match status {
        StatusCode::UNAUTHORIZED => Verdict::Unknown(format!(
            "{told}: make a new token, `skep forge add` takes it"
        )),
        StatusCode::FORBIDDEN => {
            let right = answer.about.right();
            // GitHub says which rights would have done.
            let would = answer.headers.get("x-accepted-github-permissions");
            let would = would.and_then(|it| it.to_str().ok()).map(long);
            Verdict::Never(match would.filter(|it| !it.is_empty()) {
                Some(would) => format!("{told}: {right}; it takes {would}"),
                None => format!("{told}: {right}"),
            })
        }
        StatusCode::NOT_FOUND => Verdict::Never(format!("{told}: {}", answer.about.missing())),
        status if status.is_redirection() => Verdict::Never(format!(
            "{told}: nobody is followed elsewhere, was the repository moved?"
        )),
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY => {
            Verdict::Again(told)
        }
        status if status.is_client_error() => Verdict::Never(told),
        _ => Verdict::Again(told),
    }
}

/// How long a forge wants to be left in peace; none: this is not about that. GitHub says 403 to who asks too much.
fn pause_ms(answer: &Answered<'_>) -> Option<u64> {
    let number = |names: &[&str]| {
        let found = names.iter().find_map(|name| answer.headers.get(*name));
        found?.to_str().ok()?.trim().parse::<u64>().ok()
    };
    let is_spent = number(&["x-ratelimit-remaining", "ratelimit-remaining"]) == Some(0);
    let is_limit = match answer.status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => is_spent || answer.retry_after_ms.is_some(),
        StatusCode::SERVICE_UNAVAILABLE => answer.retry_after_ms.is_some(),
        _ => false,
    };
    if !is_limit {
        return None;
    }
    let reset = number(&["x-ratelimit-reset", "ratelimit-reset"]).filter(|_| is_spent);
    let reset_ms = reset.map(|at_s| at_s.saturating_sub(answer.now_s).saturating_mul(1_000));
    // Neither is said: a minute, as GitHub asks for.
    let asked = answer.retry_after_ms.max(reset_ms).unwrap_or(60_000);
    Some(asked.clamp(1_000, LONGEST_WAIT_MS))
}

/// Who the token is, of an answer to that question.
pub fn who(kind: Kind, body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let names: &[&str] = match kind {
        Kind::GitHub | Kind::Gitea | Kind::Forgejo => &["login", "username"],
        Kind::GitLab => &["username"],
        Kind::Bitbucket => &["username", "nickname", "display_name"],
    };
    let name = names.iter().find_map(|name| body[*name].as_str())?;
    Some(clean(name))
}

/// What a forge says for a person; empty: nothing.
fn said(body: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return String::new();
    };
    let places = [
        &body["message"],
        &body["error"]["message"],
        &body["error_description"],
        &body["error"],
    ];
    match places.into_iter().find(|it| !it.is_null()) {
        Some(Value::String(text)) => long(text),
        Some(other) => long(&other.to_string()),
        None => String::new(),
    }
}

/// Nothing that a terminal obeys, and no page.
fn long(text: &str) -> String {
    let short: String = text.chars().take(160).collect();
    short.escape_debug().to_string()
}
