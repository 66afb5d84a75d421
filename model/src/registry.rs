//! Registries that ask who pulls: where, as whom, and with which secret.

use serde::{Deserialize, Serialize};

use crate::id::WorkspaceId;
use crate::problem::Problem;
use crate::variable::Sealed;

/// The registry of references without a host.
pub const DOCKER_HUB: &str = "docker.io";
/// Most logins of a cluster.
pub const MAX_REGISTRIES: usize = 64;
/// Longest host, in bytes.
pub const MAX_HOST: usize = 253;
/// Longest user, in bytes.
pub const MAX_USER: usize = 256;
/// Longest password or token, in bytes.
pub const MAX_PASSWORD: usize = 16 << 10;

/// One login. Written by operators; nodes use it for every image of that registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// Host, with its port where it has one, as references to images begin: `ghcr.io`,
    /// `registry.example.com:5000`; `docker.io` for references without a host.
    pub host: String,
    /// As whom.
    pub user: String,
    /// Password or token, sealed.
    pub password: Sealed,
    /// Cluster time at which it was set, ms since the epoch.
    pub changed_ms: u64,
}

/// What a place is where images are pushed to, and it is no registry but a bucket of an object store that speaks S3. Its
/// user is the id of an access key, its password the secret of that key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Where it is, in the words of whoever runs it: `eu-central-1`. Requests are signed for it.
    pub region: String,
    /// It is named in the path of URLs, and not before the host.
    #[serde(default)]
    pub path_style: bool,
}

/// A login as a node is given it: only over mTLS, and never written down there.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAccess {
    /// Whose images alone are pulled with it; none: everybody's, it is the cluster's.
    pub workspace: Option<WorkspaceId>,
    /// As in [`RegistryLogin`].
    pub host: String,
    /// As whom.
    pub user: String,
    /// In plain text.
    pub password: String,
    /// The host has this bucket, and no registry.
    pub bucket: Option<Bucket>,
}

impl std::fmt::Debug for RegistryAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegistryAccess({}@{})", self.user, self.host)
    }
}

/// A login as people see it: without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegistryShown {
    /// As in [`RegistryLogin`].
    pub host: String,
    /// As whom.
    pub user: String,
    /// When it was set, ms since the epoch.
    pub changed_ms: u64,
}

impl From<&RegistryLogin> for RegistryShown {
    fn from(login: &RegistryLogin) -> Self {
        Self {
            host: login.host.clone(),
            user: login.user.clone(),
            changed_ms: login.changed_ms,
        }
    }
}

/// One question to a registry, which a node asks in the cluster's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// As in [`RegistryLogin`].
    pub host: String,
    /// Behind the host, without a tag.
    pub repository: String,
    /// As whom; none: as anybody.
    pub access: Option<RegistryAccess>,
    /// What is to be done, or found.
    pub wanted: Wanted,
}

/// What is wanted of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// It is to have this image of the node's own store.
    Push {
        /// Of its manifest.
        digest: String,
        /// The name that it gets there.
        tag: String,
    },
    /// The digest that a tag stands for at this moment.
    Digest {
        /// Which.
        tag: String,
    },
}

/// The digest that the registry has under the tag from now on.
pub type Found = Result<String, Problem>;

/// The registry of a reference: its first part where that is a host, as Docker tells one from a folder.
pub fn host_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DOCKER_HUB,
    }
}

/// Checks the host of a registry.
///
/// # Errors
/// Says what is accepted.
pub fn check_host(host: &str) -> Result<(), Problem> {
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
    let has_name = !name.is_empty() && host.len() <= MAX_HOST && name.bytes().all(is_name);
    let has_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if has_name && has_port {
        return Ok(());
    }
    let shown: String = host.chars().take(60).collect();
    let text = format!("`{}` is not a registry", shown.escape_debug());
    Err(Problem::invalid("host", text).hint(
        "a host as references begin, without https://: ghcr.io, or registry.example.com:5000",
    ))
}

