//! Join tokens: made, spent, taken back.

use std::sync::Arc;

use skep_model::id::TokenId;
use skep_model::problem::{Code, Problem};
use skep_model::server::{JoinToken, MAX_NOTE, Role};
use skep_proto::{LEVEL_SERVERS, v1};

use super::{Context, Outcome, Reply, bits, missing, not_found, understood};

/// Most join tokens that can wait at once.
const MAX_TOKENS: usize = 1_000;

impl Context<'_> {
    pub(super) fn put_token(&mut self, message: v1::PutToken) -> Outcome {
        let token: JoinToken = understood(message.token.ok_or_else(|| missing("token"))?)?;
        if token.note.len() > MAX_NOTE {
            return Err(Problem::invalid("note", "the note is too long")
                .hint(format!("at most {MAX_NOTE} bytes")));
        }
        let now = self.state.time_ms;
        let ended: Vec<TokenId> = self
            .state
            .tokens
            .values()
            .filter(|token| token.expires_ms <= now)
            .map(|token| token.id)
            .collect();
        if self.state.tokens.len() - ended.len() >= MAX_TOKENS {
            return Err(
                Problem::new(Code::Busy, format!("{MAX_TOKENS} join tokens are waiting"))
                    .hint("revoke some with `skep token revoke`, or wait until some have expired"),
            );
        }
        for id in ended {
            self.state.tokens.remove(&id);
        }
        let has_times = self.state.feature_level() >= LEVEL_SERVERS;
        let created_ms = if has_times { now } else { 0 };
        self.state.tokens.insert(
            token.id,
            Arc::new(JoinToken {
                created_ms,
                ..token
            }),
        );
        Ok(Reply::Done)
    }

    pub(super) fn remove_token(&mut self, message: &v1::RemoveToken) -> Outcome {
        let id = TokenId::from_u128(bits("token", &message.token)?);
        match self.state.tokens.remove(&id) {
            Some(_) => Ok(Reply::Done),
            None => Err(not_found("token", id)),
        }
    }

    /// The token, if it is good for this role just now. Refusals all read alike: they tell a stranger
    /// nothing of which tokens there are.
    pub(super) fn good_token(
        &self,
        id: &[u8],
        secret_hash: &[u8],
        role: Role,
    ) -> Result<Arc<JoinToken>, Problem> {
        let id = TokenId::from_u128(bits("token", id)?);
        // Hashes of a random secret: comparing them byte by byte tells nothing of the secret.
        let token = self.state.token(id).cloned().filter(|token| {
            token.secret_hash == secret_hash
                && token.expires_ms > self.state.time_ms
                && token.uses_left > 0
        });
        let hint = match role {
            Role::Node => "make a new one with `skep token create`",
            Role::Server => "make a new one with `skep token create --role server`",
        };
        let token = token.ok_or_else(|| {
            Problem::new(
                Code::Unauthenticated,
                "the join token is not known, used up or expired",
            )
            .hint(hint)
        })?;
        if token.role != role {
            let text = match role {
                Role::Node => "this token lets a server join, not a node",
                Role::Server => "this token lets a node join, not a server",
            };
            return Err(Problem::new(Code::Forbidden, text).hint(hint));
        }
        Ok(token)
    }

    pub(super) fn spend(&mut self, token: &JoinToken) {
        if token.uses_left == 1 {
            self.state.tokens.remove(&token.id);
            return;
        }
        let spent = JoinToken {
            uses_left: token.uses_left - 1,
            ..token.clone()
        };
        self.state.tokens.insert(token.id, Arc::new(spent));
    }
}
