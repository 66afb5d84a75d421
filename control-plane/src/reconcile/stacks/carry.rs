//! A file that was read, carried out: one command for each service, and one that says how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_identity::random;
use skep_model::deployment::{Deployment, Origin, Trigger};
use skep_model::id::{DeploymentId, EnvironmentId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_model::stack::{End, Member, Stack};
use skep_model::variable::VariableInput;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::v1::step_stack::{self, Settle, Step};
use skep_state::State;

use super::{Entry, Parts};
use crate::api::{new_service, queued};
use crate::secrets::Secrets;
use crate::stacks::course::There;
use crate::stacks::{Course, Current, Deploy, File, Turn, Wanted, course, origin};
use crate::variables::check_service_name;

/// How often a change of a service is tried that collides with others.
const TRIES: u32 = 5;

/// What there is of a file's services, with what is sealed opened.
pub(super) struct People<'a> {
    stack: &'a Stack,
    all: BTreeMap<String, Person>,
}

struct Person {
    service: Arc<Service>,
    variables: BTreeMap<String, VariableInput>,
    newest: Option<Arc<Deployment>>,
}

impl People<'_> {
    pub(super) fn there(&self, name: &str) -> There<'_> {
        let Some(person) = self.all.get(name) else {
            return There::Nothing;
        };
        if person.service.removing {
            return There::Going;
        }
        let member = self.stack.members.get(name);
        There::Service(Current {
            service: &person.service,
            variables: &person.variables,
            member: member.filter(|it| it.service == person.service.id),
            newest: person.newest.as_deref(),
        })
    }
}

/// What there is of a file's services.
pub(super) fn people<'a>(parts: &Parts, view: &State, stack: &'a Stack, file: &File) -> People<'a> {
    let person = |wanted: &Wanted| {
        let service = view.service_named(stack.environment, &wanted.name)?.clone();
        let newest = view
            .deployments_of(service.id)
            .max_by_key(|it| (it.created_ms, it.id))
            .cloned();
        let person = Person {
            variables: opened(&parts.secrets, &service),
            service,
            newest,
        };
        Some((wanted.name.clone(), person))
    };
    People {
        stack,
        all: file.services.iter().filter_map(person).collect(),
    }
}

/// A service's variables; what cannot be opened is as if it were not there, and is set anew.
fn opened(secrets: &Secrets, service: &Service) -> BTreeMap<String, VariableInput> {
    let open = |(name, variable): (&String, &skep_model::variable::Variable)| {
        let input = VariableInput {
            name: name.clone(),
            value: secrets.open_variable(service.id, name, variable).ok()?,
            secret: variable.secret,
        };
        Some((name.clone(), input))
    };
    service.variables.iter().filter_map(open).collect()
}

/// Does what can be done now of the file that a stack carries out; answers whether something of it was refused, and
/// is to be tried again.
pub(super) async fn go_on(parts: &Parts, environment: EnvironmentId, entry: &mut Entry) -> bool {
    let view = parts.store.view();
    let (Some(stack), Some((generation, number, file))) = (view.stack(environment), &entry.file)
    else {
        return false;
    };
    let reading = stack.reading.as_ref();
    let is_current = reading.is_some_and(|it| it.number == *number && it.end.is_none());
    if !is_current || stack.generation != *generation {
        return false;
    }
    let mut is_refused = false;
    let refused = entry.refused.iter();
    let refused = refused.filter(|(_, (tries, _))| *tries >= TRIES);
    let refused: BTreeMap<String, Problem> = refused
        .map(|(name, (_, problem))| (name.clone(), problem.clone()))
        .collect();
    let people = people(parts, &view, stack, file);
    let next = course(stack, file, |name| people.there(name), &refused);
    for (name, turn) in &next.turns {
        let wanted = file.services.iter().find(|it| it.name == *name);
        let Some(wanted) = wanted else { continue };
        let done = match command(parts, &view, (stack, file), (wanted, turn)) {
            Ok(kind) => parts.store.propose(kind).await.map(drop),
            Err(problem) => Err(problem),
        };
        if let Err(problem) = done {
            tracing::warn!(service = name, %problem, "a service was not made what its stack's file says");
            let tries = match problem.code {
                Code::Conflict | Code::Unavailable | Code::Busy | Code::Timeout => {
                    entry.refused.get(name).map_or(0, |(tries, _)| *tries) + 1
                }
                _ => TRIES,
            };
            entry.refused.insert(name.clone(), (tries, problem));
            is_refused = true;
        }
    }
    if let Some(kind) = ending(stack, &next)
        && let Err(problem) = parts.store.propose(kind).await
    {
        tracing::warn!(%problem, "how a stack's file was carried out was not taken down");
        is_refused = true;
    }
    is_refused
}

