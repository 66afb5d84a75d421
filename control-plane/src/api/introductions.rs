//! How a machine that exists is told how to join: by a person, who gets the text here, with a join token that is made for that
//! one machine. Keeps nothing of it: who lost the text asks for another, which makes the first one's token good for nothing.

use axum::Json;
use serde::Deserialize;
use skep_model::guest_pool::PoolGuest;
use skep_model::pool::Phase;
use skep_model::problem::{Code, Problem};
use skep_model::provider::Way;
use skep_pools::ENV_FILE;
use skep_state::State;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::Path;
use super::types::IntroductionView;
use super::{App, Here};
use crate::guests::introduce::{TOKEN_FOR_PEOPLE_MS, introduction};
use crate::store::now_ms;

/// The name or id of a guest, or of the machine that it has taken.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct GuestKey {
    /// Its name or id, or the name of its machine.
    guest: String,
}

/// Makes the text that has a machine join as a guest's node: the environment of its agent, with a join token that is good for
/// an hour, once, and for that machine alone. An earlier text is good for nothing from then on.
#[utoipa::path(post, path = "/v1/guests/{guest}/introduction", tag = "cluster", params(GuestKey),
    operation_id = "introduce_guest", responses((status = 200, body = IntroductionView)))]
pub(super) async fn introduce(
    Here(app): Here,
    Path(key): Path<GuestKey>,
) -> Result<Json<IntroductionView>, Failure> {
    Ok(Json(made(&app, &key.guest).await?))
}

async fn made(app: &App, key: &str) -> Result<IntroductionView, Problem> {
    let view = app.store.view();
    let one = find(&view, key)?;
    check(&view, one)?;
    let Some(identity) = &one.guest.identity else {
        let text = format!(
            "the guest {} has no machine yet{}",
            one.guest.name(),
            one.guest
                .problem
                .as_ref()
                .map_or_else(String::new, |why| format!(": {why}"))
        );
        return Err(Problem::new(Code::Conflict, text)
            .at("guest")
            .hint(format!("`skep pool show {}` says how far it is", one.pool)));
    };
    let expires_ms = now_ms() + TOKEN_FOR_PEOPLE_MS;
    let (command, content) = introduction(&view, one, expires_ms)?;
    app.unkeyed.propose(command).await?;
    Ok(IntroductionView {
        guest: one.guest.name(),
        machine: one.guest.host.clone(),
        mac: identity.mac.clone(),
        path: ENV_FILE.to_owned(),
        content: content.as_str().to_owned(),
        expires_ms,
    })
}

/// People tell machines of a list alone: others are told by their provider, with a token that this one would make good for
/// nothing.
fn check(view: &State, one: &PoolGuest) -> Result<(), Problem> {
    let name = one.guest.name();
    let provider = view
        .guest_pool(&one.pool)
        .and_then(|pool| view.provider(&pool.provider));
    if let Some(provider) = provider
        && !matches!(provider.way, Way::Static(_))
    {
        let text = format!(
            "the guest {name} is told how to join by its provider `{}`",
            provider.name
        );
        return Err(Problem::new(Code::Conflict, text)
            .at("guest")
            .hint(format!("`skep pool show {}` says how far it is", one.pool)));
    }
    match one.guest.phase {
        Phase::Ready => Err(Problem::new(
            Code::Conflict,
            format!("the guest {name} has joined already"),
        )
        .at("guest")
        .hint("`skep node show` shows its node; `skep node replace` has another machine take its place")),
        Phase::Leaving | Phase::Gone => {
            let text = format!("the guest {name} is to go");
            Err(Problem::new(Code::Conflict, text)
                .at("guest")
                .hint(format!("`skep node add {}` makes another one", one.pool)))
        }
        _ => Ok(()),
    }
}

fn find<'a>(view: &'a State, key: &str) -> Result<&'a PoolGuest, Problem> {
    let all = || view.guests().map(|one| &**one);
    let by_name = all().find(|one| one.guest.name() == key || one.guest.id.to_string() == key);
    if let Some(one) = by_name {
        return Ok(one);
    }
    let mut on = all().filter(|one| one.guest.host.as_deref() == Some(key));
    match (on.next(), on.next()) {
        (Some(one), None) => Ok(one),
        (Some(one), Some(other)) => {
            let text = format!(
                "`{}` is a machine or host of several guests: {}, {}",
                key.escape_debug(),
                one.guest.name(),
                other.guest.name()
            );
            Err(Problem::new(Code::Conflict, text)
                .at("guest")
                .hint("name the guest"))
        }
        (None, _) => {
            let text = format!("no pool has the guest or machine `{}`", key.escape_debug());
            Err(Problem::new(Code::NotFound, text)
                .at("guest")
                .hint("`skep pool show POOL` lists guests with their machines"))
        }
    }
}
