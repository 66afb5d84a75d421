//! The fingerprint of a certificate: what tokens and command-line contexts pin.

use std::fmt;
use std::str::FromStr;

use crate::digest;

/// The text is not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a certificate fingerprint: 64 lower-case hex digits are expected")]
pub struct Error {
    /// What was given.
    pub text: String,
}

/// SHA-256 of a certificate's DER; printed as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of the certificate with this DER.
    pub fn of_der(der: &[u8]) -> Self {
        Self(digest::sha256(der))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut sum = [0; 32];
        let decoded = hex::decode_to_slice(text, &mut sum);
        if decoded.is_err() || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Error {
                text: text.to_owned(),
            });
        }
        Ok(Self(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_rubbish_is_refused() {
        let print = Fingerprint::of_der(b"der");
        assert_eq!(print.to_string().parse(), Ok(print));
        for bad in ["", "ab", &"g".repeat(64), &"AB".repeat(32), &"a".repeat(65)] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
