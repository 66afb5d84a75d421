//! What can go wrong, and what it means. Proxmox says nearly everything as status 500 with a text: the texts that matter to
//! a program are told apart here, once, whether they come as an answer or as the end of a task.

use std::collections::BTreeMap;

/// Why a call, or a task, has not done what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", asked.as_deref().map(|asked| format!("{asked}: ")).unwrap_or_default())]
pub struct Error {
    /// What it means for a program.
    pub kind: Kind,
    /// What Proxmox says, or what was wrong before it was asked.
    pub text: String,
    /// Parameters that it refused, each with why.
    pub fields: BTreeMap<String, String>,
    /// HTTP's status, where there was an answer.
    pub status: Option<u16>,
    /// `POST /nodes/pve/qemu`, where something was asked.
    pub asked: Option<String>,
}

/// A privilege that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// The path of Proxmox's access control: `/vms/100`.
    pub path: String,
    /// The privileges, of which one is enough: `VM.Audit`.
    pub privileges: Vec<String>,
}

/// What an error means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// What was asked is not valid.
    Invalid,
    /// The token or ticket is not known, or is over.
    Unauthenticated,
    /// Known, and not allowed. Where Proxmox names it, the privilege that is missing.
    Permission(Option<Box<Permission>>),
    /// There is no such guest, host, storage or task.
    NotFound,
    /// There is one already.
    Exists,
    /// A task has locked the guest: `clone`, `backup`, `migrate`.
    Locked(String),
    /// A lock was not to be had in time: again in a moment.
    Busy,
    /// The guest runs, and must not.
    Running,
    /// The guest does not run, and must.
    NotRunning,
    /// The guest has no agent, or it does not answer.
    NoAgent,
    /// The guest is marked as protected.
    Protected,
    /// High availability has the guest.
    UsedByHa,
    /// The Proxmox cluster has no majority, and changes nothing.
    NoQuorum,
    /// No number is free in the range.
    NoFreeVmid,
    /// Somebody else changed the configuration meanwhile.
    Modified,
    /// Disks only grow.
    CannotShrink,
    /// The host that the call is about cannot be reached from the one that was asked; others can (595).
    HostUnreachable,
    /// It may have been done, may be under way, or not: look, and do not repeat (596 and above, or a line that broke).
    OutcomeUnknown,
    /// No host was reached.
    NotAnswered,
    /// This version of Proxmox has no such call.
    NotSupported,
    /// The answer is not what it should be.
    Odd,
    /// A task was waited for as long as was to be waited. It goes on.
    TimedOut,
    /// Anything else: the text says it.
    Refused,
}

impl Kind {
    /// Whether the same call may do later, as nothing was done.
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Locked(_)
                | Self::Busy
                | Self::NoQuorum
                | Self::HostUnreachable
                | Self::NotAnswered
        )
    }
}

impl Error {
    /// Something that was never asked, as it is wrong.
    pub(crate) fn invalid(text: String) -> Self {
        Self::new(Kind::Invalid, text)
    }

    /// One of this kind, of no single call.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            fields: BTreeMap::new(),
            status: None,
            asked: None,
        }
    }

    /// What a text of Proxmox's means.
    pub(crate) fn said(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::new(meaning(&text), text)
    }
}

/// Texts, in Proxmox's own source: what begins a row is looked for in the order of the rows.
fn meaning(text: &str) -> Kind {
    let has = |part: &str| text.contains(part);
    if let Some(by) = locked(text) {
        return Kind::Locked(by);
    }
    let known: [(&[&str], Kind); 16] = [
        (&["can't lock file", "got timeout"], Kind::Busy),
        (&["unable to get any free VMID"], Kind::NoFreeVmid),
        (&["no quorum"], Kind::NoQuorum),
        (&["protection mode enabled"], Kind::Protected),
        (&["used in HA resources"], Kind::UsedByHa),
        (&["detected modified configuration"], Kind::Modified),
        (&["checksum mismatch"], Kind::Modified),
        (&["shrinking disks is not supported"], Kind::CannotShrink),
        (&["No QEMU guest agent configured"], Kind::NoAgent),
        (&["QEMU guest agent is not running"], Kind::NoAgent),
        (&["already exists"], Kind::Exists),
        (&["is running"], Kind::Running),
        (&["already running"], Kind::Running),
        (&["not running"], Kind::NotRunning),
        (&["does not exist"], Kind::NotFound),
        (&["no such"], Kind::NotFound),
    ];
    for (parts, kind) in known {
        if parts.iter().all(|part| has(part)) {
            return kind;
        }
    }
    match permission(text) {
        Some(missing) => Kind::Permission(Some(Box::new(missing))),
        None => Kind::Refused,
    }
}

