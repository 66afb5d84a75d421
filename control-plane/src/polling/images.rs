//! Images that are asked at their registry what their tag stands for by now. Pure, as the rest of `polling`: a tag that
//! moved is deployed by the digest that was found, so that every node runs that very image.

use skep_model::deployment::{BuildOutcome, Deployment, Origin};
use skep_model::id::ServiceId;
use skep_model::polling::Polled;
use skep_model::problem::Problem;
use skep_model::registry::{Found, host_of};
use skep_model::service::Service;
use skep_model::spec::{Pull, Source};
use skep_state::State;

use super::{Book, Step};

/// What is remembered of in place of a branch.
const REFERENCE: &str = "image";
/// What Docker takes where no tag is said.
const LATEST: &str = "latest";

/// What is to be asked for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// Whose.
    pub(crate) service: ServiceId,
    /// The service's own words: `registry.example.com/team/app:1`.
    pub(crate) image: String,
    /// Its registry.
    pub(crate) host: String,
    /// Behind the host.
    pub(crate) repository: String,
    /// Behind the repository.
    pub(crate) tag: String,
}

impl Book {
    /// The services whose images are due, and when the next one is.
    pub(crate) fn due_images(&mut self, view: &State, now_ms: u64) -> (Vec<Look>, Option<u64>) {
        let mut due = Vec::new();
        let mut next_ms: Option<u64> = None;
        for service in view.services() {
            let Some((look, every_ms)) = look(service) else {
                continue;
            };
            let is_known = note(view, &look).is_some();
            let at_ms = self.at_ms((service.id, &look.image), every_ms, is_known);
            if at_ms <= now_ms {
                due.push(look);
            } else {
                next_ms = Some(next_ms.map_or(at_ms, |next| next.min(at_ms)));
            }
        }
        (due, next_ms)
    }
}

/// What is asked for a service, and how often; none: nothing is. What is named by its digest is what it is.
fn look(service: &Service) -> Option<(Look, u64)> {
    // Registries count who asks them: none is asked that nobody names.
    let every_ms = service.spec.pushes.poll_ms.filter(|ms| *ms > 0)?;
    let Some(Source::Image { reference }) = &service.spec.source else {
        return None;
    };
    let is_pulled = service.spec.image.pull != Pull::Never;
    if service.removing || !is_pulled || reference.contains('@') {
        return None;
    }
    let host = host_of(reference);
    let name = reference.strip_prefix(host).unwrap_or(reference);
    let name = name.trim_start_matches('/');
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, LATEST));
    let look = Look {
        service: service.id,
        image: reference.clone(),
        host: host.to_owned(),
        repository: repository.to_owned(),
        tag: tag.to_owned(),
    };
    Some((look, every_ms))
}

/// What is remembered of this very image.
fn note<'a>(view: &'a State, look: &Look) -> Option<&'a Polled> {
    let polled = view.polled(look.service)?;
    let is_same = polled.repository == look.image && polled.reference == REFERENCE;
    is_same.then_some(&**polled)
}

/// What an answer means for a service; none: nothing that is not known already, or the service is another by now.
pub(crate) fn meaning(view: &State, asked: &Look, found: &Found) -> Option<Step> {
    let service = view.service(asked.service)?;
    let (now, _) = look(service)?;
    if now != *asked {
        return None;
    }
    let known = note(view, &now);
    match found {
        Err(problem) => trouble(&now, known, problem),
        Ok(digest) => of_digest(view, service, (&now, known), digest),
    }
}

/// It is said once: what is known already is nothing new.
fn trouble(look: &Look, known: Option<&Polled>, problem: &Problem) -> Option<Step> {
    if known.and_then(|it| it.problem.as_ref()) == Some(problem) {
        return None;
    }
    let polled = known.cloned().unwrap_or_else(|| remembered(look));
    Some(Step {
        polled: Polled {
            problem: Some(problem.clone()),
            ..polled
        },
        deploy: None,
    })
}

fn of_digest(
    view: &State,
    service: &Service,
    (look, known): (&Look, Option<&Polled>),
    digest: &str,
) -> Option<Step> {
    let step = |deploy| {
        Some(Step {
            polled: Polled {
                commit: Some(digest.to_owned()),
                ..remembered(look)
            },
            deploy,
        })
    };
    if known.is_some_and(|it| it.commit.as_deref() == Some(digest)) {
        return known
            .and_then(|it| it.problem.as_ref())
            .and_then(|_| step(None));
    }
    let newest = newest(view, service, &look.image);
    match newest.map(|it| (digest_of(it), it.status.is_active())) {
        // Nothing is deployed yet: what comes from now on is.
        None => step(None),
        Some((Some(deployed), _)) if deployed == digest => step(None),
        // What it finds may be this.
        Some((None, true)) => None,
        Some(_) => {
            let reference = format!("{}@{digest}", look.image);
            let why = format!("found at the registry: {} is {digest} now", look.image);
            step(Some((Origin::Image { reference }, why)))
        }
    }
}

fn remembered(look: &Look) -> Polled {
    Polled {
        service: look.service,
        repository: look.image.clone(),
        reference: REFERENCE.to_owned(),
        tag: None,
        commit: None,
        problem: None,
        since_ms: 0,
    }
}

/// The newest deployment of this image, under its tag or by a digest.
fn newest<'a>(view: &'a State, service: &Service, image: &str) -> Option<&'a Deployment> {
    let is_its = |it: &&std::sync::Arc<Deployment>| match &it.origin {
        Origin::Image { reference } => {
            reference == image
                || reference
                    .split_once('@')
                    .is_some_and(|(name, _)| name == image)
        }
        _ => false,
    };
    view.deployments_of(service.id)
        .filter(is_its)
        .max_by_key(|it| (it.created_ms, it.id))
        .map(|it| &**it)
}

/// The digest that a deployment found, or was to have; none: nobody knows yet.
fn digest_of(deployment: &Deployment) -> Option<&str> {
    let outcome = deployment.build.as_ref().and_then(|it| it.outcome.as_ref());
    match (outcome, &deployment.origin) {
        (Some(BuildOutcome::Built(built)), _) => Some(&built.image.digest),
        (_, Origin::Image { reference }) => reference.split_once('@').map(|(_, digest)| digest),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
