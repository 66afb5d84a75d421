//! GitHub Apps: the manifest that one is made of, what is asked as an App and of a person who installs it, and what the
//! answers say. Keys are not used here: a signed proof is a text like any other token.

mod answers;
mod heard;
mod proof;

use http::Method;
use http::header::{ACCEPT, AUTHORIZATION};
use serde::Serialize;
use serde_json::{Value, json};
use skep_model::forge::{AppSite, Draft, Kind};
use url::Url;

use super::request::GITHUB_VERSION;
use super::{Request, Site};

pub use answers::{
    Converted, Found, Membership, Minted, converted, found, granted, login, membership, minted,
    user_token,
};
pub use heard::{Heard, What, heard};
pub use proof::{Unproved, prove};

/// What an App asks for, and how much of it. `members` is for the proof that whoever installs it administers the
/// organization.
const WANTED: [(&str, &str); 7] = [
    ("checks", "read"),
    ("contents", "read"),
    ("deployments", "write"),
    ("members", "read"),
    ("metadata", "read"),
    ("pull_requests", "write"),
    ("statuses", "write"),
];

/// What it is told of beside its installations, of which every App is.
const EVENTS: [&str; 8] = [
    "check_run",
    "check_suite",
    "create",
    "delete",
    "pull_request",
    "push",
    "repository",
    "status",
];

/// GitHub takes so many characters of an App's name.
pub const MAX_APP_NAME: usize = 34;
/// Entries of a list that are asked for at once.
pub const PAGE: usize = 100;
/// A proof of an App begins so long ago: clocks differ. In s.
const BACKDATED_S: u64 = 60;
/// It ends so much later: GitHub takes ten minutes at most, of its own clock. In s.
const LASTS_S: u64 = 540;

/// What an App says of itself, to be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// Since when it holds, s since the epoch.
    pub iat: u64,
    /// Until when.
    pub exp: u64,
    /// The App's number.
    pub iss: String,
}

/// What an App says of itself now.
pub fn claims(number: u64, now_s: u64) -> Claims {
    Claims {
        iat: now_s.saturating_sub(BACKDATED_S),
        exp: now_s.saturating_add(LASTS_S),
        iss: number.to_string(),
    }
}

/// What a browser posts to GitHub, so that it makes the App.
pub fn manifest(draft: &Draft) -> Value {
    let at = |path: &str| format!("{}{path}", draft.cluster_url);
    let permissions: serde_json::Map<String, Value> = WANTED
        .iter()
        .map(|(name, access)| ((*name).to_owned(), (*access).into()))
        .collect();
    json!({
        "name": draft.name,
        "url": draft.cluster_url,
        "description": "Deployments by Skep",
        "hook_attributes": { "url": at(&format!("/v1/hooks/github/{}", draft.app)), "active": true },
        "redirect_url": at("/v1/github/made"),
        "callback_urls": [at("/v1/github/installed")],
        "request_oauth_on_install": true,
        "public": false,
        "default_permissions": permissions,
        "default_events": EVENTS,
    })
}

/// Where it is posted to. None: the site's address is none.
pub fn manifest_url(draft: &Draft, state: &str) -> Option<String> {
    let path: &[&str] = match &draft.organization {
        Some(organization) => &["organizations", organization, "settings", "apps", "new"],
        None => &["settings", "apps", "new"],
    };
    web(&draft.site, path, state)
}

/// Where a person installs an App.
pub fn install_url(site: &AppSite, slug: &str, state: &str) -> Option<String> {
    // As GitHub Enterprise Server has it: `apps` may be an organization there.
    let apps = match site.host == "github.com" {
        true => "apps",
        false => "github-apps",
    };
    web(site, &[apps, slug, "installations", "new"], state)
}

fn web(site: &AppSite, path: &[&str], state: &str) -> Option<String> {
    let mut url = page(site, path)?;
    url.query_pairs_mut().append_pair("state", state);
    Some(url.into())
}

fn page(site: &AppSite, path: &[&str]) -> Option<Url> {
    let mut url = Url::parse(&site.web_url).ok()?;
    url.path_segments_mut().ok()?.pop_if_empty().extend(path);
    Some(url)
}

/// What the code of a made App stands for: its secrets. Once, and within an hour.
pub fn convert(site: &AppSite, code: &str) -> Option<Request> {
    let api = Site {
        kind: Kind::GitHub,
        api_url: &site.api_url,
        token: "",
    };
    let path = ["app-manifests", code, "conversions"];
    let mut request = api.request(Method::POST, &path, None)?;
    request.headers.retain(|(name, _)| name != AUTHORIZATION);
    Some(request)
}

/// The client's names of an App, as GitHub knows them.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its secret, in plain text.
    pub secret: &'a str,
}

/// As whom a person signed in.
pub fn exchange(site: &AppSite, client: Client<'_>, code: &str) -> Option<Request> {
    let url = page(site, &["login", "oauth", "access_token"])?;
    Some(Request {
        method: Method::POST,
        url: url.into(),
        headers: vec![(ACCEPT, "application/json".to_owned())],
        body: Some(json!({
            "client_id": client.id,
            "client_secret": client.secret,
            "code": code,
        })),
    })
}

/// A person's token is wanted no more.
pub fn revoke(site: &AppSite, client: Client<'_>, token: &str) -> Option<Request> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let api = Site {
        kind: Kind::GitHub,
        api_url: &site.api_url,
        token: "",
    };
    let path = ["applications", client.id, "token"];
    let body = json!({ "access_token": token });
    let mut request = api.request(Method::DELETE, &path, Some(body))?;
    let pair = STANDARD.encode(format!("{}:{}", client.id, client.secret));
    request.headers = vec![
        (ACCEPT, "application/vnd.github+json".to_owned()),
        (AUTHORIZATION, format!("Basic {pair}")),
        (GITHUB_VERSION, "2022-11-28".to_owned()),
    ];
    Some(request)
}

/// What a token of an installation is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All that the installation may.
    All,
    /// To read what is in this repository (`owner/name`), and nothing else.
    Contents(String),
}

impl Site<'_> {
    /// A token of an installation, asked for as the App.
    pub fn access_token(&self, installation: u64, scope: &Scope) -> Option<Request> {
        let number = installation.to_string();
        let path = ["app", "installations", &number, "access_tokens"];
        let body = match scope {
            Scope::All => json!({}),
            Scope::Contents(repository) => {
                let (_, name) = repository.split_once('/')?;
                json!({ "repositories": [name], "permissions": { "contents": "read" } })
            }
        };
        self.request(Method::POST, &path, Some(body))
    }

    /// What the App is, asked as itself.
    pub fn app(&self) -> Option<Request> {
        self.request(Method::GET, &["app"], None)
    }

    /// Deliveries are signed with this from now on.
    pub fn hook_secret(&self, secret: &str) -> Option<Request> {
        let body = json!({ "secret": secret });
        self.request(Method::PATCH, &["app", "hook", "config"], Some(body))
    }

    /// Installations that a person can see, of the App that their token is of; pages are counted from 1.
    pub fn installations(&self, page: u32) -> Option<Request> {
        let mut request = self.request(Method::GET, &["user", "installations"], None)?;
        request.url = format!("{}?per_page={PAGE}&page={page}", request.url);
        Some(request)
    }

    /// What a person is in an organization.
    pub fn membership(&self, organization: &str) -> Option<Request> {
        let path = ["user", "memberships", "orgs", organization];
        self.request(Method::GET, &path, None)
    }
}

#[cfg(test)]
mod tests;
