//! The steps in a browser: a page with one button makes the App at GitHub, GitHub comes back with a code for its secrets,
//! the App is installed, GitHub comes back with the installation and a code for whoever installed it. No token of the
//! cluster comes along: the secret in the URL is the proof, once. Numbers that GitHub's redirects bring are believed
//! after GitHub has said so itself.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use skep_forge::api::app::{self, Client, Converted, Found, Membership};
use skep_forge::clean;
use skep_identity::digest;
use skep_model::forge::{AppSecrets, Draft, ForgeApp, Installation, Setup, SetupStep};
use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use utoipa::IntoParams;
use zeroize::Zeroizing;

use super::page::Page;
use super::{App, Here, begin, install_at};
use crate::api::access::is_token;
use crate::api::extract::Query;
use crate::forges::{check_key, request};
use crate::history::AuditEntry;
use crate::outgoing::Reply;
use crate::secrets::AppUse;
use crate::store::now_ms;

/// Pages of installations that are looked through: a person sees as many accounts at most.
const MAX_PAGES: u32 = 20;
/// Longest code that is passed on.
const MAX_CODE: usize = 512;

/// What comes with the steps of a browser.
#[derive(Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct StepQuery {
    /// The secret of the step.
    #[serde(default)]
    state: String,
    /// What GitHub gives for it.
    #[serde(default)]
    code: String,
    /// The installation, as GitHub's redirect says.
    #[serde(default)]
    installation_id: Option<u64>,
    /// `request`: an owner of the organization was asked to install it.
    #[serde(default)]
    setup_action: Option<String>,
}

/// A page with one button, which makes a GitHub App.
#[utoipa::path(get, path = "/v1/github/make", tag = "forges", operation_id = "github_make",
    params(StepQuery), responses((status = 200, description = "A page", content_type = "text/html")))]
pub(in crate::api) async fn make(Here(app): Here, Query(query): Query<StepQuery>) -> Response {
    answered(offer(&app, &query).await)
}

/// GitHub has made the App: what its code stands for is sealed, and the App can be installed.
#[utoipa::path(get, path = "/v1/github/made", tag = "forges", operation_id = "github_made",
    params(StepQuery), responses((status = 200, description = "A page", content_type = "text/html")))]
pub(in crate::api) async fn made(Here(app): Here, Query(query): Query<StepQuery>) -> Response {
    let own = app.clone();
    apart(&app, "make_forge_app", async move {
        take_made(&own, &query).await
    })
    .await
}

/// The App is installed somewhere: that is bound to the workspace, if whoever comes administers it.
#[utoipa::path(get, path = "/v1/github/installed", tag = "forges", operation_id = "github_installed",
    params(StepQuery), responses((status = 200, description = "A page", content_type = "text/html")))]
pub(in crate::api) async fn installed(Here(app): Here, Query(query): Query<StepQuery>) -> Response {
    let own = app.clone();
    apart(&app, "bind_installation", async move {
        take_installed(&own, &query).await
    })
    .await
}

/// Does what changes something, though the browser goes away, and notes it.
async fn apart(
    app: &App,
    action: &str,
    work: impl Future<Output = Result<Page, Problem>> + Send + 'static,
) -> Response {
    let gone = |_| Problem::new(Code::Internal, "the step could not be finished");
    let outcome = tokio::spawn(work)
        .await
        .unwrap_or_else(|error| Err(gone(error)));
    app.history.audit(AuditEntry {
        at_ms: now_ms(),
        principal: "browser".to_owned(),
        action: action.to_owned(),
        resource: "github".to_owned(),
        outcome: match &outcome {
            Ok(_) => "ok".to_owned(),
            Err(problem) => problem.message.clone(),
        },
    });
    answered(outcome)
}

fn answered(outcome: Result<Page, Problem>) -> Response {
    match outcome {
        Ok(page) => page.into_response(),
        Err(problem) => Page::problem(&problem).into_response(),
    }
}

async fn offer(app: &App, query: &StepQuery) -> Result<Page, Problem> {
    let setup = waited(app, query).await?;
    let SetupStep::Create(draft) = &setup.step else {
        return Err(elsewhere());
    };
    let url = app::manifest_url(draft, &query.state);
    let url = url.ok_or_else(|| Problem::new(Code::Internal, "the site has no address"))?;
    let manifest = app::manifest(draft).to_string();
    let owner = match &draft.organization {
        Some(organization) => format!("the organization {organization}"),
        None => "you".to_owned(),
    };
    let origin = (url.as_str(), draft.site.web_url.as_str());
    Ok(Page::new("Make a GitHub App")
        .text(&format!(
            "{} will make the App {}, which belongs to {owner}. With it this cluster reads code, and writes statuses, \
             comments and deployments, where you install it.",
            draft.site.host, draft.name
        ))
        .button(origin, ("manifest", &manifest), "Make it at GitHub"))
}

