//! One caller's request under an idempotency key: every command that is made for it gets a key of its
//! own, the same ones when the request comes again.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use skep_identity::digest;
use skep_state::{DIGEST_BYTES, KEY_BYTES, Key};

/// The request, and how many commands of each kind were made for it.
#[derive(Debug)]
pub(super) struct Scope {
    key: Vec<u8>,
    digest: [u8; DIGEST_BYTES],
    made: Mutex<BTreeMap<&'static str, u32>>,
}

impl Scope {
    pub(super) fn new(key: &[u8], request: &[u8]) -> Self {
        Self {
            key: key.to_vec(),
            digest: cut(digest::sha256(request)),
            made: Mutex::default(),
        }
    }

    /// The key of the next command with this name. Counted by name: a request that comes again may
    /// find that a first step is done and leave it out.
    pub(super) fn next(&self, name: &'static str) -> Key {
        let number = {
            let mut made = self.made.lock();
            let count = made.entry(name).or_default();
            *count += 1;
            *count
        };
        let mut text = Vec::with_capacity(self.key.len() + name.len() + 12);
        // Lengths first: no two requests and commands read alike.
        text.extend((self.key.len() as u64).to_be_bytes());
        text.extend(&self.key);
        text.extend(number.to_be_bytes());
        text.extend(name.as_bytes());
        Key::Caller {
            key: cut(digest::sha256(&text)),
            digest: self.digest,
        }
    }
}

fn cut<const N: usize>(sum: [u8; 32]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&sum[..N]);
    out
}

const _: () = assert!(KEY_BYTES <= 32 && DIGEST_BYTES <= 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_makes_the_same_keys_and_no_other_does() {
        let keys = |scope: &Scope| [scope.next("a"), scope.next("a"), scope.next("b")];
        let first = keys(&Scope::new(b"k", b"r"));
        assert_eq!(first, keys(&Scope::new(b"k", b"r")));
        assert!(first[0] != first[1] && first[0] != first[2]);
        assert_ne!(first, keys(&Scope::new(b"l", b"r")));
        assert_ne!(first, keys(&Scope::new(b"k", b"s")));
        let without_first_step = Scope::new(b"k", b"r").next("b");
        assert_eq!(without_first_step, first[2]);
    }
}
