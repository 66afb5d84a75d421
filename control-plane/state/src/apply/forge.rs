//! Forge connections, and what became of what forges were told. What is still to be told follows from the deployments
//! themselves. Sends nothing, and never opens what is sealed.

use std::sync::Arc;

use skep_model::deployment::Deployment;
use skep_model::forge::{Connection, MAX_CONNECTIONS, Told};
use skep_model::id::{DeploymentId, WorkspaceId};
use skep_model::notify::MAX_ANSWER;
use skep_model::problem::{Code, Problem};
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;

impl Context<'_> {
    /// Makes a connection, or changes the one that the workspace has to the host.
    pub(super) fn put_forge(&mut self, message: v1::PutForge) -> Outcome {
        let connection = message.connection.ok_or_else(|| missing("connection"))?;
        let mut connection: Connection = understood(connection)?;
        connection.check()?;
        if self.state.workspace(connection.workspace).is_none() {
            return Err(not_found("workspace", connection.workspace));
        }
        let known = self.state.forge(connection.workspace, &connection.host);
        connection.made_ms = known.map_or(self.state.time_ms, |known| known.made_ms);
        if known.is_none() && self.state.forges.len() >= MAX_CONNECTIONS {
            let text = format!("there are {MAX_CONNECTIONS} forge connections already");
            return Err(Problem::new(Code::TooLarge, text).hint("`skep forge rm` removes one"));
        }
        if connection.token.0.is_empty() {
            return Err(missing("token"));
        }
        // What came of the one before says nothing of this one.
        connection.changed_ms = self.state.time_ms;
        (connection.is_refused, connection.resume_ms) = (false, 0);
        (connection.problem, connection.asked_ms) = (None, 0);
        self.put_connection(connection);
        Ok(Reply::Done)
    }

    pub(super) fn remove_forge(&mut self, message: &v1::RemoveForge) -> Outcome {
        let workspace = WorkspaceId::from_u128(bits("workspace", &message.workspace)?);
        let key = (workspace, message.host.clone());
        if self.state.forges.remove(&key).is_none() {
            return Err(no_forge(&message.host));
        }
        self.changes.push(Change::Forges);
        Ok(Reply::Done)
    }

    pub(super) fn settle_forge(&mut self, message: v1::SettleForge) -> Outcome {
        let workspace = WorkspaceId::from_u128(bits("workspace", &message.workspace)?);
        let known = self.state.forge(workspace, &message.host);
        let known = known.cloned().ok_or_else(|| no_forge(&message.host))?;
        if known.changed_ms != message.expected_changed_ms {
            return Err(changed_meanwhile("forge connection"));
        }
        let id = DeploymentId::from_u128(bits("deployment", &message.deployment)?);
        let deployment = self.state.deployment(id).cloned();
        let deployment = deployment.ok_or_else(|| not_found("deployment", id))?;
        let before_ms = deployment.told.as_ref().map_or(0, |told| told.at_ms);
        if before_ms != message.expected_at_ms {
            return Err(changed_meanwhile("deployment"));
        }
        let told: Told = understood(message.told.ok_or_else(|| missing("told"))?)?;
        let problem = message.problem.map(|it| cut(&it));
        let is_seen = known.is_refused != message.is_refused
            || known.resume_ms != message.resume_ms
            || known.problem != problem;
        let connection = Connection {
            is_refused: message.is_refused,
            resume_ms: message.resume_ms,
            problem,
            asked_ms: told.at_ms,
            ..(*known).clone()
        };
        match is_seen {
            true => self.put_connection(connection),
            // Nobody waits for a time alone.
            false => self.state.put_forge(connection),
        }
        self.changes.push(Change::Deployment(id));
        self.state.put_deployment(Deployment {
            told: Some(told),
            ..(*deployment).clone()
        });
        Ok(Reply::Done)
    }

    fn put_connection(&mut self, connection: Connection) {
        self.changes.push(Change::Forges);
        self.state.put_forge(connection);
    }
}

impl crate::state::State {
    pub(crate) fn put_forge(&mut self, connection: Connection) {
        let key = (connection.workspace, connection.host.clone());
        self.forges.insert(key, Arc::new(connection));
    }

    /// Every forge connection, by workspace and host.
    pub fn forges(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.forges.values()
    }

    /// A workspace's connection to the forge at a host.
    pub fn forge(&self, workspace: WorkspaceId, host: &str) -> Option<&Arc<Connection>> {
        self.forges.get(&(workspace, host.to_owned()))
    }
}

fn no_forge(host: &str) -> Problem {
    let text = format!(
        "there is no connection to a forge at `{}`",
        host.escape_debug()
    );
    let problem = Problem::new(Code::NotFound, text).at("host");
    problem.hint("`skep forge ls` lists those that there are")
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_ANSWER)].to_owned()
}
