//! Copies of whole guests on another storage.

use crate::ids::{At, Vmid};
use crate::request::{Call, Method, Request};
use crate::upid::Upid;

/// How a guest is backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup<'a> {
    /// Where to: a storage that holds backups.
    pub storage: &'a str,
    /// How many stay of this guest on that storage; older ones go. None: all stay.
    pub keep_last: Option<u32>,
    /// Text for people; `{{guestname}}` and the like are filled in.
    pub notes: Option<&'a str>,
}

/// `POST /nodes/{node}/vzdump`: backs up a guest while it runs; its agent, where it has one, freezes its filesystems
/// meanwhile. `VM.Backup` of it, `Datastore.AllocateSpace` of the storage; with `keep_last` also `Datastore.Allocate` there.
pub fn create(at: At<'_>, how: &Backup<'_>) -> Call<Upid> {
    let keep = how.keep_last.map(|count| format!("keep-last={count}"));
    let request = Request::new(Method::Post, &["nodes", at.host, "vzdump"])
        .with("vmid", at.vmid)
        .with("storage", how.storage)
        .with("mode", "snapshot")
        .with("compress", "zstd")
        .with_some("prune-backups", keep)
        .with_some("notes-template", how.notes);
    Call::new(request)
}

/// `POST /nodes/{node}/{qemu|lxc}`: a new guest out of a backup, with a name in the network that is its own. `VM.Allocate` of
/// the number or the pool, `Datastore.AllocateSpace`.
pub fn restore(at: At<'_>, archive: &str, storage: &str, pool: Option<&str>) -> Call<Upid> {
    let request =
        Request::new(Method::Post, &["nodes", at.host, at.kind.as_str()]).with("vmid", at.vmid);
    let request = match at.kind {
        crate::ids::GuestKind::Qemu => request.with("archive", archive),
        crate::ids::GuestKind::Lxc => request.with("ostemplate", archive).with("restore", 1),
    };
    Call::new(
        request
            .with("storage", storage)
            .with("unique", 1)
            .with_some("pool", pool),
    )
}

/// `POST /nodes/{node}/{qemu|lxc}`: a guest that has stopped becomes what a backup of it holds: its disks and its configuration
/// are replaced, its number and what proves it stay. `VM.Allocate` or `VM.Backup` of it, `Datastore.AllocateSpace`.
pub fn put_back(at: At<'_>, archive: &str) -> Call<Upid> {
    let request =
        Request::new(Method::Post, &["nodes", at.host, at.kind.as_str()]).with("vmid", at.vmid);
    let request = match at.kind {
        crate::ids::GuestKind::Qemu => request.with("archive", archive),
        crate::ids::GuestKind::Lxc => request.with("ostemplate", archive).with("restore", 1),
    };
    Call::new(request.with("force", 1))
}

/// For lists of what belongs to a guest: backups are named by its number, those on a backup server in a folder of it.
pub fn is_of(volid: &str, vmid: Vmid) -> bool {
    let number = vmid.to_string();
    let path: Vec<&str> = volid.split('/').collect();
    if let [_, "vm" | "ct", of, _] = path.as_slice() {
        return *of == number;
    }
    let name = path.last().copied().unwrap_or_default();
    let parts: Vec<&str> = name.split('-').collect();
    parts.first() == Some(&"vzdump") && parts.get(2) == Some(&number.as_str())
}
