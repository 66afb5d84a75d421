//! What is written back to forges: a workspace's connections to them, and what one was told of a deployment or at a
//! pull request.

mod app;
mod kept;

use std::fmt;

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::deployment::{Deployment, Status};
use crate::id::WorkspaceId;
use crate::name::check_host;
use crate::notify::{Standing, check_url};
use crate::problem::{Code, Problem};
use crate::variable::Sealed;

pub use app::{
    AppSecrets, AppSite, Draft, ForgeApp, Installation, MAX_APPS, MAX_INSTALLATIONS, MAX_RENAMED,
    MAX_SETUPS, MAX_WORD, Renamed, SETUP_MS, Setup, SetupStep,
};
pub use kept::Kept;

/// Most forge connections of a cluster: each may have a request of its own under way.
pub const MAX_CONNECTIONS: usize = 64;
/// Longest token, in bytes.
pub const MAX_TOKEN: usize = 4 << 10;
/// Largest CA certificate of a forge, in bytes of PEM.
pub const MAX_CA: usize = 32 << 10;

/// Forges that take statuses of commits. Gogs has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// GitHub, and GitHub Enterprise Server.
    GitHub,
    /// GitLab.
    GitLab,
    /// Gitea.
    Gitea,
    /// Forgejo, as at Codeberg.
    Forgejo,
    /// Bitbucket Cloud.
    Bitbucket,
}

impl Kind {
    /// Every kind, in the order of the stored format: append only.
    pub const ALL: [Self; 5] = [
        Self::GitHub,
        Self::GitLab,
        Self::Gitea,
        Self::Forgejo,
        Self::Bitbucket,
    ];

    /// The word, as the API and the command line write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Forgejo => "forgejo",
            Self::Bitbucket => "bitbucket",
        }
    }

    /// What is at a host that everybody knows.
    pub fn of_host(host: &str) -> Option<Self> {
        match host {
            "github.com" => Some(Self::GitHub),
            "gitlab.com" => Some(Self::GitLab),
            "codeberg.org" => Some(Self::Forgejo),
            "gitea.com" => Some(Self::Gitea),
            "bitbucket.org" => Some(Self::Bitbucket),
            _ => None,
        }
    }

    /// Where the API is, unless somebody says otherwise.
    pub fn api_url(self, host: &str) -> String {
        match (self, host) {
            (Self::GitHub, "github.com") => "https://api.github.com".to_owned(),
            (Self::Bitbucket, "bitbucket.org") => "https://api.bitbucket.org/2.0".to_owned(),
            (Self::GitHub, host) => format!("https://{host}/api/v3"),
            (Self::GitLab, host) => format!("https://{host}/api/v4"),
            (Self::Gitea | Self::Forgejo, host) => format!("https://{host}/api/v1"),
            (Self::Bitbucket, host) => format!("https://{host}/2.0"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GitHub => "GitHub",
            Self::GitLab => "GitLab",
            Self::Gitea => "Gitea",
            Self::Forgejo => "Forgejo",
            Self::Bitbucket => "Bitbucket",
        })
    }
}

/// As whom a forge is asked and told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Of a person's token, sealed.
    Token(Sealed),
    /// As GitHub Apps, where they are installed. None: it is not any more.
    App(Vec<Installation>),
}

/// What a workspace has at a forge: with it, deployments are told of at their commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Whose.
    pub workspace: WorkspaceId,
    /// As the URLs of repositories have it, without a port; unique in the workspace.
    pub host: String,
    /// What the forge is.
    pub kind: Kind,
    /// Where its API is.
    pub api_url: String,
    /// As whom it is told.
    pub access: Access,
    /// The CA that signs its certificate, PEM; none: one that the servers' machines trust.
    pub ca_pem: Option<String>,
    /// Cluster time when it was made: older deployments are not told of. Ms since the epoch.
    pub made_ms: u64,
    /// Cluster time of the last change by a person.
    pub changed_ms: u64,
    /// The forge does not know the token: nothing is told until a person changes the connection.
    pub is_refused: bool,
    /// Nothing is told before: the forge wants to be left in peace so long. At the leader's clock.
    pub resume_ms: u64,
    /// What went wrong with the newest request; none: it was taken.
    pub problem: Option<String>,
    /// When the newest request was answered or given up, at the leader's clock; 0: there was none.
    pub asked_ms: u64,
}

