//! Whether a delivery was made by somebody who has the secret: over the raw bytes, in constant time, and
//! before anything is parsed. Knows no clock: what is too old is said by the caller.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::kind::{Forge, value};
use crate::parse::form_payload;

/// How a key of signed deliveries begins: base64 of its bytes follows.
const KEY_PREFIX: &str = "whsec_";
/// Where GitLab puts the plain secret.
const TOKEN: &str = "x-gitlab-token";

/// What time it is, and how far from it a delivery that says its time may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Seconds since the epoch.
    pub now_s: u64,
    /// The largest difference, in seconds.
    pub tolerance_s: u64,
}

/// Why a delivery is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing can be proved with an empty secret.
    #[error("this webhook has no secret yet: every delivery is refused")]
    NoSecret,
    /// No header that could hold the proof.
    #[error("the delivery is not signed: the header {0} is missing")]
    Missing(String),
    /// Forges without a secret send an empty one.
    #[error("the signature is empty: the forge has no secret for this webhook")]
    Empty,
    /// It is no signature.
    #[error("{0} is not {1}")]
    Malformed(String, &'static str),
    /// It is one, of something else or by somebody else.
    #[error("the signature does not match the body")]
    Mismatch,
    /// GitLab's plain secret is another.
    #[error("X-Gitlab-Token is not the secret of this webhook")]
    WrongToken,
    /// It may be sent again by whoever has seen it.
    #[error(
        "the delivery was signed {0} s away from this server's time: more than {1} s is refused"
    )]
    Stale(u64, u64),
}

/// Whether this delivery was made with this secret.
///
/// # Errors
/// It was not, or that cannot be known.
pub fn verify(
    forge: Forge,
    headers: &HeaderMap,
    body: &[u8],
    secret: &str,
    clock: Clock,
) -> Result<(), Refusal> {
    if secret.is_empty() {
        return Err(Refusal::NoSecret);
    }
    if forge == Forge::GitLab {
        return gitlab(headers, body, secret, clock);
    }
    let (name, text) = first(headers, forge.signature_headers())?;
    // GitHub and Bitbucket say the algorithm, Gitea's own headers do not.
    let digits = text.strip_prefix("sha256=");
    let needs_prefix = name.starts_with("x-hub-") || forge == Forge::Generic;
    let form = || Refusal::Malformed(shown(name), "sha256= and 64 hex digits");
    let digits = match digits {
        Some(digits) => digits,
        None if needs_prefix => return Err(form()),
        None => text,
    };
    if digits.is_empty() {
        return Err(Refusal::Empty);
    }
    let tag = hex::decode(digits).ok().filter(|tag| tag.len() == 32);
    let tag = tag.ok_or_else(form)?;
    if holds(secret.as_bytes(), &[body], &tag) {
        return Ok(());
    }
    // Gitea and its kin sign the JSON, also where they send it as a form.
    let is_kin = matches!(forge, Forge::Forgejo | Forge::Gitea | Forge::Gogs);
    let payload = form_payload(body).filter(|_| is_kin);
    match payload.is_some_and(|json| holds(secret.as_bytes(), &[json.as_bytes()], &tag)) {
        true => Ok(()),
        false => Err(Refusal::Mismatch),
    }
}

/// Either proof is enough: who has neither the key nor the token can make neither.
fn gitlab(headers: &HeaderMap, body: &[u8], secret: &str, clock: Clock) -> Result<(), Refusal> {
    let token = value(headers, TOKEN);
    if token.is_some_and(|token| bool::from(token.as_bytes().ct_eq(secret.as_bytes()))) {
        return Ok(());
    }
    match (first(headers, Forge::GitLab.signature_headers()), token) {
        (Ok((_, signatures)), _) => signed(headers, body, (secret, signatures), clock),
        (Err(Refusal::Missing(_)), Some(_)) => Err(Refusal::WrongToken),
        (Err(Refusal::Missing(_)), None) if headers.contains_key(TOKEN) => Err(Refusal::Empty),
        (Err(Refusal::Missing(_)), None) => Err(Refusal::Missing(shown(TOKEN))),
        (Err(refusal), _) => Err(refusal),
    }
}

