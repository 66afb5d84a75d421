//! Names and passwords of one route (RFC 7617). A password is compared with its bcrypt hash once; after
//! that its digest under a key of this process is enough, or each request would cost what only guessing
//! should.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use ring::hmac;
use tokio::sync::Semaphore;

use crate::reply::Refusal;

/// Passwords of one route that are compared at the same time: whoever guesses uses no more cores than
/// that. Others wait for their turn.
const MAX_COMPARED: usize = 2;
/// Longest that bcrypt looks at, in bytes.
const MAX_PASSWORD: usize = 72;

#[derive(Debug)]
pub(super) struct Users {
    hashes: HashMap<String, String>,
    /// Stands in for a user that there is not, so that the time tells nothing.
    anybody: String,
    /// None: the system gave no random bytes, and every password is compared.
    key: Option<hmac::Key>,
    /// Digests of passwords that were right, by user.
    known: Mutex<HashMap<String, hmac::Tag>>,
    turns: Semaphore,
}

impl Users {
    /// None: everybody may ask.
    pub(super) fn new(lines: &[String]) -> Option<Self> {
        if lines.is_empty() {
            return None;
        }
        let pairs = lines.iter().filter_map(|line| line.split_once(':'));
        let hashes: HashMap<String, String> = pairs
            .map(|(user, hash)| (user.to_owned(), hash.to_owned()))
            .collect();
        let anybody = hashes.values().next().cloned().unwrap_or_default();
        let random = ring::rand::SystemRandom::new();
        Some(Self {
            hashes,
            anybody,
            key: hmac::Key::generate(hmac::HMAC_SHA256, &random).ok(),
            known: Mutex::default(),
            turns: Semaphore::new(MAX_COMPARED),
        })
    }

    /// Takes name and password out of the head; refused unless they are one of these.
    pub(super) async fn check(&self, headers: &mut HeaderMap) -> Result<(), Refusal> {
        let given = headers.remove(AUTHORIZATION);
        let given = given.as_ref().and_then(|value| value.to_str().ok());
        let (user, password) = given.and_then(credentials).ok_or(Refusal::Unauthorized)?;
        let key = self.key.as_ref();
        let tag = key.map(|key| hmac::sign(key, password.as_bytes()));
        let known = self.known.lock().get(&user).copied();
        if let (Some(known), Some(tag)) = (known, tag)
            && is_same(&known, &tag)
        {
            return Ok(());
        }
        let hash = self.hashes.get(&user);
        let (is_user, hash) = (hash.is_some(), hash.unwrap_or(&self.anybody).clone());
        // Closed never: it is ours.
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|_| Refusal::Unauthorized)?;
        let compared = tokio::task::spawn_blocking(move || bcrypt::verify(&password, &hash));
        match compared.await {
            Ok(Ok(true)) if is_user => {
                self.known.lock().extend(tag.map(|tag| (user, tag)));
                Ok(())
            }
            _ => Err(Refusal::Unauthorized),
        }
    }
}

fn is_same(one: &hmac::Tag, other: &hmac::Tag) -> bool {
    // Digests under a key that nobody knows: where they first differ tells nothing of the password.
    one.as_ref() == other.as_ref()
}

/// User and password of `Basic ...`.
fn credentials(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    (password.len() <= MAX_PASSWORD).then(|| (user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(user: &str, password: &str) -> HeaderMap {
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        let value = HeaderValue::try_from(format!("Basic {encoded}")).expect("ASCII");
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_user_passes_and_it_is_compared_once() {
        let hash = bcrypt::hash("secret", 4).expect("hashes");
        let users = Users::new(&[format!("ann:{hash}")]).expect("users");
        for _ in 0..2 {
            let mut headers = head("ann", "secret");
            assert_eq!(users.check(&mut headers).await, Ok(()));
            assert!(headers.is_empty(), "the service never sees it");
        }
        assert_eq!(users.known.lock().len(), 1);
        for (user, password) in [("ann", "wrong"), ("bob", "secret"), ("ann", ""), ("", "")] {
            let refused = users.check(&mut head(user, password)).await;
            assert_eq!(refused, Err(Refusal::Unauthorized), "{user} {password}");
        }
        for odd in ["", "Basic", "Basic !", "Bearer x", "Basic YW5u"] {
            let value = HeaderValue::try_from(odd).expect("ASCII");
            let mut headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            assert_eq!(
                users.check(&mut headers).await,
                Err(Refusal::Unauthorized),
                "{odd}"
            );
        }
        assert_eq!(
            users.check(&mut HeaderMap::new()).await,
            Err(Refusal::Unauthorized)
        );
        assert_eq!(users.known.lock().len(), 1);
        assert!(Users::new(&[]).is_none());
    }
}
