//! What there is of a project, as servers say it. Reads, decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use skep_control_plane::api::types::{
    DeploymentsView, PlanRequest, PlanView, ServiceView, ServicesView, SharedVariablesView,
    VariableView, VariablesView,
};
use skep_model::deployment::Status;
use skep_model::problem::Code;
use skep_model::project::{Current, Found, Given, Place, Running, Variables};

use crate::client::{self, Client};
use crate::failure::Failure;
use crate::target::Target;

/// Services that are asked about at the same time.
const AT_ONCE: usize = 4;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// What was asked for.
    Configuration,
    /// Also how what runs compares with that.
    Running,
}

/// A project that there is, or is to be.
pub(super) struct Project {
    /// As files compare with it.
    pub(super) current: Current,
    /// Its services as they were found.
    pub(super) views: BTreeMap<Place, ServiceView>,
}

impl Project {
    /// Asks for all services of `project`, and what these and further environments share.
    ///
    /// # Errors
    /// Not reachable, or refused.
    pub(super) async fn find(
        client: &Client,
        project: &str,
        (environments, look): (&[&str], Look),
    ) -> Result<Self, Failure> {
        let path = format!("/v1/services?project={project}");
        let view: ServicesView = client.get(&path).await?;
        // What is on its way out is not there any more: whoever wants it again is told to wait.
        let mut services = view.services;
        services.retain(|service| !service.removing);
        let mut known: BTreeSet<&str> = environments.iter().copied().collect();
        known.extend(services.iter().map(|service| &*service.environment));
        let mut current = Current::default();
        for environment in known {
            let path = format!("/v1/projects/{project}/environments/{environment}/variables");
            let shared = shared(client, &path).await?;
            if !shared.is_empty() {
                current.shared.insert(environment.to_owned(), shared);
            }
        }
        let asked = services.iter().map(|view| one(client, view, look));
        let found: Vec<Found> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        let places = services.iter().map(place);
        current.services = places.zip(found).collect();
        let views = services.into_iter().map(|view| (place(&view), view));
        let views = views.collect();
        Ok(Self { current, views })
    }
}

fn place(view: &ServiceView) -> Place {
    Place::new(&view.environment, &view.name)
}

async fn shared(client: &Client, path: &str) -> Result<Variables, Failure> {
    match client.get::<SharedVariablesView>(path).await {
        Ok(view) => Ok(given(view.variables)),
        // No environment, nothing shared.
        Err(client::Error::Refused(problem)) if problem.code == Code::NotFound => {
            Ok(Variables::new())
        }
        Err(error) => Err(error.into()),
    }
}

fn given(variables: Vec<VariableView>) -> Variables {
    let one = |view: VariableView| (view.name, view.value.map_or(Given::Secret, Given::Value));
    variables.into_iter().map(one).collect()
}

async fn one(client: &Client, view: &ServiceView, look: Look) -> Result<Found, Failure> {
    let path = Target::from(view).path();
    let variables: VariablesView = client.get(&format!("{path}/variables")).await?;
    let running = match look {
        Look::Configuration => Running::Current,
        Look::Running => running(client, view, &path).await?,
    };
    Ok(Found {
        spec: view.spec.clone(),
        variables: given(variables.variables),
        running,
    })
}

async fn running(client: &Client, view: &ServiceView, path: &str) -> Result<Running, Failure> {
    if view.stopped {
        return Ok(Running::Stopped);
    }
    if view.deployment.is_some() {
        return Ok(Running::Current);
    }
    if view.live.is_none() {
        return Ok(Running::Never);
    }
    let deployments: DeploymentsView = client.get(&format!("{path}/deployments")).await?;
    let last = deployments.deployments.first().map(|last| last.status);
    if matches!(last, Some(Status::Failed | Status::Canceled)) {
        return Ok(Running::Failed);
    }
    let asked = PlanRequest::default();
    let plan: PlanView = client
        .send(Method::POST, &format!("{path}/plan"), &asked)
        .await?;
    Ok(match plan.new_release {
        true => Running::Behind,
        false => Running::Current,
    })
}
