//! Join tokens: the one text that lets a new server or node ask for its first certificate.
//!
//! `skep-join.1.<CA fingerprint>.<token id>.<secret>`: the fingerprint pins the cluster before
//! anything is sent to it, the id finds the server's record (role, expiry, uses), the secret proves
//! the right. Servers store only the hash of the secret; what a token allows is in their record.

use std::fmt;
use std::str::FromStr;

use skep_model::id::TokenId;
use zeroize::Zeroizing;

use crate::fingerprint::Fingerprint;
use crate::{digest, random};

const PREFIX: &str = "skep-join";
const VERSION: &str = "1";
const SECRET_BYTES: usize = 32;
/// 32 bytes in base64url without padding.
const SECRET_LEN: usize = 43;

/// The text is not a join token. Never repeats the text: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another form.
    #[error(
        "not a join token: `{PREFIX}.{VERSION}.<fingerprint>.<id>.<secret>` is expected, complete \
         and on one line"
    )]
    Malformed,
    /// Made by a newer Skep.
    #[error("the join token has a format that this program does not know: update it")]
    Version,
}

/// A join token.
#[derive(Clone)]
pub struct JoinToken {
    /// The CA that the cluster's servers must show.
    pub ca: Fingerprint,
    /// Names the server's record of the token.
    pub id: TokenId,
    secret: Zeroizing<String>,
}

impl JoinToken {
    /// A new token with a random secret.
    pub fn generate(ca: Fingerprint, id: TokenId) -> Self {
        Self {
            ca,
            id,
            secret: random::token(SECRET_BYTES),
        }
    }

    /// The secret, to be sent over a connection that is pinned to [`JoinToken::ca`], nowhere else.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What a server stores of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        hash_secret(&self.secret)
    }

    /// The token as text. Secret: show it once, to the person who asked for it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let Self { ca, id, secret } = self;
        Zeroizing::new(format!("{PREFIX}.{VERSION}.{ca}.{id}.{}", secret.as_str()))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.trim().splitn(6, '.').collect();
        let [PREFIX, version, rest @ ..] = parts.as_slice() else {
            return Err(Error::Malformed);
        };
        if *version != VERSION {
            return Err(Error::Version);
        }
        let [ca, id, secret] = rest else {
            return Err(Error::Malformed);
        };
        let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if secret.len() != SECRET_LEN || !secret.bytes().all(base64url) {
            return Err(Error::Malformed);
        }
        Ok(Self {
            ca: ca.parse().map_err(|_| Error::Malformed)?,
            id: id.parse().map_err(|_| Error::Malformed)?,
            secret: Zeroizing::new((*secret).to_owned()),
        })
    }
}

/// The hash of a token's secret as servers keep it. One round suffices: the secret has 256 bits.
pub fn hash_secret(secret: &str) -> [u8; 32] {
    digest::sha256(secret.as_bytes())
}

/// Whether `secret` has the recorded hash, in constant time.
pub fn verify_secret(secret: &str, recorded_hash: &[u8]) -> bool {
    digest::constant_time_eq(&hash_secret(secret), recorded_hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::generate(Fingerprint::of_der(b"ca"), TokenId::from_u128(5))
    }

    #[test]
    fn text_round_trips() {
        let token = token();
        let read: JoinToken = format!("{}\n", *token.to_text()).parse().expect("parse");
        assert_eq!(
            (read.ca, read.id, read.secret()),
            (token.ca, token.id, token.secret())
        );
        assert!(token.to_text().starts_with("skep-join.1."));
    }

    #[test]
    fn only_the_whole_token_is_a_token() {
        let good = token().to_text();
        for bad in [
            "",
            "skep-join",
            "skep-join.1",
            &good[..good.len() - 1],
            &good.replace("skep-join", "skep-john"),
            &format!("{}.x", *good),
            &format!("{}x", *good),
        ] {
            assert_eq!(
                bad.parse::<JoinToken>().err(),
                Some(Error::Malformed),
                "{bad}"
            );
        }
        let newer = good.replace("join.1.", "join.2.");
        assert_eq!(newer.parse::<JoinToken>().err(), Some(Error::Version));
    }

    #[test]
    fn the_secret_is_checked_by_its_hash_and_never_printed() {
        let (one, two) = (token(), token());
        assert!(verify_secret(one.secret(), &one.secret_hash()));
        assert!(!verify_secret(two.secret(), &one.secret_hash()));
        assert!(!verify_secret(one.secret(), b""));
        assert!(!format!("{one:?}").contains(one.secret()));
    }
}
