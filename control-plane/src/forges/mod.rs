//! What is still to be told to forges, and what their answers mean for it. Pure: a view in, what is wanted out. When it
//! is sent is `reconcile::forges`'. What pull requests are told of their previews is in `comments`, what
//! GitHub shows as deployments in `shown`.

mod comments;
mod login;
mod shown;
mod tokens;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use skep_forge::Commit;
use skep_forge::api::{self, About, Report, Site, Verdict};
use skep_model::deployment::{Deployment, Origin};
use skep_model::forge::{Connection, Told, shown_status};
use skep_model::id::{ServiceId, WorkspaceId};
use skep_model::notify::{Standing, pause_ms};
use skep_model::problem::{Code, Problem};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;

use crate::outgoing::Reply;
use crate::urls::urls;

#[cfg(test)]
pub(crate) use comments::tests::previewed;
pub(crate) use comments::{Wanted, comment_news, comment_settlement, comment_state};
pub(crate) use login::{AppLogin, app_login};
pub(crate) use shown::{ToShow, shown_news, shown_settlement};
pub use tokens::Tokens;
pub(crate) use tokens::check_key;

/// How long one status, or one text, is tried: a forge that is away over night has it in the morning.
const GIVE_UP_MS: u64 = 24 * 3_600_000;

/// Names a connection.
pub(crate) type Key = (WorkspaceId, String);

/// Something that a forge is to be told.
#[derive(Debug, Clone)]
pub(crate) struct News {
    pub(crate) connection: Arc<Connection>,
    pub(crate) of: Of,
    /// When.
    pub(crate) at_ms: u64,
}

/// What it is told of.
#[derive(Debug, Clone)]
pub(crate) enum Of {
    /// A deployment, at its commit.
    Deployment(Arc<Deployment>),
    /// A preview, at its pull request.
    Preview(Box<Wanted>),
    /// A deployment, in its environment.
    Shown(Box<ToShow>),
}

impl News {
    pub(crate) fn key(&self) -> Key {
        (self.connection.workspace, self.connection.host.clone())
    }

    /// Who comes first: a comment says what several statuses say, and waits for them.
    pub(crate) fn order(&self) -> (u64, u8, u128) {
        let rank = match &self.of {
            Of::Deployment(_) => 0,
            Of::Shown(_) => 1,
            Of::Preview(_) => 2,
        };
        (self.at_ms, rank, self.id())
    }

    /// Of what it tells.
    fn id(&self) -> u128 {
        match &self.of {
            Of::Deployment(deployment) => deployment.id.as_u128(),
            Of::Shown(to_show) => to_show.deployment.id.as_u128(),
            Of::Preview(wanted) => wanted.preview.environment.as_u128(),
        }
    }

    /// Names it in the log.
    pub(crate) fn subject(&self) -> String {
        match &self.of {
            Of::Deployment(deployment) => format!("deployment {}", deployment.id),
            Of::Shown(to_show) => {
                format!("deployment {} in its environment", to_show.deployment.id)
            }
            Of::Preview(wanted) => format!("preview {}", wanted.preview.name),
        }
    }
}

/// What is to be told of a service's deployments, as far as their forges do not know it.
pub(crate) fn news(view: &State, service: ServiceId) -> Vec<News> {
    let all = tellable(view, service).into_iter();
    let news = all.filter_map(|(connection, deployment)| {
        let at_ms = connection.due_ms(&deployment)?;
        let of = Of::Deployment(deployment);
        Some(News {
            connection,
            of,
            at_ms,
        })
    });
    news.collect()
}

