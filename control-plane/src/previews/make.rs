//! A preview, written down as one command: the copies of its base's services, what they share, what is deployed.
//! Draws ids and seals; reads one view.

use std::collections::{BTreeMap, BTreeSet};

use skep_identity::random;
use skep_model::deployment::{Deployment, Origin, Trigger};
use skep_model::id::{DeploymentId, EnvironmentId, ServiceId};
use skep_model::preview::{Preview, Request, Rules, adapted};
use skep_model::problem::{Code, Problem};
use skep_model::service::{Release, Service};
use skep_model::settings::Scope;
use skep_model::spec::Source;
use skep_model::variable::{SharedVariables, Variable, VariableInput};
use skep_proto::v1;
use skep_state::State;

use crate::api::queued;
use crate::secrets::Secrets;

/// What a preview deploys of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Where, if not where the base has it from.
    pub(crate) repository: Option<String>,
    /// Names of the services that come from there.
    pub(crate) of: BTreeSet<String>,
    /// The branch.
    pub(crate) branch: String,
    /// The commit; none: the branch's newest.
    pub(crate) commit: Option<String>,
}

/// A preview that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The environment that it is a copy of.
    pub(crate) base: EnvironmentId,
    /// Its name.
    pub(crate) name: String,
    /// How long it lives; none: as the rules say.
    pub(crate) ttl_ms: Option<u64>,
    /// What it is for.
    pub(crate) request: Option<Request>,
    /// What is deployed of a repository; none: as the base has it.
    pub(crate) head: Option<Head>,
    /// Images in place of what services of these names have.
    pub(crate) images: BTreeMap<String, String>,
}

/// The command that makes a preview.
///
/// # Errors
/// There is nothing to copy, or something sealed cannot be opened.
pub(crate) fn make(
    view: &State,
    secrets: &Secrets,
    wish: &Wish,
) -> Result<v1::MakePreview, Problem> {
    let said = view.preview_rules(wish.base);
    let rules = said.map_or_else(|| Rules::new(wish.base), |rules| (**rules).clone());
    let preview = preview(&rules, wish);
    let copier = Copier {
        view,
        secrets,
        wish,
        preview: &preview,
    };
    let mut message = v1::MakePreview {
        preview: Some((&preview).into()),
        shared: Some((&copier.shared(&rules)?).into()),
        base_domain: rules.base_domain.clone(),
        ..v1::MakePreview::default()
    };
    let mut missing: BTreeSet<&String> = wish.images.keys().collect();
    for base in view.services_in(Scope::Environment(wish.base)) {
        if base.removing || !rules.takes(&base.name) {
            continue;
        }
        missing.remove(&base.name);
        let mut copy = copier.service(base)?;
        let (deployment, release) = copier.begin(base, &mut copy)?;
        message.services.push((&copy).into());
        message
            .deployments
            .extend(deployment.as_ref().map(Into::into));
        message.releases.extend(release.as_ref().map(Into::into));
    }
    if let Some(name) = missing.first() {
        let problem = Problem::invalid("images", format!("there is no service `{name}` to copy"));
        return Err(problem.hint("`skep ps` lists the services"));
    }
    match message.services.is_empty() {
        false => Ok(message),
        true => Err(
            Problem::new(Code::Conflict, "the environment has no service to copy")
                .hint("`skep preview rules show` says which are copied"),
        ),
    }
}

/// Deployments of a newer head, for the services of a preview that come from there.
pub(crate) fn pushed(view: &State, preview: &Preview, head: &Head) -> Vec<Deployment> {
    let services = view.services_in(Scope::Environment(preview.environment));
    let ours = services.filter(|service| !service.removing && head.of.contains(&service.name));
    ours.filter_map(|service| {
        let Some(Source::Git {
            repository,
            directory,
            ..
        }) = &service.spec.source
        else {
            return None;
        };
        let origin = Origin::Git {
            repository: head.repository.as_ref().unwrap_or(repository).clone(),
            branch: head.branch.clone(),
            commit: head.commit.clone(),
            directory: directory.clone(),
        };
        let id = DeploymentId::from_u128(random::new_id());
        Some(queued(id, service.id, (Trigger::Webhook, origin)))
    })
    .collect()
}

fn preview(rules: &Rules, wish: &Wish) -> Preview {
    Preview {
        environment: EnvironmentId::from_u128(random::new_id()),
        base: wish.base,
        name: wish.name.clone(),
        request: wish.request.clone(),
        branch: wish.head.as_ref().map(|head| head.branch.clone()),
        commit: wish.head.as_ref().and_then(|head| head.commit.clone()),
        ttl_ms: wish.ttl_ms.unwrap_or(rules.ttl_ms),
        // Set where it is obeyed.
        expires_ms: 0,
        created_ms: 0,
        idle_ms: rules.idle_ms,
        seed: rules.seed.clone(),
        ended: None,
        comment: None,
    }
}

/// What the parts of one preview are made with.
struct Copier<'a> {
    view: &'a State,
    secrets: &'a Secrets,
    wish: &'a Wish,
    preview: &'a Preview,
}

