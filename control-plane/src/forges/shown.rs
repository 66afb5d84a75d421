//! What GitHub is to show as deployments: each deployment that its commit has a status of, in the environment that it is
//! in. A right of its own that may be missing: statuses go on then.

use std::sync::Arc;

use skep_forge::api::{Left, Shown};
use skep_model::deployment::{Deployment, Status};
use skep_model::forge::{Connection, Kept, Kind};
use skep_model::id::ServiceId;
use skep_model::notify::Standing;
use skep_model::service::Service;
use skep_model::settings::Scope;
use skep_model::tenancy::DEFAULT_ENVIRONMENT;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind as Command;
use skep_state::State;

use super::{News, Of, Tried, came, report, tellable};

/// What is to be shown.
#[derive(Debug, Clone)]
pub(crate) struct ToShow {
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) shown: Shown,
    /// Of what it says.
    pub(crate) digest: u64,
    /// GitHub's number for it; none: it is looked for.
    pub(crate) id: Option<u64>,
}

/// What is to be shown of a service's deployments, as far as it is not.
pub(crate) fn shown_news(view: &State, service: ServiceId) -> Vec<News> {
    let all = tellable(view, service).into_iter();
    let news = all.filter_map(|(connection, deployment)| {
        let shown = shown(view, &connection, &deployment)?;
        let before = deployment.shown.as_ref();
        // Whoever may not make one is not asked at every step.
        let is_hopeless = before.is_some_and(|kept| {
            let is_old = kept.at_ms < connection.changed_ms;
            kept.standing == Standing::GivenUp && kept.id.is_none() && !is_old
        });
        if is_hopeless {
            return None;
        }
        let digest = shown.digest();
        let at_ms = connection.kept_due_ms(before, digest)?;
        let to_show = ToShow {
            id: connection.kept_id(before),
            deployment,
            shown,
            digest,
        };
        Some(News {
            connection,
            of: Of::Shown(Box::new(to_show)),
            at_ms,
        })
    });
    news.collect()
}

/// None: its forge has nothing of the kind, the connection is newer, or the service is gone.
fn shown(view: &State, connection: &Connection, deployment: &Deployment) -> Option<Shown> {
    if connection.kind != Kind::GitHub || deployment.created_ms < connection.made_ms {
        return None;
    }
    let service = view.service(deployment.service)?;
    let environment = view.environment(service.environment)?;
    let report = report(view, deployment)?;
    let is_preview = view.preview_around(service).is_some();
    let was_replaced = deployment.status == Status::Superseded;
    Some(Shown {
        mark: deployment.id.to_string(),
        environment: named(view, service)?,
        is_transient: is_preview,
        is_production: environment.name == DEFAULT_ENVIRONMENT && !is_preview,
        state: Some(report.state).filter(|_| !was_replaced && !service.removing),
        repository: report.repository,
        commit: report.commit,
        description: report.description,
        url: report.url,
    })
}

/// `PROJECT/ENVIRONMENT`; with the service where there are several.
fn named(view: &State, service: &Service) -> Option<String> {
    let path = view.path_of(service)?;
    let all = view.services_in(Scope::Environment(service.environment));
    let environment = format!("{}/{}", path.project, path.environment);
    Some(match all.count() {
        0 | 1 => environment,
        _ => format!("{environment}/{}", path.service),
    })
}

/// What is taken down of an attempt to show it.
pub(crate) fn shown_settlement(
    connection: &Connection,
    to_show: &ToShow,
    (left, now_ms): (Left, u64),
) -> Command {
    let deployment = &to_show.deployment;
    let before = deployment.shown.as_ref();
    let same = before.filter(|kept| kept.digest == to_show.digest);
    let tried = Tried {
        id: &deployment.id.to_string(),
        attempts: same.map_or(0, |it| it.attempts).saturating_add(1),
        since_ms: same.map_or(now_ms, |it| it.since_ms),
    };
    let came = came(&tried, left.verdict, now_ms);
    let kept = Kept {
        id: left.id,
        digest: to_show.digest,
        standing: came.standing,
        attempts: tried.attempts,
        since_ms: tried.since_ms,
        at_ms: now_ms,
        problem: came.problem,
    };
    Command::SettleShown(v1::SettleShown {
        workspace: id_bytes(connection.workspace.as_u128()),
        host: connection.host.clone(),
        expected_changed_ms: connection.changed_ms,
        deployment: id_bytes(deployment.id.as_u128()),
        expected_at_ms: before.map_or(0, |kept| kept.at_ms),
        shown: Some((&kept).into()),
        is_refused: came.is_refused,
        resume_ms: came.resume_ms,
    })
}

#[cfg(test)]
mod tests;
