//! Stacks: connected, asked for, read, carried out service by service. Never touches a service that is not a
//! stack's, but where it becomes one.

use std::sync::Arc;

use skep_model::deployment::Deployment;
use skep_model::id::{EnvironmentId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_model::stack::{End, Member, Reading, Stack, Trouble};
use skep_proto::v1;
use skep_proto::v1::step_stack::{Settle, Step, Turn};

use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;

impl Context<'_> {
    pub(super) fn put_stack(&mut self, message: v1::PutStack) -> Outcome {
        let wanted: Stack = understood(message.stack.ok_or_else(|| missing("stack"))?)?;
        wanted.settings.check()?;
        let id = wanted.environment;
        if self.state.environment(id).is_none() {
            return Err(not_found("environment", id));
        }
        if self.state.previews.contains_key(&id) {
            let problem = Problem::new(Code::Conflict, "the environment is a preview");
            return Err(problem.hint("connect the environment that it is a copy of"));
        }
        let old = self.state.stacks.get(&id);
        if old.map_or(0, |old| old.generation) != message.expected_generation {
            return Err(changed_meanwhile("stack"));
        }
        let fresh = Stack {
            created_ms: self.state.time_ms,
            asked: 0,
            answered: 0,
            seen: None,
            reading: None,
            trouble: None,
            members: Default::default(),
            ..wanted.clone()
        };
        let old = old.map_or(fresh, |old| (**old).clone());
        self.put_back(Stack {
            settings: wanted.settings,
            generation: message.expected_generation + 1,
            // By other settings the same commit may mean something else.
            asked: old.asked + 1,
            ..old
        });
        Ok(Reply::Done)
    }

    pub(super) fn drop_stack(&mut self, message: &v1::DropStack) -> Outcome {
        let id = EnvironmentId::from_u128(bits("environment", &message.environment)?);
        self.stack(id)?;
        self.state.stacks.remove(&id);
        self.changes.push(Change::Stack(id));
        Ok(Reply::Done)
    }

    pub(super) fn ask_stack(&mut self, message: &v1::AskStack) -> Outcome {
        let id = EnvironmentId::from_u128(bits("environment", &message.environment)?);
        let stack = self.stack(id)?;
        self.put_back(Stack {
            asked: stack.asked + 1,
            ..(*stack).clone()
        });
        Ok(Reply::Done)
    }

    pub(super) fn take_reading(&mut self, message: v1::TakeReading) -> Outcome {
        let id = EnvironmentId::from_u128(bits("environment", &message.environment)?);
        let stack = self.stack(id)?;
        if stack.generation != message.generation {
            return Err(changed_meanwhile("stack"));
        }
        let now_ms = self.state.time_ms;
        let trouble: Option<Problem> = message.trouble.map(understood).transpose()?;
        let mut next = Stack {
            answered: stack.answered.max(message.asked.min(stack.asked)),
            seen: message.commit.clone().or_else(|| stack.seen.clone()),
            trouble: trouble.map(|problem| Trouble {
                commit: message.commit,
                problem,
                at_ms: now_ms,
            }),
            ..(*stack).clone()
        };
        // Those that somebody removed by hand, and that the file has not brought back.
        let state = &self.state;
        next.members
            .retain(|_, member| state.service(member.service).is_some());
        if let Some(reading) = message.reading {
            let reading: Reading = understood(reading)?;
            let last = stack.reading.as_ref().map_or(0, |it| it.number);
            next.reading = Some(Reading {
                number: last + 1,
                read_ms: now_ms,
                end: None,
                ..reading
            });
        }
        self.put_back(next);
        Ok(Reply::Done)
    }

    pub(super) fn step_stack(&mut self, message: v1::StepStack) -> Outcome {
        let id = EnvironmentId::from_u128(bits("environment", &message.environment)?);
        let stack = self.stack(id)?;
        let reading = stack.reading.as_ref().map_or(0, |it| it.number);
        if reading != message.reading {
            return Err(changed_meanwhile("stack"));
        }
        match message.step.ok_or_else(|| missing("step"))? {
            Step::Turn(turn) => self.turn_service(&stack, turn),
            Step::Settle(settle) => self.settle_stack(&stack, settle),
        }
    }

    /// A service becomes what the file says: all of it, or nothing.
    fn turn_service(&mut self, stack: &Stack, turn: Turn) -> Outcome {
        let member: Member = understood(turn.member.ok_or_else(|| missing("member"))?)?;
        if let Some(put) = turn.put {
            self.put_service(put)?;
        }
        let service = self.state.service(member.service);
        let is_ours = |it: &&Arc<Service>| {
            it.environment == stack.environment && it.name == turn.name && !it.removing
        };
        if service.filter(is_ours).is_none() {
            return Err(changed_meanwhile("service"));
        }
        if let Some(deployment) = turn.deployment {
            let deployment: Deployment = understood(deployment)?;
            if deployment.service != member.service {
                return Err(missing("deployment"));
            }
            self.make_deployment(deployment, None)?;
        }
        let mut next = stack.clone();
        next.members.insert(turn.name, member);
        self.put_back(next);
        Ok(Reply::Done)
    }

    fn settle_stack(&mut self, stack: &Stack, settle: Settle) -> Outcome {
        let mut next = stack.clone();
        for bytes in &settle.remove {
            let name = gone(stack, bytes)?;
            let member = next.members.remove(&name);
            let service = member
                .and_then(|it| self.state.service(it.service))
                .cloned();
            if let Some(service) = service.filter(|it| !it.removing) {
                self.put_changed_service(Service {
                    removing: true,
                    ..(*service).clone()
                });
            }
        }
        for bytes in &settle.keep {
            next.members.remove(&gone(stack, bytes)?);
        }
        if let (Some(end), Some(reading)) = (settle.end, &mut next.reading) {
            let end: End = understood(end)?;
            reading.end = Some(End {
                at_ms: self.state.time_ms,
                ..end
            });
        }
        self.put_back(next);
        Ok(Reply::Done)
    }

    fn stack(&self, id: EnvironmentId) -> Result<Arc<Stack>, Problem> {
        self.state.stacks.get(&id).cloned().ok_or_else(|| {
            Problem::new(Code::NotFound, "the environment has no stack")
                .hint("`skep stack connect` gives it one")
        })
    }

    fn put_back(&mut self, stack: Stack) {
        let id = stack.environment;
        self.state.stacks.insert(id, Arc::new(stack));
        self.changes.push(Change::Stack(id));
    }
}

/// The name of a member that the file has no more: no other is anybody's to remove.
fn gone(stack: &Stack, bytes: &[u8]) -> Result<String, Problem> {
    let service = ServiceId::from_u128(bits("service", bytes)?);
    let mut gone = stack.gone();
    let found = gone.find(|(_, member)| member.service == service);
    found.map(|(name, _)| name.clone()).ok_or_else(|| {
        Problem::new(
            Code::Conflict,
            "the service does not wait to be removed: the file has it, or it is not the stack's",
        )
        .hint("`skep stack status` lists those that do")
    })
}
