//! Copies of guests that have left their pool: which are left on its storage, and their end, by a person's word alone.

use std::collections::BTreeSet;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use skep_model::id::GuestId;
use skep_model::pool::{Departed, name_of};
use skep_model::problem::{Code, Problem};
use skep_model::schedule::utc;
use skep_pools::{Archive, Driver, Left};
use utoipa::IntoParams;

use super::access::Said;
use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::node_pools::{NodePoolKey, PlanQuery, find};
use super::providers::unreachable;
use super::types::{DepartedArchiveView, NodePlanView, PoolBackupsView, RemovePoolBackupsRequest};
use super::{App, Here};
use crate::guests::clients::{Hosts, connect};

/// Most copies that one request removes.
const REMOVED_MAX: usize = 500;

/// Which storage is looked at.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StorageQuery {
    /// A Proxmox storage; none: the one that the pool's guests are copied to.
    storage: Option<String>,
}

/// Lists the copies that are left of guests that have left a pool: its provider is asked. What the cluster does not remember
/// as a guest of this pool is counted, and left alone.
#[utoipa::path(get, path = "/v1/node-pools/{pool}/backups", tag = "cluster", params(NodePoolKey, StorageQuery),
    operation_id = "list_pool_backups", responses((status = 200, body = PoolBackupsView)))]
pub(super) async fn list(
    Here(app): Here,
    Path(key): Path<NodePoolKey>,
    Query(query): Query<StorageQuery>,
) -> Result<Json<PoolBackupsView>, Failure> {
    let subject = Subject::find(&app, &key.pool, query.storage)?;
    let (_, left) = subject.left().await?;
    Ok(Json(PoolBackupsView {
        storage: subject.storage,
        archives: left.archives.into_iter().map(shown).collect(),
        unknown: u32::try_from(left.unknown).unwrap_or(u32::MAX),
    }))
}

/// Removes copies of guests that have left a pool, by their names. One of them that is not proven to be such a copy, or is
/// protected, and none is removed.
#[utoipa::path(post, path = "/v1/node-pools/{pool}/backups/remove", tag = "cluster", params(NodePoolKey, PlanQuery),
    operation_id = "remove_pool_backups", request_body = RemovePoolBackupsRequest,
    responses((status = 200, body = NodePlanView)))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<NodePoolKey>,
    Query(query): Query<PlanQuery>,
    Body(request): Body<RemovePoolBackupsRequest>,
) -> Result<Response, Failure> {
    let wanted: BTreeSet<&str> = request.archives.iter().map(String::as_str).collect();
    if wanted.is_empty() || wanted.len() > REMOVED_MAX {
        let text = format!("{} copies are named", wanted.len());
        let hint = format!("1 to {REMOVED_MAX} at a time");
        return Err(Problem::invalid("archives", text).hint(hint).into());
    }
    let subject = Subject::find(&app, &key.pool, request.storage.clone())?;
    let (host, left) = subject.left().await?;
    let chosen = chosen(&key.pool, &wanted, &left)?;
    let steps = chosen.iter().map(|(one, archive)| told(one, archive));
    let view = NodePlanView {
        steps: steps.collect(),
        against: Vec::new(),
    };
    if query.plan() {
        return Ok(Json(view).into_response());
    }
    let mut removed: Vec<&str> = Vec::new();
    for (_, archive) in &chosen {
        let ended = subject
            .driver()
            .remove_left(&host, &subject.storage, archive)
            .await;
        if let Err(error) = ended {
            let problem = unreachable(error);
            let text = format!(
                "`{}` is not removed, {} of {} before it were: {}",
                archive.volid,
                removed.len(),
                chosen.len(),
                problem.message
            );
            let mut response = Failure::from(Problem {
                message: text,
                ..problem
            })
            .into_response();
            response.extensions_mut().insert(Said(outcome(&removed)));
            return Ok(response);
        }
        tracing::info!(
            pool = key.pool,
            archive = archive.volid,
            "a copy of a departed guest was removed"
        );
        removed.push(&archive.volid);
    }
    let mut response = Json(view).into_response();
    response.extensions_mut().insert(Said(outcome(&removed)));
    Ok(response)
}

/// For the audit trail.
fn outcome(removed: &[&str]) -> String {
    format!("{} removed: {}", removed.len(), removed.join(", "))
}

