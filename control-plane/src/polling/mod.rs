//! What repositories are asked when, and what is done about the answers: what a forge never sent is found this way.
//! Pure: a view and a time in, questions and effects out. Whoever asks is `reconcile::polling`.

pub(crate) mod images;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use skep_forge::{Commit, Event, Push, PushedCommit, Repository, Tag};
use skep_model::deployment::{BuildOutcome, Deployment, Origin, Trigger};
use skep_model::id::{NodeId, ServiceId};
use skep_model::polling::{Found, Polled, Tip, Want, Wanted};
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_model::spec::Source;
use skep_state::State;

use crate::deploy::queue;
use crate::hooks::{Effect, effects};

/// What is to be asked for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// Whose.
    pub(crate) service: ServiceId,
    /// Of which repository.
    pub(crate) repository: String,
    /// What of it.
    pub(crate) want: Want,
}

/// What an answer means for a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What is remembered from now on.
    pub(crate) polled: Polled,
    /// What is deployed, and why.
    pub(crate) deploy: Option<(Origin, String)>,
}

/// When the repository or registry of a service was asked last, in the memory of whoever leads. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Asked(Arc<Mutex<BTreeMap<ServiceId, u64>>>);

impl Asked {
    /// At the leader's clock, ms since the epoch; none: not by this server, as long as it leads.
    pub fn at_ms(&self, service: ServiceId) -> Option<u64> {
        self.0.lock().get(&service).copied()
    }
}

/// When services were asked for last, in the memory of whoever leads.
pub(crate) struct Book {
    /// Before that this leader knows of no question: a service that has an answer waits its time from here.
    began_ms: u64,
    asked: Asked,
}

impl Book {
    /// Nobody was asked for yet.
    pub(crate) fn new(began_ms: u64, asked: Asked) -> Self {
        asked.0.lock().clear();
        Self { began_ms, asked }
    }

    /// It is being asked for.
    pub(crate) fn ask(&mut self, service: ServiceId, now_ms: u64) {
        self.asked.0.lock().insert(service, now_ms);
    }

    /// The services that are due, with those of the same repositories that would be soon: one question does for all.
    /// And when the next one is due.
    pub(crate) fn due(&mut self, view: &State, now_ms: u64) -> (Vec<Question>, Option<u64>) {
        self.asked
            .0
            .lock()
            .retain(|service, _| view.service(*service).is_some());
        let mut due = Vec::new();
        let mut soon = Vec::new();
        let mut next_ms: Option<u64> = None;
        for service in view.services() {
            let Some((question, every_ms)) = question(view, service) else {
                continue;
            };
            let at_ms = self.due_ms(view, &question, every_ms);
            if at_ms <= now_ms {
                due.push(question);
            } else {
                next_ms = Some(next_ms.map_or(at_ms, |next| next.min(at_ms)));
                if at_ms <= now_ms.saturating_add(every_ms / 2) {
                    soon.push(question);
                }
            }
        }
        soon.retain(|one| due.iter().any(|it| it.repository == one.repository));
        due.extend(soon);
        (due, next_ms)
    }

    fn due_ms(&self, view: &State, question: &Question, every_ms: u64) -> u64 {
        let is_known = note(view, question).is_some();
        let of = (question.service, &*question.repository);
        self.at_ms(of, every_ms, is_known)
    }

    /// When a service is asked for next, of what goes by this name.
    fn at_ms(&self, (service, name): (ServiceId, &str), every_ms: u64, is_known: bool) -> u64 {
        let last_ms = match self.asked.at_ms(service) {
            Some(asked_ms) => asked_ms,
            // What nothing is known of yet is looked at at once: what is pushed from then on is found.
            None if !is_known => return 0,
            None => self.began_ms,
        };
        // Of ten repositories that were asked at once not all are again.
        let mut hasher = DefaultHasher::new();
        (name, last_ms).hash(&mut hasher);
        let jitter_ms = hasher.finish() % (every_ms / 5).max(1);
        last_ms
            .saturating_add(every_ms - every_ms / 10)
            .saturating_add(jitter_ms)
    }
}