/// The deployments of a service that there is somebody to tell of: of each commit the newest.
fn tellable(view: &State, service: ServiceId) -> Vec<(Arc<Connection>, Arc<Deployment>)> {
    let Some(service) = view.service(service) else {
        return Vec::new();
    };
    let environment = view.environment(service.environment);
    let project = environment.and_then(|it| view.project(it.project));
    let Some(project) = project.filter(|_| service.spec.pushes.writes_back()) else {
        return Vec::new();
    };
    let mut all: Vec<_> = view.deployments_of(service.id).collect();
    all.sort_by_key(|deployment| std::cmp::Reverse(deployment.id));
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for deployment in all {
        let Some((host, commit)) = place(deployment) else {
            continue;
        };
        let Some(connection) = view.forge(project.workspace, &host) else {
            continue;
        };
        if seen.insert(commit) {
            found.push((Arc::clone(connection), Arc::clone(deployment)));
        }
    }
    found
}

/// The host of a deployment's forge, and its commit there.
fn place(deployment: &Deployment) -> Option<(String, &str)> {
    let Origin::Git { repository, .. } = &deployment.origin else {
        return None;
    };
    let commit = deployment.commit()?;
    Commit::new(commit).filter(Commit::is_whole)?;
    let (host, _) = skep_forge::place(repository)?;
    Some((host, commit))
}

/// How many deployments and previews a connection is still to be told of.
pub(crate) fn waiting(view: &State, connection: &Connection) -> u64 {
    let services = view.services().map(|service| service.id);
    let deployments =
        services.flat_map(|id| news(view, id).into_iter().chain(shown_news(view, id)));
    let previews = view.previews();
    let previews = previews.filter_map(|it| comment_news(view, it.environment));
    let all = deployments.chain(previews);
    let its = all.filter(|news| {
        news.connection.workspace == connection.workspace && news.connection.host == connection.host
    });
    // A deployment is one, in however many ways it is told of.
    let its: BTreeSet<u128> = its.map(|news| news.id()).collect();
    its.len() as u64
}

/// What is told of a deployment; none: it, or its service, is gone.
pub(crate) fn report(view: &State, deployment: &Deployment) -> Option<Report> {
    let Origin::Git { repository, .. } = &deployment.origin else {
        return None;
    };
    let (_, repository) = skep_forge::place(repository)?;
    let service = view.service(deployment.service)?;
    let path = view.path_of(service)?;
    let (state, description) = api::standing(deployment);
    Some(Report {
        repository,
        commit: deployment.commit()?.to_owned(),
        state,
        context: format!(
            "skep/{}/{}/{}",
            path.project, path.environment, path.service
        ),
        description,
        url: urls(view, service).into_iter().next(),
    })
}

/// Where a connection leads, as whom.
pub(crate) fn site<'a>(connection: &'a Connection, token: &'a str) -> Site<'a> {
    Site {
        kind: connection.kind,
        api_url: &connection.api_url,
        token,
    }
}

/// A request as it is sent.
///
/// # Errors
/// There is none: the API's address or the token does not allow one.
pub(crate) fn request(asked: Option<api::Request>) -> Result<hyper::Request<Full<Bytes>>, String> {
    let asked = asked.ok_or("the address of the API is none")?;
    let mut request = hyper::Request::builder()
        .method(asked.method)
        .uri(asked.url);
    for (name, value) in asked.headers {
        let value = hyper::header::HeaderValue::from_str(&value);
        let mut value = value.map_err(|_| "the token is no text of a header")?;
        value.set_sensitive(name == AUTHORIZATION || name == "private-token");
        request = request.header(name, value);
    }
    let body = match asked.body {
        Some(body) => {
            request = request.header(CONTENT_TYPE, "application/json");
            body.to_string()
        }
        None => String::new(),
    };
    let request = request.body(Full::from(body));
    request.map_err(|_| "the request cannot be written".to_owned())
}

/// What came of a request.
pub(crate) fn verdict(
    connection: &Connection,
    about: About,
    (outcome, now_ms): (&Result<Reply, String>, u64),
) -> Verdict {
    match outcome {
        Err(why) => Verdict::Again(why.clone()),
        Ok(reply) => api::judge(
            connection.kind,
            &api::Answered {
                about,
                status: reply.status,
                headers: &reply.headers,
                body: &reply.body,
                retry_after_ms: reply.retry_after_ms,
                now_s: now_ms / 1_000,
            },
        ),
    }
}

