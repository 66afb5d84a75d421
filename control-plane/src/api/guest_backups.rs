//! Copies of the guests of a pool: which there are, one more now, and a guest that becomes an older copy of itself.

use axum::Json;
use axum::http::StatusCode;
use skep_model::guest_pool::{GuestPool, PoolGuest};
use skep_model::pool::{Backups, Guest};
use skep_model::problem::{Code, Problem};
use skep_pools::{Archive, Driver, due};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;

use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::node_pools::{PlanQuery, made_by};
use super::nodes::{NodeKey, find_node};
use super::providers::unreachable;
use super::types::{BackupBegunView, GuestBackupsView, NodePlanView, RestoreRequest};
use super::{App, Here};
use crate::guests::clients::{Hosts, connect};

/// Lists the copies of a node's guest: its provider is asked.
#[utoipa::path(get, path = "/v1/nodes/{node}/backups", tag = "cluster", params(NodeKey),
    operation_id = "list_node_backups", responses((status = 200, body = GuestBackupsView)))]
pub(super) async fn list(
    Here(app): Here,
    Path(key): Path<NodeKey>,
) -> Result<Json<GuestBackupsView>, Failure> {
    let subject = Subject::find(&app, &key)?;
    let archives = subject.archives().await?;
    let since_ms = subject.one.planned_ms.max(subject.backups.since_ms);
    let next_ms = due(&subject.backups.schedule()?, since_ms, &archives);
    Ok(Json(GuestBackupsView {
        backups: subject.backups,
        next_ms,
        archives: archives.into_iter().map(Into::into).collect(),
    }))
}

/// Begins a copy of a node's guest, beside its schedule. Its end is seen in the list.
#[utoipa::path(post, path = "/v1/nodes/{node}/backups", tag = "cluster", params(NodeKey),
    operation_id = "back_up_node", responses((status = 202, body = BackupBegunView)))]
pub(super) async fn begin(
    Here(app): Here,
    Path(key): Path<NodeKey>,
) -> Result<(StatusCode, Json<BackupBegunView>), Failure> {
    let subject = Subject::find(&app, &key)?;
    let begun = subject.driver();
    let begun = begun.begin_backup(subject.guest(), &subject.backups.storage);
    let upid = begun.await.map_err(unreachable)?;
    let Some(upid) = upid else {
        return Err(subject.out_of_sight().into());
    };
    let view = BackupBegunView {
        task: upid.as_str().to_owned(),
        storage: subject.backups.storage,
    };
    Ok((StatusCode::ACCEPTED, Json(view)))
}

/// Has a node's guest become a copy of itself: it is shut down, its disks are replaced, it starts. What was written since is
/// lost, what else ran there runs elsewhere. Until it runs again another copy may be named, which takes the first one's place.
#[utoipa::path(post, path = "/v1/nodes/{node}/restore", tag = "cluster", params(NodeKey, PlanQuery),
    operation_id = "restore_node", request_body = RestoreRequest,
    responses((status = 200, body = NodePlanView)))]
pub(super) async fn restore(
    Here(app): Here,
    Path(key): Path<NodeKey>,
    Query(query): Query<PlanQuery>,
    Body(request): Body<RestoreRequest>,
) -> Result<Json<NodePlanView>, Failure> {
    let subject = Subject::find(&app, &key)?;
    let archives = subject.archives().await?;
    let Some(archive) = archives.iter().find(|it| it.volid == request.archive) else {
        let text = format!(
            "`{}` is no copy of {}",
            request.archive.escape_debug(),
            subject.guest().name()
        );
        return Err(Problem::new(Code::NotFound, text)
            .at("archive")
            .hint(format!(
                "`skep node backups {}` lists what there is now: name one of these",
                key.node
            ))
            .into());
    };
    let view = app.store.view();
    let told = subject.foreseen(&view, archive);
    if !query.plan() {
        let first = subject.guest().restoring.as_ref();
        let command = v1::RestoreGuest {
            id: id_bytes(subject.guest().id.as_u128()),
            archive: archive.volid.clone(),
            instead_of: first.map(|it| it.archive.clone()).unwrap_or_default(),
        };
        app.store.propose(Kind::RestoreGuest(command)).await?;
    }
    Ok(Json(told))
}

/// A guest whose pool says how it is copied, and whom to ask.
struct Subject {
    client: Hosts,
    pool: GuestPool,
    one: PoolGuest,
    backups: Backups,
}

impl Subject {
    fn find(app: &App, key: &NodeKey) -> Result<Self, Problem> {
        let view = app.store.view();
        let node = find_node(&view, &key.node)?;
        let elsewhere = "a machine that somebody else has made is copied by them";
        let (one, pool, provider) = made_by(&view, &node, elsewhere)?;
        if !provider.way.is_proxmox() {
            let text = format!(
                "the provider `{}` is {}, which makes no copies of guests",
                provider.name,
                provider.way.kind().word()
            );
            return Err(Problem::new(Code::Conflict, text).at("node").hint(
                "copy this machine by its own means, and volumes by `skep volume snapshot`",
            ));
        }
        let Some(backups) = pool.backups.clone() else {
            let text = format!(
                "the pool `{}` does not say how its guests are copied",
                pool.name
            );
            return Err(Problem::new(Code::Conflict, text).at("node").hint(format!(
                "`skep pool change {} --backup '0 3 * * 0' --backup-storage NAME`",
                pool.name
            )));
        };
        Ok(Self {
            client: connect(provider, &app.secrets)?,
            pool: pool.clone(),
            one: one.clone(),
            backups,
        })
    }

    fn guest(&self) -> &Guest {
        &self.one.guest
    }

    fn driver(&self) -> Driver<'_, skep_proxmox::Https> {
        Driver {
            client: &self.client,
            recipe: &self.pool.recipe,
        }
    }

    async fn archives(&self) -> Result<Vec<Archive>, Problem> {
        let driver = self.driver();
        let asked = driver.archives(self.guest(), &self.backups.storage);
        let found = asked.await.map_err(unreachable)?;
        found.ok_or_else(|| self.out_of_sight())
    }

    fn out_of_sight(&self) -> Problem {
        let name = self.guest().name();
        let text = format!("the guest {name} is not to be seen at its provider, or is locked");
        Problem::new(Code::Unavailable, text)
            .at("node")
            .hint("it moves, its host is away, or a task works at it: again in a minute")
    }

    fn foreseen(&self, view: &State, archive: &Archive) -> NodePlanView {
        let name = self.guest().name();
        let at = skep_model::schedule::utc(archive.at_ms);
        let live = self.one.node.map_or(0, |node| {
            view.allocations_on(node).filter(|it| it.is_live()).count()
        });
        let first = self.guest().restoring.as_ref();
        let given_up = first.map(|first| match first.is_back {
            true => format!(
                "{name} has the disks of `{}`, which are given up",
                first.archive
            ),
            false => format!(
                "`{}` is given up: where its restore still runs, its end is waited for",
                first.archive
            ),
        });
        let mut steps = Vec::from_iter(given_up);
        steps.extend([
            format!(
                "{name} is shut down: of {live} allocations there, those without volumes begin on other nodes"
            ),
            format!("its disks become those of {at}: what was written since is lost"),
            format!("{name} starts, and its agent comes back as the same node"),
        ]);
        NodePlanView {
            steps,
            against: Vec::new(),
        }
    }
}
