//! Nodes: tokens, joining, facts, judgement, removal.

use std::sync::Arc;

use skep_model::id::{NodeId, TokenId};
use skep_model::name;
use skep_model::node::{Facts, JoinToken, Node, NodeStatus};
use skep_model::problem::{Code, Problem};
use skep_proto::convert::enum_value;
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, missing, not_found, understood};
use crate::change::Change;

/// Most join tokens that can wait at once.
const MAX_TOKENS: usize = 1_000;

impl Context<'_> {
    pub(super) fn put_token(&mut self, message: v1::PutToken) -> Outcome {
        let token: JoinToken = understood(message.token.ok_or_else(|| missing("token"))?)?;
        let now = self.state.time_ms;
        let ended: Vec<TokenId> = self
            .state
            .tokens
            .values()
            .filter(|token| token.expires_ms <= now)
            .map(|token| token.id)
            .collect();
        for id in ended {
            self.state.tokens.remove(&id);
        }
        if self.state.tokens.len() >= MAX_TOKENS {
            return Err(
                Problem::new(Code::Busy, format!("{MAX_TOKENS} join tokens are waiting"))
                    .hint("wait until some have expired"),
            );
        }
        self.state.tokens.insert(token.id, Arc::new(token));
        Ok(Reply::Done)
    }

    pub(super) fn join_node(&mut self, message: v1::JoinNode) -> Outcome {
        let id = TokenId::from_u128(bits("token", &message.token)?);
        let refused = || {
            Problem::new(
                Code::Unauthenticated,
                "the join token is not known, used up or expired",
            )
            .hint("make a new one with `skep token create`")
        };
        let token = self.state.token(id).cloned().ok_or_else(refused)?;
        // Hashes of a random secret: comparing them byte by byte tells nothing of the secret.
        let is_good = token.secret_hash == message.secret_hash
            && token.expires_ms > self.state.time_ms
            && token.uses_left > 0;
        if !is_good {
            return Err(refused());
        }
        let node: Node = understood(message.node.ok_or_else(|| missing("node"))?)?;
        name::check("name", &node.name)?;
        if self.state.node_named(&node.name).is_some() {
            return Err(Problem::new(Code::Conflict, format!("there is a node `{}` already", node.name))
                .at("name")
                .hint("choose another with `skep agent --name`, or remove the old one with `skep node rm`"));
        }
        if token.uses_left == 1 {
            self.state.tokens.remove(&id);
        } else {
            let uses_left = token.uses_left - 1;
            self.state.tokens.insert(
                id,
                Arc::new(JoinToken {
                    uses_left,
                    ..(*token).clone()
                }),
            );
        }
        let now = self.state.time_ms;
        let joined = node.id;
        self.state.put_node(Node {
            status: NodeStatus::Lost,
            status_ms: now,
            generation: 1,
            joined_ms: now,
            ..node
        });
        self.changes.push(Change::Node(joined));
        Ok(Reply::Node(joined))
    }

    pub(super) fn update_node(&mut self, message: v1::UpdateNode) -> Outcome {
        let node = self.node(&message.node)?;
        let facts: Facts = understood(message.facts.ok_or_else(|| missing("facts"))?)?;
        if node.facts != facts {
            self.changes.push(Change::Node(node.id));
            self.state.put_node(Node {
                facts,
                generation: node.generation + 1,
                ..(*node).clone()
            });
        }
        Ok(Reply::Done)
    }

    pub(super) fn set_node_status(&mut self, message: &v1::SetNodeStatus) -> Outcome {
        let node = self.node(&message.node)?;
        let status = enum_value("status", &NodeStatus::ALL, message.status)
            .map_err(|_| missing("status"))?;
        if node.status != status {
            self.changes.push(Change::Node(node.id));
            let status_ms = self.state.time_ms;
            self.state.put_node(Node {
                status,
                status_ms,
                generation: node.generation + 1,
                ..(*node).clone()
            });
        }
        Ok(Reply::Done)
    }

    pub(super) fn remove_node(&mut self, message: &v1::RemoveNode) -> Outcome {
        let node = self.node(&message.node)?;
        if node.status == NodeStatus::Ready {
            return Err(
                Problem::new(Code::Conflict, format!("node `{}` is connected", node.name))
                    .hint("stop its agent first (`systemctl stop skep-agent` on the node)"),
            );
        }
        self.lose_allocations(node.id);
        self.state.names.nodes.remove(&node.name);
        self.state.nodes.remove(&node.id);
        self.changes.push(Change::Node(node.id));
        Ok(Reply::Done)
    }

    fn node(&self, id: &[u8]) -> Result<Arc<Node>, Problem> {
        let id = NodeId::from_u128(bits("node", id)?);
        self.state
            .node(id)
            .cloned()
            .ok_or_else(|| not_found("node", id))
    }
}
