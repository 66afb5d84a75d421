//! As whom forges are asked: the one place that says it. A person's token is opened, an App's is asked for: signed with
//! the App's key, for the installation that a repository is of. Tokens of installations are in this server's memory
//! until shortly before they end, asked for once for all who wait, and nowhere else.

mod keys;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use parking_lot::Mutex;
use skep_forge::api::app::{self, Scope};
use skep_forge::api::{Request, Site};
use skep_model::forge::{Access, AppSite, Connection, ForgeApp, Installation, Kind};
use skep_model::problem::Problem;
use skep_model::routing::Cidr;
use skep_state::State;
use zeroize::Zeroizing;

use super::request;
use crate::outgoing::{Allowed, Outgoing, Reply};
use crate::secrets::Secrets;
use crate::store::now_ms;

pub(crate) use keys::{check_key, signed};

/// A token is not given out within so long of its end: whoever gets it has work to do with it.
const MARGIN_MS: u64 = 5 * 60_000;
/// Tokens that are remembered; those that have ended make room, then all.
const MAX_KEPT: usize = 4_096;

/// As whom something is asked.
pub(crate) enum As {
    /// A person's token.
    Token(Zeroizing<String>),
    /// An App, where it is installed.
    App(Arc<ForgeApp>, Installation),
}

/// Of which App and installation, and for what.
type Key = (u128, u64, Scope);
/// One token: whoever waits for it waits for the same.
type Slot = Arc<tokio::sync::Mutex<Option<Kept>>>;

#[derive(Clone)]
struct Kept {
    token: Zeroizing<String>,
    ends_ms: u64,
    /// Of the App as it was then.
    changed_ms: u64,
}

impl Kept {
    fn is_good(&self, app: &ForgeApp, now_ms: u64) -> bool {
        self.ends_ms > now_ms.saturating_add(MARGIN_MS) && self.changed_ms == app.changed_ms
    }
}

/// Gives tokens. Cheap to clone; never shows one.
#[derive(Clone)]
pub struct Tokens {
    inner: Arc<Inner>,
}

struct Inner {
    secrets: Secrets,
    allowed: Allowed,
    outgoing: Outgoing,
    kept: Mutex<BTreeMap<Key, Slot>>,
}

impl Tokens {
    /// Nothing is known yet. `allowed`: as of `Outgoing`.
    pub fn new(secrets: Secrets, allowed: &[Cidr]) -> Self {
        let allowed = Allowed::new(allowed);
        Self {
            inner: Arc::new(Inner {
                secrets,
                outgoing: Outgoing::new(allowed.clone()),
                allowed,
                kept: Mutex::default(),
            }),
        }
    }

