//! As whom this node pulls from registries: what the server says, kept in memory alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard::auth::DockerCredentials;
use oci_spec::distribution::Reference;
use parking_lot::Mutex;
use skep_model::registry::RegistryAccess;
use zeroize::Zeroizing;

/// What Docker calls the registry of references without a host.
const DOCKER_HUB: &str = "docker.io";
/// As it is written in credentials.
const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";

/// As whom, and with which secret.
type Login = (String, Zeroizing<String>);

/// All logins; cheap to clone, all clones are one.
#[derive(Clone, Default)]
pub(crate) struct Logins(Arc<Mutex<BTreeMap<String, Login>>>);

impl Logins {
    /// These, and no others.
    pub(crate) fn replace(&self, all: impl Iterator<Item = RegistryAccess>) {
        let login = |access: RegistryAccess| {
            let login = (access.user, Zeroizing::new(access.password));
            (access.host, login)
        };
        *self.0.lock() = all.map(login).collect();
    }

    /// What Docker is given to pull `reference`; none: nothing is known of its registry.
    pub(crate) fn of(&self, reference: &str) -> Option<DockerCredentials> {
        let parsed = Reference::try_from(reference).ok()?;
        let host = parsed.registry();
        let logins = self.0.lock();
        let (user, password) = logins.get(host)?;
        Some(credentials(host, user, password))
    }

    /// All of them, by the registry's name as Docker writes it: for builds.
    pub(crate) fn all(&self) -> std::collections::HashMap<String, DockerCredentials> {
        let logins = self.0.lock();
        let all = logins.iter().map(|(host, (user, password))| {
            let credentials = credentials(host, user, password);
            (server(host).to_owned(), credentials)
        });
        all.collect()
    }
}

fn credentials(host: &str, user: &str, password: &str) -> DockerCredentials {
    DockerCredentials {
        username: Some(user.to_owned()),
        password: Some(password.to_owned()),
        serveraddress: Some(server(host).to_owned()),
        ..DockerCredentials::default()
    }
}

fn server(host: &str) -> &str {
    match host {
        DOCKER_HUB => DOCKER_HUB_SERVER,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_for_the_registry_of_the_reference_alone() {
        let access = |host: &str| RegistryAccess {
            host: host.into(),
            user: format!("user-{host}"),
            password: "secret".into(),
        };
        let logins = Logins::default();
        assert!(logins.of("ghcr.io/a/b:1").is_none());
        logins.replace([access("ghcr.io"), access("docker.io"), access("r:5000")].into_iter());
        let user = |reference: &str| logins.of(reference).and_then(|it| it.username);
        let cases = [
            ("ghcr.io/a/b:1", Some("user-ghcr.io")),
            ("r:5000/a", Some("user-r:5000")),
            ("r/a", Some("user-docker.io")),
            ("nginx", Some("user-docker.io")),
            ("ghcr.io.evil.com/a", None),
            ("quay.io/a", None),
        ];
        for (reference, expected) in cases {
            assert_eq!(user(reference).as_deref(), expected, "{reference}");
        }
        let hub = logins.of("nginx").and_then(|it| it.serveraddress);
        assert_eq!(hub.as_deref(), Some(DOCKER_HUB_SERVER));
        logins.replace(std::iter::empty());
        assert!(logins.of("nginx").is_none() && logins.all().is_empty());
    }
}