impl Bucket {
    /// What every object store agrees on.
    ///
    /// # Errors
    /// Names the field, and says what is accepted.
    pub fn check(&self, host: &str) -> Result<(), Problem> {
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
        let is_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let name = self.name.as_bytes();
        let is_sound = (3..=63).contains(&name.len())
            && name.iter().all(|b| is_name(*b))
            && is_end(name.first())
            && is_end(name.last())
            && !self.name.contains("..");
        if !is_sound {
            let text = "a bucket's name is 3 to 63 of a-z, 0-9, . and -";
            return Err(Problem::invalid("bucket.name", text));
        }
        if self.name.contains('.') && !self.path_style {
            let text = "a name with dots before the host is of no certificate";
            return Err(Problem::invalid("bucket.name", text)
                .hint("`--path-style` (`path_style`) names the bucket in the path"));
        }
        let is_region = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if !(1..=64).contains(&self.region.len()) || !self.region.bytes().all(is_region) {
            let text = "a region is 1 to 64 letters, digits, - and _";
            return Err(Problem::invalid("bucket.region", text)
                .hint("eu-central-1; stores that know none take us-east-1 or auto"));
        }
        // References begin with it, and are told from folders by these.
        if !host.contains(['.', ':']) && host != "localhost" {
            let text = format!("`{host}` is no endpoint");
            return Err(Problem::invalid("host", text)
                .hint("a name with a dot or a port: s3.example.com, minio:9000"));
        }
        Ok(())
    }
}

/// Checks user and password.
///
/// # Errors
/// Says which is not accepted; never what it is.
pub fn check_access(user: &str, password: &str) -> Result<(), Problem> {
    let is_line = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
    if user.len() > MAX_USER || !is_line(user) || user.contains(':') {
        let text = format!("the user is one line of 1 to {MAX_USER} bytes without a colon");
        return Err(Problem::invalid("user", text));
    }
    if password.len() > MAX_PASSWORD || !is_line(password) {
        let text = format!("the password is one line of 1 to {MAX_PASSWORD} bytes");
        return Err(Problem::invalid("password", text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_what_object_stores_and_certificates_take() {
        let bucket = |name: &str, region: &str, path_style| Bucket {
            name: name.into(),
            region: region.into(),
            path_style,
        };
        for (name, region, path_style, host, wrong) in [
            ("sites", "eu-central-1", false, "s3.example.com", None),
            ("a.b", "auto", true, "minio:9000", None),
            ("a.b", "auto", false, "s3.example.com", Some("bucket.name")),
            ("Sites", "auto", true, "s3.example.com", Some("bucket.name")),
            ("a/b", "auto", true, "s3.example.com", Some("bucket.name")),
            ("a..b", "auto", true, "s3.example.com", Some("bucket.name")),
            ("ab", "auto", true, "s3.example.com", Some("bucket.name")),
            ("-ab", "auto", true, "s3.example.com", Some("bucket.name")),
            ("sites", "", true, "s3.example.com", Some("bucket.region")),
            (
                "sites",
                "eu/1",
                true,
                "s3.example.com",
                Some("bucket.region"),
            ),
            ("sites", "auto", true, "minio", Some("host")),
        ] {
            let found = bucket(name, region, path_style).check(host);
            let field = found.err().and_then(|problem| problem.field);
            assert_eq!(field.as_deref(), wrong, "{name} {region} {host}");
        }
    }

    #[test]
    fn a_reference_is_of_the_registry_that_it_begins_with() {
        for (reference, host) in [
            ("nginx:1", DOCKER_HUB),
            ("team/app", DOCKER_HUB),
            ("ghcr.io/a/b:1", "ghcr.io"),
            ("r:5000/a@sha256:0", "r:5000"),
            ("localhost/a", "localhost"),
        ] {
            assert_eq!(host_of(reference), host, "{reference}");
        }
    }

    #[test]
    fn hosts_are_as_references_begin() {
        for good in [
            "ghcr.io",
            "docker.io",
            "registry.example.com:5000",
            "localhost:1",
        ] {
            assert_eq!(check_host(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "https://ghcr.io",
            "GHCR.io",
            "a/b",
            "a:0",
            "a:x",
            ":1",
            &"a".repeat(254),
        ] {
            assert!(check_host(bad).is_err(), "{bad}");
        }
        assert!(check_access("me", "secret").is_ok());
        let long = "x".repeat(MAX_PASSWORD + 1);
        for (user, password) in [
            ("", "x"),
            ("a:b", "x"),
            ("a", ""),
            ("a", "x\ny"),
            ("a", &long),
        ] {
            let refused = check_access(user, password)
                .expect_err("refused")
                .to_string();
            assert!(!refused.contains('\n') && refused.len() < 200);
        }
    }
}