/// `v1,BASE64` over `id.timestamp.body`; several signatures, of an older key and a newer one, are apart by spaces.
fn signed(
    headers: &HeaderMap,
    body: &[u8],
    (secret, signatures): (&str, &str),
    clock: Clock,
) -> Result<(), Refusal> {
    const ID: &str = "webhook-id";
    const TIME: &str = "webhook-timestamp";
    let id = value(headers, ID).ok_or_else(|| Refusal::Missing(shown(ID)))?;
    let time = value(headers, TIME).ok_or_else(|| Refusal::Missing(shown(TIME)))?;
    let at_s: u64 = time
        .parse()
        .map_err(|_| Refusal::Malformed(shown(TIME), "a time in seconds"))?;
    let message: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", body];
    let tags: Vec<Vec<u8>> = signatures
        .split_ascii_whitespace()
        .filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok())
        .filter(|tag| tag.len() == 32)
        .collect();
    if tags.is_empty() {
        let form = "v1, and 32 bytes in base64";
        return Err(Refusal::Malformed("webhook-signature".to_owned(), form));
    }
    let keys = keys(secret);
    let mut pairs = keys
        .iter()
        .flat_map(|key| tags.iter().map(move |tag| (key, tag)));
    if !pairs.any(|(key, tag)| holds(key, &message, tag)) {
        return Err(Refusal::Mismatch);
    }
    let away_s = at_s.abs_diff(clock.now_s);
    match away_s > clock.tolerance_s {
        true => Err(Refusal::Stale(away_s, clock.tolerance_s)),
        false => Ok(()),
    }
}

/// The keys that a secret may stand for: what follows `whsec_` is base64; a secret of Skep's own is the hex of
/// its bytes, which [`signing_key`] shows as base64; any other is its text.
fn keys(secret: &str) -> Vec<Vec<u8>> {
    if let Some(text) = secret.strip_prefix(KEY_PREFIX) {
        let key = STANDARD.decode(text).ok();
        return key.filter(|key| !key.is_empty()).into_iter().collect();
    }
    let bytes = hex::decode(secret).ok();
    let text = secret.as_bytes().to_vec();
    bytes.into_iter().chain([text]).collect()
}

/// A secret in hex as forges want a key that signs; none: it is not hex.
pub fn signing_key(secret: &str) -> Option<String> {
    let bytes = hex::decode(secret).ok()?;
    Some(format!("{KEY_PREFIX}{}", STANDARD.encode(bytes)))
}

/// Whether `tag` is the HMAC-SHA-256 of the parts, in constant time. An empty key proves nothing.
fn holds(key: &[u8], parts: &[&[u8]], tag: &[u8]) -> bool {
    if key.is_empty() {
        return false;
    }
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return false;
    };
    parts.iter().for_each(|part| mac.update(part));
    mac.verify_slice(tag).is_ok()
}

/// The first of these headers that is there.
fn first<'a>(
    headers: &'a HeaderMap,
    names: &'static [&'static str],
) -> Result<(&'static str, &'a str), Refusal> {
    let found = names
        .iter()
        .find_map(|name| Some((*name, headers.get(*name)?)));
    let (name, value) = found.ok_or_else(|| {
        let name = names.last().copied().unwrap_or_default();
        Refusal::Missing(shown(name))
    })?;
    let text = value.to_str().map(str::trim);
    let text = text.map_err(|_| Refusal::Malformed(shown(name), "text"))?;
    match text.is_empty() {
        true => Err(Refusal::Empty),
        false => Ok((name, text)),
    }
}

/// A header's name as people know it.
fn shown(name: &str) -> String {
    let mut shown = String::with_capacity(name.len());
    let mut is_first = true;
    for c in name.chars() {
        shown.push(if is_first { c.to_ascii_uppercase() } else { c });
        is_first = c == '-';
    }
    shown
}

#[cfg(test)]
mod tests;
