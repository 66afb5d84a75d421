//! The keys that leave a container alone: Docker's ctrl-p ctrl-q. Pure.

/// ctrl-p and ctrl-q, as a terminal sends them.
const KEYS: [u8; 2] = [0x10, 0x11];

/// Looks for the keys in what is typed.
#[derive(Debug, Default)]
pub(crate) struct Detach {
    /// How many of them were the last that was typed.
    seen: usize,
}

impl Detach {
    /// Whether all of them have been typed now, one after the other.
    pub(crate) fn typed(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            self.seen = match *byte {
                key if key == KEYS[self.seen] => self.seen + 1,
                key if key == KEYS[0] => 1,
                _ => 0,
            };
            if self.seen == KEYS.len() {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keys_in_a_row_however_they_come() {
        for (typed, is_detached) in [
            (&[&b"\x10\x11"[..]][..], true),
            (&[b"ab\x10", b"\x11"], true),
            (&[b"\x10\x10\x11"], true),
            (&[b"\x10a\x11"], false),
            (&[b"\x11\x10"], false),
            (&[b"\x10", b"", b"\x11x"], true),
            (&[b"\x11\x11"], false),
        ] {
            let mut detach = Detach::default();
            let found = typed.iter().any(|bytes| detach.typed(bytes));
            assert_eq!(found, is_detached, "{typed:?}");
        }
    }
}