/// `VM is locked (clone)`, `CT is locked (disk)`.
fn locked(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(" is locked (")?;
    let (by, _) = rest.split_once(')')?;
    Some(by.to_owned())
}

/// `Permission check failed (/vms/100, VM.Audit)`; of several privileges, between which `|` stands, one is enough.
pub(crate) fn permission(text: &str) -> Option<Permission> {
    let (_, rest) = text.split_once("Permission check failed (")?;
    let (inside, _) = rest.split_once(')')?;
    let (path, privileges) = inside.split_once(", ")?;
    let privileges = privileges.split(['|', ',']).map(|it| it.trim().to_owned());
    path.starts_with('/').then(|| Permission {
        path: path.to_owned(),
        privileges: privileges.filter(|it| !it.is_empty()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_matter_are_told_apart() {
        let missing = |path: &str, privileges: &[&str]| {
            Kind::Permission(Some(Box::new(Permission {
                path: path.to_owned(),
                privileges: privileges.iter().map(|it| (*it).to_owned()).collect(),
            })))
        };
        for (text, kind) in [
            ("VM is locked (clone)", Kind::Locked("clone".to_owned())),
            ("CT is locked (disk)", Kind::Locked("disk".to_owned())),
            (
                "can't lock file '/var/lock/qemu-server/lock-104.conf' - got timeout",
                Kind::Busy,
            ),
            (
                "can't lock file '/var/lock/pve-manager/pve-storage-local' - got timeout",
                Kind::Busy,
            ),
            (
                "unable to create VM 101: VM 101 already exists on node 'pve'",
                Kind::Exists,
            ),
            (
                "unable to create VM 9: config file already exists",
                Kind::Exists,
            ),
            (
                "Configuration file 'nodes/pve/qemu-server/101.conf' does not exist",
                Kind::NotFound,
            ),
            ("no such cluster node 'pve9'", Kind::NotFound),
            ("VM 101 is running - destroy failed", Kind::Running),
            ("CT 101 already running", Kind::Running),
            ("VM 101 not running", Kind::NotRunning),
            ("VM 101 is not running", Kind::NotRunning),
            ("QEMU guest agent is not running", Kind::NoAgent),
            ("No QEMU guest agent configured", Kind::NoAgent),
            (
                "unable to remove VM 101 - used in HA resources and purge parameter not set.",
                Kind::UsedByHa,
            ),
            (
                "can't remove VM 101 - protection mode enabled",
                Kind::Protected,
            ),
            ("shrinking disks is not supported", Kind::CannotShrink),
            ("cluster not ready - no quorum?", Kind::NoQuorum),
            (
                "unable to get any free VMID in range [5000, 5999]",
                Kind::NoFreeVmid,
            ),
            (
                "detected modified configuration - file changed by other user? Try again.",
                Kind::Modified,
            ),
            (
                "Permission check failed (/vms/100, VM.Audit)",
                missing("/vms/100", &["VM.Audit"]),
            ),
            (
                "Permission check failed (/storage/a, Datastore.Audit|Datastore.AllocateSpace)",
                missing(
                    "/storage/a",
                    &["Datastore.Audit", "Datastore.AllocateSpace"],
                ),
            ),
            (
                "Permission check failed (changing feature flags is only allowed for root@pam)",
                Kind::Refused,
            ),
            ("something else", Kind::Refused),
        ] {
            assert_eq!(Error::said(text).kind, kind, "{text}");
        }
    }

    #[test]
    fn only_what_did_nothing_may_simply_be_done_again() {
        assert!(Kind::Busy.is_passing() && Kind::HostUnreachable.is_passing());
        assert!(!Kind::OutcomeUnknown.is_passing() && !Kind::Exists.is_passing());
    }
}
