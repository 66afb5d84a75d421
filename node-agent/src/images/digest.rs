//! The name of a blob: its SHA-256. The grammar is the OCI library's.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Digest as OciDigest, DigestAlgorithm};

/// `sha256:` and 64 hexadecimal digits. Other algorithms are not taken: nothing that Docker or a
/// registry makes uses them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest([u8; 32]);

/// It is no such name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: sha256:<64 hexadecimal digits> is expected")]
pub(crate) struct NotADigest(String);

impl Digest {
    /// The name of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(skep_identity::digest::sha256(bytes))
    }

    /// From a sum that was made elsewhere.
    pub(crate) const fn from_sum(sum: [u8; 32]) -> Self {
        Self(sum)
    }

    /// The hexadecimal digits alone: the name of its file.
    pub(crate) fn hex(&self) -> String {
        use fmt::Write as _;
        self.0
            .iter()
            .fold(String::with_capacity(64), |mut hex, byte| {
                // Writing into a string cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            })
    }

    /// As the OCI library has it.
    pub(super) fn oci(&self) -> OciDigest {
        self.to_string().parse().expect("it is a digest")
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let not = || NotADigest(text.chars().take(100).collect());
        let parsed = OciDigest::from_str(text).map_err(|_| not())?;
        Self::try_from(&parsed).map_err(|_| not())
    }
}

impl TryFrom<&OciDigest> for Digest {
    type Error = NotADigest;

    fn try_from(digest: &OciDigest) -> Result<Self, NotADigest> {
        let not = || NotADigest(digest.to_string());
        if *digest.algorithm() != DigestAlgorithm::Sha256 {
            return Err(not());
        }
        let mut sum = [0; 32];
        for (byte, pair) in sum.iter_mut().zip(digest.digest().as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| not())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| not())?;
        }
        Ok(Self(sum))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_spelling_is_a_digest() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let text = digest.to_string();
        for bad in [
            String::new(),
            "sha256:".into(),
            "sha256:../../etc/passwd".into(),
            text.to_uppercase(),
            text.replace("sha256", "sha512"),
            format!("{text}0"),
            text[..text.len() - 1].to_owned(),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