/// One service, made what the file says.
fn command(
    parts: &Parts,
    view: &State,
    (stack, file): (&Stack, &File),
    (wanted, turn): (&Wanted, &Turn),
) -> Result<Kind, Problem> {
    check_service_name(&wanted.name)?;
    let existing = view.service_named(stack.environment, &wanted.name);
    let mut service = match existing {
        Some(service) => (**service).clone(),
        None => {
            let id = ServiceId::from_u128(random::new_id());
            new_service(id, stack.environment, &wanted.name)
        }
    };
    service.spec = turn.spec.clone();
    for name in &turn.unset {
        service.variables.remove(name);
    }
    for input in &turn.set {
        let sealed = parts.secrets.seal_variable(service.id, input);
        service.variables.insert(input.name.clone(), sealed);
    }
    refuse_unproved(view, stack, &service)?;
    let deployment = deployment(&service, turn, &file.commit);
    let reading = stack.reading.as_ref().map_or(0, |it| it.number);
    let old = stack.members.get(&wanted.name);
    let member = Member {
        service: service.id,
        built: wanted.tree.clone(),
        said: turn.said.clone(),
        deployment: deployment
            .as_ref()
            .map(|it| it.id)
            .or(old.and_then(|it| it.deployment)),
        reading,
    };
    let put = v1::PutService {
        service: Some((&service).into()),
        expected_generation: service.generation,
    };
    Ok(step(
        stack,
        Step::Turn(step_stack::Turn {
            put: Some(put),
            deployment: deployment.as_ref().map(Into::into),
            name: wanted.name.clone(),
            member: Some((&member).into()),
        }),
    ))
}

fn deployment(service: &Service, turn: &Turn, commit: &str) -> Option<Deployment> {
    let (trigger, origin) = match turn.deploy {
        Deploy::Nothing => return None,
        Deploy::Release(number) => (Trigger::Redeploy, Origin::Release { number }),
        Deploy::Source => (Trigger::Poll, origin(&turn.spec, commit)?),
    };
    let id = DeploymentId::from_u128(random::new_id());
    Some(queued(id, service.id, (trigger, origin)))
}

/// A file may name hosts of anybody: where domains have to be proved, a person proves them first.
fn refuse_unproved(view: &State, stack: &Stack, service: &Service) -> Result<(), Problem> {
    if !view.needs_domain_proof() {
        return Ok(());
    }
    let project = view.environment(stack.environment).map(|it| it.project);
    match view.unproved_hosts(project, service).first() {
        None => Ok(()),
        Some((host, _)) => Err(Problem::invalid(
            "domains",
            format!("nobody has proved yet that `{host}` is this project's"),
        )
        .hint("`skep domains proof` shows the record that proves it; then `skep up` or `skep apply` once with that host")),
    }
}

/// How it ended, where it did.
fn ending(stack: &Stack, course: &Course) -> Option<Kind> {
    let problem = course.end.clone()?;
    let gone = stack.gone().filter(|_| course.prune);
    let settle = Settle {
        remove: gone
            .map(|(_, member)| id_bytes(member.service.as_u128()))
            .collect(),
        keep: Vec::new(),
        end: Some((&End { at_ms: 0, problem }).into()),
    };
    Some(step(stack, Step::Settle(settle)))
}

fn step(stack: &Stack, step: Step) -> Kind {
    Kind::StepStack(v1::StepStack {
        environment: id_bytes(stack.environment.as_u128()),
        reading: stack.reading.as_ref().map_or(0, |it| it.number),
        step: Some(step),
    })
}
