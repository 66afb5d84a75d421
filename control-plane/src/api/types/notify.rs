//! Receivers and notifications as clients see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skep_model::id::DeploymentId;
use skep_model::notify::Event;
use utoipa::ToSchema;

/// A receiver, as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiverRequest {
    /// `http://` or `https://`: where notifications are posted.
    pub url: String,
    /// What it is told of; none: how deployments end.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Nothing new is told, and what waits goes on waiting.
    #[serde(default)]
    pub off: bool,
    /// Replace its secret; the old one signs nothing any more.
    #[serde(default)]
    pub new_secret: bool,
    /// Names of the services whose deployments it is told of; none: all of the project.
    #[serde(default)]
    pub services: Vec<String>,
    /// Headers and body in place of Skep's own JSON. Absent: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnRequest>,
}

/// What is posted to a receiver in place of Skep's own JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnRequest {
    /// Headers, by name: `Authorization`. Never shown again.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body, in which `{{service}}` and the like are filled in. None: Skep's own JSON and headers, from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// A receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiverView {
    /// Whose.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Where notifications are posted.
    pub url: String,
    /// What it is told of.
    pub events: Vec<Event>,
    /// Whether it is off.
    pub off: bool,
    /// Why it is off, where nobody wanted that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Notifications that are still to arrive.
    pub pending: u64,
    /// How many were dropped because too many waited.
    pub dropped: u64,
    /// Names of the services whose deployments it is told of; none: all of the project.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// It gets headers and a body of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// What notifications are signed with; shown where it was made just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// Receivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiversView {
    /// By project and name.
    pub receivers: Vec<ReceiverView>,
}

/// Where a notification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotificationState {
    /// Still to arrive.
    Pending,
    /// It has arrived.
    Delivered,
    /// It was tried for a day.
    GivenUp,
}

/// What came of the newest attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// When, ms since the epoch.
    pub at_ms: u64,
    /// What the receiver answered; none: nothing.
    pub status: Option<u16>,
    /// Why it was not taken.
    pub problem: Option<String>,
}

/// One event on its way to a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotificationView {
    /// The same for each attempt.
    pub id: String,
    /// What happened.
    pub event: Event,
    /// When, ms since the epoch.
    pub at_ms: u64,
    /// `environment/service`; none: a test.
    pub service: Option<String>,
    /// The deployment; none: a test.
    #[schema(value_type = Option<String>)]
    pub deployment: Option<DeploymentId>,
    /// Where it is.
    pub state: NotificationState,
    /// How often it was sent.
    pub attempts: u32,
    /// When it is sent, ms since the epoch; 0: at once; none: not any more.
    pub next_ms: Option<u64>,
    /// What came of the newest attempt.
    pub last: Option<AttemptView>,
}

/// What a receiver is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotificationsView {
    /// Who.
    pub receiver: ReceiverView,
    /// Newest first: all that wait, and the newest of those that have ended.
    pub notifications: Vec<NotificationView>,
}

/// What is to be sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// Id of a notification, also of one that has arrived; none: all that have not.
    #[serde(default)]
    pub notification: Option<String>,
}
