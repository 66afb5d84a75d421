//! An amount of bytes as files have it: read as people write it, written without losing any.

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The units of 1024 that sizes are written in, largest first.
const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];

/// So many bytes: `"128MiB"`, `"2GB"`, or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(u64);

impl Size {
    /// In bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl From<u64> for Size {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ByteSize::deserialize(deserializer).map(|size| Self(size.as_u64()))
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Size {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        crate::schema::Amount::schema()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Size {}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fits = |(bits, _): &&(u32, &str)| self.0 != 0 && self.0.trailing_zeros() >= *bits;
        // `ByteSize` itself would round: 1.1 MiB are not what was said.
        match UNITS.iter().find(fits) {
            Some((bits, unit)) => serializer.collect_str(&format_args!("{}{unit}", self.0 >> bits)),
            None => serializer.serialize_u64(self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_in_the_largest_unit_that_loses_nothing() {
        for (bytes, text) in [
            (0, "0"),
            (1_000, "1000"),
            (1 << 10, "\"1KiB\""),
            (1_536 << 20, "\"1536MiB\""),
            (3 << 40, "\"3TiB\""),
            ((1 << 30) + 1, "1073741825"),
        ] {
            assert_eq!(
                serde_json::to_string(&Size(bytes)).expect("writes"),
                text,
                "{bytes}"
            );
            assert_eq!(
                serde_json::from_str::<Size>(text).expect("reads"),
                Size(bytes)
            );
        }
    }
}