/// What is to be asked for a service, and how often; none: nothing is.
fn question(view: &State, service: &Service) -> Option<(Question, u64)> {
    let every_ms = service.spec.pushes.poll_every_ms()?;
    let Some(Source::Git {
        repository, branch, ..
    }) = &service.spec.source
    else {
        return None;
    };
    // A stack's repository is asked for all of its services at once.
    if service.removing || view.stack_around(service).is_some() {
        return None;
    }
    let of = match &service.spec.pushes.tags {
        Some(pattern) => Wanted::Tags {
            pattern: pattern.clone(),
            known: None,
        },
        None => Wanted::Branch(branch.clone()),
    };
    let mut question = Question {
        service: service.id,
        repository: repository.clone(),
        want: Want { of, since: None },
    };
    let known = note(view, &question);
    question.want.since = base(view, service, branch, known);
    if let Wanted::Tags { known: tag, .. } = &mut question.want.of {
        *tag = known.and_then(|it| it.tag.clone());
    }
    Some((question, every_ms))
}

/// What is remembered of this very repository and reference.
fn note<'a>(view: &'a State, question: &Question) -> Option<&'a Polled> {
    let polled = view.polled(question.service)?;
    let is_same =
        polled.repository == question.repository && polled.reference == question.want.of.text();
    is_same.then_some(&**polled)
}

/// The newest deployment of this branch of the service's repository.
fn newest<'a>(view: &'a State, service: &Service, branch: &str) -> Option<&'a Deployment> {
    let of_branch = |it: &&std::sync::Arc<Deployment>| matches!(&it.origin, Origin::Git { branch: its, .. } if its == branch);
    view.deployments_of(service.id)
        .filter(of_branch)
        .max_by_key(|it| (it.created_ms, it.id))
        .map(|it| &**it)
}

/// The commit that a deployment was made of, or is to be; none: that is not known yet.
fn commit_of(deployment: &Deployment) -> Option<&str> {
    let Origin::Git { commit, .. } = &deployment.origin else {
        return None;
    };
    let outcome = deployment.build.as_ref().and_then(|it| it.outcome.as_ref());
    commit.as_deref().or(match outcome {
        Some(BuildOutcome::Built(built)) => built.commit.as_deref(),
        _ => None,
    })
}

/// The commit that what comes next is compared with: what was deployed since the last look, else what was found
/// then. None: there is nothing to compare with, or somebody chose an older commit by hand.
fn base(view: &State, service: &Service, branch: &str, known: Option<&Polled>) -> Option<String> {
    let deployed = newest(view, service, branch);
    let looked_ms = known.map(|it| it.since_ms);
    let is_newer = |it: &&Deployment| looked_ms.is_none_or(|looked| it.created_ms > looked);
    match (deployed.filter(is_newer), known) {
        (Some(it), None) if is_chosen(it) => None,
        (Some(it), _) => commit_of(it)
            .map(str::to_owned)
            .or_else(|| known?.commit.clone()),
        (None, known) => known?.commit.clone(),
    }
}

/// Somebody named the commit.
fn is_chosen(deployment: &Deployment) -> bool {
    let has_commit = matches!(
        deployment.origin,
        Origin::Git {
            commit: Some(_),
            ..
        }
    );
    has_commit && deployment.trigger == Trigger::Api
}

/// What an answer means for a service; none: nothing that is not known already, or the service is another by now.
pub(crate) fn meaning(
    view: &State,
    asked: &Question,
    (at, found): (usize, &Found),
) -> Option<Step> {
    let service = view.service(asked.service)?;
    let (now, _) = question(view, service)?;
    if now.repository != asked.repository || now.want.of.text() != asked.want.of.text() {
        return None;
    }
    let known = note(view, &now);
    match found {
        Err(problem) => trouble(&now, known, problem.clone()),
        Ok(tips) => match tips.get(at)? {
            None => trouble(&now, known, gone(&now)),
            Some(tip) => of_tip(view, service, (&now, asked), (known, tip)),
        },
    }
}

fn remembered(question: &Question) -> Polled {
    Polled {
        service: question.service,
        repository: question.repository.clone(),
        reference: question.want.of.text(),
        tag: None,
        commit: None,
        problem: None,
        since_ms: 0,
    }
}

/// It is said once: what is known already is nothing new.
fn trouble(question: &Question, known: Option<&Polled>, problem: Problem) -> Option<Step> {
    if known.and_then(|it| it.problem.as_ref()) == Some(&problem) {
        return None;
    }
    let polled = known.cloned().unwrap_or_else(|| remembered(question));
    Some(Step {
        polled: Polled {
            problem: Some(problem),
            ..polled
        },
        deploy: None,
    })
}

