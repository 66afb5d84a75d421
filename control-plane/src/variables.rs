//! What the variables of an environment are, with everything that they refer to. Reads one view and opens
//! what is sealed; changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_model::settings::Scope;
use skep_model::spec::DEFAULT_PORT;
use skep_model::variable::reference::{
    Find, Found, Owner, Place, Resolver, Value, dependents, is_plain, targets,
};
use skep_model::variable::{
    MAX_TOTAL, RESERVED_PREFIX, SharedVariables, Variable, VariableInput, reference,
};
use skep_state::State;

use crate::secrets::Secrets;
use crate::urls;

/// Services within an environment, and what they share.
pub(crate) struct Environment<'a> {
    view: &'a State,
    secrets: &'a Secrets,
    shared: SharedVariables,
    /// As it is to be, instead of as it is in the view; with the port that its release has.
    own: Option<(&'a Service, Option<u16>)>,
}

impl<'a> Environment<'a> {
    /// Around a service as it is to be, whose release listens on `port`.
    pub(crate) fn around(
        view: &'a State,
        secrets: &'a Secrets,
        (own, port): (&'a Service, Option<u16>),
    ) -> Self {
        Self {
            view,
            secrets,
            shared: view.shared_variables(own.environment),
            own: Some((own, port)),
        }
    }

    /// With what is shared as it is to be.
    pub(crate) fn sharing(view: &'a State, secrets: &'a Secrets, shared: SharedVariables) -> Self {
        Self {
            view,
            secrets,
            shared,
            own: None,
        }
    }

    fn service(&self, name: &str) -> Option<&Service> {
        match self.own {
            Some((own, _)) if own.name == name => Some(own),
            _ => self
                .view
                .service_named(self.shared.environment, name)
                .map(|service| &**service)
                .filter(|service| !service.removing),
        }
    }

    fn find(&self, place: &Place) -> Result<Found, Problem> {
        let name = &*place.name;
        match &place.owner {
            Owner::Shared => match self.shared.variables.get(name) {
                Some(variable) => {
                    let of = self.shared.environment;
                    let text = self.secrets.open_shared(of, name, variable)?;
                    Ok(said(text, variable))
                }
                None => Ok(Found::Missing(format!(
                    "the environment has no shared variable `{name}`"
                ))),
            },
            Owner::Service(service) => match self.service(service) {
                Some(found) if is_generated(name) => Ok(self.generated(found, name)),
                Some(found) => self.set_by_people(found, name),
                None => Ok(Found::Missing(format!(
                    "the environment has no service `{service}`"
                ))),
            },
        }
    }

    fn set_by_people(&self, service: &Service, name: &str) -> Result<Found, Problem> {
        let release = service.target();
        let release = release.and_then(|target| self.view.release(service.id, target.release));
        // What is set on the service wins over what the app's own file says.
        let of_file = release.and_then(|release| release.file_variables.get(name));
        match service.variables.get(name).or(of_file) {
            Some(variable) => {
                let text = self.secrets.open_variable(service.id, name, variable)?;
                Ok(said(text, variable))
            }
            None => Ok(Found::Missing(format!(
                "service `{}` has no variable `{name}`",
                service.name
            ))),
        }
    }

    /// What Skep itself sets, as far as it is the same for all allocations of a service.
    fn generated(&self, service: &Service, name: &str) -> Found {
        let path = self.view.path_of(service);
        let value = match name {
            "PORT" => self.port(service).map(|port| port.to_string()),
            "SKEP_PRIVATE_HOST" => private_host(self.view, service),
            "SKEP_PUBLIC_HOST" => (service.spec.is_routed()).then(|| self.view.host_of(service)),
            "SKEP_PUBLIC_URL" => urls::urls(self.view, service).into_iter().next(),
            "SKEP_SERVICE" => Some(service.name.clone()),
            "SKEP_PROJECT" => path.map(|path| path.project),
            "SKEP_ENVIRONMENT" => path.map(|path| path.environment),
            _ => None,
        };
        match value {
            Some(text) => Found::Fixed(Value {
                text,
                secret: false,
            }),
            None => Found::Missing(format!("service `{}` has no `{name}`", service.name)),
        }
    }

    fn port(&self, service: &Service) -> Option<u16> {
        if let Some((own, port)) = self.own
            && own.id == service.id
        {
            return port;
        }
        let release = service.target();
        let release = release.and_then(|target| self.view.release(service.id, target.release));
        let spec = &service.spec;
        let default = spec.is_routed().then_some(DEFAULT_PORT);
        spec.port
            .or(release.and_then(|release| release.port))
            .or(spec.tcp.first().map(|tcp| tcp.port))
            .or(default)
    }

    /// The variables of a release of `service`, with everything that they refer to.
    ///
    /// # Errors
    /// What cannot be resolved, and the way there; or they are too large.
    pub(crate) fn resolve(&self, service: &Service) -> Result<BTreeMap<String, Variable>, Problem> {
        let find: &Find<'_> = &|place| self.find(place);
        let mut resolver = Resolver::new(find);
        let mut resolved = BTreeMap::new();
        for (name, variable) in &service.variables {
            let at = |problem: Problem| problem.at(format!("variables.{name}"));
            let text = self.secrets.open_variable(service.id, name, variable)?;
            if is_plain(&text) {
                resolved.insert(name.clone(), variable.clone());
                continue;
            }
            let place = Place::of_service(&service.name, name);
            let value = resolver.resolve(&place).map_err(at)?;
            if let Some(problem) = resolver.missing.pop() {
                let code = Code::Invalid;
                return Err(at(Problem { code, ..problem }));
            }
            let input = VariableInput {
                name: name.clone(),
                value: value.text,
                secret: value.secret,
            };
            let sealed = self.secrets.seal_variable(service.id, &input);
            resolved.insert(name.clone(), sealed);
        }
        check_total(&resolved)?;
        Ok(resolved)
    }

    /// Whether these variables resolve: what is missing yet, one problem each.
    ///
    /// # Errors
    /// What can never resolve: a circle, or a value that becomes too long.
    pub(crate) fn check(
        &self,
        places: impl Iterator<Item = Place>,
    ) -> Result<Vec<Problem>, Problem> {
        let find: &Find<'_> = &|place| self.find(place);
        let mut resolver = Resolver::new(find);
        for place in places {
            resolver.resolve(&place)?;
        }
        Ok(resolver.missing)
    }

    /// The services of which a variable refers to any of `changed`, directly or through others.
    ///
    /// # Errors
    /// A value cannot be opened.
    pub(crate) fn dependents(
        &self,
        changed: &BTreeSet<Place>,
    ) -> Result<Vec<Arc<Service>>, Problem> {
        let scope = Scope::Environment(self.shared.environment);
        let services: Vec<_> = self.view.services_in(scope).collect();
        let mut graph = BTreeMap::new();
        for service in &services {
            for (name, variable) in &service.variables {
                let text = self.secrets.open_variable(service.id, name, variable)?;
                let place = Place::of_service(&service.name, name);
                let others = targets(&place.owner, &text);
                graph.insert(place, others);
            }
        }
        for (name, variable) in &self.shared.variables {
            let of = self.shared.environment;
            let text = self.secrets.open_shared(of, name, variable)?;
            graph.insert(Place::shared(name), targets(&Owner::Shared, &text));
        }
        let found = dependents(&graph, changed);
        let is_meant = |service: &Service| {
            let owner = Owner::Service(service.name.clone());
            found.iter().any(|place| place.owner == owner)
        };
        let services = services.into_iter().filter(|service| is_meant(service));
        Ok(services.cloned().collect())
    }
}

/// The name by which containers of its environment reach a service.
pub(crate) fn private_host(view: &State, service: &Service) -> Option<String> {
    let address = view.private_address(service.id);
    address.map(|_| format!("{}.internal", service.name))
}

fn said(text: String, variable: &Variable) -> Found {
    Found::Said(Value {
        text,
        secret: variable.secret,
    })
}

fn is_generated(name: &str) -> bool {
    name == "PORT" || name.starts_with(RESERVED_PREFIX)
}

/// Refuses what one command could not hold.
///
/// # Errors
/// Says how large the variables are together.
pub(crate) fn check_total(variables: &BTreeMap<String, Variable>) -> Result<(), Problem> {
    let size = |(name, variable): (&String, &Variable)| name.len() + variable.value.0.len();
    let bytes: usize = variables.iter().map(size).sum();
    if bytes <= MAX_TOTAL {
        return Ok(());
    }
    let text = format!("with what they refer to they have {bytes} bytes");
    Err(Problem::invalid("variables", text).hint(format!("at most {MAX_TOTAL} of a service")))
}

/// Refuses a name that would make references ambiguous.
///
/// # Errors
/// The service would be called as what is shared is.
pub(crate) fn check_service_name(name: &str) -> Result<(), Problem> {
    if name == reference::SHARED {
        let text = format!("`{name}` stands for the variables of the environment");
        return Err(Problem::invalid("service", text).hint("choose another name"));
    }
    Ok(())
}
