//! What a project tells others of its deployments: the receivers that it has, and the notifications on their way to them.

mod own;

pub use own::{Own, PLACES};

use std::net::IpAddr;

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::certificate::hash;
use crate::deployment::{Status, Trigger};
use crate::id::{DeploymentId, ProjectId, ReceiverId, ServiceId};
use crate::name::{check, check_host};
use crate::problem::Problem;
use crate::variable::Sealed;

/// Most receivers of a cluster: each may have a connection of its own.
pub const MAX_RECEIVERS: usize = 200;
/// Most receivers of a project.
pub const MAX_OF_PROJECT: usize = 20;
/// Most services that a receiver names.
pub const MAX_SERVICES: usize = 50;
/// Most notifications that wait for one receiver: a newer one takes the oldest one's place.
pub const MAX_PENDING: usize = 1_000;
/// Notifications of a receiver that are kept to be looked at, after they have ended.
pub const KEEP_ENDED: usize = 50;
/// Longest address of a receiver, in bytes.
pub const MAX_URL: usize = 2_048;
/// What is kept of a deployment's reason, in bytes.
pub const MAX_REASON: usize = 1_000;
/// What is kept of what a receiver, or the way to it, answered, in bytes.
pub const MAX_ANSWER: usize = 300;

/// Pause after the first failure, in ms: a receiver that restarts is back soon.
const FIRST_PAUSE_MS: u64 = 5_000;
/// Longest pause, in ms: once a receiver is back, it has everything within this time.
const LAST_PAUSE_MS: u64 = 3_600_000;

/// What happened to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Event {
    /// It was made.
    #[serde(rename = "deployment.queued")]
    Queued,
    /// It serves.
    #[serde(rename = "deployment.live")]
    Live,
    /// It ended without serving.
    #[serde(rename = "deployment.failed")]
    Failed,
    /// Somebody ended it.
    #[serde(rename = "deployment.canceled")]
    Canceled,
    /// A newer one took its place.
    #[serde(rename = "deployment.superseded")]
    Superseded,
    /// The service went back to an older release.
    #[serde(rename = "deployment.rolled_back")]
    RolledBack,
    /// Nothing: somebody tries whether notifications arrive.
    #[serde(rename = "test")]
    Test,
    /// It waits for somebody's yes.
    #[serde(rename = "deployment.awaiting_approval")]
    AwaitingApproval,
}

impl Event {
    /// Every event, in the order of the stored format: append only.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Live,
        Self::Failed,
        Self::Canceled,
        Self::Superseded,
        Self::RolledBack,
        Self::Test,
        Self::AwaitingApproval,
    ];
    /// Those that a receiver may choose.
    pub const CHOICES: [Self; 7] = [
        Self::Queued,
        Self::AwaitingApproval,
        Self::Live,
        Self::Failed,
        Self::Canceled,
        Self::Superseded,
        Self::RolledBack,
    ];
    /// What a receiver that has not chosen is told: how deployments end.
    pub const OUTCOMES: [Self; 5] = [
        Self::Live,
        Self::Failed,
        Self::Canceled,
        Self::Superseded,
        Self::RolledBack,
    ];

    /// What it means that a deployment has entered this status; none: nothing that is told. Each status is entered
    /// once at most, so that a deployment and an event name one notification.
    pub const fn of(status: Status) -> Option<Self> {
        match status {
            Status::Queued => Some(Self::Queued),
            Status::Live => Some(Self::Live),
            Status::Failed => Some(Self::Failed),
            Status::Canceled => Some(Self::Canceled),
            Status::Superseded => Some(Self::Superseded),
            Status::RolledBack => Some(Self::RolledBack),
            Status::AwaitingApproval => Some(Self::AwaitingApproval),
            Status::Building | Status::Pushing | Status::Deploying => None,
        }
    }

    /// The word, as notifications and the API write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "deployment.queued",
            Self::Live => "deployment.live",
            Self::Failed => "deployment.failed",
            Self::Canceled => "deployment.canceled",
            Self::Superseded => "deployment.superseded",
            Self::RolledBack => "deployment.rolled_back",
            Self::Test => "test",
            Self::AwaitingApproval => "deployment.awaiting_approval",
        }
    }
}

