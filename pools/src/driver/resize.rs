//! Gives a guest another size: what is in effect of it, whether its host has room, and its configuration.

use skep_model::pool::{Guest, GuestSize};
use skep_proxmox::calls::{cluster, guests, lxc, qemu};
use skep_proxmox::{Error, GuestKind, Transport, Vmid};

use super::Driver;
use crate::next::Ask;
use crate::place::grows;
use crate::resize::{Look, cores};
use crate::seen::Facts;

impl<T: Transport> Driver<'_, T> {
    /// How large a guest is, and what it could get while it runs. None: it is not to be seen now.
    ///
    /// # Errors
    /// The hosts cannot be asked, or refuse.
    pub async fn size_of(&self, guest: &Guest) -> Result<Option<Look>, Error> {
        let Some((facts, vmid)) = self.ours(guest).await? else {
            return Ok(None);
        };
        let facts = self.look_closely(facts, vmid).await?;
        Ok(Look::of(self.recipe, &facts))
    }

    /// Whether a host has room for one of its guests that is to be as large.
    ///
    /// # Errors
    /// The hosts cannot be asked, or refuse. Within: what is against it, for a person.
    pub async fn has_room(
        &self,
        guest: &Guest,
        host: &str,
        to: GuestSize,
    ) -> Result<Result<(), String>, Error> {
        let rows = self.client.send(&cluster::guests()).await?.rows;
        let hosts = self.client.send(&cluster::hosts()).await?.rows;
        let vmid = guest.vmid.unwrap_or(0);
        Ok(grows((host, vmid), to, (&hosts, &rows)))
    }

    /// The lists of all guests lag, and a configuration says what waits for the next start as if it were so: its host is
    /// asked for what is in effect.
    pub(super) async fn look_closely(&self, facts: Facts, vmid: Vmid) -> Result<Facts, Error> {
        let at = self.at(&facts.host, vmid);
        let status = self.client.send(&guests::status(at)).await?;
        let entries = self.client.send(&guests::pending(at)).await?.rows;
        Ok(Facts {
            is_running: status.is_running(),
            ..facts
        }
        .with_waiting(entries))
    }

    /// What keeps a guest from becoming as large as it is to be, as long as it is as it was. What has begun is ended.
    pub(super) async fn is_without_room(
        &self,
        guest: &Guest,
        facts: &Facts,
        ask: &Ask,
    ) -> Result<Option<String>, Error> {
        let begins = matches!(ask, Ask::ShutDown | Ask::Reshape) && facts.is_running;
        if !begins || !guest.is_changing() {
            return Ok(None);
        }
        let to = guest.size(self.recipe);
        let room = self.has_room(guest, &facts.host, to).await?;
        Ok(room.err())
    }

    /// Writes its cores and its memory down: in effect at once, or with its next start.
    pub(super) async fn reshape(
        &self,
        guest: &Guest,
        facts: &Facts,
        vmid: Vmid,
    ) -> Result<(), Error> {
        let to = guest.size(self.recipe);
        let digest = facts.config.digest();
        match self.kind() {
            GuestKind::Qemu => {
                let (cores, vcpus) = cores(to, facts);
                let least = facts.config.get("balloon");
                let least = least.and_then(|it| it.parse::<u32>().ok());
                let what = qemu::Change {
                    cores,
                    vcpus,
                    memory_mib: Some(to.memory_mib),
                    // The least is no more than the most.
                    balloon_mib: least
                        .filter(|it| *it > to.memory_mib)
                        .map(|_| to.memory_mib),
                    digest,
                    ..qemu::Change::default()
                };
                let call = qemu::change(&facts.host, vmid, &what)?;
                self.finish(self.client.send(&call).await?).await
            }
            GuestKind::Lxc => {
                let what = lxc::Change {
                    cores: Some(to.cores),
                    memory_mib: Some(to.memory_mib),
                    digest,
                    ..lxc::Change::default()
                };
                let call = lxc::change(&facts.host, vmid, &what);
                self.client.send(&call).await
            }
        }
    }
}
