//! SHA-256, HMAC-SHA-256 and comparison in constant time. Keeps nothing.

use ring::{digest, hmac};

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    sum
}

/// SHA-256 of `bytes` as lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(sha256(bytes))
}

/// SHA-256 of what comes in pieces.
pub struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256")
    }
}

impl Sha256 {
    /// The next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of all of them.
    pub fn finish(self) -> [u8; 32] {
        let mut sum = [0; 32];
        sum.copy_from_slice(self.0.finish().as_ref());
        sum
    }
}

/// HMAC-SHA-256 of `body` under `secret`.
pub fn hmac_sha256(secret: &[u8], body: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    tag.copy_from_slice(hmac::sign(&key, body).as_ref());
    tag
}

/// Whether `tag` is the HMAC-SHA-256 of `body` under `secret`, in constant time. An empty secret
/// proves nothing and is always refused, as is a tag that is not 32 bytes.
pub fn hmac_sha256_verify(secret: &[u8], body: &[u8], tag: &[u8]) -> bool {
    if secret.is_empty() {
        return false;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::verify(&key, body, tag).is_ok()
}

/// Whether two byte strings are equal, in a time that does not tell where they differ: both are
/// run through HMAC under a fresh key first.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &crate::random::bytes::<32>());
    hmac::verify(&key, right, hmac::sign(&key, left).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    const TAG: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    const BODY: &[u8] = b"what do ya want for nothing?";

    #[test]
    fn known_answers() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(hex::encode(hmac_sha256(b"Jefe", BODY)), TAG);
    }

    #[test]
    fn pieces_have_the_sum_of_the_whole() {
        let mut pieces = Sha256::default();
        pieces.update(b"a");
        pieces.update(b"bc");
        assert_eq!(pieces.finish(), sha256(b"abc"));
    }

    #[test]
    fn a_tag_holds_only_for_its_secret_and_body() {
        let tag = hex::decode(TAG).expect("hex");
        assert!(hmac_sha256_verify(b"Jefe", BODY, &tag));
        assert!(!hmac_sha256_verify(b"Jeff", BODY, &tag));
        assert!(!hmac_sha256_verify(b"Jefe", b"other", &tag));
        assert!(!hmac_sha256_verify(b"Jefe", BODY, &tag[..31]));
        assert!(!hmac_sha256_verify(b"Jefe", BODY, b""));
    }

    #[test]
    fn an_empty_secret_is_refused_even_with_its_right_tag() {
        assert!(!hmac_sha256_verify(b"", BODY, &hmac_sha256(b"", BODY)));
    }

    #[test]
    fn constant_time_comparison_compares() {
        assert!(constant_time_eq(b"same", b"same"));
        assert!(!constant_time_eq(b"same", b"sama"));
        assert!(!constant_time_eq(b"same", b"sam"));
    }
}
