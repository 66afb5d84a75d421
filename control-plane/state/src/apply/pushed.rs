//! What is pushed to the cluster itself: all references of a push move in one step with the deployment that it
//! calls for, by compare-and-set on where they were.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_model::deployment::{Deployment, Origin};
use skep_model::id::{NodeId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::pushed::{
    MAX_REFERENCES, MAX_UPDATES, Pushed, Reference, Update, check_commit, check_reference,
};
use skep_model::service::Service;
use skep_model::spec::{ServiceSpec, Source};
use skep_proto::convert::holders_in;
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, not_found, understood};
use crate::answer::Taken;
use crate::change::Change;

impl Context<'_> {
    pub(super) fn push_references(&mut self, message: v1::PushReferences) -> Outcome {
        let id = ServiceId::from_u128(bits("service", &message.service)?);
        let service = self.state.service(id).cloned();
        let service = service.filter(|service| !service.removing);
        let service = service.ok_or_else(|| not_found("service", id))?;
        let holders = holders_in(&message.holders).map_err(|error| {
            Problem::new(Code::Internal, "the command does not make sense").at(error.field)
        })?;
        let updates: Vec<Update> = message.updates.into_iter().map(Into::into).collect();
        let known = self.state.pushed.get(&id);
        let mut pushed = known.map_or_else(|| Pushed::nothing(id), |known| (**known).clone());
        moved(&mut pushed, &updates, &holders)?;
        self.put_pushed(pushed);
        let wanted = message.deployment.map(understood::<_, Deployment>);
        let taken = match wanted.transpose()? {
            Some(wanted) => self.deploy_pushed(&service, wanted)?,
            None => None,
        };
        Ok(Reply::Taken(taken.into_iter().collect()))
    }

    /// A service that comes from nowhere comes from the first branch that is pushed; another push may have been it.
    fn deploy_pushed(
        &mut self,
        service: &Arc<Service>,
        wanted: Deployment,
    ) -> Result<Option<Taken>, Problem> {
        let Origin::Pushed { branch, .. } = &wanted.origin else {
            return Err(Problem::invalid("origin", "a push deploys what is pushed"));
        };
        if wanted.service != service.id {
            return Err(not_found("service", wanted.service));
        }
        let its = service.spec.source.as_ref().and_then(Source::branch);
        if its.is_some_and(|its| its != branch) {
            return Ok(None);
        }
        if service.spec.source.is_none() {
            let spec = ServiceSpec {
                source: wanted.source.clone(),
                ..service.spec.clone()
            };
            spec.check()?;
            self.put_changed_service(Service {
                spec,
                ..(**service).clone()
            });
        }
        self.make_deployment(wanted, None)
            .map(|id| Some(Taken::Made(id)))
    }

    pub(super) fn forget_holder(&mut self, message: &v1::ForgetHolder) -> Outcome {
        let id = ServiceId::from_u128(bits("service", &message.service)?);
        let node = NodeId::from_u128(bits("node", &message.node)?);
        let known = self.state.pushed.get(&id).cloned();
        let known = known.ok_or_else(|| not_found("push to service", id))?;
        self.put_pushed(without((*known).clone(), node));
        Ok(Reply::Done)
    }

    /// A node is of the cluster no more.
    pub(super) fn forget_holdings(&mut self, node: NodeId) {
        let holds = |of: &Pushed| of.references.values().any(|it| it.holders.contains(&node));
        let all = self.state.pushed.values();
        let its: Vec<Pushed> = all
            .filter(|of| holds(of))
            .map(|of| (**of).clone())
            .collect();
        for pushed in its {
            self.put_pushed(without(pushed, node));
        }
    }

    fn put_pushed(&mut self, pushed: Pushed) {
        let id = pushed.service;
        match pushed.references.is_empty() {
            true => self.state.pushed.remove(&id),
            false => self.state.pushed.insert(id, Arc::new(pushed)),
        };
        self.changes.push(Change::Service(id));
    }
}

fn without(mut pushed: Pushed, node: NodeId) -> Pushed {
    for reference in pushed.references.values_mut() {
        reference.holders.remove(&node);
    }
    pushed
}

/// Moves every reference.
///
/// # Errors
/// One is not where it should be, nobody holds what is new, or something is beyond the limits.
fn moved(
    pushed: &mut Pushed,
    updates: &[Update],
    holders: &BTreeSet<NodeId>,
) -> Result<(), Problem> {
    if updates.is_empty() || updates.len() > MAX_UPDATES {
        let text = format!("1 to {MAX_UPDATES} references are accepted");
        return Err(Problem::invalid("updates", text));
    }
    for update in updates {
        check_reference("updates", &update.name)?;
        let is = pushed.references.get(&update.name).map(|of| &of.commit);
        if is != update.old.as_ref() {
            let text = format!("another push to `{}` was first", update.name);
            return Err(Problem::new(Code::Conflict, text).hint("fetch nothing, push again"));
        }
        let Some(commit) = &update.new else {
            pushed.references.remove(&update.name);
            continue;
        };
        check_commit("updates", commit)?;
        if holders.is_empty() {
            return Err(Problem::invalid("holders", "no node holds the push"));
        }
        let reference = Reference {
            commit: commit.clone(),
            holders: holders.clone(),
        };
        pushed.references.insert(update.name.clone(), reference);
    }
    if pushed.references.len() > MAX_REFERENCES {
        let text = format!("a service has at most {MAX_REFERENCES} branches and tags");
        return Err(
            Problem::new(Code::TooLarge, text).hint("remove some: `git push skep --delete BRANCH`")
        );
    }
    Ok(())
}