impl Copier<'_> {
    /// What the services of the preview share. Strangers get what the rules say openly, and nothing of the base.
    fn shared(&self, rules: &Rules) -> Result<SharedVariables, Problem> {
        let (base, own) = (self.wish.base, self.preview.environment);
        let mut variables = BTreeMap::new();
        let mut share = |name: &String, text: String, secret: bool| {
            let input = input(name, text, secret);
            variables.insert(name.clone(), self.secrets.seal_shared(own, &input));
        };
        if !self.preview.is_fork() {
            for (name, variable) in &self.view.shared_variables(base).variables {
                let text = self.secrets.open_shared(base, name, variable)?;
                share(name, text, variable.secret);
            }
        }
        for (name, variable) in &rules.variables {
            if !(self.preview.is_fork() && variable.secret) {
                let text = self.secrets.open_preview(base, name, variable)?;
                share(name, text, variable.secret);
            }
        }
        Ok(SharedVariables {
            environment: own,
            variables,
            generation: 0,
        })
    }

    fn service(&self, base: &Service) -> Result<Service, Problem> {
        let id = ServiceId::from_u128(random::new_id());
        Ok(Service {
            id,
            environment: self.preview.environment,
            name: base.name.clone(),
            spec: adapted(&base.spec, self.preview.copied()),
            variables: self.resealed((base.id, id), &base.variables)?,
            webhook_secret: None,
            live: None,
            rollout: None,
            progress: Default::default(),
            last_release: 0,
            stopped: base.stopped,
            removing: false,
            generation: 0,
            created_ms: 0,
            scaling: None,
            pinned: None,
        })
    }

    /// Variables of one service, for another one; of none for strangers.
    fn resealed(
        &self,
        (from, to): (ServiceId, ServiceId),
        variables: &BTreeMap<String, Variable>,
    ) -> Result<BTreeMap<String, Variable>, Problem> {
        if self.preview.is_fork() {
            return Ok(BTreeMap::new());
        }
        let again = |(name, variable): (&String, &Variable)| {
            let text = self.secrets.open_variable(from, name, variable)?;
            let input = input(name, text, variable.secret);
            Ok((name.clone(), self.secrets.seal_variable(to, &input)))
        };
        variables.iter().map(again).collect()
    }

    /// What a copy is deployed from, and the release that it begins with, where it begins with one of the base's.
    fn begin(
        &self,
        base: &Service,
        copy: &mut Service,
    ) -> Result<(Option<Deployment>, Option<Release>), Problem> {
        let id = DeploymentId::from_u128(random::new_id());
        let trigger = match self.wish.request {
            Some(_) => Trigger::Webhook,
            None => Trigger::Api,
        };
        if let Some(origin) = self.named(copy) {
            // Somebody asked for it: it is deployed also where the base is stopped.
            copy.spec.source = source_of(&origin);
            return Ok((Some(queued(id, copy.id, (trigger, origin))), None));
        }
        if base.stopped {
            return Ok((None, None));
        }
        let live = base
            .live
            .and_then(|it| self.view.release(base.id, it.release));
        if let Some(live) = live {
            let release = Release {
                service: copy.id,
                number: 1,
                deployment: id,
                variables: BTreeMap::new(),
                file_variables: self.resealed((base.id, copy.id), &live.file_variables)?,
                public_url: None,
                ..(**live).clone()
            };
            let origin = Origin::Release { number: 1 };
            let deployment = queued(id, copy.id, (Trigger::Redeploy, origin));
            return Ok((Some(deployment), Some(release)));
        }
        let origin = copy.spec.source.as_ref().and_then(origin_of);
        Ok((origin.map(|it| queued(id, copy.id, (trigger, it))), None))
    }

    /// What the wish names for this service.
    fn named(&self, copy: &Service) -> Option<Origin> {
        if let Some(reference) = self.wish.images.get(&copy.name) {
            return Some(Origin::Image {
                reference: reference.clone(),
            });
        }
        let head = self.wish.head.as_ref();
        let head = head.filter(|head| head.of.contains(&copy.name))?;
        let Some(Source::Git {
            repository,
            directory,
            ..
        }) = &copy.spec.source
        else {
            return None;
        };
        Some(Origin::Git {
            repository: head.repository.as_ref().unwrap_or(repository).clone(),
            branch: head.branch.clone(),
            commit: head.commit.clone(),
            directory: directory.clone(),
        })
    }
}

fn input(name: &str, value: String, secret: bool) -> VariableInput {
    VariableInput {
        name: name.to_owned(),
        value,
        secret,
    }
}

/// None: what was pushed to the base is the base's, and the copy has pushes of its own.
fn origin_of(source: &Source) -> Option<Origin> {
    Some(match source {
        Source::Git {
            repository,
            branch,
            directory,
        } => Origin::Git {
            repository: repository.clone(),
            branch: branch.clone(),
            commit: None,
            directory: directory.clone(),
        },
        Source::Image { reference } => Origin::Image {
            reference: reference.clone(),
        },
        Source::Pushed { .. } => return None,
    })
}

fn source_of(origin: &Origin) -> Option<Source> {
    match origin {
        Origin::Git {
            repository,
            branch,
            directory,
            ..
        } => Some(Source::Git {
            repository: repository.clone(),
            branch: branch.clone(),
            directory: directory.clone(),
        }),
        Origin::Image { reference } => Some(Source::Image {
            reference: reference.clone(),
        }),
        Origin::Pushed {
            branch, directory, ..
        } => Some(Source::Pushed {
            branch: branch.clone(),
            directory: directory.clone(),
        }),
        Origin::Upload { .. } | Origin::Release { .. } | Origin::Promoted { .. } => None,
    }
}
