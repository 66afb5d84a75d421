//! The leader's look at canaries: whenever requests were counted, each release that is tried is compared with the live
//! one, and a worse one goes back: its deployment fails. Sums are lost with leadership: the next leader begins anew.

use skep_model::deployment::Status;
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_scheduler::rollout::analysis::judge;
use skep_state::State;
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::deployments::finish;

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut learned = parts.samples.learned();
    loop {
        tokio::select! {
            Ok(()) = learned.changed() => {}
            () = token.cancelled() => return,
        }
        let view = parts.store.view();
        for service in view.services().filter(|it| it.rollout.is_some()) {
            look(parts, &view, service).await;
        }
    }
}

async fn look(parts: &Parts, view: &State, service: &Service) {
    let Some(target) = service.compared() else {
        return;
    };
    let deployment = view.deployment(target.deployment);
    let Some(deployment) = deployment.filter(|it| it.status == Status::Deploying) else {
        return;
    };
    let Some(trial) = parts.samples.trial(service.id, target.deployment) else {
        return;
    };
    let Some(why) = judge(&service.spec.rollout.analysis, &trial) else {
        return;
    };
    let text = format!("the canary serves worse: {why}");
    let problem = Problem::new(Code::Regressed, text)
        .hint("what was live goes on; `rollout.analysis` in skep.toml says what is worse");
    let step = format!("failed: {problem}");
    let command = finish(deployment, Status::Failed, Some(problem), step);
    if let Err(problem) = parts.store.propose(command).await {
        tracing::debug!(%problem, "a canary was not ended: it is looked at again");
    }
}
