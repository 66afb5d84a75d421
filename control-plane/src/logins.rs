//! As whom images of a registry are pulled: for a workspace, what is said of its own push registry, else what the
//! cluster's operators say for all. What another workspace has is never among it.

use skep_model::id::WorkspaceId;
use skep_model::registry::RegistryAccess;
use skep_state::State;

use crate::secrets::Secrets;

/// For one registry; none: as anybody. What cannot be opened is left out, and reported.
pub(crate) fn pull(
    view: &State,
    secrets: &Secrets,
    (workspace, host): (Option<WorkspaceId>, &str),
) -> Option<RegistryAccess> {
    let own = workspace.and_then(|it| view.push_registry(it));
    // Nobody pulls by tag from a bucket.
    let own = own.filter(|registry| registry.host == host && registry.bucket.is_none());
    if let Some(registry) = own {
        let access = secrets.pull_access(registry);
        let access = access.inspect_err(|problem| {
            tracing::error!(host, %problem, "a workspace's login at its push registry cannot be used");
        });
        return access.ok();
    }
    let login = view.registry(host)?;
    let password = secrets.open_registry(host, &login.password);
    let password = password.inspect_err(|problem| {
        tracing::error!(host, %problem, "a login at a registry cannot be used");
    });
    Some(RegistryAccess {
        workspace: None,
        host: host.to_owned(),
        user: login.user.clone(),
        password: password.ok()?,
        bucket: None,
    })
}
