//! Servers of the control plane: who is one, under which member id. The leader makes the Raft group
//! follow this list.

use std::sync::Arc;

use skep_model::id::ServerId;
use skep_model::problem::{Code, Problem};
use skep_model::server::{MAX_SERVERS, Role, Server};
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, missing, not_found, understood};
use crate::change::Change;
use crate::state::FIRST_MEMBER;

impl Context<'_> {
    pub(super) fn join_server(&mut self, message: v1::JoinServer) -> Outcome {
        let token = self.good_token(&message.token, &message.secret_hash, Role::Server)?;
        let wanted: Server = understood(message.server.ok_or_else(|| missing("server"))?)?;
        self.check_server(&wanted)?;
        let now = self.state.time_ms;
        let joined_ms = match (self.state.server(wanted.id), message.rebuild) {
            (Some(known), true) => known.joined_ms,
            (None, false) => now,
            (Some(known), false) => {
                let text = format!("server `{}` has joined already", known.name);
                return Err(Problem::new(Code::Conflict, text)
                    .hint("if its data is lost, use `skep server rebuild` on it"));
            }
            (None, true) => {
                let text = "the cluster does not know this server (any more)";
                return Err(Problem::new(Code::NotFound, text)
                    .hint("start it with an empty data directory and `skep server join`"));
            }
        };
        if !message.rebuild && self.state.servers.len() >= MAX_SERVERS {
            let text = format!("the cluster has {MAX_SERVERS} servers");
            return Err(Problem::new(Code::Conflict, text)
                .hint("remove one first with `skep server leave`"));
        }
        let member = self.next_member()?;
        self.spend(&token);
        self.put_server(Server {
            member,
            joined_ms,
            ..wanted
        });
        Ok(Reply::Member(member))
    }

    /// Draws a member id that no server ever had.
    fn next_member(&mut self) -> Result<u64, Problem> {
        let cluster = self.cluster()?;
        let member = self.state.next_member();
        let mut next = (*cluster).clone();
        next.next_member = member + 1;
        self.state.cluster = Some(Arc::new(next));
        Ok(member)
    }

    pub(super) fn update_server(&mut self, message: v1::UpdateServer) -> Outcome {
        let wanted: Server = understood(message.server.ok_or_else(|| missing("server"))?)?;
        self.check_server(&wanted)?;
        let next = match self.state.server(wanted.id) {
            Some(known) => Server {
                member: known.member,
                joined_ms: known.joined_ms,
                ..wanted
            },
            // A cluster that is older than this list has one server, and this is it.
            None if self.state.servers.is_empty() => Server {
                member: FIRST_MEMBER,
                joined_ms: self.state.time_ms,
                ..wanted
            },
            None => return Err(not_found("server", wanted.id)),
        };
        if self
            .state
            .server(next.id)
            .is_none_or(|known| **known != next)
        {
            self.put_server(next);
        }
        Ok(Reply::Done)
    }

    pub(super) fn remove_server(&mut self, message: &v1::RemoveServer) -> Outcome {
        let id = ServerId::from_u128(bits("server", &message.server)?);
        if self.state.server(id).is_none() {
            return Err(not_found("server", id));
        }
        if self.state.servers.len() == 1 {
            return Err(
                Problem::new(Code::Conflict, "this is the cluster's only server")
                    .hint("let another one join first with `skep server join`"),
            );
        }
        self.state.remove_server(id);
        self.changes.push(Change::Server(id));
        Ok(Reply::Done)
    }

    fn check_server(&self, wanted: &Server) -> Result<(), Problem> {
        wanted.check()?;
        let namesake = self.state.server_named(&wanted.name);
        if namesake.is_some_and(|other| other.id != wanted.id) {
            let text = format!("there is a server `{}` already", wanted.name);
            return Err(Problem::new(Code::Conflict, text)
                .at("name")
                .hint("choose another with `skep server --server-name`"));
        }
        let level = self.state.feature_level();
        if wanted.feature_level < level {
            let text = format!(
                "skep {} understands feature levels up to {}, and the cluster is at level {level}",
                wanted.version, wanted.feature_level
            );
            return Err(Problem::new(Code::Conflict, text)
                .hint("install the version that the other servers run: `skep server ls`"));
        }
        Ok(())
    }

    pub(super) fn put_server(&mut self, server: Server) {
        self.changes.push(Change::Server(server.id));
        self.state.put_server(server);
    }
}
