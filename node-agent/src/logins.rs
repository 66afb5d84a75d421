//! As whom this node pulls from registries: what the server says, kept in memory alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard::auth::DockerCredentials;
use parking_lot::Mutex;
use skep_model::id::WorkspaceId;
use skep_model::registry::{Bucket, RegistryAccess};
use zeroize::Zeroizing;

use crate::images::{DOCKER_HUB, Reference};

/// As it is written in credentials.
const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";

/// As whom, with which secret, and of which bucket where it is none of a registry.
type Login = (String, Zeroizing<String>, Option<Bucket>);
/// Of a workspace, or of the cluster, at a host.
type Key = (Option<WorkspaceId>, String);

/// All logins; cheap to clone, all clones are one.
#[derive(Clone, Default)]
pub(crate) struct Logins(Arc<Mutex<BTreeMap<Key, Login>>>);

impl Logins {
    /// These, and no others.
    pub(crate) fn replace(&self, all: impl Iterator<Item = RegistryAccess>) {
        let login = |access: RegistryAccess| {
            let secret = Zeroizing::new(access.password);
            let login = (access.user, secret, access.bucket);
            ((access.workspace, access.host), login)
        };
        *self.0.lock() = all.map(login).collect();
    }

    /// What Docker is given to pull `reference` for a workspace: what that one has, else what the cluster has, and
    /// never another's. None: nothing is known of its registry.
    pub(crate) fn of(
        &self,
        reference: &str,
        workspace: Option<WorkspaceId>,
    ) -> Option<DockerCredentials> {
        let host = Reference::parse(reference)?.host;
        let access = self.access(&host, workspace)?;
        // The key of a bucket is nothing to show a registry.
        let access = Some(access).filter(|access| access.bucket.is_none())?;
        Some(credentials(&host, &access.user, &access.password))
    }

    /// The same as it was told.
    pub(crate) fn access(
        &self,
        host: &str,
        workspace: Option<WorkspaceId>,
    ) -> Option<RegistryAccess> {
        let logins = self.0.lock();
        let of = |workspace| logins.get_key_value(&(workspace, host.to_owned()));
        let own = workspace.and_then(|it| of(Some(it)));
        let ((workspace, host), (user, password, bucket)) = own.or_else(|| of(None))?;
        Some(RegistryAccess {
            workspace: *workspace,
            host: host.clone(),
            user: user.clone(),
            password: password.to_string(),
            bucket: bucket.clone(),
        })
    }

    /// All that a workspace may use, by the registry's name as Docker writes it: for builds.
    pub(crate) fn all(
        &self,
        workspace: Option<WorkspaceId>,
    ) -> std::collections::HashMap<String, DockerCredentials> {
        let logins = self.0.lock();
        let may = logins.iter().filter(|((of, _), (.., bucket))| {
            bucket.is_none() && (of.is_none() || *of == workspace)
        });
        // The cluster's come first, and the workspace's in their place.
        let all = may.map(|((_, host), (user, password, _))| {
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
            workspace: None,
            host: host.into(),
            user: format!("user-{host}"),
            password: "secret".into(),
            bucket: None,
        };
        let logins = Logins::default();
        assert!(logins.of("ghcr.io/a/b:1", None).is_none());
        logins.replace([access("ghcr.io"), access("docker.io"), access("r:5000")].into_iter());
        let user = |reference: &str| logins.of(reference, None).and_then(|it| it.username);
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
        let hub = logins.of("nginx", None).and_then(|it| it.serveraddress);
        assert_eq!(hub.as_deref(), Some(DOCKER_HUB_SERVER));
        logins.replace(std::iter::empty());
        assert!(logins.of("nginx", None).is_none() && logins.all(None).is_empty());
    }

    #[test]
    fn a_workspace_has_its_own_login_or_the_clusters_and_never_anothers() {
        let (one, two, three) = (1, 2, 3);
        let access = |workspace: Option<u128>, user: &str| RegistryAccess {
            workspace: workspace.map(WorkspaceId::from_u128),
            host: "r:5000".into(),
            user: user.into(),
            password: "secret".into(),
            bucket: None,
        };
        let logins = Logins::default();
        let user = |workspace: Option<u128>| {
            let workspace = workspace.map(WorkspaceId::from_u128);
            let found = logins.of("r:5000/one/web:1", workspace);
            let all = logins.all(workspace).remove("r:5000");
            assert_eq!(found, all, "a build is given the same");
            found.and_then(|it| it.username)
        };
        logins.replace([access(Some(one), "one"), access(Some(two), "two")].into_iter());
        assert_eq!(user(Some(one)).as_deref(), Some("one"));
        assert_eq!(user(Some(two)).as_deref(), Some("two"));
        assert_eq!(user(Some(three)), None);
        assert_eq!(user(None), None);
        // The key of a bucket is for the bucket: Docker and builds never see it.
        let bucket = Bucket {
            name: "sites".into(),
            region: "auto".into(),
            path_style: true,
        };
        let mut key = access(Some(one), "key");
        key.bucket = Some(bucket.clone());
        logins.replace([key].into_iter());
        assert_eq!(user(Some(one)), None);
        let found = logins.access("r:5000", Some(WorkspaceId::from_u128(one)));
        assert_eq!(found.and_then(|it| it.bucket), Some(bucket));
        logins.replace([access(Some(one), "one"), access(None, "all")].into_iter());
        assert_eq!(user(Some(one)).as_deref(), Some("one"));
        assert_eq!(user(Some(two)).as_deref(), Some("all"));
    }
}
