//! Copies of guests: made, listed, removed.

use std::collections::BTreeSet;
use std::time::Duration;

use skep_model::id::GuestId;
use skep_model::pool::{Backups, Departed, Guest};
use skep_proxmox::calls::{backups, cluster, storage};
use skep_proxmox::{Error, Patience, Transport, Upid, Vmid};

use super::Driver;
use crate::backups::{Archive, Left, left, of_guest};
use crate::seen::{self, Facts, Presence};

/// For a copy; what takes longer is found in the list later.
const COPY: Duration = Duration::from_secs(6 * 60 * 60);

impl<T: Transport> Driver<'_, T> {
    /// Copies of a guest on a storage, as the guest's host sees it, the newest first. None: the guest is not to be seen now.
    ///
    /// # Errors
    /// The hosts cannot be asked, or refuse.
    pub async fn archives(
        &self,
        guest: &Guest,
        storage: &str,
    ) -> Result<Option<Vec<Archive>>, Error> {
        let Some(host) = self.lister(guest).await? else {
            return Ok(None);
        };
        let listed = storage::content(&host, storage, Some("backup"));
        let rows = self.client.send(&listed).await?.rows;
        Ok(Some(of_guest(guest, &rows)))
    }

    /// Begins a copy of a guest. None: it is not to be seen now, or is locked.
    ///
    /// # Errors
    /// The hosts cannot be asked, or refuse.
    pub async fn begin_backup(&self, guest: &Guest, storage: &str) -> Result<Option<Upid>, Error> {
        let Some((facts, vmid)) = self.ours(guest).await? else {
            return Ok(None);
        };
        if facts.lock.is_some() {
            return Ok(None);
        }
        let name = guest.name();
        // What is too many goes by its name: Proxmox would go by the number, which others have had.
        let how = backups::Backup {
            storage,
            keep_last: None,
            notes: Some(&name),
        };
        let call = backups::create(self.at(&facts.host, vmid), &how);
        self.client.send(&call).await.map(Some)
    }

    /// Copies a guest, and waits for the end. False: it is not to be seen now, or is locked.
    ///
    /// # Errors
    /// The hosts cannot be asked, refuse, or the copy failed.
    pub async fn back_up(&self, guest: &Guest, wanted: &Backups) -> Result<bool, Error> {
        let Some(upid) = self.begin_backup(guest, &wanted.storage).await? else {
            return Ok(false);
        };
        let waited = self.client.wait(&upid, Patience::of(COPY), |_| {});
        waited.await.map(|_| true)
    }

    /// Removes a copy of a guest.
    ///
    /// # Errors
    /// The hosts cannot be asked, or refuse.
    pub async fn remove_archive(
        &self,
        guest: &Guest,
        storage: &str,
        archive: &Archive,
    ) -> Result<(), Error> {
        let Some((facts, _)) = self.ours(guest).await? else {
            return Ok(());
        };
        let call = storage::remove(&facts.host, storage, &archive.volid);
        let upid = self.client.send(&call).await?;
        self.finish(upid).await
    }

    /// Copies that are left on a storage of guests that are there no more, as a host that has a template sees it, and that
    /// host. None: none of these hosts is there. `known`: all guests that are written down.
    ///
    /// # Errors
    /// The hosts cannot be asked, or refuse.
    pub async fn left(
        &self,
        storage: &str,
        (departed, known): (&[Departed], &BTreeSet<GuestId>),
    ) -> Result<Option<(String, Left)>, Error> {
        let hosts = self.client.send(&cluster::hosts()).await?.rows;
        let mut there = hosts.into_iter().filter(|host| {
            let is_online = host.status.as_deref() == Some("online");
            is_online && self.recipe.templates.contains_key(&host.node)
        });
        let Some(host) = there.next() else {
            return Ok(None);
        };
        let listed = storage::content(&host.node, storage, Some("backup"));
        let rows = self.client.send(&listed).await?.rows;
        Ok(Some((host.node, left(departed, known, &rows))))
    }

    /// Removes a copy that is left of a guest that is there no more, as [`Driver::left`] has found it just now.
    ///
    /// # Errors
    /// The hosts cannot be asked, or refuse.
    pub async fn remove_left(
        &self,
        host: &str,
        storage: &str,
        archive: &Archive,
    ) -> Result<(), Error> {
        let call = storage::remove(host, storage, &archive.volid);
        let upid = self.client.send(&call).await?;
        self.finish(upid).await
    }

    /// The host that is asked for a guest's copies. One that becomes a copy may show nothing of what it is while its disks are
    /// replaced, and another copy is looked for just then: its host answers all the same.
    async fn lister(&self, guest: &Guest) -> Result<Option<String>, Error> {
        let rows = self.client.send(&cluster::guests()).await?.rows;
        let seen = self.look(guest, &rows).await?;
        Ok(match seen.presence {
            Presence::Ours(facts) => Some(facts.host),
            _ if guest.restoring.is_some() => {
                let vmid = seen::vmid(guest);
                let row = rows
                    .iter()
                    .find(|row| row.vmid().is_some() && row.vmid() == vmid);
                row.and_then(|row| row.node.clone()).or(guest.host.clone())
            }
            _ => None,
        })
    }

    /// The guest, where it is proven to be there.
    pub(super) async fn ours(&self, guest: &Guest) -> Result<Option<(Facts, Vmid)>, Error> {
        let rows = self.client.send(&cluster::guests()).await?.rows;
        let seen = self.look(guest, &rows).await?;
        Ok(match (seen.presence, seen::vmid(guest)) {
            (Presence::Ours(facts), Some(vmid)) => Some((facts, vmid)),
            _ => None,
        })
    }
}