impl Connection {
    /// The installations of Apps that it is by; none: it is by a token.
    pub fn installations(&self) -> &[Installation] {
        match &self.access {
            Access::Token(_) => &[],
            Access::App(all) => all,
        }
    }

    /// Whether it is by an App.
    pub fn is_app(&self) -> bool {
        matches!(self.access, Access::App(_))
    }

    /// What every server agrees on.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), Problem> {
        check_forge_host(&self.host)?;
        check_api_url(&self.api_url)?;
        if self.ca_pem.as_ref().is_some_and(|pem| pem.len() > MAX_CA) {
            let text = format!("longer than {MAX_CA} bytes");
            return Err(Problem::invalid("ca_pem", text).hint("one certificate is enough"));
        }
        Ok(())
    }

    /// When a deployment that has come to tell of something is told of; none: it is not.
    pub fn due_ms(&self, deployment: &Deployment) -> Option<u64> {
        if deployment.created_ms < self.made_ms {
            return None;
        }
        let told = deployment.told.as_ref();
        let same = told.filter(|told| told.status == shown_status(deployment));
        self.next_ms(same.map(|told| (told.standing, told.at_ms)))
    }

    /// When something is told that was told with this outcome, then; none: it is not. What was never told is at once,
    /// and what was given up is again where somebody has changed the connection since: it may be taken now.
    fn next_ms(&self, last: Option<(Standing, u64)>) -> Option<u64> {
        if self.is_refused {
            return None;
        }
        let at_ms = match last {
            None => 0,
            Some((Standing::Delivered, _)) => return None,
            Some((_, at_ms)) if at_ms < self.changed_ms => 0,
            Some((Standing::Pending { next_ms }, _)) => next_ms,
            Some((Standing::GivenUp, _)) => return None,
        };
        Some(at_ms.max(self.resume_ms))
    }
}

/// What a forge was told of a deployment: only the newest, older ones are of no interest to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Of which status.
    pub status: Status,
    /// What came of it.
    pub standing: Standing,
    /// How often this status was told.
    pub attempts: u32,
    /// When it was told first, at the leader's clock, ms since the epoch.
    pub since_ms: u64,
    /// When it was told last.
    pub at_ms: u64,
}

/// The status that a forge is shown: a deployment that has served was a success, whatever took its place.
pub fn shown_status(deployment: &Deployment) -> Status {
    match deployment.status {
        Status::Superseded if deployment.problem.is_none() => Status::Live,
        status => status,
    }
}

/// A host that repositories may be at.
///
/// # Errors
/// It is none.
pub fn check_forge_host(host: &str) -> Result<(), Problem> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    if host.starts_with('*') || host != host.to_lowercase() {
        return Err(Problem::invalid("host", "this is no host of a forge")
            .hint("as URLs of repositories have it: github.com"));
    }
    check_host("host", host)
}

/// Where an API may be.
///
/// # Errors
/// Nothing can be there.
pub fn check_api_url(url: &str) -> Result<Uri, Problem> {
    let hint = "http:// or https://, a host and a path: https://git.example.com/api/v1";
    let odd = |text: &str| Problem::invalid("api_url", text).hint(hint);
    let uri = check_url(url).map_err(|_| odd("this is not an address of an API"))?;
    match uri.query() {
        None if !url.ends_with('/') => Ok(uri),
        _ => Err(odd("there is more behind its path")),
    }
}

