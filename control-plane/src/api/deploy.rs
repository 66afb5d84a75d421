//! Turning what somebody asked for into a deployment. Never builds and never waits.

use skep_identity::random;
use skep_model::deployment::{Deployment, Origin, Status, Trigger};
use skep_model::gate::Held;
use skep_model::id::{DeploymentId, ServiceId, UploadId};
use skep_model::problem::{Code, Problem};
use skep_model::pushed;
use skep_model::service::Service;
use skep_model::spec::{self, ServiceSpec, Source};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Reply, State};

use crate::deploy::gate::{self, Verdict};
use crate::store::now_ms;

use super::App;
use super::find::{self, ServiceKey};
use super::types::DeploymentRequest;

/// What is to be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// As a client says it.
    Asked(DeploymentRequest),
    /// The newest release that is live or on its way there, with today's configuration.
    Renew,
}

/// How it is carried out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct How {
    /// Build even where there is an image.
    pub(super) no_cache: bool,
    /// What is said to the gates with it.
    pub(super) held: Option<Held>,
}

/// Makes a deployment.
///
/// # Errors
/// There is no such service, nothing to deploy, or a field is not accepted.
pub(super) async fn create(
    app: &App,
    key: &ServiceKey,
    (wish, how): (&Wish, How),
) -> Result<DeploymentId, Problem> {
    let id = DeploymentId::from_u128(random::new_id());
    let upload = UploadId::from_u128(random::new_id());
    let make = |view: &State| {
        let service = find::service(view, key)?;
        let (trigger, origin) = resolve(view, (key, &service), wish, upload)?;
        let deployment = Deployment {
            source: new_source(wish),
            no_cache: how.no_cache,
            held: how.held,
            ..queued(id, service.id, (trigger, origin))
        };
        check_upload(view, &service, &deployment)?;
        Ok(command(&deployment))
    };
    match app.store.change(make).await? {
        Reply::Deployment { deployment, .. } => Ok(deployment),
        _ => Err(Problem::new(Code::Internal, "the deployment was not made")),
    }
}

/// A folder is streamed to where it is built: it cannot wait at a gate.
fn check_upload(view: &State, service: &Service, deployment: &Deployment) -> Result<(), Problem> {
    let Origin::Upload { .. } = deployment.origin else {
        return Ok(());
    };
    let held = deployment.held.unwrap_or_default();
    let verdict = gate::judge((view, service), (deployment, held), (None, now_ms()));
    match verdict {
        Verdict::Open => Ok(()),
        Verdict::Approval(why) | Verdict::Closed { why, .. } | Verdict::Shut(why) => {
            let text = format!("{}, and a folder cannot wait", why.message);
            Err(Problem { message: text, ..why }.hint(
                "`skep up --approve`, with `--despite-freeze` in a freeze; a pinned service has to be unpinned (`skep unpin`)",
            ))
        }
    }
}

/// A deployment that is about to be made.
pub(crate) fn queued(
    id: DeploymentId,
    service: ServiceId,
    (trigger, origin): (Trigger, Origin),
) -> Deployment {
    Deployment {
        id,
        service,
        trigger,
        origin,
        status: Status::Queued,
        problem: None,
        build: None,
        release: None,
        steps: Vec::new(),
        created_ms: 0,
        status_ms: 0,
        generation: 0,
        source: None,
        no_cache: false,
        told: None,
        held: None,
        shown: None,
        push: None,
    }
}

fn command(deployment: &Deployment) -> Kind {
    Kind::CreateDeployment(v1::CreateDeployment {
        deployment: Some(deployment.into()),
        delivery: None,
    })
}

/// What is named for this deployment becomes where the service comes from, once it has made a
/// release.
fn new_source(wish: &Wish) -> Option<Source> {
    match wish {
        Wish::Asked(DeploymentRequest::Git {
            repository,
            branch,
            directory,
            ..
        }) => Some(Source::Git {
            repository: repository.clone(),
            branch: branch.clone(),
            directory: directory.clone(),
        }),
        Wish::Asked(DeploymentRequest::Image { reference }) => Some(Source::Image {
            reference: reference.clone(),
        }),
        _ => None,
    }
}

fn resolve(
    view: &State,
    (key, service): (&ServiceKey, &Service),
    wish: &Wish,
    upload: UploadId,
) -> Result<(Trigger, Origin), Problem> {
    let request = match wish {
        Wish::Asked(request) => request,
        Wish::Renew => {
            let number = service.target().ok_or_else(nothing_live)?.release;
            return Ok((Trigger::Redeploy, Origin::Release { number }));
        }
    };
    let live = || {
        service
            .live
            .map(|live| live.release)
            .ok_or_else(nothing_live)
    };
    Ok(match request {
        DeploymentRequest::Upload => (Trigger::Api, Origin::Upload { upload }),
        DeploymentRequest::Source => (Trigger::Api, from_source(view, service)?),
        DeploymentRequest::Git {
            repository,
            branch,
            commit,
            directory,
        } => {
            let origin = Origin::Git {
                repository: repository.clone(),
                branch: branch.clone(),
                commit: commit.clone(),
                directory: directory.clone(),
            };
            check_git(&origin)?;
            (Trigger::Api, origin)
        }
        DeploymentRequest::Image { reference } => {
            spec::check_image("reference", reference)?;
            (
                Trigger::Api,
                Origin::Image {
                    reference: reference.clone(),
                },
            )
        }
        DeploymentRequest::Promote { from, release } => {
            (Trigger::Promote, promoted(view, key, (from, *release))?)
        }
        DeploymentRequest::Redeploy => (Trigger::Redeploy, Origin::Release { number: live()? }),
        DeploymentRequest::Restart => (Trigger::Restart, Origin::Release { number: live()? }),
        DeploymentRequest::Rollback { release } => {
            let number = match release {
                Some(number) => *number,
                None => previous(view, service)?,
            };
            (Trigger::Rollback, Origin::Release { number })
        }
    })
}

