//! The one state machine of a deployment, level-triggered: what to do next, from what is there.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::allocation::{Allocation, Desired, State as Observed};
use skep_model::build::{MAX_ATTEMPTS, MAX_TIMEOUT_MS};
use skep_model::deployment::{Build, BuildOutcome, Built, Deployment, Origin, Status, Trigger};
use skep_model::gate::Held;
use skep_model::id::{DeploymentId, NodeId, ServiceId};
use skep_model::job;
use skep_model::node::NodeStatus;
use skep_model::problem::{Code, Problem};
use skep_model::pushed::NOT_HELD;
use skep_model::rollout::{Phase, Progress};
use skep_model::run::Mode;
use skep_model::service::Service;
use skep_state::State;

use super::gate::{self, Verdict};
use super::queue;
use super::release::{Resolved, renew, resolve};
use crate::checks::Seen;
use crate::image_push::{self, Gate};
use crate::placement::release_phase;
use crate::secrets::Secrets;

/// How long a deployment waits for a node that builds.
const BUILDER_WAIT_MS: u64 = 120_000;
/// After so long a node is not waited for. How long the build may take the app's own file says to the
/// node alone: this is beyond all that it can say.
const BUILD_DEADLINE_MS: u64 = MAX_TIMEOUT_MS + 60_000;
/// How long an allocation that fits nowhere is waited for: old ones may be leaving.
const ROOM_WAIT_MS: u64 = 30_000;
/// Time for pulling and starting beyond the health deadline, after which a rollout has failed.
const START_MARGIN_MS: u64 = 600_000;

/// What to do with a deployment.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Nothing until something changes, or until this cluster time (ms).
    Wait {
        /// When time alone changes the answer.
        until_ms: Option<u64>,
    },
    /// Say once why it waits.
    Note(Problem),
    /// It is through the gates.
    Pass,
    /// Somebody has to say yes.
    Await(Problem),
    /// Let this node build.
    Build(NodeId),
    /// This node does not hold what it should: it is not asked again.
    Forget(NodeId),
    /// Its image is to be pushed first; the line of its timeline.
    Push(String),
    /// Roll out a new release.
    Release(Box<Resolved>),
    /// Roll out a release that exists.
    Existing(u64),
    /// It serves.
    Live,
    /// It ends without serving; with the last lines of the container where there are some.
    Fail(Problem, String),
    /// Its service does not want it any more.
    Cancel(Problem),
}

/// What the decision needs beside the state.
pub struct Inputs<'a> {
    /// One view.
    pub view: &'a State,
    /// Seals variables of the app's own file.
    pub secrets: &'a Secrets,
    /// Services that could not be placed, and why.
    pub refusals: &'a BTreeMap<ServiceId, Problem>,
    /// Services that the scheduler has where they should be, and the generation it saw.
    pub converged: &'a BTreeMap<ServiceId, u64>,
    /// Every live ingress serves the view's routes.
    pub is_published: bool,
    /// What forges say of commits that are waited for.
    pub checks: &'a BTreeMap<DeploymentId, Seen>,
    /// The leader's clock, ms since the epoch.
    pub now_ms: u64,
}

/// Decides on one active deployment.
pub fn decide(inputs: &Inputs<'_>, deployment: &Deployment) -> Next {
    let Some(service) = inputs.view.service(deployment.service) else {
        return Next::Cancel(Problem::new(Code::Canceled, "the service is gone"));
    };
    if service.removing {
        return Next::Cancel(Problem::new(Code::Canceled, "the service is being removed"));
    }
    match deployment.status {
        Status::Queued | Status::AwaitingApproval => match deployment.held {
            Some(held) => at_gates(inputs, (deployment, held), service),
            None => begin(inputs, deployment, service),
        },
        Status::Building | Status::Pushing => judge_build(inputs, deployment, service),
        Status::Deploying => judge_rollout(inputs, deployment, service),
        _ => Next::Wait { until_ms: None },
    }
}

/// What the gates say, once.
fn at_gates(
    inputs: &Inputs<'_>,
    (deployment, held): (&Deployment, Held),
    service: &Service,
) -> Next {
    let checks = inputs.checks.get(&deployment.id);
    let verdict = gate::judge(
        (inputs.view, service),
        (deployment, held),
        (checks, inputs.now_ms),
    );
    let is_said = |why: &Problem| deployment.problem.as_ref() == Some(why);
    match verdict {
        Verdict::Open => Next::Pass,
        Verdict::Shut(problem) => fail(problem),
        Verdict::Approval(why) if deployment.status == Status::Queued => Next::Await(why),
        Verdict::Approval(why) if is_said(&why) => Next::Wait { until_ms: None },
        Verdict::Closed { why, until_ms } if is_said(&why) => Next::Wait { until_ms },
        Verdict::Approval(why) | Verdict::Closed { why, .. } => Next::Note(why),
    }
}

