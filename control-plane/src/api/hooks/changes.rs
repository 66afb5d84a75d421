//! Pull requests: told once to each environment that the delivery is for, and carried out as one command each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_forge::{Change, clean};
use skep_model::id::{DeploymentId, EnvironmentId};
use skep_model::preview::Why;
use skep_model::problem::Problem;
use skep_model::service::Service;
use skep_model::settings::Scope;
use skep_proto::convert::{enum_number, id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Reply, State};

use crate::api::App;
use crate::api::types::HookEvent;
use crate::previews::{Heard, Meaning, make, meaning, pushed, repository};

/// Takes a pull request for every environment of these services; the delivery's key is made of the environment.
pub(super) async fn take(
    app: &App,
    services: &[Arc<Service>],
    (change, shown): (&Change, &str),
    key: impl Fn(EnvironmentId) -> Option<String>,
) -> Result<Vec<HookEvent>, Problem> {
    let view = app.store.view();
    let mut bases: BTreeMap<EnvironmentId, Vec<Arc<Service>>> = BTreeMap::new();
    for service in services {
        // A preview has the branch of its own request: nobody asks to merge into that.
        if view.preview_of(service.environment).is_none() {
            let base = bases.entry(service.environment).or_default();
            base.push(Arc::clone(service));
        }
    }
    let mut told = Vec::new();
    for (base, meant) in &bases {
        // A webhook of one service speaks for all that come from its repository.
        let names: BTreeSet<String> = meant.iter().filter_map(|it| repository(it)).collect();
        let all = view.services_in(Scope::Environment(*base));
        let services: Vec<_> = all
            .filter(|it| repository(it).is_some_and(|name| names.contains(&name)))
            .cloned()
            .collect();
        let services = &services[..];
        let heard = Heard {
            base: *base,
            services,
            change,
        };
        let mut event = obey(app, &view, &heard, key(*base)).await?;
        event.event = clean(shown);
        event.service = Some(name_of(&view, *base));
        told.push(event);
    }
    Ok(told)
}

/// `project/environment`.
fn name_of(view: &State, environment: EnvironmentId) -> String {
    let environment = view.environment(environment);
    let project = environment.and_then(|it| view.project(it.project));
    match (project, environment) {
        (Some(project), Some(environment)) => format!("{}/{}", project.name, environment.name),
        _ => String::new(),
    }
}

async fn obey(
    app: &App,
    view: &State,
    heard: &Heard<'_>,
    key: Option<String>,
) -> Result<HookEvent, Problem> {
    let was_taken = key
        .as_deref()
        .is_some_and(|key| view.delivery(key).is_some());
    let (command, first, decision) = match meaning(view, heard) {
        _ if was_taken => return Ok(told("this delivery was taken before".to_owned(), None)),
        Meaning::Nothing(why) => return Ok(told(why, None)),
        Meaning::Make(wish) => match make(view, &app.secrets, &wish) {
            Err(problem) => return Ok(told(problem.to_string(), None)),
            Ok(made) => {
                let first = made.deployments.first().map(|it| it.id.clone());
                let command = v1::MakePreview {
                    delivery: key,
                    ..made
                };
                let text = format!("the preview `{}` was made", wish.name);
                (Kind::MakePreview(command), first, text)
            }
        },
        Meaning::Push(preview, head) => {
            let deployments = pushed(view, &preview, &head);
            let first = deployments.first();
            let first = first.map(|it| id_bytes(it.id.as_u128()));
            let command = v1::PushPreview {
                environment: id_bytes(preview.environment.as_u128()),
                commit: head.commit.clone(),
                heard_ms: heard.change.updated_ms,
                deployments: deployments.iter().map(Into::into).collect(),
                delivery: key,
            };
            let text = format!("the preview `{}` is deployed again", preview.name);
            (Kind::PushPreview(command), first, text)
        }
        Meaning::End(preview, why) => {
            let command = v1::EndPreview {
                environment: id_bytes(preview.environment.as_u128()),
                why: enum_number(&Why::ALL, &why),
                heard_ms: heard.change.updated_ms,
                delivery: key,
                expected_expires_ms: None,
            };
            let text = format!("the preview `{}` goes", preview.name);
            (Kind::EndPreview(command), None, text)
        }
    };
    match app.store.propose(command).await {
        Ok(Reply::Done | Reply::Environment { .. }) => Ok(told(decision, made(app, first))),
        Ok(_) => Ok(told(decision, None)),
        // The forge may deliver it again.
        Err(problem) if problem.code.is_retryable() => Err(problem),
        Err(problem) => Ok(told(format!("no preview: {problem}"), None)),
    }
}

/// The deployment of this id, where it was made: a commit that was deployed before is not again.
fn made(app: &App, id: Option<Vec<u8>>) -> Option<DeploymentId> {
    let id = DeploymentId::from_u128(id_bits("deployment", &id?).ok()?);
    app.store.view().deployment(id).map(|it| it.id)
}

fn told(decision: String, deployment: Option<DeploymentId>) -> HookEvent {
    HookEvent {
        event: String::new(),
        service: None,
        decision,
        deployment,
        replayed: false,
    }
}
