//! Carries out a plan by the API that everybody has: services first, then what environments share, then what is
//! deployed, one after the other; what goes, goes last. Each step may be done twice.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    DeploymentRequest, DeploymentView, EffectsView, PatchSharedVariables, PatchVariables,
    PutService, SharedVariablesView, VariablesView,
};
use skep_model::project::{Change, Deploy, Place, Plan, ServiceChange, SharedChange};
use skep_model::spec::{ServiceSpec, Source};
use skep_model::variable::VariableInput;
use tokio::time::Instant;

use super::found::Project;
use crate::client::Client;
use crate::commands::stop::{END_DEADLINE, LOOK};
use crate::commands::up::existing;
use crate::failure::Failure;
use crate::follow;
use crate::output::Style;
use crate::session::Session;
use crate::target::Target;

/// Values of secrets that a plan makes, by service and name.
pub(crate) type Secrets = BTreeMap<(Place, String), String>;

/// What is needed to carry out a plan.
pub(super) struct Work<'a> {
    session: &'a Session,
    client: &'a Client,
    project: &'a str,
    there: &'a Project,
    secrets: &'a Secrets,
}

/// What came of it so far.
#[derive(Default)]
struct Done {
    /// For people, should the rest fail.
    told: Vec<String>,
    /// Deployments of services that refer to what changed: not waited for yet.
    also: Vec<DeploymentView>,
}

