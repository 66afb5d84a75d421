//! Sealing: authenticated encryption of secrets before they reach a log, a snapshot or a disk.
//!
//! AES-256-GCM with a random nonce. The stored format, version 1, is
//! `version (1) | key id (4) | nonce (12) | ciphertext and tag (n + 16)`; version, key id and the
//! caller's context are authenticated, so a sealed value moved to another place does not open.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::{digest, random};

/// Bytes of a sealing key.
pub const KEY_LEN: usize = 32;
/// How many bytes sealing adds.
pub const OVERHEAD_BYTES: usize = HEADER_LEN + NONCE_LEN + TAG_LEN;

const VERSION: u8 = 1;
const HEADER_LEN: usize = 5;
const TAG_LEN: usize = 16;
const KEY_ID_LABEL: &[u8] = b"skep sealing key id 1";

/// A sealed value does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a sealed value.
    #[error("not a sealed value: it is too short")]
    TooShort,
    /// Sealed by a newer Skep.
    #[error("the sealed value has format {version}, this program knows {VERSION}")]
    Version {
        /// Its format version.
        version: u8,
    },
    /// Another key.
    #[error("sealed with key {sealed_with:08x}, but the key at hand is {have:08x}")]
    OtherKey {
        /// The id of the key that sealed it.
        sealed_with: u32,
        /// The id of the key that was tried.
        have: u32,
    },
    /// Changed since it was sealed, or sealed for another place.
    #[error("the sealed value was altered, or belongs to another place")]
    Altered,
    /// Not key material.
    #[error("a sealing key has {KEY_LEN} bytes, this has {len}")]
    KeyLength {
        /// How many bytes there were.
        len: usize,
    },
}

/// A symmetric key that seals and opens. Random nonces allow 2^32 sealings under one key.
#[derive(Clone)]
pub struct SealingKey {
    id: u32,
    bytes: Zeroizing<[u8; KEY_LEN]>,
    aead: LessSafeKey,
}

impl SealingKey {
    /// A fresh random key.
    pub fn generate() -> Self {
        Self::from_array(Zeroizing::new(random::bytes()))
    }

    /// The key with these bytes; there must be [`KEY_LEN`] of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut array = Zeroizing::new([0; KEY_LEN]);
        if bytes.len() != KEY_LEN {
            return Err(Error::KeyLength { len: bytes.len() });
        }
        array.copy_from_slice(bytes);
        Ok(Self::from_array(array))
    }

    fn from_array(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        let [a, b, c, d, ..] = digest::hmac_sha256(&*bytes, KEY_ID_LABEL);
        let unbound = UnboundKey::new(&AES_256_GCM, &*bytes).expect("AES-256 takes 32 bytes");
        Self {
            id: u32::from_be_bytes([a, b, c, d]),
            bytes,
            aead: LessSafeKey::new(unbound),
        }
    }

    /// Which key this is: derived from it one way, safe to print.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The key itself: for wrapping it under another key, into its file, or to a server that joins,
    /// over a connection that it has verified. Nowhere else.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }

    /// Seals `plaintext` for the place named by `context` (for example the id of the variable that
    /// holds it); only the same context opens it.
    pub fn seal(&self, context: &str, plaintext: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random::bytes();
        let header = self.header();
        let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
        sealed.extend_from_slice(&header);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let (_, body) = sealed.split_at_mut(HEADER_LEN + NONCE_LEN);
        let tag = self
            .aead
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated(&header, context)),
                body,
            )
            .expect("AES-GCM seals anything below 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what [`SealingKey::seal`] made with the same key and context.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let version = *sealed.first().ok_or(Error::TooShort)?;
        if version != VERSION {
            return Err(Error::Version { version });
        }
        if sealed.len() < OVERHEAD_BYTES {
            return Err(Error::TooShort);
        }
        let (header, rest) = sealed.split_at(HEADER_LEN);
        let sealed_with = key_id(sealed).ok_or(Error::TooShort)?;
        if sealed_with != self.id {
            return Err(Error::OtherKey {
                sealed_with,
                have: self.id,
            });
        }
        let (nonce, body) = rest.split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::TooShort)?;
        let mut opened = Zeroizing::new(body.to_vec());
        let len = self
            .aead
            .open_in_place(nonce, Aad::from(associated(header, context)), &mut opened)
            .map_err(|_| Error::Altered)?
            .len();
        opened.truncate(len);
        Ok(opened)
    }

    fn header(&self) -> [u8; HEADER_LEN] {
        let [a, b, c, d] = self.id.to_be_bytes();
        [VERSION, a, b, c, d]
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({:08x})", self.id)
    }
}

/// The id of the key that made `sealed`: tells which values still wait for a key rotation.
pub fn key_id(sealed: &[u8]) -> Option<u32> {
    let bytes = sealed.get(1..HEADER_LEN)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn associated(header: &[u8], context: &str) -> Vec<u8> {
    [header, context.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_with_the_same_key_and_context_only() {
        let key = SealingKey::generate();
        let sealed = key.seal("variable/1", b"hunter2");
        assert_eq!(sealed.len(), 7 + OVERHEAD_BYTES);
        assert_eq!(
            &**key.open("variable/1", &sealed).expect("open"),
            b"hunter2"
        );
        assert_eq!(key.open("variable/2", &sealed), Err(Error::Altered));
        let other = SealingKey::generate();
        assert_eq!(
            other.open("variable/1", &sealed),
            Err(Error::OtherKey {
                sealed_with: key.id(),
                have: other.id()
            })
        );
        assert_eq!(key_id(&sealed), Some(key.id()));
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let key = SealingKey::generate();
        let sealed = key.seal("c", b"secret");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open("c", &changed).is_err(), "byte {at}");
            assert!(key.open("c", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn nonces_differ_and_empty_values_seal() {
        let key = SealingKey::generate();
        assert_ne!(key.seal("c", b"same"), key.seal("c", b"same"));
        assert!(key.open("c", &key.seal("c", b"")).expect("open").is_empty());
    }

    #[test]
    fn version_1_sample_still_opens() {
        let key = SealingKey::from_bytes(&[7; KEY_LEN]).expect("key");
        let sample = hex::decode(SAMPLE_1).expect("hex");
        assert_eq!(
            &**key.open("sample", &sample).expect("open"),
            b"version one"
        );
    }

    #[test]
    fn bad_keys_and_debug_output_are_safe() {
        assert!(matches!(
            SealingKey::from_bytes(&[7; 31]),
            Err(Error::KeyLength { len: 31 })
        ));
        let key = SealingKey::from_bytes(&[7; KEY_LEN]).expect("key");
        assert_eq!(format!("{key:?}"), format!("SealingKey({:08x})", key.id()));
    }

    /// Made by another implementation of AES-GCM and HMAC; must open for ever.
    const SAMPLE_1: &str =
        "0123ae9ec4000102030405060708090a0b6ee49b037466b76918dc80e94f6852f1da45f8be75cd67e054f96f";
}
