//! Previews: made as a whole, pushed to, ended, forgotten. Never touches a service of another environment.

use std::sync::Arc;

use skep_model::deployment::Deployment;
use skep_model::forge::Kept;
use skep_model::id::{DeploymentId, EnvironmentId, ProjectId};
use skep_model::name;
use skep_model::preview::{Ended, KEEP_ENDED_MS, Preview, Rules, Why, check_ttl};
use skep_model::problem::{Code, Problem};
use skep_model::service::{Release, Service};
use skep_model::settings::{Scope, ScopeSettings, check_base_domain};
use skep_model::tenancy::Environment;
use skep_model::variable::SharedVariables;
use skep_proto::convert::enum_value;
use skep_proto::v1;

use super::variables::check_total;
use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;

/// What a delivery that made no deployment is remembered with.
const NO_DEPLOYMENT: DeploymentId = DeploymentId::from_u128(0);

impl Context<'_> {
    pub(super) fn set_preview_rules(&mut self, message: v1::SetPreviewRules) -> Outcome {
        let rules: Rules = understood(message.rules.ok_or_else(|| missing("rules"))?)?;
        rules.check()?;
        check_total(&rules.variables)?;
        if self.state.environment(rules.base).is_none() {
            return Err(not_found("environment", rules.base));
        }
        self.refuse_preview_of_preview(rules.base)?;
        self.state.preview_rules.insert(rules.base, Arc::new(rules));
        Ok(Reply::Done)
    }

    fn refuse_preview_of_preview(&self, base: EnvironmentId) -> Result<(), Problem> {
        match self.state.previews.contains_key(&base) {
            false => Ok(()),
            true => {
                let problem = Problem::new(Code::Conflict, "the environment is a preview itself");
                Err(problem.hint("name the environment that it is a copy of"))
            }
        }
    }

    pub(super) fn remove_preview_rules(&mut self, message: &v1::RemovePreviewRules) -> Outcome {
        let id = EnvironmentId::from_u128(bits("environment", &message.environment)?);
        match self.state.preview_rules.remove(&id) {
            Some(_) => Ok(Reply::Done),
            None => Err(
                Problem::new(Code::NotFound, "the environment has no rules for previews")
                    .hint("`skep preview rules show` lists those that have some"),
            ),
        }
    }

    /// All or nothing: whoever refuses a part of it refuses the whole.
    pub(super) fn make_preview(&mut self, message: v1::MakePreview) -> Outcome {
        if self.is_taken(message.delivery.as_deref()) {
            return Ok(Reply::Done);
        }
        let preview: Preview = understood(message.preview.ok_or_else(|| missing("preview"))?)?;
        let project = self.check_new_preview(&preview)?;
        self.state.put_environment(Environment {
            id: preview.environment,
            project,
            name: preview.name.clone(),
        });
        if let Some(shared) = message.shared {
            self.share(&preview, understood(shared)?)?;
        }
        if let Some(base_domain) = message.base_domain {
            check_base_domain(&base_domain)?;
            let settings = ScopeSettings {
                base_domain: Some(base_domain),
                ..ScopeSettings::default()
            };
            let scope = Scope::Environment(preview.environment);
            self.state.scopes.insert(scope, Arc::new(settings));
        }
        for service in message.services {
            let service: Service = understood(service)?;
            self.put_copy(&preview, service)?;
        }
        for release in message.releases {
            self.put_first_release(&preview, understood(release)?)?;
        }
        // Before its deployments: the gates of its workspace are not its own.
        let now_ms = self.state.time_ms;
        let environment = preview.environment;
        let comment = self.comment_before(&preview);
        self.forget_older(&preview);
        self.state.previews.insert(
            environment,
            Arc::new(Preview {
                created_ms: now_ms,
                expires_ms: now_ms.saturating_add(preview.ttl_ms),
                ended: None,
                comment,
                ..preview.clone()
            }),
        );
        let mut first = NO_DEPLOYMENT;
        for deployment in message.deployments {
            let id = self.deploy_copy(&preview, understood(deployment)?)?;
            first = if first == NO_DEPLOYMENT { id } else { first };
        }
        self.remember_delivery(message.delivery, first)?;
        self.changes.push(Change::Settings);
        self.changes.push(Change::Preview(environment));
        Ok(Reply::Environment {
            project,
            environment,
        })
    }

    /// Whether a preview may be made, and of which project it is.
    fn check_new_preview(&self, preview: &Preview) -> Result<ProjectId, Problem> {
        name::check("name", &preview.name)?;
        check_ttl(preview.ttl_ms)?;
        self.refuse_preview_of_preview(preview.base)?;
        let base = self.state.environment(preview.base);
        let base = base.ok_or_else(|| not_found("environment", preview.base))?;
        if let Some(request) = &preview.request {
            let found = self
                .state
                .preview_for(preview.base, (&request.repository, request.number));
            if found.is_some_and(|found| found.ended.is_none()) {
                return Err(changed_meanwhile("preview"));
            }
        }
        let is_known = self.state.environment(preview.environment).is_some()
            || self.state.previews.contains_key(&preview.environment);
        let named = self.state.environment_named(base.project, &preview.name);
        if is_known || named.is_some() {
            let text = format!("there is an environment `{}` already", preview.name);
            return Err(Problem::new(Code::Conflict, text)
                .at("name")
                .hint("another name; `skep preview ls` lists the previews"));
        }
        let max = self.rules_of(preview.base).max;
        if self.state.previews_from(preview.base).count() >= max as usize {
            let text = format!("there are {max} previews of `{}` already", base.name);
            return Err(Problem::new(Code::TooLarge, text)
                .hint("`skep preview rm` ends one, `skep preview rules set --max` allows more"));
        }
        Ok(base.project)
    }

    fn rules_of(&self, base: EnvironmentId) -> Rules {
        let said = self.state.preview_rules.get(&base);
        said.map_or_else(|| Rules::new(base), |rules| (**rules).clone())
    }

    fn share(&mut self, preview: &Preview, shared: SharedVariables) -> Result<(), Problem> {
        if shared.environment != preview.environment {
            return Err(missing("shared"));
        }
        check_total(&shared.variables)?;
        let shared = SharedVariables {
            generation: 1,
            ..shared
        };
        let id = shared.environment;
        self.state.shared_variables.insert(id, Arc::new(shared));
        Ok(())
    }

    fn put_copy(&mut self, preview: &Preview, service: Service) -> Result<(), Problem> {
        if service.environment != preview.environment {
            return Err(missing("services"));
        }
        let message = v1::PutService {
            service: Some((&service).into()),
            expected_generation: 0,
        };
        self.put_service(message).map(drop).map_err(|mut problem| {
            problem.message = format!("service `{}`: {}", service.name, problem.message);
            problem
        })
    }

    /// The release of the base that a copy begins with: deployed again, it gets the copy's configuration.
    fn put_first_release(&mut self, preview: &Preview, release: Release) -> Result<(), Problem> {
        let service = self.state.service(release.service).cloned();
        let own = |it: &Arc<Service>| it.environment == preview.environment;
        let service = service.filter(own).ok_or_else(|| missing("releases"))?;
        if release.number != 1 || service.last_release != 0 {
            return Err(missing("releases"));
        }
        let now_ms = self.state.time_ms;
        let release = Release {
            created_ms: now_ms,
            ..release
        };
        self.state
            .releases
            .insert((service.id, release.number), Arc::new(release));
        self.put_changed_service(Service {
            last_release: 1,
            ..(*service).clone()
        });
        Ok(())
    }

    fn deploy_copy(
        &mut self,
        preview: &Preview,
        deployment: Deployment,
    ) -> Result<DeploymentId, Problem> {
        let service = self.state.service(deployment.service);
        if service.is_none_or(|it| it.environment != preview.environment) {
            return Err(missing("deployments"));
        }
        self.make_deployment(deployment, None)
    }

    /// The comment that the pull request has of its preview before this one: it goes on to be the one that there is.
    fn comment_before(&self, preview: &Preview) -> Option<Kept> {
        let request = preview.request.as_ref()?;
        let key = (request.repository.as_str(), request.number);
        let before = self.state.preview_for(preview.base, key)?;
        before.comment.clone()
    }

    /// One that the same pull request had before needs not be remembered beside the new one.
    fn forget_older(&mut self, preview: &Preview) {
        let Some(request) = &preview.request else {
            return;
        };
        let older: Vec<_> = self
            .state
            .previews
            .values()
            .filter(|older| older.base == preview.base)
            .filter(|older| older.is_for(&request.repository, request.number))
            .map(|older| older.environment)
            // While its services go, somebody has to forget it.
            .filter(|id| !self.state.environments.contains_key(id))
            .collect();
        older.iter().for_each(|id| {
            self.state.previews.remove(id);
        });
    }

    /// A push of the pull request: what was deployed for this delivery or of this commit before is not again.
    pub(super) fn push_preview(&mut self, message: v1::PushPreview) -> Outcome {
        if self.is_taken(message.delivery.as_deref()) {
            return Ok(Reply::Done);
        }
        let mut next = (*self.living(&message.environment)?).clone();
        self.hear(&mut next, message.heard_ms)?;
        let mut first = NO_DEPLOYMENT;
        for deployment in message.deployments {
            let deployment: Deployment = understood(deployment)?;
            let made = match self.state.same_commit(&deployment) {
                Some(same) => same,
                None => self.deploy_copy(&next, deployment)?,
            };
            first = if first == NO_DEPLOYMENT { made } else { first };
        }
        self.remember_delivery(message.delivery, first)?;
        next.commit = message.commit;
        next.expires_ms = self
            .state
            .time_ms
            .saturating_add(next.ttl_ms)
            .max(next.expires_ms);
        self.put_preview(next);
        Ok(Reply::Done)
    }

    /// Its services begin to go; the environment is forgotten when they are gone.
    pub(super) fn end_preview(&mut self, message: v1::EndPreview) -> Outcome {
        if self.is_taken(message.delivery.as_deref()) {
            return Ok(Reply::Done);
        }
        let mut next = (*self.living(&message.environment)?).clone();
        if message
            .expected_expires_ms
            .is_some_and(|at_ms| at_ms != next.expires_ms)
        {
            return Err(changed_meanwhile("preview"));
        }
        self.hear(&mut next, message.heard_ms)?;
        let why = enum_value("why", &Why::ALL, message.why).map_err(|_| missing("why"))?;
        let at_ms = self.state.time_ms;
        next.ended = Some(Ended { at_ms, why });
        let scope = Scope::Environment(next.environment);
        let services: Vec<_> = self.state.services_in(scope).cloned().collect();
        for service in services.into_iter().filter(|service| !service.removing) {
            self.put_changed_service(Service {
                removing: true,
                ..(*service).clone()
            });
        }
        self.remember_delivery(message.delivery, NO_DEPLOYMENT)?;
        self.put_preview(next);
        self.changes.push(Change::Settings);
        Ok(Reply::Done)
    }

    /// What happened before the newest that was heard of changes nothing any more.
    fn hear(&self, preview: &mut Preview, at_ms: Option<u64>) -> Result<(), Problem> {
        let Some(request) = &mut preview.request else {
            return Ok(());
        };
        if request.is_stale(at_ms) {
            let text = "it is older than what was heard of the pull request before";
            return Err(Problem::new(Code::Conflict, text));
        }
        request.heard_ms = request.heard_ms.max(at_ms);
        Ok(())
    }

    pub(super) fn forget_preview(&mut self, message: &v1::ForgetPreview) -> Outcome {
        let id = EnvironmentId::from_u128(bits("environment", &message.environment)?);
        let found = self.state.previews.get(&id).cloned();
        let preview = found.ok_or_else(|| not_found("preview", id))?;
        let scope = Scope::Environment(id);
        if preview.ended.is_none() || self.state.services_in(scope).next().is_some() {
            let text = "the preview has not ended, or has services still";
            return Err(Problem::new(Code::Conflict, text));
        }
        if let Some(environment) = self.state.environments.remove(&id) {
            let key = (environment.project, environment.name.clone());
            self.state.names.environments.remove(&key);
        }
        self.state.shared_variables.remove(&id);
        self.state.stacks.remove(&id);
        self.state.scopes.remove(&scope);
        self.forget_old_previews();
        self.changes.push(Change::Settings);
        Ok(Reply::Done)
    }

    /// Those whose environment is gone, and that nothing can come late for.
    fn forget_old_previews(&mut self) {
        let now_ms = self.state.time_ms;
        let is_over = |preview: &Preview| {
            let ended = preview.ended.map(|ended| ended.at_ms);
            ended.is_some_and(|at_ms| at_ms.saturating_add(KEEP_ENDED_MS) < now_ms)
        };
        let over: Vec<_> = self
            .state
            .previews
            .values()
            .filter(|preview| is_over(preview))
            .map(|preview| preview.environment)
            .filter(|id| !self.state.environments.contains_key(id))
            .collect();
        over.iter().for_each(|id| {
            self.state.previews.remove(id);
        });
    }

    pub(super) fn extend_preview(&mut self, message: &v1::ExtendPreview) -> Outcome {
        let mut next = (*self.living(&message.environment)?).clone();
        check_ttl(message.ttl_ms)?;
        next.expires_ms = self.state.time_ms.saturating_add(message.ttl_ms);
        self.put_preview(next);
        Ok(Reply::Done)
    }

    fn put_preview(&mut self, preview: Preview) {
        self.changes.push(Change::Preview(preview.environment));
        let id = preview.environment;
        self.state.previews.insert(id, Arc::new(preview));
    }

    fn living(&self, id: &[u8]) -> Result<Arc<Preview>, Problem> {
        let id = EnvironmentId::from_u128(bits("environment", id)?);
        let found = self.state.previews.get(&id).cloned();
        let preview = found.ok_or_else(|| not_found("preview", id))?;
        match preview.ended {
            None => Ok(preview),
            Some(ended) => {
                let text = format!("the preview has ended: {}", ended.why.as_str());
                Err(Problem::new(Code::Conflict, text))
            }
        }
    }

    fn is_taken(&self, key: Option<&str>) -> bool {
        key.is_some_and(|key| self.state.delivery(key).is_some())
    }
}