async fn take_made(app: &App, query: &StepQuery) -> Result<Page, Problem> {
    let setup = waited(app, query).await?;
    let SetupStep::Create(draft) = &setup.step else {
        return Err(elsewhere());
    };
    let code = code_of(query)?;
    take(app, &setup).await?;
    app.tokens.learn(&app.store.view());
    let asked = request(app::convert(&draft.site, code)).map_err(broken)?;
    let reply = app.tokens.send(&draft.site, asked).await;
    let reply = taken(reply, &draft.site.host)?;
    let converted = app::converted(&reply.body);
    let converted = converted.ok_or_else(|| refused("GitHub's answer has no App in it"))?;
    check_key(&converted.pem).map_err(broken)?;
    let made = sealed(app, (&setup, draft), converted);
    let command = v1::PutForgeApp {
        app: Some((&made).into()),
        expected_changed_ms: 0,
    };
    app.store.propose(Kind::PutForgeApp(command)).await?;
    let by = (setup.workspace, setup.by.clone());
    let secret = begin(app, by, SetupStep::Install(made.id)).await?;
    Ok(Page::new("The App is made")
        .text(&format!(
            "{} belongs to {}. Now choose the repositories that it may see.",
            made.slug, made.owner
        ))
        .link(&install_at(&made, &secret)?, "Install it"))
}

fn sealed(app: &App, (setup, draft): (&Setup, &Draft), converted: Converted) -> ForgeApp {
    let seal = |of: AppUse, text: String| {
        let text = Zeroizing::new(text);
        app.secrets.seal_app(of, draft.app, &text)
    };
    ForgeApp {
        id: draft.app,
        workspace: setup.workspace,
        number: converted.number,
        owner: clean(converted.owner()),
        slug: converted.slug,
        client_id: converted.client_id,
        site: draft.site.clone(),
        secrets: AppSecrets {
            private_key: seal(AppUse::Key, converted.pem),
            webhook: seal(AppUse::Webhook, converted.webhook_secret),
            client: seal(AppUse::Client, converted.client_secret),
        },
        // Set where it is obeyed.
        made_ms: 0,
        changed_ms: 0,
    }
}

async fn take_installed(app: &App, query: &StepQuery) -> Result<Page, Problem> {
    if query.setup_action.as_deref() == Some("request") {
        return Ok(Page::new("An owner has to agree")
            .text("An owner of the organization was asked to install the App. When that is done, begin again:")
            .text("skep forge app install"));
    }
    let setup = waited(app, query).await?;
    let SetupStep::Install(id) = &setup.step else {
        return Err(elsewhere());
    };
    let view = app.store.view();
    let known = view
        .forge_app(*id)
        .filter(|it| it.workspace == setup.workspace);
    let known = known.cloned().ok_or_else(elsewhere)?;
    let code = code_of(query)?;
    let number = query.installation_id.ok_or_else(|| {
        Problem::invalid(
            "installation_id",
            "GitHub does not say which installation it is",
        )
        .hint("choose an account and `Install` at GitHub: `skep forge app install` begins anew")
    })?;
    take(app, &setup).await?;
    app.tokens.learn(&view);
    let installation = proved(app, &known, (code, number)).await?;
    let command = v1::SetForgeInstallation {
        installation: Some((&installation).into()),
        binds: true,
        removes: false,
    };
    app.store
        .propose(Kind::SetForgeInstallation(command))
        .await?;
    let page = Page::new("It is done").text(&format!(
        "The App {} is installed at {}. Services that come from there need no token and no webhook of their own.",
        known.slug, installation.account
    ));
    Ok(match installation.missing.is_empty() {
        true => page.text("You can close this page."),
        false => page.text(&format!(
            "It was not given: {}.",
            installation.missing.join(", ")
        )),
    })
}

