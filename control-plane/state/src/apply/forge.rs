//! Forge connections, and what became of what forges were told. What is still to be told follows from the deployments
//! and previews themselves. Sends nothing, and never opens what is sealed.

use std::sync::Arc;

use skep_model::deployment::Deployment;
use skep_model::forge::{Access, Connection, Kept, MAX_CONNECTIONS, Told};
use skep_model::id::{DeploymentId, EnvironmentId, WorkspaceId};
use skep_model::notify::MAX_ANSWER;
use skep_model::preview::Preview;
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
        match &connection.access {
            Access::Token(token) if !token.0.is_empty() => {}
            // Installations are bound one by one, each with a proof.
            Access::Token(_) | Access::App(_) => return Err(missing("token")),
        }
        if known.is_some_and(|known| known.is_app()) {
            let text = "this host is connected by a GitHub App, which needs no token";
            return Err(Problem::new(Code::Conflict, text)
                .hint("`skep forge rm HOST` removes the connection first"));
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
        let known = self.connection(workspace, &message.host, message.expected_changed_ms)?;
        let id = DeploymentId::from_u128(bits("deployment", &message.deployment)?);
        let deployment = self.state.deployment(id).cloned();
        let deployment = deployment.ok_or_else(|| not_found("deployment", id))?;
        let before_ms = deployment.told.as_ref().map_or(0, |told| told.at_ms);
        if before_ms != message.expected_at_ms {
            return Err(changed_meanwhile("deployment"));
        }
        let told: Told = understood(message.told.ok_or_else(|| missing("told"))?)?;
        self.settle_connection(Connection {
            is_refused: message.is_refused,
            resume_ms: message.resume_ms,
            problem: message.problem.map(|it| cut(&it)),
            asked_ms: told.at_ms,
            ..(*known).clone()
        });
        self.changes.push(Change::Deployment(id));
        self.state.put_deployment(Deployment {
            told: Some(told),
            ..(*deployment).clone()
        });
        Ok(Reply::Done)
    }

    /// The same of what GitHub calls a deployment.
    pub(super) fn settle_shown(&mut self, message: v1::SettleShown) -> Outcome {
        let workspace = WorkspaceId::from_u128(bits("workspace", &message.workspace)?);
        let known = self.connection(workspace, &message.host, message.expected_changed_ms)?;
        let id = DeploymentId::from_u128(bits("deployment", &message.deployment)?);
        let deployment = self.state.deployment(id).cloned();
        let deployment = deployment.ok_or_else(|| not_found("deployment", id))?;
        let before_ms = deployment.shown.as_ref().map_or(0, |shown| shown.at_ms);
        if before_ms != message.expected_at_ms {
            return Err(changed_meanwhile("deployment"));
        }
        let shown: Kept = understood(message.shown.ok_or_else(|| missing("shown"))?)?;
        let problem = shown.problem.as_deref().map(cut);
        self.settle_connection(Connection {
            is_refused: message.is_refused,
            resume_ms: message.resume_ms,
            problem: problem.clone(),
            asked_ms: shown.at_ms,
            ..(*known).clone()
        });
        self.changes.push(Change::Deployment(id));
        self.state.put_deployment(Deployment {
            shown: Some(Kept { problem, ..shown }),
            ..(*deployment).clone()
        });
        Ok(Reply::Done)
    }

    /// The same of a preview, at its pull request.
    pub(super) fn settle_comment(&mut self, message: v1::SettleComment) -> Outcome {
        let workspace = WorkspaceId::from_u128(bits("workspace", &message.workspace)?);
        let known = self.connection(workspace, &message.host, message.expected_changed_ms)?;
        let id = EnvironmentId::from_u128(bits("environment", &message.environment)?);
        let preview = self.state.preview_of(id).cloned();
        let preview = preview.ok_or_else(|| not_found("preview", id))?;
        let before_ms = preview.comment.as_ref().map_or(0, |comment| comment.at_ms);
        if before_ms != message.expected_at_ms {
            return Err(changed_meanwhile("preview"));
        }
        let comment: Kept = understood(message.comment.ok_or_else(|| missing("comment"))?)?;
        let problem = comment.problem.as_deref().map(cut);
        self.settle_connection(Connection {
            is_refused: message.is_refused,
            resume_ms: message.resume_ms,
            problem: problem.clone(),
            asked_ms: comment.at_ms,
            ..(*known).clone()
        });
        self.changes.push(Change::Preview(id));
        let comment = Some(Kept { problem, ..comment });
        let preview = Preview {
            comment,
            ..(*preview).clone()
        };
        self.state.previews.insert(id, Arc::new(preview));
        Ok(Reply::Done)
    }

    /// A connection that something was asked with; refused where a person has changed it since.
    fn connection(
        &self,
        workspace: WorkspaceId,
        host: &str,
        changed_ms: u64,
    ) -> Result<Arc<Connection>, Problem> {
        let known = self.state.forge(workspace, host).cloned();
        let known = known.ok_or_else(|| no_forge(host))?;
        match known.changed_ms == changed_ms {
            true => Ok(known),
            false => Err(changed_meanwhile("forge connection")),
        }
    }

    /// Nobody waits for a time alone.
    fn settle_connection(&mut self, next: Connection) {
        let known = self.state.forge(next.workspace, &next.host);
        let is_seen = known.is_none_or(|known| {
            known.is_refused != next.is_refused
                || known.resume_ms != next.resume_ms
                || known.problem != next.problem
        });
        match is_seen {
            true => self.put_connection(next),
            false => self.state.put_forge(next),
        }
    }

    pub(super) fn put_connection(&mut self, connection: Connection) {
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