/// How often the same was tried before, and since when.
struct Tried<'a> {
    /// Names it.
    id: &'a str,
    /// With the attempt that was just made.
    attempts: u32,
    since_ms: u64,
}

/// What an attempt comes to.
struct Came {
    standing: Standing,
    is_refused: bool,
    resume_ms: u64,
    problem: Option<String>,
}

/// What follows from an answer: for what was told, and for the connection.
fn came(tried: &Tried<'_>, verdict: Verdict, now_ms: u64) -> Came {
    let later = |at_ms: u64| match at_ms > tried.since_ms.saturating_add(GIVE_UP_MS) {
        true => Standing::GivenUp,
        false => Standing::Pending { next_ms: at_ms },
    };
    let own_ms = now_ms.saturating_add(pause_ms(tried.id, tried.attempts));
    let is_refused = matches!(verdict, Verdict::Unknown(_));
    let mut resume_ms = 0;
    let (standing, problem) = match verdict {
        Verdict::Taken => (Standing::Delivered, None),
        Verdict::Never(why) => (Standing::GivenUp, Some(why)),
        Verdict::Later { pause_ms, why } => {
            resume_ms = now_ms.saturating_add(pause_ms);
            (later(resume_ms), Some(why))
        }
        Verdict::Again(why) | Verdict::Unknown(why) => (later(own_ms), Some(why)),
    };
    Came {
        standing,
        is_refused,
        resume_ms,
        problem,
    }
}

/// What is taken down of an attempt to tell of a deployment.
pub(crate) fn settlement(
    connection: &Connection,
    deployment: &Deployment,
    (verdict, now_ms): (Verdict, u64),
) -> Kind {
    let status = shown_status(deployment);
    let before = deployment.told.as_ref();
    let same = before.filter(|told| told.status == status);
    let tried = Tried {
        id: &deployment.id.to_string(),
        attempts: same.map_or(0, |told| told.attempts).saturating_add(1),
        since_ms: same.map_or(now_ms, |told| told.since_ms),
    };
    let came = came(&tried, verdict, now_ms);
    let told = Told {
        status,
        standing: came.standing,
        attempts: tried.attempts,
        since_ms: tried.since_ms,
        at_ms: now_ms,
    };
    Kind::SettleForge(v1::SettleForge {
        workspace: id_bytes(connection.workspace.as_u128()),
        host: connection.host.clone(),
        expected_changed_ms: connection.changed_ms,
        deployment: id_bytes(deployment.id.as_u128()),
        expected_at_ms: before.map_or(0, |told| told.at_ms),
        told: Some((&told).into()),
        is_refused: came.is_refused,
        resume_ms: came.resume_ms,
        problem: came.problem,
    })
}

/// Who the token of a connection is, of an answer to that question.
///
/// # Errors
/// The forge does not say.
pub(crate) fn who(
    connection: &Connection,
    outcome: &Result<Reply, String>,
    now_ms: u64,
) -> Result<String, Problem> {
    let failed = |why: String| {
        let text = format!("{} at {}: {why}", connection.kind, connection.api_url);
        Problem::new(Code::Unavailable, text)
            .hint("`skep forge add` again, with another --api-url, --ca or token")
    };
    match verdict(connection, About::Token, (outcome, now_ms)) {
        Verdict::Taken => {}
        Verdict::Unknown(why)
        | Verdict::Never(why)
        | Verdict::Again(why)
        | Verdict::Later { why, .. } => return Err(failed(why)),
    }
    let body = outcome.as_ref().map(|reply| reply.body.clone());
    let name = api::who(connection.kind, &body.unwrap_or_default());
    name.ok_or_else(|| failed("it answers, and not as this kind of forge does".to_owned()))
}

#[cfg(test)]
mod tests;
