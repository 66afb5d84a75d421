//! Tells a guest how to join. What it is told has a secret in it: it is in no error, no log and no task's name.

use std::time::Duration;

use skep_model::pool::Guest;
use skep_proxmox::calls::{access, agent, cluster, guests, lxc};
use skep_proxmox::{Error, GuestKind, Kind, Patience, Transport, Vmid};

use super::{Driver, TASK, Turn};
use crate::introduce::{ENV_FILE, LXC_ENV_SINCE, check, forget, remember};
use crate::next::Ask;
use crate::seen::{self, Facts, Presence};

/// For a container's system to end, before it is ended: nothing runs in it yet.
const REBOOT: Duration = Duration::from_secs(30);

impl<T: Transport> Driver<'_, T> {
    /// Whether a guest that is to be told can be: asked before a token is made for it.
    pub(super) async fn is_ready(&self, guest: &Guest, presence: &Presence) -> Result<Turn, Error> {
        let (Some(vmid), Presence::Ours(facts)) = (seen::vmid(guest), presence) else {
            return Ok(Turn::Wait("it is not there".to_owned()));
        };
        if self.kind() == GuestKind::Lxc {
            let version = self.client.send(&access::version()).await?;
            if version.numbers() < LXC_ENV_SINCE {
                let (major, minor) = LXC_ENV_SINCE;
                return Ok(Turn::Wait(format!(
                    "containers are told how to join from Proxmox VE {major}.{minor} on, and this is {}: upgrade it, or make \
                     the pool one of VMs",
                    version.version
                )));
            }
            return Ok(Turn::Introduce);
        }
        match self.client.send(&agent::ping(&facts.host, vmid)).await {
            Ok(()) => Ok(Turn::Introduce),
            Err(error) if matches!(error.kind, Kind::NoAgent | Kind::NotRunning) => Ok(Turn::Wait(
                format!("its guest agent does not answer yet: {}", error.text),
            )),
            Err(error) => Err(error),
        }
    }

    /// Tells a guest how to join: `text` is the environment of its agent, a line of `SKEP_NAME=value` for each variable.
    /// [`skep_model::pool::Note::Introduced`] is written down by then. It is looked at once more, so that nobody else is
    /// told.
    ///
    /// # Errors
    /// It was not told, or nobody knows: the guest is introduced anew after [`crate::INTRODUCED_MS`].
    pub async fn introduce(&self, guest: &Guest, text: &str) -> Result<Turn, Error> {
        if let Err(why) = check(text) {
            return Ok(Turn::Wait(format!("what it is to be told is odd: {why}")));
        }
        let rows = self.client.send(&cluster::guests()).await?.rows;
        let seen = self.look(guest, &rows).await?;
        let (Some(vmid), Presence::Ours(facts)) = (seen::vmid(guest), &seen.presence) else {
            return Ok(Turn::Wait("it is not there any more".to_owned()));
        };
        if guest.identity.is_none() || !facts.is_running || seen.is_busy || facts.lock.is_some() {
            return Ok(Turn::Wait("it does not run any more".to_owned()));
        }
        match self.kind() {
            GuestKind::Qemu => {
                let call = agent::write_file(&facts.host, vmid, ENV_FILE, text);
                self.client.send(&call).await?;
            }
            GuestKind::Lxc => {
                let env = remember(facts.config.get("env"), text);
                let what = lxc::Change {
                    env: Some(&env),
                    digest: facts.config.digest(),
                    ..lxc::Change::default()
                };
                let call = lxc::change(&facts.host, vmid, &what);
                self.client.send(&call).await?;
                let reboot = guests::reboot(self.at(&facts.host, vmid), REBOOT);
                self.client.run(&reboot, Patience::of(TASK)).await?;
            }
        }
        Ok(Turn::Did(Ask::Introduce))
    }

    /// Takes what a container was told out of its configuration.
    pub(super) async fn forget(&self, facts: &Facts, vmid: Vmid) -> Result<(), Error> {
        let env = forget(facts.config.get("env"));
        let what = lxc::Change {
            env: env.as_deref(),
            delete: if env.is_some() { &[] } else { &["env"] },
            digest: facts.config.digest(),
            ..lxc::Change::default()
        };
        let call = lxc::change(&facts.host, vmid, &what);
        self.client.send(&call).await
    }
}
