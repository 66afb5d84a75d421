//! Typed identifiers. Owns their textual form; never makes one up: a new id is an input
//! (`from_u128`), drawn by whoever proposes the command that introduces it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

/// The text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: 26 letters and digits are expected, as printed by `skep`")]
pub struct Error {
    /// What was given.
    pub text: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        /// 128 bits, sorted by creation time (ULID); printed as 26 lower-case characters.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The id with these bits.
            pub const fn from_u128(bits: u128) -> Self {
                Self(bits)
            }

            /// The bits of the id.
            pub const fn as_u128(self) -> u128 {
                self.0
            }

            /// The last eight characters: enough to tell neighbours apart in names for people.
            pub fn short(self) -> String {
                let text = self.to_string();
                text[text.len() - 8..].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&Ulid::from(self.0).to_string().to_ascii_lowercase())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Ulid::from_string(text)
                    .map(|ulid| Self(ulid.into()))
                    .map_err(|_| Error { text: text.to_owned() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                String::schema()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    )+};
}

ids! {
    /// A cluster: servers and nodes under one CA.
    ClusterId,
    /// A server of the control plane.
    ServerId,
    /// A workspace.
    WorkspaceId,
    /// A project.
    ProjectId,
    /// An environment.
    EnvironmentId,
    /// A service.
    ServiceId,
    /// A deployment.
    DeploymentId,
    /// An allocation.
    AllocationId,
    /// A job: one run to completion.
    JobId,
    /// A node.
    NodeId,
    /// A join token (its public half).
    TokenId,
    /// A webhook of a repository.
    HookId,
    /// A guest of a pool.
    GuestId,
    /// A receiver of notifications.
    ReceiverId,
    /// A GitHub App.
    ForgeAppId,
    /// A person or program with a certificate of the role operator.
    OperatorId,
    /// A folder on its way from a client to the building node.
    UploadId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_sorts_like_the_bits() {
        let (a, b) = (NodeId::from_u128(7), NodeId::from_u128(1 << 100));
        assert_eq!(a.to_string().parse(), Ok(a));
        assert_eq!(a.to_string().len(), 26);
        assert!(a < b && a.to_string() < b.to_string());
    }

    #[test]
    fn rubbish_is_refused_with_what_was_given() {
        let error = "web".parse::<NodeId>().expect_err("not an id");
        assert!(error.to_string().contains("`web`"));
    }
}