fn begin(inputs: &Inputs<'_>, deployment: &Deployment, service: &Service) -> Next {
    if let Origin::Release { number } = deployment.origin {
        return match inputs.view.release(service.id, number) {
            None => fail(Problem::new(
                Code::NotFound,
                format!("release {number} is not kept any more"),
            )),
            Some(release) if deployment.trigger == Trigger::Redeploy => {
                match renew(inputs.view, inputs.secrets, (service, deployment), release) {
                    Ok(resolved) => Next::Release(Box::new(resolved)),
                    Err(problem) => fail(problem),
                }
            }
            Some(_) => Next::Existing(number),
        };
    }
    if let Origin::Promoted { from, number } = deployment.origin {
        let Some(release) = inputs.view.release(from, number) else {
            return fail(Problem::new(
                Code::NotFound,
                format!("release {number} of the other environment is not kept any more"),
            ));
        };
        return match renew(inputs.view, inputs.secrets, (service, deployment), release) {
            Ok(resolved) => Next::Release(Box::new(resolved)),
            Err(problem) => fail(problem),
        };
    }
    match choose_builder(inputs.view, deployment) {
        Ok(node) => Next::Build(node),
        // Its turn comes when another's build has ended, or when who holds it is back.
        Err(problem) if matches!(problem.code, Code::Busy | Code::Unavailable) => {
            match deployment.problem.as_ref() == Some(&problem) {
                true => Next::Wait { until_ms: None },
                false => Next::Note(problem),
            }
        }
        // Nobody has it, and nobody will.
        Err(problem) if problem.code == Code::SourceFailed => fail(problem),
        Err(problem) => wait_or_fail(
            inputs,
            deployment,
            // Who waited at a gate waits from then on: its status or its creation is as near as is known.
            deployment.status_ms + BUILDER_WAIT_MS,
            problem,
        ),
    }
}

/// Where a deployment is built now.
///
/// # Errors
/// [`Code::Busy`]: later; else nowhere, as things are.
fn choose_builder(view: &State, deployment: &Deployment) -> Result<NodeId, Problem> {
    let mut sites = queue::sites(view);
    let needs = queue::needs(view, deployment);
    if let Some(holders) = queue::holders(view, deployment) {
        sites.retain(|site| holders.contains(&site.node));
        if sites.is_empty() {
            return Err(who_holds(view, deployment, &holders));
        }
    }
    let able = queue::able(&sites, needs.as_deref(), None);
    let fewest = able.min_by_key(|site| (site.busy, site.node));
    match (fewest, &needs) {
        (Some(site), _) if !queue::takes_turn(deployment) => Ok(site.node),
        (Some(_), _) => {
            let due = queue::due(view);
            let turn = due.iter().find(|(id, _)| *id == deployment.id);
            turn.map(|(_, node)| *node).ok_or_else(|| {
                let text = "every node that can build it is building for others";
                Problem::new(Code::Busy, text)
                    .hint("its turn comes by itself; each workspace has one")
            })
        }
        (None, Some(needs)) if !sites.is_empty() => Err(Problem::new(
            Code::Unplaceable,
            format!("no node that is ready has the builder `{needs}`"),
        )
        .at("builder")
        .hint("`skep node ls` shows the nodes; install it on one, or add a Dockerfile")),
        (None, _) => Err(Problem::new(Code::Unplaceable, "no node is ready to build")
            .hint("`skep node ls` shows the nodes; start the agent on one that builds")),
    }
}

/// None of the nodes that hold a pushed commit can build now.
fn who_holds(view: &State, deployment: &Deployment, holders: &BTreeSet<NodeId>) -> Problem {
    let commit = deployment.commit().unwrap_or_default();
    let names = holders.iter().filter_map(|id| view.node(*id));
    let names: Vec<&str> = names.map(|node| node.name.as_str()).collect();
    if names.is_empty() {
        let text = format!("no node holds commit {commit} any more");
        return Problem::new(Code::SourceFailed, text)
            .hint("push it again: `git push skep`, which then sends everything");
    }
    let text = format!(
        "commit {commit} is kept by {}, and none of them is ready to build",
        names.join(" and ")
    );
    Problem::new(Code::Unavailable, text)
        .hint("it is built when one is back; or push again, and others keep it")
}

