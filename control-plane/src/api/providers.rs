//! Providers: list without their secrets, set, take away, and ask what they show. What is no Proxmox cluster is in `machines`.

mod machines;

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_model::node::HOST;
use skep_model::problem::{Code, Problem};
use skep_model::provider::{Provider, Proxmox, Trust, Way, WayKind};
use skep_model::variable::Sealed;
use skep_pools::{orphans, whereabouts};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proxmox::calls::{access, cluster};
use skep_state::State;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path};
use super::types::{
    HostView, OrphanView, ProviderRequest, ProviderStateView, ProviderView, ProvidersView,
};
use super::{App, Here};
use crate::guests::clients::{Hosts, connect};
use crate::guests::privileges;

/// The name of a provider.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ProviderKey {
    /// Its name.
    provider: String,
}

/// Lists the providers that make guests.
#[utoipa::path(get, path = "/v1/providers", tag = "cluster", operation_id = "list_providers",
    responses((status = 200, body = ProvidersView)))]
pub(super) async fn list(Here(app): Here) -> Json<ProvidersView> {
    let view = app.store.view();
    let providers = view.providers().map(|it| (&**it).into()).collect();
    Json(ProvidersView { providers })
}

/// Says who makes guests. A Proxmox cluster is asked first: what cannot be asked is not kept. Its secret is sealed, and never
/// shown. A program has to be in the folder of the server that is asked.
#[utoipa::path(put, path = "/v1/providers/{provider}", tag = "cluster", params(ProviderKey),
    operation_id = "put_provider", request_body = ProviderRequest,
    responses((status = 200, body = ProviderView)))]
pub(super) async fn put(
    Here(app): Here,
    Path(key): Path<ProviderKey>,
    Body(request): Body<ProviderRequest>,
) -> Result<Json<ProviderView>, Failure> {
    let way = match machines::said(&request)? {
        Some(way) => way,
        None => Way::Proxmox(proxmox(&app, &key.provider, request)?),
    };
    let provider = Provider {
        name: key.provider.clone(),
        way,
        // Set where it is obeyed.
        made_ms: 0,
        changed_ms: 0,
    };
    provider.check()?;
    match &provider.way {
        Way::Proxmox(_) => {
            let client = connect(&provider, &app.secrets)?;
            client.send(&access::version()).await.map_err(unreachable)?;
        }
        Way::Exec(program) => {
            machines::find(&app, program).await?;
        }
        Way::Static(_) => {}
    }
    let command = v1::PutProvider {
        provider: Some((&provider).into()),
    };
    app.store.propose(Kind::PutProvider(command)).await?;
    let view = app.store.view();
    let stored = find(&view, &key.provider)?;
    Ok(Json(stored.into()))
}