fn gone(question: &Question) -> Problem {
    let (text, hint) = match &question.want.of {
        Wanted::Branch(name) => (
            format!("the repository has no branch `{name}`"),
            "push it, or deploy another one: skep deploy --repo URL --branch NAME",
        ),
        Wanted::Tags { pattern, .. } => (
            format!("the repository has no tag `{pattern}`"),
            "push one, or leave `tags` out of [source]",
        ),
    };
    Problem::new(Code::SourceFailed, text).hint(hint)
}

fn of_tip(
    view: &State,
    service: &Service,
    (now, asked): (&Question, &Question),
    (known, tip): (Option<&Polled>, &Tip),
) -> Option<Step> {
    let tag = matches!(now.want.of, Wanted::Tags { .. }).then(|| tip.name.clone());
    let step = |deploy| Step {
        polled: Polled {
            tag: tag.clone(),
            commit: Some(tip.commit.clone()),
            ..remembered(now)
        },
        deploy,
    };
    let is_known = known.is_some_and(|it| it.commit.as_ref() == Some(&tip.commit) && it.tag == tag);
    if is_known {
        return known.and_then(|it| it.problem.as_ref()).map(|_| step(None));
    }
    if let Some(deployed) = deployed(view, service) {
        match commit_of(deployed) {
            Some(commit) if commit == tip.commit => return Some(step(None)),
            // Its own fetch will tell: nobody knows yet what came after it.
            None if deployed.status.is_active() => return None,
            _ => {}
        }
    }
    let is_first = match now.want.of {
        Wanted::Branch(_) => now.want.since.is_none(),
        // The newest one may be gone; what is left was there before.
        Wanted::Tags { .. } => known.is_none_or(|it| it.commit.is_none()) || !tip.has_known,
    };
    if is_first {
        return Some(step(None));
    }
    match effects(view, service, &event(asked, tip)?) {
        Effect::Deploy(origin, why) => Some(step(Some((
            origin,
            format!("found in the repository: {why}"),
        )))),
        Effect::Nothing(_) | Effect::Refuse(_) | Effect::Pong => Some(step(None)),
    }
}

fn deployed<'a>(view: &'a State, service: &Service) -> Option<&'a Deployment> {
    match &service.spec.source {
        Some(Source::Git { branch, .. }) => newest(view, service, branch),
        _ => None,
    }
}

/// What was found, as a forge would have told it: the same rules hold.
fn event(asked: &Question, tip: &Tip) -> Option<Event> {
    let after = Commit::new(&tip.commit)?;
    let came = |one: &skep_model::polling::Came| PushedCommit {
        id: one.id.clone(),
        message: one.message.clone(),
        added: Vec::new(),
        modified: one.files.clone(),
        removed: Vec::new(),
    };
    Some(match asked.want.of {
        Wanted::Branch(_) => Event::Push(Push {
            repository: Repository::default(),
            branch: tip.name.clone(),
            before: asked.want.since.as_deref().and_then(Commit::new),
            after,
            forced: tip.history.is_forced,
            commits: tip.history.commits.iter().map(came).collect(),
            lists_all: tip.history.lists_all,
            is_complete: tip.history.lists_all,
            head_message: None,
            pusher: None,
        }),
        Wanted::Tags { .. } => Event::Tag(Tag {
            repository: Repository::default(),
            name: tip.name.clone(),
            commit: after,
            message: None,
        }),
    })
}

/// The node that is asked: where the service was built last, since it has been there; else any that builds, the
/// same one for the same repository as long as there are the same.
pub(crate) fn node_for(view: &State, (service, name): (ServiceId, &str)) -> Option<NodeId> {
    let sites = queue::sites(view);
    let builds = view.deployments_of(service);
    let last = builds
        .filter_map(|it| Some((it.created_ms, it.build.as_ref()?.node)))
        .max_by_key(|(created_ms, _)| *created_ms)
        .map(|(_, node)| node)
        .filter(|node| sites.iter().any(|site| site.node == *node));
    if last.is_some() || sites.is_empty() {
        return last;
    }
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let at = usize::try_from(hasher.finish() % sites.len() as u64).unwrap_or(0);
    sites.get(at).map(|site| site.node)
}

#[cfg(test)]
mod tests;