/// Somebody whom a project tells of its deployments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Identity.
    pub id: ReceiverId,
    /// Whose.
    pub project: ProjectId,
    /// Unique in the project.
    pub name: String,
    /// Where notifications are posted.
    pub url: String,
    /// What it is told of.
    pub events: Vec<Event>,
    /// The services whose deployments it is told of, by name in every environment; none: all of the project.
    pub services: Vec<String>,
    /// What notifications are signed with.
    pub secret: Sealed,
    /// Headers and body of its own ([`Own`] as JSON); none: Skep's.
    pub own: Option<Sealed>,
    /// Nothing new is told, and what waits goes on waiting.
    pub is_off: bool,
    /// Why it is off, where it was not a person who wanted that.
    pub problem: Option<String>,
    /// The number of its newest notification; 0: there was none.
    pub told: u64,
    /// How many were dropped because too many waited.
    pub dropped: u64,
    /// Cluster time of the last change by a person, ms since the epoch.
    pub changed_ms: u64,
}

impl Receiver {
    /// Whether it is told of this event of a deployment of a service of its project.
    pub fn wants(&self, event: Event, service: &str) -> bool {
        let is_of_it = self.services.is_empty() || self.services.iter().any(|it| it == service);
        !self.is_off && is_of_it && self.events.contains(&event)
    }
}

/// A deployment as it was when it was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Name of the environment.
    pub environment: String,
    /// Name of the service.
    pub service: String,
    /// The service.
    pub service_id: ServiceId,
    /// The deployment.
    pub deployment: DeploymentId,
    /// Where it was.
    pub status: Status,
    /// What asked for it.
    pub trigger: Trigger,
    /// The commit that it is of, where it is of one that was known.
    pub commit: Option<String>,
    /// The release that it brings, once there was one.
    pub release: Option<u64>,
    /// Why it ended, where there is more to say than its status.
    pub reason: Option<String>,
}

/// One event on its way to one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Whose.
    pub receiver: ReceiverId,
    /// Its place among the receiver's.
    pub number: u64,
    /// The same for each attempt, and for no other notification of this receiver.
    pub id: String,
    /// What happened.
    pub event: Event,
    /// Cluster time when it did, ms since the epoch.
    pub at_ms: u64,
    /// Name of the workspace.
    pub workspace: String,
    /// Name of the project.
    pub project: String,
    /// The deployment; none: a test.
    pub subject: Option<Subject>,
    /// Where it is.
    pub standing: Standing,
    /// How often it was sent.
    pub attempts: u32,
    /// Since when it is tried, cluster time.
    pub since_ms: u64,
    /// What came of the newest attempt.
    pub last: Option<Attempt>,
}

impl Notification {
    /// The id of what is told of an event of a deployment.
    pub fn id_of(deployment: DeploymentId, event: Event) -> String {
        format!("{deployment}.{}", event.as_str())
    }

    /// Whether it is still to arrive, and when it is sent.
    pub fn next_ms(&self) -> Option<u64> {
        match self.standing {
            Standing::Pending { next_ms } => Some(next_ms),
            Standing::Delivered | Standing::GivenUp => None,
        }
    }
}

/// Where a notification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is sent then, at the clock of whoever leads; 0: at once.
    Pending {
        /// Ms since the epoch.
        next_ms: u64,
    },
    /// The receiver has it.
    Delivered,
    /// It was tried for long enough.
    GivenUp,
}

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When, ms since the epoch, at the leader's clock.
    pub at_ms: u64,
    /// What the receiver answered; none: nothing.
    pub status: Option<u16>,
    /// Why it was not taken; none: it was.
    pub problem: Option<String>,
}