    /// Asks a forge with a connection about a repository, and reads so much of the answer. A token of an App that the
    /// forge does not know (any more) is asked for anew, once.
    ///
    /// # Errors
    /// There is no answer, or nobody to ask as; for a person.
    pub(crate) async fn ask(
        &self,
        outgoing: &Outgoing,
        (view, connection): (&State, &Connection),
        (repository, most): (&str, usize),
        asked: impl Fn(&Site<'_>) -> Option<Request>,
    ) -> Result<Reply, String> {
        self.inner.allowed.learn(view);
        let who = self.who(view, connection, repository)?;
        let mut is_second = false;
        loop {
            let token = self.token(&who, &Scope::All).await?;
            let sent = request(asked(&super::site(connection, &token)))?;
            let ca_pem = connection.ca_pem.as_deref();
            let reply = outgoing.send_and_read(sent, ca_pem, most).await?;
            match &who {
                As::App(app, at) if reply.status == StatusCode::UNAUTHORIZED && !is_second => {
                    self.forget(app, at, &token).await;
                    is_second = true;
                }
                _ => return Ok(reply),
            }
        }
    }

    /// As whom a connection asks about a repository.
    ///
    /// # Errors
    /// As nobody; for a person.
    pub(crate) fn who(
        &self,
        view: &State,
        connection: &Connection,
        repository: &str,
    ) -> Result<As, String> {
        match &connection.access {
            Access::Token(_) => {
                let token = self.inner.secrets.open_forge(connection).map_err(said)?;
                Ok(As::Token(token.into()))
            }
            Access::App(all) => {
                let at = chosen(all, (&connection.host, repository))?;
                let app = view.forge_app(at.app);
                let app = app.ok_or("the GitHub App of the connection is gone")?;
                Ok(As::App(Arc::clone(app), at.clone()))
            }
        }
    }

    /// A token that lasts for a while.
    ///
    /// # Errors
    /// The forge gives none; for a person.
    pub(crate) async fn token(&self, who: &As, scope: &Scope) -> Result<Zeroizing<String>, String> {
        let (app, at) = match who {
            As::Token(token) => return Ok(token.clone()),
            As::App(app, at) => (app, at),
        };
        let slot = self.slot(app, at, scope, now_ms());
        let mut kept = slot.lock().await;
        if let Some(known) = kept.as_ref().filter(|it| it.is_good(app, now_ms())) {
            return Ok(known.token.clone());
        }
        self.anew((app, at), scope, &mut kept).await
    }

    /// A token of an App that lasts as long as any: whoever gets it may have to wait before it is used.
    ///
    /// # Errors
    /// As of `token`.
    pub(crate) async fn fresh(
        &self,
        (app, at): (&ForgeApp, &Installation),
        scope: &Scope,
    ) -> Result<Zeroizing<String>, String> {
        let slot = self.slot(app, at, scope, now_ms());
        let mut kept = slot.lock().await;
        self.anew((app, at), scope, &mut kept).await
    }

    async fn anew(
        &self,
        (app, at): (&ForgeApp, &Installation),
        scope: &Scope,
        kept: &mut Option<Kept>,
    ) -> Result<Zeroizing<String>, String> {
        let minted = self.mint(app, at, scope).await?;
        let token = Zeroizing::new(minted.token);
        *kept = Some(Kept {
            token: token.clone(),
            ends_ms: minted.ends_ms,
            changed_ms: app.changed_ms,
        });
        Ok(token)
    }

    /// A token is not taken any more, whatever it said of its end. Another one that came since stays.
    async fn forget(&self, app: &ForgeApp, at: &Installation, token: &str) {
        let slot = self.slot(app, at, &Scope::All, now_ms());
        let mut kept = slot.lock().await;
        if kept.as_ref().is_some_and(|it| *it.token == token) {
            *kept = None;
        }
    }

    async fn mint(
        &self,
        app: &ForgeApp,
        at: &Installation,
        scope: &Scope,
    ) -> Result<app::Minted, String> {
        let reply = self
            .ask_as_app(app, |site| site.access_token(at.number, scope))
            .await?;
        if reply.status.is_success() {
            let text = "GitHub gave no token that says when it ends";
            return app::minted(&reply.body).ok_or_else(|| text.to_owned());
        }
        Err(refusal(app, at, (reply.status, scope)))
    }

    /// Asks GitHub something as an App itself.
    ///
    /// # Errors
    /// There is no answer, or the key cannot sign; for a person.
    pub(crate) async fn ask_as_app(
        &self,
        app: &ForgeApp,
        asked: impl Fn(&Site<'_>) -> Option<Request>,
    ) -> Result<Reply, String> {
        let key = self.inner.secrets.open_app_key(app).map_err(said)?;
        let proof = signed(&key, &app::claims(app.number, now_ms() / 1_000))?;
        self.ask_with(&app.site, &proof, asked).await
    }

    /// Asks a GitHub something as whoever this token is.
    ///
    /// # Errors
    /// There is no answer; for a person.
    pub(crate) async fn ask_with(
        &self,
        site: &AppSite,
        token: &str,
        asked: impl Fn(&Site<'_>) -> Option<Request>,
    ) -> Result<Reply, String> {
        let at = Site {
            kind: Kind::GitHub,
            api_url: &site.api_url,
            token,
        };
        self.send(site, request(asked(&at))?).await
    }

    /// Sends a request to a GitHub.
    ///
    /// # Errors
    /// There is no answer; for a person.
    pub(crate) async fn send(
        &self,
        site: &AppSite,
        sent: hyper::Request<Full<Bytes>>,
    ) -> Result<Reply, String> {
        let ca_pem = site.ca_pem.as_deref();
        let most = MAX_ANSWER;
        let outgoing = &self.inner.outgoing;
        outgoing.send_and_read(sent, ca_pem, most).await
    }

    /// What this cluster has of its own is off limits.
    pub(crate) fn learn(&self, view: &State) {
        self.inner.allowed.learn(view);
    }

    fn slot(&self, app: &ForgeApp, at: &Installation, scope: &Scope, now_ms: u64) -> Slot {
        let key = (app.id.as_u128(), at.number, scope.clone());
        let mut kept = self.inner.kept.lock();
        if kept.len() >= MAX_KEPT && !kept.contains_key(&key) {
            kept.retain(|_, slot| {
                let held = slot.try_lock();
                held.is_ok_and(|it| it.as_ref().is_some_and(|it| it.ends_ms > now_ms))
            });
            if kept.len() >= MAX_KEPT {
                kept.clear();
            }
        }
        Arc::clone(kept.entry(key).or_default())
    }
}

/// What is read of an answer: a hundred installations of many words each.
const MAX_ANSWER: usize = 1 << 20;

/// The installation that a repository is of. `repository` without an owner: the first that gives tokens.
fn chosen<'a>(
    all: &'a [Installation],
    (host, repository): (&str, &str),
) -> Result<&'a Installation, String> {
    let found = match repository.is_empty() {
        true => all.iter().find(|it| !it.is_suspended).or(all.first()),
        false => all.iter().find(|it| it.has(repository)),
    };
    let found = found.ok_or_else(|| {
        let of = repository.split('/').next().unwrap_or_default();
        format!(
            "no GitHub App is installed at the account `{of}` of {host}: `skep forge app install`"
        )
    })?;
    match found.is_suspended {
        true => Err(format!(
            "the installation at {} is suspended: somebody there has to lift that",
            found.account
        )),
        false => Ok(found),
    }
}

fn refusal(app: &ForgeApp, at: &Installation, (status, scope): (StatusCode, &Scope)) -> String {
    let why = match (status, scope) {
        (StatusCode::UNAUTHORIZED, _) => {
            "it does not know the App, or not this key: `skep forge app rotate --key-stdin`"
                .to_owned()
        }
        (StatusCode::NOT_FOUND, _) => {
            "the App is not installed there any more: `skep forge app install`".to_owned()
        }
        (StatusCode::UNPROCESSABLE_ENTITY, Scope::Contents(repository)) => format!(
            "the installation does not have {repository}, or may not read it: its owner gives it more at GitHub"
        ),
        _ => "it does not say why, or is in trouble".to_owned(),
    };
    format!(
        "{} gives no token of the App {} at {} ({status}): {why}",
        app.site.host, app.slug, at.account
    )
}

fn said(problem: Problem) -> String {
    problem.to_string()
}

#[cfg(test)]
mod tests;