/// Another node for a build that was lost with its node, or whose Docker was; none: it is over. An upload
/// went with the node: it can be taken once.
fn another(view: &State, deployment: &Deployment, build: &Build) -> Option<NodeId> {
    let can_begin_anew = !matches!(deployment.origin, Origin::Upload { .. });
    if !can_begin_anew || build.lost + 1 >= MAX_ATTEMPTS {
        return None;
    }
    let needs = queue::needs(view, deployment);
    let holders = queue::holders(view, deployment);
    let mut others = queue::sites(view);
    others.retain(|site| site.node != build.node);
    let able = queue::able(&others, needs.as_deref(), holders.as_ref());
    able.min_by_key(|site| (site.busy, site.node))
        .map(|site| site.node)
}

fn judge_build(inputs: &Inputs<'_>, deployment: &Deployment, service: &Service) -> Next {
    let Some(build) = &deployment.build else {
        return fail(Problem::new(
            Code::Internal,
            "the deployment lost its build",
        ));
    };
    match &build.outcome {
        // The disk was replaced, or somebody cleaned up.
        Some(BuildOutcome::Failed(problem))
            if problem.field.as_deref() == Some(NOT_HELD)
                && is_holder(inputs.view, build, deployment) =>
        {
            Next::Forget(build.node)
        }
        // Docker's fault, not the app's.
        Some(BuildOutcome::Failed(problem)) if problem.code == Code::Runtime => {
            match another(inputs.view, deployment, build) {
                Some(node) => Next::Build(node),
                None => fail(problem.clone()),
            }
        }
        Some(BuildOutcome::Failed(problem)) => fail(problem.clone()),
        Some(BuildOutcome::Built(built)) => roll_out(inputs, (deployment, service), built),
        None => {
            let is_lost = inputs
                .view
                .node(build.node)
                .is_none_or(|node| node.status == NodeStatus::Lost);
            let deadline = deployment.status_ms + BUILD_DEADLINE_MS;
            if is_lost && let Some(node) = another(inputs.view, deployment, build) {
                return Next::Build(node);
            }
            if is_lost {
                let again = match deployment.origin {
                    Origin::Upload { .. } => "upload again: `skep up`",
                    _ => "deploy again: `skep deploy`",
                };
                return fail(
                    Problem::new(Code::SourceFailed, "the node that was building is gone")
                        .hint(again),
                );
            }
            if inputs.now_ms >= deadline {
                return fail(Problem::new(
                    Code::Timeout,
                    "the building node never answered",
                ));
            }
            Next::Wait {
                until_ms: Some(deadline),
            }
        }
    }
}

fn is_holder(view: &State, build: &Build, deployment: &Deployment) -> bool {
    queue::holders(view, deployment).is_some_and(|all| all.contains(&build.node))
}

/// A built image, once its registry has it where that is wanted.
fn roll_out(
    inputs: &Inputs<'_>,
    (deployment, service): (&Deployment, &Service),
    built: &Built,
) -> Next {
    match image_push::gate(inputs.view, service, deployment, inputs.now_ms) {
        Some(Gate::Begin(step)) => return Next::Push(step),
        Some(Gate::Wait(until_ms)) => {
            let until_ms = Some(until_ms);
            return Next::Wait { until_ms };
        }
        Some(Gate::Fail(problem)) => return fail(problem),
        None => {}
    }
    match resolve(inputs.view, service, deployment, built, inputs.secrets) {
        Ok(resolved) => Next::Release(Box::new(resolved)),
        Err(problem) => fail(problem),
    }
}

