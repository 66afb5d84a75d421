//! Where the images of workspaces are pushed, and what became of one there. What is still to be pushed follows from the
//! deployments themselves. Talks to no registry, and never opens what is sealed.

use std::sync::Arc;

use skep_model::deployment::{Deployment, Status};
use skep_model::id::{DeploymentId, ServiceId, WorkspaceId};
use skep_model::image_push::{Push, PushRegistry};
use skep_model::problem::{Code, Problem};
use skep_model::registry::MAX_REGISTRIES;
use skep_model::service::Release;
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;

impl Context<'_> {
    /// Says where a workspace's images are pushed, or changes that.
    pub(super) fn put_push_registry(&mut self, message: v1::PutPushRegistry) -> Outcome {
        let registry = message.registry.ok_or_else(|| missing("registry"))?;
        let mut registry: PushRegistry = understood(registry)?;
        registry.check()?;
        if self.state.workspace(registry.workspace).is_none() {
            return Err(not_found("workspace", registry.workspace));
        }
        if registry.password.0.is_empty() {
            return Err(missing("password"));
        }
        let known = self.state.push_registry(registry.workspace);
        if known.is_none() && self.state.push_registries.len() >= MAX_REGISTRIES {
            let text = format!("there are {MAX_REGISTRIES} push registries already");
            return Err(Problem::new(Code::TooLarge, text)
                .hint("`skep registry push-stop` removes a workspace's"));
        }
        registry.made_ms = known.map_or(self.state.time_ms, |known| known.made_ms);
        registry.changed_ms = self.state.time_ms;
        let key = registry.workspace;
        self.state.push_registries.insert(key, Arc::new(registry));
        self.changes.push(Change::PushRegistries);
        Ok(Reply::Done)
    }

    pub(super) fn remove_push_registry(&mut self, message: &v1::RemovePushRegistry) -> Outcome {
        let workspace = WorkspaceId::from_u128(bits("workspace", &message.workspace)?);
        if self.state.push_registries.remove(&workspace).is_none() {
            let text = "the workspace's images are not pushed to a registry";
            return Err(Problem::new(Code::NotFound, text)
                .hint("`skep registry push-to HOST --user USER` says where to"));
        }
        self.changes.push(Change::PushRegistries);
        Ok(Reply::Done)
    }

    /// A build's image waits for its registry before anything of it is rolled out.
    pub(super) fn begin_push(&mut self, message: v1::BeginPush) -> Outcome {
        let deployment =
            self.expect_deployment(&message.deployment, message.expected_generation)?;
        if deployment.status != Status::Building || deployment.made().is_none() {
            return Err(changed_meanwhile("deployment"));
        }
        let mut next = (*deployment).clone();
        next.problem = None;
        self.step(&mut next, message.step);
        self.enter(&mut next, Status::Pushing);
        self.put_deployment(next);
        Ok(Reply::Done)
    }

    /// What came of one attempt. The deployment's generation stays: a rollout does not depend on it.
    pub(super) fn settle_push(&mut self, message: v1::SettlePush) -> Outcome {
        let id = DeploymentId::from_u128(bits("deployment", &message.deployment)?);
        let deployment = self.state.deployment(id).cloned();
        let deployment = deployment.ok_or_else(|| not_found("deployment", id))?;
        let registry = self.push_registry_of(deployment.service);
        let registry = registry.ok_or_else(|| changed_meanwhile("push registry"))?;
        let before_ms = deployment.push.as_ref().map_or(0, |push| push.at_ms);
        let is_current = registry.changed_ms == message.expected_changed_ms;
        if before_ms != message.expected_at_ms || !is_current {
            return Err(changed_meanwhile("deployment or its push registry"));
        }
        let push: Push = understood(message.push.ok_or_else(|| missing("push"))?)?;
        let text = said(deployment.push.as_ref(), &push);
        if let (Some(digest), Some(pushed)) = (&push.digest, push.by_digest()) {
            self.mark_pushed(deployment.service, digest, &pushed);
        }
        let mut next = Deployment {
            push: Some(push),
            ..(*deployment).clone()
        };
        self.step(&mut next, text);
        self.changes.push(Change::Deployment(id));
        self.state.put_deployment(next);
        Ok(Reply::Done)
    }

    fn push_registry_of(&self, service: ServiceId) -> Option<Arc<PushRegistry>> {
        let service = self.state.service(service)?;
        let workspace = self.state.workspace_of(service.environment)?;
        self.state.push_registry(workspace).cloned()
    }

    /// Every kept release of the same image can be had from there.
    fn mark_pushed(&mut self, service: ServiceId, digest: &str, pushed: &str) {
        let same = |release: &&Arc<Release>| {
            release.image.digest == digest && release.image.pushed.as_deref() != Some(pushed)
        };
        let all: Vec<Arc<Release>> = self
            .state
            .releases_of(service)
            .filter(same)
            .cloned()
            .collect();
        for release in all {
            let mut release = (*release).clone();
            release.image.pushed = Some(pushed.to_owned());
            let key = (service, release.number);
            self.state.releases.insert(key, Arc::new(release));
        }
    }
}

/// For the timeline: what is new, once.
fn said(before: Option<&Push>, now: &Push) -> String {
    match (&now.problem, before.and_then(|it| it.problem.as_ref())) {
        (None, _) => format!("pushed to {}", now.reference),
        (Some(problem), known) if known != Some(problem) => {
            format!("not pushed to {}: {problem}", now.reference)
        }
        (Some(_), _) => String::new(),
    }
}

impl crate::state::State {
    /// Every push registry, by workspace.
    pub fn push_registries(&self) -> impl Iterator<Item = &Arc<PushRegistry>> {
        self.push_registries.values()
    }

    /// Where a workspace's images are pushed.
    pub fn push_registry(&self, workspace: WorkspaceId) -> Option<&Arc<PushRegistry>> {
        self.push_registries.get(&workspace)
    }
}