/// The release of the service of the same name in another environment.
fn promoted(
    view: &State,
    key: &ServiceKey,
    (environment, release): (&str, Option<u64>),
) -> Result<Origin, Problem> {
    if environment == key.environment {
        let text = "a release is promoted from another environment";
        return Err(Problem::invalid("from", text)
            .hint("`skep rollback` and `skep redeploy` are about the same one"));
    }
    let there = ServiceKey {
        environment: environment.to_owned(),
        ..key.clone()
    };
    let service = find::service(view, &there).map_err(|problem| problem.at("from"))?;
    let live = || service.live.map(|live| live.release);
    let number = release.or_else(live).ok_or_else(|| {
        let text = format!("nothing of `{}` is live in `{environment}`", key.service);
        Problem::new(Code::Conflict, text)
            .at("from")
            .hint("deploy it there first, or name a release: `skep releases` lists them")
    })?;
    Ok(Origin::Promoted {
        from: service.id,
        number,
    })
}

fn nothing_live() -> Problem {
    Problem::new(Code::Conflict, "nothing of this service is live yet")
        .hint("deploy it first: `skep up` or `skep deploy`")
}

fn from_source(view: &State, service: &Service) -> Result<Origin, Problem> {
    match &service.spec.source {
        Some(Source::Git { repository, branch, directory }) => Ok(Origin::Git {
            repository: repository.clone(),
            branch: branch.clone(),
            commit: None,
            directory: directory.clone(),
        }),
        Some(Source::Pushed { branch, directory }) => of_pushed(view, service.id, (branch, directory)),
        Some(Source::Image { reference }) => Ok(Origin::Image { reference: reference.clone() }),
        None => Err(Problem::new(Code::Conflict, "the service has no source")
            .at("source")
            .hint("upload a folder (`skep up`), or say where from (`skep deploy --repo` or `--image`)")),
    }
}

/// The newest commit of the branch that was pushed.
fn of_pushed(
    view: &State,
    service: ServiceId,
    (branch, directory): (&str, &str),
) -> Result<Origin, Problem> {
    let pushed = view.pushed(service);
    let found = pushed.and_then(|it| it.references.get(&pushed::branch_name(branch)));
    let found = found.ok_or_else(|| {
        let text = format!("nothing of branch `{branch}` was pushed yet");
        Problem::new(Code::Conflict, text)
            .at("source")
            .hint(format!(
                "`git push skep {branch}`; `skep git remote add` sets it up"
            ))
    })?;
    Ok(Origin::Pushed {
        branch: branch.to_owned(),
        commit: found.commit.clone(),
        directory: directory.to_owned(),
    })
}

/// The rules of a service's source, for an origin.
fn check_git(origin: &Origin) -> Result<(), Problem> {
    let Origin::Git {
        repository,
        branch,
        commit,
        directory,
    } = origin
    else {
        return Ok(());
    };
    let source = Source::Git {
        repository: repository.clone(),
        branch: branch.clone(),
        directory: directory.clone(),
    };
    let spec = ServiceSpec {
        source: Some(source),
        ..ServiceSpec::default()
    };
    spec.check().map_err(|mut problem| {
        problem.field = problem
            .field
            .map(|field| field.trim_start_matches("source.").to_owned());
        problem
    })?;
    commit
        .as_deref()
        .map_or(Ok(()), |commit| check_commit("commit", commit))
}

/// A whole commit id, SHA-1 or SHA-256.
///
/// # Errors
/// Names the field.
fn check_commit(field: &str, text: &str) -> Result<(), Problem> {
    let is_id = matches!(text.len(), 40 | 64)
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if is_id {
        return Ok(());
    }
    let shown: String = text.chars().take(70).collect();
    Err(
        Problem::invalid(field, format!("`{}` is not a commit", shown.escape_debug()))
            .hint("the whole id: 40 (or 64) lower-case hex digits, as `git rev-parse` prints it"),
    )
}

/// The release that was live before the live one and is kept still: going back twice goes back two
/// releases, never forth again.
fn previous(view: &State, service: &Service) -> Result<u64, Problem> {
    let live = service.live.ok_or_else(nothing_live)?.release;
    // What was live and made room has no problem; what was superseded on its way has one.
    let was_live = |of: &&std::sync::Arc<Deployment>| {
        matches!(of.status, Status::Superseded | Status::RolledBack) && of.problem.is_none()
    };
    view.deployments_of(service.id)
        .filter(was_live)
        .filter_map(|of| of.release)
        .filter(|number| *number < live && view.release(service.id, *number).is_some())
        .max()
        .ok_or_else(|| {
            let kept: Vec<String> = view
                .releases_of(service.id)
                .map(|of| of.number.to_string())
                .collect();
            Problem::new(
                Code::Conflict,
                format!("no release was live before release {live}, which is live"),
            )
            .at("release")
            .hint(format!(
                "name one of those that are kept: {}",
                kept.join(", ")
            ))
        })
}