/// How long is waited after so many attempts at this notification, in ms: doubled from one to the next, and from 3/4 of a
/// pause to all of it, so that what failed at once is not tried at once.
pub fn pause_ms(id: &str, attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(20);
    let pause = (FIRST_PAUSE_MS << doublings).min(LAST_PAUSE_MS);
    pause - hash(id, u64::from(attempts)) % (pause / 4)
}

/// An address that notifications can be posted to.
///
/// # Errors
/// It is none, and what would be.
pub fn check_url(url: &str) -> Result<Uri, Problem> {
    let refused = || {
        Problem::invalid("url", "this is not an address that can be told").hint(format!(
            "http:// or https://, a host without user and password, and a path, in at most {MAX_URL} bytes: \
             https://ci.example.com/hooks/skep"
        ))
    };
    let uri: Uri = url.parse().map_err(|_| refused())?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let is_plain = |authority: &http::uri::Authority| !authority.as_str().contains('@');
    let is_sound = uri.authority().is_some_and(is_plain) && !url.contains('#');
    if !is_web || !is_sound || url.len() > MAX_URL {
        return Err(refused());
    }
    let host = uri.host().unwrap_or_default();
    if host.starts_with('*') {
        return Err(refused());
    }
    if address_of(&uri).is_none() {
        check_host("url", host)?;
    }
    Ok(uri)
}

/// The address that a URL names by number; none: it names a host.
pub fn address_of(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok()
}

/// Checks which events are chosen, and puts them in order; none: how deployments end.
///
/// # Errors
/// One that nobody can choose.
pub fn check_events(mut events: Vec<Event>) -> Result<Vec<Event>, Problem> {
    if events.contains(&Event::Test) {
        let choices = Event::CHOICES.map(Event::as_str).join(", ");
        return Err(
            Problem::invalid("events", "`test` is sent to whoever asks for it").hint(choices),
        );
    }
    if events.is_empty() {
        return Ok(Event::OUTCOMES.to_vec());
    }
    events.sort_unstable();
    events.dedup();
    Ok(events)
}

/// Checks which services a receiver is told of.
///
/// # Errors
/// One is no name of a service, or they are too many.
pub fn check_services(services: &[String]) -> Result<(), Problem> {
    if services.len() > MAX_SERVICES {
        let text = format!("{} services are too many", services.len());
        return Err(Problem::invalid("services", text).hint(format!(
            "{MAX_SERVICES} at most; none at all means every service"
        )));
    }
    let mut all = services.iter();
    all.try_for_each(|service| check("services", service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for url in [
            "https://ci.example.com/hooks?x=1",
            "http://10.0.0.7:8080",
            "http://[2001:db8::1]/x",
            "http://receiver:99/",
        ] {
            assert!(check_url(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "ci.example.com",
            "ftp://ci.example.com/",
            "https://user:word@ci.example.com/",
            "https://ci.example.com/#part",
            "https://ci_example.com/",
            &format!("https://ci.example.com/{}", "a".repeat(MAX_URL)),
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
        let uri = check_url("http://[::1]:80/").expect("an address");
        assert_eq!(address_of(&uri), Some(std::net::Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn nothing_chosen_means_every_outcome() {
        assert_eq!(check_events(Vec::new()), Ok(Event::OUTCOMES.to_vec()));
        let twice = vec![Event::Failed, Event::Live, Event::Failed];
        assert_eq!(check_events(twice), Ok(vec![Event::Live, Event::Failed]));
        check_events(vec![Event::Test]).expect_err("not chosen");
    }

    #[test]
    fn every_end_is_told_and_on_the_way_what_waits_for_people() {
        for status in Status::ALL {
            let is_told =
                !status.is_active() || matches!(status, Status::Queued | Status::AwaitingApproval);
            assert_eq!(Event::of(status).is_some(), is_told, "{status:?}");
        }
        for event in Event::ALL {
            let json = serde_json::to_value(event).expect("text");
            assert_eq!(json, event.as_str());
        }
    }
}
