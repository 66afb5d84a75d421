//! Requests, as each forge wants them.

use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, HeaderName};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use skep_model::forge::Kind;
use url::Url;

use super::{Report, State};

/// GitHub takes so many characters of a description.
const MAX_GITHUB: usize = 140;
/// The others' columns have so many.
const MAX_OTHERS: usize = 255;
/// Bitbucket takes so many bytes of a key.
const MAX_KEY: usize = 40;
/// Digits of a hash that stand for the end of a key that is longer.
const KEY_DIGITS: usize = 12;
/// GitLab's name for its header.
const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");
/// GitHub's name for the version of its API.
pub(super) const GITHUB_VERSION: HeaderName = HeaderName::from_static("x-github-api-version");

/// Where a forge's API is, and as whom it is asked.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// What the forge is.
    pub kind: Kind,
    /// Without a `/` at its end.
    pub api_url: &'a str,
    /// In plain text: of Bitbucket's `user:token`, or a token alone.
    pub token: &'a str,
}

/// One request. Not shown: its headers have the token.
pub struct Request {
    /// How.
    pub method: Method,
    /// Where.
    pub url: String,
    /// As whom, and what is understood.
    pub headers: Vec<(HeaderName, String)>,
    /// JSON; none: there is no body.
    pub body: Option<Value>,
}

impl Site<'_> {
    /// Who the token is.
    pub fn who(&self) -> Option<Request> {
        self.request(Method::GET, &["user"], None)
    }

    /// How a commit stands. None: the API's address is none.
    pub fn status(&self, report: &Report) -> Option<Request> {
        let Report { commit, .. } = report;
        let (owner, name) = report.repository.split_once('/')?;
        let description = cut(&report.description, self.most());
        let url = report.url.as_deref().filter(|url| url.len() <= MAX_OTHERS);
        match self.kind {
            Kind::GitHub | Kind::Gitea | Kind::Forgejo => {
                let body = json!({
                    "state": simple(report.state),
                    "context": report.context,
                    "description": description,
                    // Empty: none, at all of them.
                    "target_url": url.unwrap_or_default(),
                });
                let path = ["repos", owner, name, "statuses", commit];
                self.request(Method::POST, &path, Some(body))
            }
            Kind::GitLab => {
                let mut body = json!({
                    "state": gitlab(report.state),
                    "name": report.context,
                    "description": description,
                });
                if let Some(url) = url {
                    body["target_url"] = url.into();
                }
                let path = ["projects", &report.repository, "statuses", commit];
                self.request(Method::POST, &path, Some(body))
            }
            Kind::Bitbucket => {
                // It takes no status without an address: the commit's own stands in.
                let own = || format!("https://bitbucket.org/{owner}/{name}/commits/{commit}");
                let body = json!({
                    "state": bitbucket(report.state),
                    "key": key(&report.context),
                    "name": report.context,
                    "description": description,
                    "url": url.map_or_else(own, str::to_owned),
                });
                let path = [
                    "repositories",
                    owner,
                    name,
                    "commit",
                    commit,
                    "statuses",
                    "build",
                ];
                self.request(Method::POST, &path, Some(body))
            }
        }
    }

    /// What is taken of a description, in characters.
    const fn most(&self) -> usize {
        match self.kind {
            Kind::GitHub => MAX_GITHUB,
            _ => MAX_OTHERS,
        }
    }

    pub(super) fn request(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Value>,
    ) -> Option<Request> {
        let mut url = Url::parse(self.api_url).ok()?;
        // Each part is encoded as one: GitLab's `group/name` too.
        url.path_segments_mut()
            .ok()?
            .pop_if_empty()
            .extend(path.iter());
        Some(Request {
            method,
            url: url.into(),
            headers: self.headers(),
            body,
        })
    }

    fn headers(&self) -> Vec<(HeaderName, String)> {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;

        let token = self.token;
        let json = (ACCEPT, "application/json".to_owned());
        match self.kind {
            Kind::GitHub => vec![
                (ACCEPT, "application/vnd.github+json".to_owned()),
                (AUTHORIZATION, format!("Bearer {token}")),
                (GITHUB_VERSION, "2022-11-28".to_owned()),
            ],
            Kind::GitLab => vec![json, (PRIVATE_TOKEN, token.to_owned())],
            Kind::Gitea | Kind::Forgejo => vec![json, (AUTHORIZATION, format!("token {token}"))],
            Kind::Bitbucket if token.contains(':') => {
                vec![
                    json,
                    (AUTHORIZATION, format!("Basic {}", STANDARD.encode(token))),
                ]
            }
            Kind::Bitbucket => vec![json, (AUTHORIZATION, format!("Bearer {token}"))],
        }
    }
}

/// GitHub, Gitea and Forgejo have no words for what is on its way or was given up.
const fn simple(state: State) -> &'static str {
    match state {
        State::Pending | State::Running => "pending",
        State::Success => "success",
        State::Failure => "failure",
        State::Error | State::Canceled => "error",
    }
}

const fn gitlab(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Running => "running",
        State::Success => "success",
        State::Failure | State::Error => "failed",
        State::Canceled => "canceled",
    }
}

const fn bitbucket(state: State) -> &'static str {
    match state {
        State::Pending | State::Running => "INPROGRESS",
        State::Success => "SUCCESSFUL",
        State::Failure | State::Error => "FAILED",
        State::Canceled => "STOPPED",
    }
}

/// What Bitbucket knows a context by: itself, or its beginning and a hash of all of it.
fn key(context: &str) -> String {
    if context.len() <= MAX_KEY {
        return context.to_owned();
    }
    let digits = hex::encode(Sha256::digest(context));
    let begin = context.floor_char_boundary(MAX_KEY - KEY_DIGITS - 1);
    format!("{}-{}", &context[..begin], &digits[..KEY_DIGITS])
}

/// At most so many characters of one line.
pub(super) fn cut(text: &str, most: usize) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.chars().count() <= most {
        return line;
    }
    let short: String = line.chars().take(most - 1).collect();
    format!("{}…", short.trim_end())
}
