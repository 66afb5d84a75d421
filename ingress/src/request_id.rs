//! Names for requests, by which a client's report, an app's log and the access log find each other.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is kept, in bytes: a UUID with a prefix, a trace with its span.
const MAX_KEPT_BYTES: usize = 128;
/// Two numbers of 64 bits in hex.
const MADE_BYTES: usize = 32;

/// Makes ids: a random half for the process and a half that no other request of it has. Costs one
/// allocation, which all copies share, and no call of the kernel.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: u64,
    /// Not where another process begins: ids of processes with one random half differ still.
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        // The standard library's source of randomness for hash tables: nothing hangs on it but that two
        // processes differ.
        let random = || RandomState::new().build_hasher().finish();
        Self {
            process: random(),
            next: AtomicU64::new(random()),
        }
    }

    /// The id in `headers` if whoever sent it is `trusted` and it is sane, else a new one.
    pub(crate) fn of(&self, headers: &HeaderMap, trusted: bool) -> HeaderValue {
        let kept = trusted
            .then(|| headers.get(&X_REQUEST_ID))
            .flatten()
            .filter(|id| is_sane(id.as_bytes()));
        kept.cloned().unwrap_or_else(|| self.make())
    }

    fn make(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let number = (u128::from(self.process) << 64) | u128::from(crate::ingress::mix(count));
        let mut text = [0; MADE_BYTES];
        for (place, digit) in text.iter_mut().enumerate() {
            let shift = 4 * (MADE_BYTES - 1 - place);
            *digit = DIGITS[(number >> shift) as usize & 15];
        }
        // An owner of its own: copies of the value then allocate nothing.
        HeaderValue::from_maybe_shared(Bytes::from_owner(text)).expect("hex is visible ASCII")
    }
}

/// Goes into logs and other people's systems: nothing that could mean something there.
fn is_sane(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
    !id.is_empty() && id.len() <= MAX_KEPT_BYTES && id.iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_kept_only_if_sane_and_from_somebody_trusted() {
        let ids = RequestIds::new();
        let long = "x".repeat(MAX_KEPT_BYTES + 1);
        for (given, trusted, kept) in [
            ("0af7651916cd43dd-8448eb211c80319c", true, true),
            ("0af7651916cd43dd-8448eb211c80319c", false, false),
            ("", true, false),
            ("a b", true, false),
            ("a\"b", true, false),
            (&long, true, false),
            (&long[1..], true, true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(&X_REQUEST_ID, given.parse().expect("a value"));
            let id = ids.of(&headers, trusted);
            assert_eq!(id == given, kept, "{given} {trusted}");
            assert!(is_sane(id.as_bytes()));
        }
    }

    #[test]
    fn made_ids_are_all_different() {
        let (one, other) = (RequestIds::new(), RequestIds::new());
        let made = (0..10_000).flat_map(|_| [one.make(), other.make()]);
        let made: HashSet<HeaderValue> = made.collect();
        assert_eq!(made.len(), 20_000);
        assert!(made.iter().all(|id| id.len() == MADE_BYTES));
    }
}