/// The installation, if whoever the code is of may bind it. Their token is used here and forgotten.
async fn proved(
    app: &App,
    known: &Arc<ForgeApp>,
    (code, number): (&str, u64),
) -> Result<Installation, Problem> {
    let (site, host) = (&known.site, known.site.host.as_str());
    let secret = app.secrets.open_app_client(known)?;
    let client = Client {
        id: &known.client_id,
        secret: &secret,
    };
    let asked = request(app::exchange(site, client, code)).map_err(broken)?;
    let reply = taken(app.tokens.send(site, asked).await, host)?;
    let token = app::user_token(&reply.body).map(Zeroizing::new);
    let token = token.map_err(|why| refused(&format!("{host} does not say who you are: {why}")))?;
    let outcome = of_person(app, known, (&token, number)).await;
    // GitHub ends it by itself, too, in hours: nothing depends on this.
    if let Ok(asked) = request(app::revoke(site, client, &token))
        && let Err(why) = app.tokens.send(site, asked).await
    {
        tracing::info!(host, why, "a person's token was not revoked");
    }
    outcome
}

async fn of_person(
    app: &App,
    known: &ForgeApp,
    (token, number): (&str, u64),
) -> Result<Installation, Problem> {
    let (site, host) = (&known.site, known.site.host.as_str());
    let tokens = &app.tokens;
    let mut seen: Vec<Found> = Vec::new();
    for page in 1..=MAX_PAGES {
        let reply = tokens
            .ask_with(site, token, |it| it.installations(page))
            .await;
        let reply = taken(reply, host)?;
        let (found, has_more) = app::found(&reply.body)
            .ok_or_else(|| refused("GitHub's answer has no installations in it"))?;
        seen.extend(found);
        if !has_more || seen.iter().any(|it| it.number == number) {
            break;
        }
    }
    let reply = taken(tokens.ask_with(site, token, |it| it.who()).await, host)?;
    let me = app::login(&reply.body).unwrap_or_default();
    let at = seen
        .iter()
        .find(|it| it.number == number && it.is_organization);
    let of = match at {
        None => Membership::Other,
        Some(found) => {
            let asked = tokens.ask_with(site, token, |it| it.membership(&found.account));
            let reply = asked.await.map_err(broken)?;
            match reply.status.is_success() {
                true => app::membership(&reply.body, &found.account),
                false => Membership::Other,
            }
        }
    };
    app::prove(known, number, &seen, (&me, of)).map_err(|why| {
        Problem::new(Code::Forbidden, why.to_string())
            .hint("nothing was bound; `skep forge app install` begins anew")
    })
}

/// The step that this secret is of, if whoever began it still may.
async fn waited(app: &App, query: &StepQuery) -> Result<Arc<Setup>, Problem> {
    let sum = digest::sha256(query.state.as_bytes());
    let known = app.store.view().forge_setup(&sum).cloned();
    // A replica that is behind has not heard of a step that was begun a moment ago elsewhere.
    let (view, setup) = match known {
        Some(setup) => (app.store.view(), Some(setup)),
        None => {
            let view = app.store.read().await?;
            let setup = view.forge_setup(&sum).cloned();
            (view, setup)
        }
    };
    let is_open = |setup: &Arc<Setup>| setup.expires_ms >= now_ms() && is_token(&view, &setup.by);
    setup.filter(is_open).ok_or_else(elsewhere)
}

fn elsewhere() -> Problem {
    Problem::new(
        Code::NotFound,
        "Nobody waits for this: it was done before, is more than an hour old, or whoever began it may not do so any more",
    )
    .hint("`skep forge app create` and `skep forge app install` begin anew")
}

async fn take(app: &App, setup: &Setup) -> Result<(), Problem> {
    let command = v1::TakeForgeSetup {
        digest: setup.digest.clone(),
    };
    app.store.propose(Kind::TakeForgeSetup(command)).await?;
    Ok(())
}

fn code_of(query: &StepQuery) -> Result<&str, Problem> {
    let code = query.code.as_str();
    let is_sound = !code.is_empty()
        && code.len() <= MAX_CODE
        && code
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it));
    match is_sound {
        true => Ok(code),
        false => Err(Problem::invalid("code", "GitHub gave no code")),
    }
}

/// An answer that says yes.
fn taken(outcome: Result<Reply, String>, host: &str) -> Result<Reply, Problem> {
    let reply = outcome.map_err(broken)?;
    match reply.status.is_success() {
        true => Ok(reply),
        false => Err(refused(&format!("{host} says {}", reply.status))),
    }
}

fn broken(why: String) -> Problem {
    refused(&why)
}

fn refused(why: &str) -> Problem {
    Problem::new(Code::Unavailable, why)
        .hint("nothing was bound; `skep forge app create` or `skep forge app install` begins anew")
}