fn judge_rollout(inputs: &Inputs<'_>, deployment: &Deployment, service: &Service) -> Next {
    let target = service
        .rollout
        .filter(|target| target.deployment == deployment.id);
    let Some(target) = target else {
        return Next::Cancel(Problem::new(
            Code::Canceled,
            "the service is rolling out something else",
        ));
    };
    if service.stopped {
        return Next::Cancel(Problem::new(Code::Canceled, "the service was stopped"));
    }
    let all: Vec<&Allocation> = inputs
        .view
        .allocations_of(service.id)
        .map(|allocation| &**allocation)
        // How its jobs do is theirs to say: a deployment brings a release into force.
        .filter(|allocation| allocation.job.is_none())
        .collect();
    if let Err(problem) = service.spec.run.parse_schedule() {
        return fail(problem);
    }
    if service.progress.phase == Phase::Before {
        return judge_release_phase(inputs.view, service);
    }
    let of_target = || all.iter().filter(|allocation| allocation.target == target);
    if let Some(failed) =
        of_target().find(|allocation| allocation.observed.state == Observed::Failed)
    {
        return judge_failure(failed);
    }
    let wanted = service.wanted() as usize;
    let healthy = of_target()
        .filter(|allocation| allocation.is_routable())
        .count();
    if let Some(next) = judge_phase(inputs, service, healthy) {
        return next;
    }
    // What a node that takes no new one has of a system service's older release holds up nobody.
    let is_replaced = service.spec.is_system()
        || !all
            .iter()
            .any(|a| a.target != target && a.desired == Desired::Run && a.is_live());
    let job_is_made = service.spec.run.mode != Mode::Batch
        || inputs.view.job_book(service.id).deployment == Some(deployment.id);
    // How many a system service should have, the scheduler knows.
    let is_everywhere =
        !service.spec.is_system() || inputs.converged.get(&service.id) == Some(&service.generation);
    if !job_is_made || !is_everywhere {
        return judge_time(inputs, deployment, service, (healthy, wanted));
    }
    let is_tried = matches!(service.progress.phase, Phase::Canary { .. } | Phase::Trial);
    let has_taken_over = healthy >= wanted && is_replaced && !is_tried;
    if has_taken_over && (inputs.is_published || !service.spec.takes_traffic()) {
        return Next::Live;
    }
    if let Some(refusal) = inputs.refusals.get(&service.id) {
        return wait_or_fail(
            inputs,
            deployment,
            since_ms(deployment, service) + ROOM_WAIT_MS,
            refusal.clone(),
        );
    }
    judge_time(inputs, deployment, service, (healthy, wanted))
}

/// Its job has a deadline of its own: only how it ends is judged here.
fn judge_release_phase(view: &State, service: &Service) -> Next {
    let ended = release_phase(view, service).filter(|job| !job.status.is_active());
    let Some(job) = ended.filter(|job| job.status != job::Status::Succeeded) else {
        return Next::Wait { until_ms: None };
    };
    let why = job
        .problem
        .as_ref()
        .map_or("it was ended", |problem| &problem.message);
    let problem = Problem::new(Code::Crashed, format!("the release phase failed: {why}"))
        .hint("nothing of the new release was started; what was live goes on");
    Next::Fail(problem, job.log_tail.clone())
}

/// What a phase waits for beside its allocations; none: it is judged by those.
fn judge_phase(inputs: &Inputs<'_>, service: &Service, healthy: usize) -> Option<Next> {
    let Progress { phase, paused, .. } = service.progress;
    let share = service.spec.rollout.share(phase, service.wanted()) as usize;
    let until_ms = match phase {
        // Until somebody resumes it.
        _ if paused => None,
        Phase::Canary { .. } | Phase::Trial if healthy >= share => None,
        Phase::Kept { until_ms } if healthy >= share && inputs.now_ms < until_ms => Some(until_ms),
        _ => return None,
    };
    Some(Next::Wait { until_ms })
}

/// When what is waited for began.
fn since_ms(deployment: &Deployment, service: &Service) -> u64 {
    deployment.status_ms.max(service.progress.since_ms)
}

fn judge_failure(failed: &Allocation) -> Next {
    let unknown = || Problem::new(Code::Crashed, "a container of the new release failed");
    let problem = failed.observed.problem.clone().unwrap_or_else(unknown);
    Next::Fail(problem, failed.observed.log_tail.clone())
}

fn judge_time(
    inputs: &Inputs<'_>,
    deployment: &Deployment,
    service: &Service,
    count: (usize, usize),
) -> Next {
    let replicas = u64::from(service.wanted().max(1));
    let deadline = since_ms(deployment, service)
        + (service.spec.health.deadline_ms * replicas)
        + START_MARGIN_MS;
    if inputs.now_ms < deadline {
        return Next::Wait {
            until_ms: Some(deadline),
        };
    }
    let (healthy, wanted) = count;
    fail(
        Problem::new(
            Code::Timeout,
            format!("only {healthy} of {wanted} allocations became healthy in time"),
        )
        .hint("`skep ps` and `skep logs` show what they do"),
    )
}

fn wait_or_fail(
    inputs: &Inputs<'_>,
    deployment: &Deployment,
    deadline_ms: u64,
    problem: Problem,
) -> Next {
    if inputs.now_ms >= deadline_ms {
        return fail(problem);
    }
    if deployment.problem.as_ref() != Some(&problem) {
        return Next::Note(problem);
    }
    Next::Wait {
        until_ms: Some(deadline_ms),
    }
}

fn fail(problem: Problem) -> Next {
    Next::Fail(problem, String::new())
}
