//! Settings of workspaces, environments and pools. Never looks at what they mean for what runs.

use std::sync::Arc;

use skep_model::gate::Freeze;
use skep_model::id::EnvironmentId;
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_model::settings::{MAX_POOLS, Pool, Scope, ScopeSettings, check_base_domain};
use skep_model::tcp::Ports;
use skep_proto::v1;
use skep_proto::v1::set_scope::Relaxed;

use super::{Context, Outcome, Reply, bits, missing, not_found, understood};
use crate::change::Change;

impl Context<'_> {
    pub(super) fn set_scope(&mut self, message: v1::SetScope) -> Outcome {
        let scope: Scope = understood(message.scope.ok_or_else(|| missing("scope"))?)?;
        match scope {
            Scope::Workspace(id) if self.state.workspace(id).is_none() => {
                return Err(not_found("workspace", id));
            }
            Scope::Environment(id) if self.state.environment(id).is_none() => {
                return Err(not_found("environment", id));
            }
            _ => {}
        }
        let mut settings = self.state.settings_of(scope);
        if let Some(quota) = message.quota {
            settings.quota = quota.into();
        }
        match message.relaxed {
            None => {}
            Some(Relaxed::Inherited(_)) => settings.relaxed = None,
            Some(Relaxed::Said(relaxed)) => settings.relaxed = Some(relaxed),
        }
        if let Some(approval) = message.approval {
            settings.gates.approval = approval;
        }
        if let Some(freeze) = message.put_freeze {
            let freeze: Freeze = understood(freeze)?;
            let all = &mut settings.gates.freezes;
            match all.iter_mut().find(|it| it.name == freeze.name) {
                Some(same) => *same = freeze,
                None => all.push(freeze),
            }
            settings.gates.check()?;
        }
        if !message.remove_freeze.is_empty() {
            let name = &message.remove_freeze;
            let before = settings.gates.freezes.len();
            settings.gates.freezes.retain(|it| it.name != *name);
            if settings.gates.freezes.len() == before {
                let text = format!("there is no freeze `{}`", name.escape_debug());
                return Err(Problem::new(Code::NotFound, text)
                    .at("freeze")
                    .hint("`skep gate show` lists those that there are"));
            }
        }
        if settings == self.state.settings_of(scope) {
            return Ok(Reply::Done);
        }
        self.put_scope(scope, settings);
        Ok(Reply::Done)
    }

    pub(super) fn prune_claims(&mut self) -> Outcome {
        self.state.prune_claims();
        self.state.prune_addresses();
        Ok(Reply::Done)
    }

    /// Addresses are given from another pool from now on; what is given stays.
    pub(super) fn set_private_pool(&mut self, message: &v1::SetPrivatePool) -> Outcome {
        self.state.private_pool = message.pool.parse()?;
        self.changes.push(Change::Settings);
        Ok(Reply::Done)
    }

    /// Services may have entries of this range from now on, and nobody has one outside of it.
    pub(super) fn set_tcp_ports(&mut self, message: v1::SetTcpPorts) -> Outcome {
        let ports = message.ports.map(Ports::try_from).transpose();
        let ports = ports.map_err(|_| missing("ports"))?;
        ports.map_or(Ok(()), Ports::check)?;
        self.state.check_ports(ports)?;
        self.state.tcp_ports = ports;
        self.changes.push(Change::Settings);
        Ok(Reply::Done)
    }

    /// Whether new hosts need a proof from now on; what projects have, they keep.
    pub(super) fn set_domain_proof(&mut self, message: &v1::SetDomainProof) -> Outcome {
        if self.state.domain_proof != message.required {
            self.state.domain_proof = message.required;
            self.changes.push(Change::Settings);
        }
        Ok(Reply::Done)
    }

    /// Every generated name of the environment becomes another one, where all of them are free.
    pub(super) fn set_base_domain(&mut self, message: v1::SetBaseDomain) -> Outcome {
        let id = EnvironmentId::from_u128(bits("environment", &message.environment)?);
        if self.state.environment(id).is_none() {
            return Err(not_found("environment", id));
        }
        if let Some(base) = &message.base_domain {
            check_base_domain(base)?;
        }
        let scope = Scope::Environment(id);
        let old = self.state.settings_of(scope);
        if old.base_domain == message.base_domain {
            return Ok(Reply::Done);
        }
        let services: Vec<Arc<Service>> = self.state.services_in(scope).cloned().collect();
        self.put_scope(
            scope,
            ScopeSettings {
                base_domain: message.base_domain,
                ..old
            },
        );
        self.state.index_generated();
        for service in services {
            self.state.check_anew(&service).map_err(|mut problem| {
                problem.message = format!("service `{}`: {}", service.name, problem.message);
                problem.at("base_domain")
            })?;
            self.state.settle_claims(service.id, &Default::default());
        }
        self.touch_routes();
        Ok(Reply::Done)
    }

    fn put_scope(&mut self, scope: Scope, settings: ScopeSettings) {
        if settings == ScopeSettings::default() {
            self.state.scopes.remove(&scope);
        } else {
            self.state.scopes.insert(scope, Arc::new(settings));
        }
        self.changes.push(Change::Settings);
    }

    pub(super) fn put_pool(&mut self, message: v1::PutPool) -> Outcome {
        let pool: Pool = understood(message.pool.ok_or_else(|| missing("pool"))?)?;
        pool.check()?;
        let old = self.state.pools.get(&pool.name);
        if old.is_none() && self.state.pools.len() >= MAX_POOLS {
            let text = format!("there are {MAX_POOLS} pools with a policy already");
            return Err(Problem::new(Code::TooLarge, text).hint("`skep pool rm` removes one"));
        }
        if old.is_none_or(|old| **old != pool) {
            self.state.pools.insert(pool.name.clone(), Arc::new(pool));
            self.changes.push(Change::Settings);
        }
        Ok(Reply::Done)
    }

    pub(super) fn remove_pool(&mut self, message: &v1::RemovePool) -> Outcome {
        if self.state.pools.remove(&message.name).is_none() {
            let text = format!("the pool `{}` has no policy", message.name.escape_debug());
            return Err(Problem::new(Code::NotFound, text)
                .at("pool")
                .hint("`skep pool ls` lists those that have one"));
        }
        self.changes.push(Change::Settings);
        Ok(Reply::Done)
    }
}
