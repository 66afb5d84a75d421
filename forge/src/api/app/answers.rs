//! What GitHub says of Apps, installations and the people who install them. What is longer than anything real, or not of
//! its form, is nothing.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use skep_model::forge::MAX_WORD;

use super::{PAGE, WANTED};
use crate::event::clean;

/// An App that was just made: not shown, as it has the App's secrets.
#[derive(Deserialize)]
pub struct Converted {
    /// GitHub's number for it.
    #[serde(rename = "id")]
    pub number: u64,
    /// What GitHub names it in URLs.
    pub slug: String,
    /// Whose it is.
    owner: Account,
    /// Its name where people sign in.
    pub client_id: String,
    /// What goes with it.
    pub client_secret: String,
    /// What deliveries are signed with.
    pub webhook_secret: String,
    /// The key that it proves itself with.
    pub pem: String,
}

#[derive(Deserialize)]
struct Account {
    login: String,
    #[serde(rename = "type", default)]
    kind: String,
}

impl Converted {
    /// The account that it belongs to.
    pub fn owner(&self) -> &str {
        &self.owner.login
    }
}

/// The App that a code stood for; none: the answer is not of that form.
pub fn converted(body: &[u8]) -> Option<Converted> {
    let made: Converted = serde_json::from_slice(body).ok()?;
    let words = [&made.slug, &made.owner.login, &made.client_id];
    let is_word = |text: &&String| {
        !text.is_empty() && text.len() <= MAX_WORD && text.bytes().all(|it| it.is_ascii_graphic())
    };
    let secrets = [&made.client_secret, &made.webhook_secret, &made.pem];
    let is_whole = words.iter().all(is_word) && secrets.iter().all(|it| !it.is_empty());
    (is_whole && made.number > 0).then_some(made)
}

/// The token that the code of a person stood for.
///
/// # Errors
/// GitHub says why there is none.
pub fn user_token(body: &[u8]) -> Result<String, String> {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let token = said["access_token"].as_str().filter(|it| !it.is_empty());
    token.map(str::to_owned).ok_or_else(|| {
        let why = said["error_description"]
            .as_str()
            .or(said["error"].as_str());
        clean(why.unwrap_or("the answer has no token"))
    })
}

/// An installation, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub number: u64,
    /// Of which App.
    pub app: u64,
    /// Whose repositories it has.
    pub account: String,
    /// That is an organization.
    pub is_organization: bool,
    /// Somebody has suspended it.
    pub is_suspended: bool,
    /// What the App wants and was not given.
    pub missing: Vec<String>,
}

#[derive(Deserialize)]
struct Listed {
    id: u64,
    #[serde(default)]
    app_id: u64,
    account: Account,
    #[serde(default)]
    suspended_at: Option<Value>,
    #[serde(default)]
    permissions: Map<String, Value>,
}

impl From<Listed> for Found {
    fn from(listed: Listed) -> Self {
        Self {
            number: listed.id,
            app: listed.app_id,
            is_organization: listed.account.kind == "Organization",
            account: clean(&listed.account.login),
            is_suspended: listed.suspended_at.is_some(),
            missing: lacking(&listed.permissions),
        }
    }
}

/// A page of installations, and whether there are more behind it; none: it is no such page.
pub fn found(body: &[u8]) -> Option<(Vec<Found>, bool)> {
    #[derive(Deserialize)]
    struct Page {
        installations: Vec<Listed>,
    }
    let page: Page = serde_json::from_slice(body).ok()?;
    let has_more = page.installations.len() >= PAGE;
    Some((
        page.installations.into_iter().map(Found::from).collect(),
        has_more,
    ))
}

/// One installation, as deliveries have it.
pub(super) fn one(installation: &Value) -> Option<Found> {
    let listed: Listed = serde_json::from_value(installation.clone()).ok()?;
    Some(listed.into())
}

/// What a person is in an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// They administer it.
    Admin,
    /// Something else, or nothing.
    Other,
}

/// What a person is in `organization`, of the answer to that.
pub fn membership(body: &[u8], organization: &str) -> Membership {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let login = said["organization"]["login"].as_str().unwrap_or_default();
    let is_admin = said["role"] == "admin" && said["state"] == "active";
    match is_admin && login.eq_ignore_ascii_case(organization) {
        true => Membership::Admin,
        false => Membership::Other,
    }
}

/// The name of whoever the answer is about.
pub fn login(body: &[u8]) -> Option<String> {
    let said: Value = serde_json::from_slice(body).ok()?;
    said["login"].as_str().map(str::to_owned)
}

/// A token of an installation. Not shown.
pub struct Minted {
    /// In plain text.
    pub token: String,
    /// When it ends, ms since the epoch.
    pub ends_ms: u64,
}

/// The token in an answer; none: there is none, or it does not say when it ends.
pub fn minted(body: &[u8]) -> Option<Minted> {
    let said: Value = serde_json::from_slice(body).ok()?;
    let token = said["token"].as_str()?;
    let ends: Timestamp = said["expires_at"].as_str()?.parse().ok()?;
    let is_sound = !token.is_empty() && token.bytes().all(|it| it.is_ascii_graphic());
    is_sound.then(|| Minted {
        token: token.to_owned(),
        ends_ms: u64::try_from(ends.as_millisecond()).unwrap_or(0),
    })
}

/// What the App wants and was not given, of an answer that has `permissions`.
pub fn granted(body: &[u8]) -> Option<Vec<String>> {
    let said: Value = serde_json::from_slice(body).ok()?;
    said["permissions"].as_object().map(lacking)
}

fn lacking(given: &Map<String, Value>) -> Vec<String> {
    let is_given = |name: &str, access: &str| match given.get(name).and_then(Value::as_str) {
        Some("write" | "admin") => true,
        Some(other) => other == access,
        None => false,
    };
    let missing = WANTED
        .iter()
        .filter(|(name, access)| !is_given(name, access));
    missing
        .map(|(name, access)| format!("{name}: {access}"))
        .collect()
}
