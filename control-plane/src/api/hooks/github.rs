//! Deliveries to GitHub Apps: one URL for all repositories that an App sees. What they say of repositories takes the way of
//! every webhook; what they say of installations changes what is bound already, and binds nothing.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use skep_forge::api::app::{Heard, What, heard};
use skep_forge::{Event, Forge, detect, event_name};
use skep_model::forge::{ForgeApp, Installation, MAX_RENAMED};
use skep_model::id::ForgeAppId;
use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use utoipa::IntoParams;

use super::HookQuery;
use super::delivery::{Meant, answer, believed, is_forced, refused};
use super::repository::{services_of, take_out_foreign};
use crate::api::error::Failure;
use crate::api::extract::{Path, Query};
use crate::api::types::HookReply;
use crate::api::{App, Here};

/// The webhook of a GitHub App.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::api) struct AppHookKey {
    /// The App's id here.
    #[param(value_type = String)]
    app: ForgeAppId,
}

/// Takes a delivery for all services of the App's workspace that come from the repository that it is about; also what
/// becomes of the App's installations.
#[utoipa::path(post, path = "/v1/hooks/github/{app}", tag = "webhooks", params(AppHookKey, HookQuery),
    operation_id = "receive_app_hook",
    request_body(content = serde_json::Value, content_type = "application/json"),
    responses((status = 200, body = HookReply, description = "Nothing to do, or done before"),
        (status = 202, body = HookReply, description = "Deployments were made")))]
pub(in crate::api) async fn receive_app(
    Here(app): Here,
    Path(key): Path<AppHookKey>,
    Query(query): Query<HookQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<HookReply>), Failure> {
    let known = app.store.view().forge_app(key.app).cloned();
    // A replica that is behind has not heard of an App that was made a moment ago elsewhere.
    let known = match known {
        Some(known) => Some(known),
        None => app.store.read().await?.forge_app(key.app).cloned(),
    };
    let known = known.ok_or_else(|| {
        Problem::new(Code::NotFound, "there is no such webhook")
            .hint("`skep forge app ls` lists the GitHub Apps that there are")
    })?;
    // Who signs as another forge does, or as a script, is not GitHub.
    if detect(&headers) != Forge::GitHub {
        return Err(refused("this is no delivery of GitHub").into());
    }
    let secret = app.secrets.open_app_webhook(&known)?;
    let resource = format!("hooks/github/{}", known.id);
    let is_forced = is_forced(&app, &query, &headers, &resource)?;
    let mut delivery = believed(&app, &headers, body, secret).await?;
    let name = event_name(Forge::GitHub, &headers).unwrap_or_default();
    let heard = heard(name, &delivery.body);
    if delivery.events.contains(&Event::Ping) {
        let reply = HookReply {
            pong: true,
            ..HookReply::default()
        };
        return Ok((StatusCode::OK, Json(reply)));
    }
    let view = app.store.view();
    let Some(bound) = bound_of(&view, &known, &heard) else {
        let text = "the installation belongs to no workspace: `skep forge app install` binds it";
        return Ok(ignored(text));
    };
    if let Some(what) = &heard.what {
        return Ok(ignored(&follow(&app, bound, what).await?));
    }
    let Some(repository) = &heard.repository else {
        return Ok(ignored("it is about no repository"));
    };
    let repository = format!("{}/{repository}", known.site.host).to_lowercase();
    let foreign = take_out_foreign(&mut delivery.events, &repository);
    let services = services_of(&view, known.workspace, &repository);
    if delivery.events.is_empty() {
        return Ok(ignored(
            &foreign.unwrap_or_else(|| "it says nothing".to_owned()),
        ));
    }
    if services.is_empty() {
        return Ok(ignored(&format!("no service comes from {repository}")));
    }
    let meant = Meant {
        services: &services,
        is_shared: true,
        is_forced,
    };
    Ok(answer(&app, &resource, meant, &delivery).await?)
}

/// The installation that a delivery is of, if it is bound to the App's workspace.
fn bound_of<'a>(
    view: &'a skep_state::State,
    app: &ForgeApp,
    heard: &Heard,
) -> Option<&'a Installation> {
    let connection = view.forge(app.workspace, &app.site.host)?;
    let mut all = connection.installations().iter();
    all.find(|it| it.app == app.id && Some(it.number) == heard.installation)
}

fn ignored(why: &str) -> (StatusCode, Json<HookReply>) {
    let reply = HookReply {
        ignored: Some(why.to_owned()),
        ..HookReply::default()
    };
    (StatusCode::OK, Json(reply))
}

/// Takes down what became of an installation; answers in words.
async fn follow(app: &App, bound: &Installation, what: &What) -> Result<String, Problem> {
    let mut next = bound.clone();
    let said = after(&mut next, what);
    let removes = *what == What::Gone;
    if next != *bound || removes {
        let command = v1::SetForgeInstallation {
            installation: Some((&next).into()),
            binds: false,
            removes,
        };
        app.store
            .propose(Kind::SetForgeInstallation(command))
            .await?;
    }
    Ok(format!("{said}, at {}", bound.account))
}

/// An installation after this became of it.
fn after(installation: &mut Installation, what: &What) -> &'static str {
    match what {
        What::Gone => "the App is not installed any more",
        What::Suspended(is_suspended) => {
            installation.is_suspended = *is_suspended;
            match is_suspended {
                true => "the installation is suspended",
                false => "the installation gives tokens again",
            }
        }
        What::Permissions(missing) => {
            installation.missing.clone_from(missing);
            "the App may something else"
        }
        What::Repositories => "the App sees other repositories",
        What::Renamed(renamed) => {
            installation.renamed.retain(|it| it.from != renamed.from);
            installation.renamed.push(renamed.clone());
            if installation.renamed.len() > MAX_RENAMED {
                installation.renamed.remove(0);
            }
            "a repository has another name"
        }
        What::Made => "the App is installed",
    }
}

#[cfg(test)]
mod tests {
    use skep_model::forge::Renamed;

    use super::*;

    fn installation() -> Installation {
        Installation {
            app: ForgeAppId::from_u128(1),
            number: 7,
            account: "acme".into(),
            is_organization: true,
            is_suspended: false,
            missing: vec!["statuses: write".into()],
            renamed: Vec::new(),
        }
    }

    #[test]
    fn what_becomes_of_an_installation_is_taken_down() {
        let mut it = installation();
        after(&mut it, &What::Suspended(true));
        assert!(it.is_suspended);
        after(&mut it, &What::Suspended(false));
        after(&mut it, &What::Permissions(Vec::new()));
        assert!(!it.is_suspended && it.missing.is_empty());
        let before = it.clone();
        for what in [What::Repositories, What::Made, What::Gone] {
            after(&mut it, &what);
            assert_eq!(it, before, "{what:?}");
        }
    }

    #[test]
    fn as_many_renamed_repositories_are_kept_as_may_be() {
        let mut it = installation();
        for number in 0..MAX_RENAMED + 3 {
            let (from, to) = (format!("acme/{number}"), format!("acme/new{number}"));
            after(&mut it, &What::Renamed(Renamed { from, to }));
        }
        assert_eq!(it.check(), Ok(()));
        assert_eq!(it.renamed.len(), MAX_RENAMED);
        assert_eq!(it.renamed[0].from, "acme/3");
    }
}