/// Checks a token.
///
/// # Errors
/// It is none.
pub fn check_token(token: &str) -> Result<(), Problem> {
    let is_sound = !token.is_empty() && token.len() <= MAX_TOKEN;
    if is_sound && token.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    let text = "this is no token: one line of printable characters";
    Err(Problem::new(Code::Invalid, text).at("token"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::{Origin, Trigger};
    use crate::id::{DeploymentId, ServiceId};

    fn deployment(status: Status, told: Option<Told>) -> Deployment {
        Deployment {
            id: DeploymentId::from_u128(1),
            service: ServiceId::from_u128(2),
            trigger: Trigger::Webhook,
            origin: Origin::Release { number: 1 },
            status,
            problem: None,
            build: None,
            release: None,
            steps: Vec::new(),
            created_ms: 1_000,
            status_ms: 1_000,
            generation: 1,
            source: None,
            no_cache: false,
            held: None,
            told,
            shown: None,
            push: None,
        }
    }

    fn connection() -> Connection {
        Connection {
            workspace: WorkspaceId::from_u128(1),
            host: "git.example.com".into(),
            kind: Kind::Gitea,
            api_url: "https://git.example.com/api/v1".into(),
            access: Access::Token(Sealed(vec![1])),
            ca_pem: None,
            made_ms: 500,
            changed_ms: 500,
            is_refused: false,
            resume_ms: 0,
            problem: None,
            asked_ms: 0,
        }
    }

    fn told(status: Status, standing: Standing) -> Option<Told> {
        Some(Told {
            status,
            standing,
            attempts: 1,
            since_ms: 2_000,
            at_ms: 2_000,
        })
    }

    #[test]
    fn only_what_is_newer_than_what_was_told_is_due() {
        let (live, building) = (Status::Live, Status::Building);
        let later = Standing::Pending { next_ms: 9_000 };
        for (name, status, told, wanted) in [
            ("never told", live, None, Some(0)),
            ("told", live, told(live, Standing::Delivered), None),
            (
                "told of less",
                live,
                told(building, Standing::Delivered),
                Some(0),
            ),
            ("told of less in vain", live, told(building, later), Some(0)),
            ("to be tried again", live, told(live, later), Some(9_000)),
            ("given up", live, told(live, Standing::GivenUp), None),
            (
                "has served",
                Status::Superseded,
                told(live, Standing::Delivered),
                None,
            ),
        ] {
            assert_eq!(
                connection().due_ms(&deployment(status, told)),
                wanted,
                "{name}"
            );
        }
    }

    #[test]
    fn a_connection_that_was_changed_tells_what_was_given_up_but_nothing_older_than_itself() {
        let given_up = deployment(Status::Failed, told(Status::Failed, Standing::GivenUp));
        let mut one = connection();
        assert_eq!(one.due_ms(&given_up), None);
        one.changed_ms = 3_000;
        assert_eq!(one.due_ms(&given_up), Some(0));
        one.resume_ms = 7_000;
        assert_eq!(one.due_ms(&given_up), Some(7_000), "left in peace");
        one.is_refused = true;
        assert_eq!(one.due_ms(&given_up), None);
        (one.is_refused, one.made_ms) = (false, 1_001);
        assert_eq!(one.due_ms(&given_up), None, "made before the connection");
    }

    #[test]
    fn a_deployment_that_was_overtaken_is_no_success() {
        let mut overtaken = deployment(Status::Superseded, None);
        assert_eq!(shown_status(&overtaken), Status::Live);
        overtaken.problem = Some(Problem::new(Code::Canceled, "superseded by deployment x"));
        assert_eq!(shown_status(&overtaken), Status::Superseded);
    }

    #[test]
    fn hosts_addresses_and_tokens_are_checked() {
        for host in ["github.com", "git", "10.0.0.7", "[::1]"] {
            assert!(check_forge_host(host).is_ok(), "{host}");
        }
        for host in [
            "",
            "GitHub.com",
            "*.example.com",
            "git.example.com:3000",
            "a/b",
        ] {
            assert!(check_forge_host(host).is_err(), "{host}");
        }
        assert!(check_api_url("http://10.0.0.7:3000/api/v1").is_ok());
        for url in [
            "git.example.com",
            "https://x/api/",
            "https://u:p@x/api",
            "https://x/?a",
        ] {
            assert!(check_api_url(url).is_err(), "{url}");
        }
        assert!(check_token("ghp_x").is_ok());
        for token in ["", "two words", "line\n"] {
            assert!(check_token(token).is_err(), "{token:?}");
        }
        for host in [
            "github.com",
            "gitlab.com",
            "codeberg.org",
            "gitea.com",
            "bitbucket.org",
        ] {
            let kind = Kind::of_host(host).expect("known");
            check_api_url(&kind.api_url(host)).expect("sound");
        }
    }
}