impl<'a> Work<'a> {
    /// A plan's work on this project.
    pub(super) fn new(
        session: &'a Session,
        client: &'a Client,
        (project, there, secrets): (&'a str, &'a Project, &'a Secrets),
    ) -> Self {
        Self {
            session,
            client,
            project,
            there,
            secrets,
        }
    }

    /// The variables that a service gets, and the secrets that are made for it.
    fn inputs(&self, change: &ServiceChange) -> Vec<VariableInput> {
        let made = change.make.iter().filter_map(|name| {
            let value = self.secrets.get(&(change.place.clone(), name.clone()))?;
            Some(VariableInput {
                name: name.clone(),
                value: value.clone(),
                secret: true,
            })
        });
        inputs(&change.set).into_iter().chain(made).collect()
    }

    /// Does all of it; `wait`: until it runs.
    ///
    /// # Errors
    /// The first step that failed, with what was done before it.
    pub(super) async fn carry_out(&self, plan: &Plan, wait: bool) -> Result<(), Failure> {
        let mut done = Done::default();
        let result = self.all(plan, wait, &mut done).await;
        result.map_err(|failure| half_way(failure, done.told))
    }

    async fn all(&self, plan: &Plan, wait: bool, done: &mut Done) -> Result<(), Failure> {
        let services = || {
            plan.changes.iter().filter_map(|it| match it {
                Change::Service(it) => Some(&**it),
                _ => None,
            })
        };
        // A host is let go of before another service gets it.
        let (first, rest): (Vec<_>, Vec<_>) = services().partition(|it| it.frees_hosts);
        for change in first.into_iter().chain(rest) {
            self.put(change, done).await?;
        }
        for change in &plan.changes {
            if let Change::Shared(it) = change {
                self.share(it, done).await?;
            }
        }
        for change in services() {
            self.bring(change, wait, done).await?;
        }
        for made in std::mem::take(&mut done.also).iter().filter(|_| wait) {
            follow::settle(self.session, self.client, made).await?;
            done.say(format!("{} is deployed again", Target::from(made)));
        }
        self.remove(plan, wait, done).await
    }

    fn target(&self, place: &Place) -> Target {
        Target {
            project: self.project.to_owned(),
            environment: place.environment.clone(),
            service: place.service.clone(),
        }
    }

    /// Says what service there is to be. Nothing that runs takes notice of more than its number and its routes.
    async fn put(&self, change: &ServiceChange, done: &mut Done) -> Result<(), Failure> {
        let found = self.there.views.get(&change.place);
        let spec = said_now(change, found.map(|it| &it.spec));
        if found.is_some_and(|it| it.spec == spec) {
            return Ok(());
        }
        let variables = match change.is_new {
            true => self.inputs(change),
            // Those of a service that runs are set together with the deployment that brings them.
            false => Vec::new(),
        };
        let body = PutService {
            spec: Some(spec),
            variables,
            if_generation: Some(found.map_or(0, |it| it.generation)),
        };
        let target = self.target(&change.place);
        let _: Value = self.client.send(Method::PUT, &target.path(), &body).await?;
        let word = if change.is_new { "made" } else { "changed" };
        self.tell(done, format!("{} is {word}", change.place));
        Ok(())
    }

    async fn share(&self, change: &SharedChange, done: &mut Done) -> Result<(), Failure> {
        let (project, environment) = (self.project, &change.environment);
        let path = format!("/v1/projects/{project}/environments/{environment}/variables");
        let body = PatchSharedVariables {
            set: inputs(&change.set),
            unset: change.unset.clone(),
            redeploy: true,
            ..PatchSharedVariables::default()
        };
        let view: SharedVariablesView = self.client.send(Method::PATCH, &path, &body).await?;
        self.tell(done, format!("{environment} shares its variables"));
        self.heed(view.effects, done);
        Ok(())
    }

    /// Sets what a service has of variables, and deploys it.
    async fn bring(
        &self,
        change: &ServiceChange,
        wait: bool,
        done: &mut Done,
    ) -> Result<(), Failure> {
        let target = self.target(&change.place);
        let mut made = None;
        let inputs = self.inputs(change);
        let has_variables = !inputs.is_empty() || !change.unset.is_empty();
        if has_variables && !change.is_new {
            let body = PatchVariables {
                set: inputs,
                unset: change.unset.clone(),
                keep: Vec::new(),
                // One request: whatever breaks off, what is set is deployed.
                redeploy: change.deploy == Deploy::Redeploy,
                redeploy_dependents: true,
            };
            let path = format!("{}/variables", target.path());
            let view: VariablesView = self.client.send(Method::PATCH, &path, &body).await?;
            self.tell(done, format!("{} has its variables", change.place));
            self.heed(view.effects, done);
            made = view.deployment;
        }
        if made.is_none() {
            made = self.deploy(change, &target).await?;
        }
        let Some(made) = made else {
            return Ok(());
        };
        if !wait {
            self.tell(done, format!("{} is on its way", change.place));
            return Ok(());
        }
        let out = self.session.out;
        out.progress(&out.styled(Style::Strong, &format!("deploying {target}")));
        follow::settle(self.session, self.client, &made).await?;
        self.tell(done, format!("{} is live", change.place));
        Ok(())
    }

    async fn deploy(
        &self,
        change: &ServiceChange,
        target: &Target,
    ) -> Result<Option<DeploymentView>, Failure> {
        let request = match (change.deploy, &change.spec.source) {
            (Deploy::Redeploy, _) => DeploymentRequest::Redeploy,
            (Deploy::Source, Some(source)) => request(source),
            _ => return Ok(None),
        };
        let path = format!("{}/deployments", target.path());
        Ok(Some(self.client.send(Method::POST, &path, &request).await?))
    }

    async fn remove(&self, plan: &Plan, wait: bool, done: &mut Done) -> Result<(), Failure> {
        let gone = plan.changes.iter().filter_map(|it| match it {
            Change::Remove(place) => Some(place),
            _ => None,
        });
        let gone: Vec<(&Place, Target)> = gone.map(|it| (it, self.target(it))).collect();
        for (_, target) in &gone {
            let path = target.path();
            let _: Value = self.client.send(Method::DELETE, &path, &json!({})).await?;
        }
        let deadline = Instant::now() + END_DEADLINE;
        for (place, target) in &gone {
            while wait && existing(self.client, target).await?.is_some() {
                if Instant::now() >= deadline {
                    let told = format!("{target} is still being removed");
                    return Err(Failure::failed(told).hint("`skep ps` shows what has not ended"));
                }
                tokio::time::sleep(LOOK).await;
            }
            self.tell(done, format!("{place} is removed"));
        }
        Ok(())
    }

    /// Says what a change of variables lacks, and remembers what it made.
    fn heed(&self, effects: EffectsView, done: &mut Done) {
        for problem in &effects.warnings {
            let told = format!("{problem}; deployments fail until then");
            self.session.out.warning(&told);
        }
        done.also.extend(effects.dependent_deployments);
    }

    fn tell(&self, done: &mut Done, told: String) {
        self.session.out.progress(&told);
        done.say(told);
    }
}

impl Done {
    fn say(&mut self, told: String) {
        self.told.push(told);
    }
}

/// The specification as it is put. A new source becomes the service's with the deployment that proves it: until
/// then it is told as a difference, should that fail.
fn said_now(change: &ServiceChange, before: Option<&ServiceSpec>) -> ServiceSpec {
    let mut spec = change.spec.clone();
    if change.deploy == Deploy::Source {
        spec.source = before.and_then(|it| it.source.clone());
    }
    spec
}

fn request(source: &Source) -> DeploymentRequest {
    match source.clone() {
        Source::Image { reference } => DeploymentRequest::Image { reference },
        Source::Pushed { .. } => DeploymentRequest::Source,
        Source::Git {
            repository,
            branch,
            directory,
        } => DeploymentRequest::Git {
            repository,
            branch,
            commit: None,
            directory,
        },
    }
}

fn inputs<'a>(set: impl IntoIterator<Item = (&'a String, &'a String)>) -> Vec<VariableInput> {
    let input = |(name, value): (&String, &String)| VariableInput {
        name: name.clone(),
        value: value.clone(),
        secret: false,
    };
    set.into_iter().map(input).collect()
}

/// The same failure, with what was done before it and how to go on.
fn half_way(mut failure: Failure, told: Vec<String>) -> Failure {
    let next = "the same command goes on with what is left";
    failure.problem.hint = Some(match failure.problem.hint.take() {
        Some(hint) => format!("{hint}; then {next}"),
        None => next.to_owned(),
    });
    let told = match told.is_empty() {
        true => "nothing was done before that".to_owned(),
        false => format!("done before that: {}", told.join("; ")),
    };
    failure.context.push(told);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_half_way_says_what_was_done_and_how_to_go_on() {
        let failure = Failure::failed("no room").hint("add a node");
        let told = half_way(failure, vec!["production/db is live".to_owned()]);
        assert_eq!(told.context, ["done before that: production/db is live"]);
        let hint = told.problem.hint.expect("advice");
        assert_eq!(
            hint,
            "add a node; then the same command goes on with what is left"
        );
        let told = half_way(Failure::failed("no room"), Vec::new());
        assert_eq!(told.context, ["nothing was done before that"]);
    }
}
