//! Randomness of the operating system: keys, token text and new ids. The only place that draws it.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// A ULID is 48 bits of milliseconds, then 80 bits of randomness.
const ID_RANDOM_BITS: u32 = 80;

/// Fills `target` with random bytes.
pub fn fill(target: &mut [u8]) {
    SystemRandom::new()
        .fill(target)
        .expect("the kernel's random source does not fail once it is seeded");
}

/// `N` random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut drawn = [0; N];
    fill(&mut drawn);
    drawn
}

/// `byte_count` random bytes as base64url text without padding: fit for tokens and URLs.
pub fn token(byte_count: usize) -> Zeroizing<String> {
    let mut drawn = Zeroizing::new(vec![0; byte_count]);
    fill(&mut drawn);
    Zeroizing::new(URL_SAFE_NO_PAD.encode(&*drawn))
}

/// `byte_count` random bytes as lower-case hex.
pub fn hex(byte_count: usize) -> String {
    let mut drawn = vec![0; byte_count];
    fill(&mut drawn);
    hex::encode(drawn)
}

/// `length` of these letters, each as likely as the others.
pub fn text(letters: &[u8], length: usize) -> Zeroizing<String> {
    let count = letters.len().clamp(1, 256);
    // Bytes beyond the last whole round of letters would make the first ones likelier: they are drawn again.
    let fair = 256 - 256 % count;
    let mut drawn = Zeroizing::new(String::with_capacity(length));
    while drawn.len() < length && !letters.is_empty() {
        let byte = usize::from(bytes::<1>()[0]);
        if byte < fair {
            drawn.push(char::from(letters[byte % count]));
        }
    }
    drawn
}

/// The bits of a new id (ULID), made now. They sort by time to the millisecond.
pub fn new_id() -> u128 {
    id_at(SystemTime::now())
}

/// The bits of a new id (ULID) made at `now`; a time before 1970 counts as 1970.
pub fn id_at(now: SystemTime) -> u128 {
    let millis = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_millis());
    let time = (millis & ((1 << 48) - 1)) << ID_RANDOM_BITS;
    let random = u128::from_be_bytes(bytes()) >> (u128::BITS - ID_RANDOM_BITS);
    time | random
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_text_has_each_of_its_letters_and_no_other() {
        let drawn = text(b"abc", 2000);
        assert_eq!(drawn.len(), 2000);
        let letters: BTreeSet<char> = drawn.chars().collect();
        assert_eq!(letters, BTreeSet::from(['a', 'b', 'c']));
        assert_ne!(text(b"0123456789abcdef", 32), text(b"0123456789abcdef", 32));
    }

    #[test]
    fn ids_sort_by_time_and_do_not_repeat() {
        let early = UNIX_EPOCH + Duration::from_millis(1_700_000_000_000);
        let late = early + Duration::from_millis(1);
        assert_eq!(id_at(early) >> ID_RANDOM_BITS, 1_700_000_000_000);
        let ids: BTreeSet<u128> = (0..1000).map(|_| id_at(early)).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| *id < id_at(late)));
    }

    #[test]
    fn token_text_has_the_asked_entropy_and_alphabet() {
        let token = token(32);
        assert_eq!(token.len(), 43);
        assert!(
            token
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        );
        assert_eq!(hex(16).len(), 32);
        assert_ne!(hex(16), hex(16));
    }
}