/// The copies that are named, each proven and free to go.
fn chosen<'a>(
    pool: &str,
    wanted: &BTreeSet<&str>,
    left: &'a Left,
) -> Result<Vec<&'a (Departed, Archive)>, Problem> {
    let by_name = |name: &str| left.archives.iter().find(|(_, it)| it.volid == name);
    let mut found = Vec::new();
    for name in wanted {
        let Some(one) = by_name(name) else {
            let text = format!(
                "`{}` is no copy of a guest that has left the pool `{pool}`",
                name.escape_debug()
            );
            return Err(Problem::new(Code::NotFound, text)
                .at("archives")
                .hint(format!(
                    "`skep pool backups {pool}` lists them; nothing was removed"
                )));
        };
        if one.1.is_protected {
            let text = format!("`{name}` is marked as protected in Proxmox");
            return Err(Problem::new(Code::Conflict, text)
                .at("archives")
                .hint("whoever has marked it takes that back there first; nothing was removed"));
        }
        found.push(one);
    }
    Ok(found)
}

fn told(one: &Departed, archive: &Archive) -> String {
    let size = archive.bytes.map(|it| format!(", {} MiB", it >> 20));
    format!(
        "`{}` is removed: {} of {}{}",
        archive.volid,
        name_of(one.id),
        utc(archive.at_ms),
        size.unwrap_or_default()
    )
}

fn shown((one, archive): (Departed, Archive)) -> DepartedArchiveView {
    DepartedArchiveView {
        guest: name_of(one.id),
        vmid: one.vmid,
        gone_ms: one.gone_ms,
        archive: archive.volid,
        at_ms: archive.at_ms,
        bytes: archive.bytes,
        protected: archive.is_protected,
    }
}

/// A pool whose guests have left, and whom to ask.
struct Subject {
    client: Hosts,
    pool: skep_model::guest_pool::GuestPool,
    storage: String,
    departed: Vec<Departed>,
    known: BTreeSet<GuestId>,
}

impl Subject {
    fn find(app: &App, name: &str, storage: Option<String>) -> Result<Self, Problem> {
        let view = app.store.view();
        let pool = find(&view, name)?;
        let provider = view.provider(&pool.provider).ok_or_else(|| {
            let text = format!("there is no provider `{}`", pool.provider);
            Problem::new(Code::NotFound, text)
        })?;
        if !provider.way.is_proxmox() {
            let text = format!(
                "the provider `{}` is {}, which makes no copies of guests",
                provider.name,
                provider.way.kind().word()
            );
            return Err(Problem::new(Code::Conflict, text)
                .at("pool")
                .hint("what is left of its machines is whoever's who copies them"));
        }
        let own = pool.backups.as_ref().map(|it| it.storage.clone());
        let Some(storage) = storage.or(own) else {
            let text = format!("the pool `{name}` does not say where its guests are copied to");
            return Err(Problem::new(Code::Conflict, text)
                .at("storage")
                .hint("name the storage: `--storage NAME`"));
        };
        Ok(Self {
            client: connect(provider, &app.secrets)?,
            pool: pool.clone(),
            storage,
            departed: view.departed_of(name).map(|it| (**it).clone()).collect(),
            known: view.guests().map(|it| it.guest.id).collect(),
        })
    }

    fn driver(&self) -> Driver<'_, skep_proxmox::Https> {
        Driver {
            client: &self.client,
            recipe: &self.pool.recipe,
        }
    }

    async fn left(&self) -> Result<(String, Left), Problem> {
        let driver = self.driver();
        let asked = driver.left(&self.storage, (&self.departed, &self.known));
        asked.await.map_err(unreachable)?.ok_or_else(|| {
            let text = "none of the hosts that have a template is there now";
            Problem::new(Code::Unavailable, text)
                .at("pool")
                .hint(format!(
                    "`skep provider show {}` says how they are",
                    self.pool.provider
                ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_may_not_go_keeps_all() {
        let archive = |name: &str, is_protected| {
            let one = Departed {
                id: GuestId::from_u128(7),
                pool: "web".to_owned(),
                vmid: 5001,
                gone_ms: 5,
            };
            let archive = Archive {
                volid: name.to_owned(),
                at_ms: 5,
                bytes: None,
                is_protected,
            };
            (one, archive)
        };
        let left = Left {
            archives: vec![
                archive("nas:a", false),
                archive("nas:b", true),
                archive("nas:c", false),
            ],
            unknown: 1,
        };
        let names = |wanted: &[&str]| -> Result<Vec<String>, Code> {
            let wanted = wanted.iter().copied().collect();
            let found = chosen("web", &wanted, &left).map_err(|it| it.code)?;
            Ok(found
                .into_iter()
                .map(|(_, it)| it.volid.clone())
                .collect::<Vec<_>>())
        };
        assert_eq!(
            names(&["nas:c", "nas:a"]),
            Ok(vec!["nas:a".to_owned(), "nas:c".to_owned()])
        );
        assert_eq!(names(&["nas:a", "nas:b"]), Err(Code::Conflict));
        assert_eq!(names(&["nas:a", "nas:d"]), Err(Code::NotFound));
    }
}