/// Takes a provider away; refused while a pool is made by it.
#[utoipa::path(delete, path = "/v1/providers/{provider}", tag = "cluster", params(ProviderKey),
    operation_id = "remove_provider", responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<ProviderKey>,
) -> Result<StatusCode, Failure> {
    let command = v1::RemoveProvider { name: key.provider };
    app.store.propose(Kind::RemoveProvider(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Asks a provider: its version, what its token lacks, its hosts, and guests of ours that nobody knows of.
#[utoipa::path(get, path = "/v1/providers/{provider}/state", tag = "cluster", params(ProviderKey),
    operation_id = "get_provider_state", responses((status = 200, body = ProviderStateView)))]
pub(super) async fn state(
    Here(app): Here,
    Path(key): Path<ProviderKey>,
) -> Result<Json<ProviderStateView>, Failure> {
    let view = app.store.view();
    let provider = find(&view, &key.provider)?.clone();
    let state = match &provider.way {
        Way::Proxmox(_) => {
            let client = connect(&provider, &app.secrets)?;
            ask(&app, &view, (&key.provider, &client)).await?
        }
        Way::Exec(program) => machines::program(&app, &view, (&provider.name, program)).await,
        Way::Static(list) => machines::list(&view, (&provider.name, list)),
    };
    Ok(Json(state))
}

/// The Proxmox cluster that a request speaks of.
fn proxmox(app: &App, name: &str, request: ProviderRequest) -> Result<Proxmox, Problem> {
    let lacks = |field: &'static str, hint: &'static str| {
        move || Problem::invalid(field, "it is missing").hint(hint)
    };
    let trust = request.trust.ok_or_else(lacks(
        "trust",
        "how its hosts prove who they are: `ca` or `pins`; or `program`, or `machines`",
    ))?;
    let token_id = request
        .token_id
        .ok_or_else(lacks("token_id", "the API token's name: skep@pve!skep"))?;
    let view = app.store.view();
    let known = view.provider(name);
    let secret = match &request.secret {
        Some(secret) if !secret.is_empty() => app.secrets.seal_provider(name, secret),
        _ => kept(known.map(|it| &**it), &trust, &token_id)?,
    };
    Ok(Proxmox {
        endpoints: request.endpoints,
        trust,
        token_id,
        secret,
    })
}

/// The secret that is there already: only for whoever it was given for. Else whoever may change a provider could have it sent
/// to a machine of their own.
fn kept(known: Option<&Provider>, trust: &Trust, token_id: &str) -> Result<Sealed, Problem> {
    let known = known.and_then(|it| match &it.way {
        Way::Proxmox(proxmox) => Some(proxmox),
        Way::Exec(_) | Way::Static(_) => None,
    });
    let is_same = |it: &&Proxmox| it.trust == *trust && it.token_id == token_id;
    if let Some(same) = known.filter(is_same) {
        return Ok(same.secret.clone());
    }
    let text = match known {
        None => "the API token's secret is missing",
        Some(_) => "the secret is needed again: it is for another token, or for other certificates",
    };
    Err(Problem::invalid("secret", text).hint("`pveum user token add` shows it once"))
}

async fn ask(
    app: &App,
    view: &State,
    (name, client): (&str, &Hosts),
) -> Result<ProviderStateView, Problem> {
    let version = client.send(&access::version()).await.map_err(unreachable)?;
    let may = client
        .send(&access::permissions())
        .await
        .map_err(unreachable)?;
    let rows = client
        .send(&cluster::guests())
        .await
        .map_err(unreachable)?
        .rows;
    let hosts = client
        .send(&cluster::hosts())
        .await
        .map_err(unreachable)?
        .rows;
    // Looked at after the hosts: what was made meanwhile is written down by now.
    let now = app.store.view();
    let is_its = |pool: &str| now.guest_pool(pool).is_some_and(|it| it.provider == name);
    let ours: Vec<_> = now
        .guests()
        .filter(|one| is_its(&one.pool))
        .map(|one| one.guest.clone())
        .collect();
    let needed: Vec<_> = view
        .guest_pools()
        .filter(|pool| pool.provider == name)
        .flat_map(|pool| privileges::needed(&pool.recipe, pool.backups.as_ref()))
        .collect();
    let missing = may
        .missing(&needed)
        .into_iter()
        .map(|it| format!("{} on {}", it.privileges.join(" or "), it.path));
    let on = whereabouts(&rows);
    let shown = hosts.iter().map(|host| {
        let there = rows
            .iter()
            .filter(|row| row.node.as_deref() == Some(host.node.as_str()));
        let promised = there.clone().filter(|row| !row.is_template());
        HostView {
            name: host.node.clone(),
            online: host.is_online(),
            maintenance: host.ha_state.as_deref() == Some("maintenance"),
            memory_bytes: host.maxmem.unwrap_or(0),
            promised_bytes: promised.filter_map(|row| row.maxmem).sum(),
            guests: u32::try_from(on.values().filter(|it| **it == host.node).count())
                .unwrap_or(u32::MAX),
            nodes: now
                .nodes()
                .filter(|node| node.meta(HOST) == Some(host.node.as_str()))
                .map(|node| node.name.clone())
                .collect(),
        }
    });
    let found = orphans(&ours, &rows).into_iter().map(|it| OrphanView {
        vmid: it.vmid,
        host: it.host,
        name: it.name,
        why: it.why,
    });
    let mut missing: Vec<String> = missing.collect();
    missing.sort();
    missing.dedup();
    Ok(ProviderStateView {
        kind: WayKind::Proxmox,
        program: None,
        machines: Vec::new(),
        version: version.version,
        missing,
        hosts: shown.collect(),
        orphans: found.collect(),
    })
}

fn find<'a>(view: &'a State, name: &str) -> Result<&'a Provider, Problem> {
    view.provider(name).map(|it| &**it).ok_or_else(|| {
        let text = format!("there is no provider `{}`", name.escape_debug());
        Problem::new(Code::NotFound, text)
            .at("provider")
            .hint("`skep provider ls` lists them, `skep provider set` makes one")
    })
}

/// What a provider says, as a problem.
pub(super) fn unreachable(error: skep_proxmox::Error) -> Problem {
    use skep_proxmox::Kind as Why;
    let (code, hint) = match error.kind {
        Why::Unauthenticated => (
            Code::Invalid,
            "is the token there, and is its secret this one? `pveum user token list USER`",
        ),
        Why::Permission(_) => (
            Code::Invalid,
            "docs/install-proxmox.md has the privileges that the token needs",
        ),
        Why::NotAnswered => (
            Code::Unavailable,
            "is it reached from this server, and is the certificate the one that is expected?",
        ),
        _ => (Code::Unavailable, "`skep provider show NAME` asks again"),
    };
    Problem::new(code, error.to_string())
        .at("provider")
        .hint(hint)
}
