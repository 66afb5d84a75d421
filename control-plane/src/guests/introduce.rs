//! What a guest is told so that it joins: the environment of its agent.

use skep_identity::random;
use skep_identity::token::JoinToken as TokenText;
use skep_model::guest_pool::PoolGuest;
use skep_model::id::TokenId;
use skep_model::problem::{Code, Problem};
use skep_model::server::{JoinToken, Role};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;
use zeroize::Zeroizing;

use crate::pki::ca_fingerprint;

/// How long a guest's token is good: it is told anew after two minutes, with another one.
pub(crate) const TOKEN_MS: u64 = 15 * 60 * 1_000;
/// The same where people tell it: they have to get at the machine first.
pub(crate) const TOKEN_FOR_PEOPLE_MS: u64 = 60 * 60 * 1_000;

/// The command that makes a token for a guest, good until then, and what the guest is told. The command is obeyed first.
///
/// # Errors
/// The cluster's CA cannot be read.
pub(crate) fn introduction(
    view: &State,
    one: &PoolGuest,
    expires_ms: u64,
) -> Result<(Kind, Zeroizing<String>), Problem> {
    let cluster = view
        .cluster()
        .ok_or_else(|| Problem::new(Code::Unavailable, "the cluster is not initialised yet"))?;
    let ca = ca_fingerprint(cluster)?;
    let text = TokenText::generate(ca, TokenId::from_u128(random::new_id()));
    let name = one.guest.name();
    let token = JoinToken {
        id: text.id,
        secret_hash: text.secret_hash().to_vec(),
        expires_ms,
        uses_left: 1,
        role: Role::Node,
        note: format!("of the pool {}", one.pool),
        created_ms: 0,
    };
    let servers: Vec<&str> = view
        .servers()
        .map(|server| server.cluster_address.as_str())
        .collect();
    let environment = Zeroizing::new(format!(
        "SKEP_SERVER={}\nSKEP_NODE_NAME={name}\nSKEP_JOIN_TOKEN={}\n",
        servers.join(","),
        text.to_text().as_str()
    ));
    let command = Kind::IntroduceGuest(v1::IntroduceGuest {
        id: id_bytes(one.guest.id.as_u128()),
        token: Some((&token).into()),
    });
    Ok((command, environment))
}
