//! Guests are started and stopped. What high availability has is so by its orders: their tasks end at once, and say nothing of
//! when they are carried out, or whether.

use std::time::Duration;

use skep_model::pool::Guest;
use skep_proxmox::calls::{cluster, guests, ha};
use skep_proxmox::{At, Call, Error, Kind, Patience, Transport, Upid, Vmid};
use tokio::time::{Instant, sleep};

use super::{Driver, SHUTDOWN, TASK};
use crate::fence::wants;
use crate::seen::{self, Facts, Presence};

/// The manager and the hosts each look every 10 s at what was ordered.
const ORDERED: Duration = Duration::from_secs(60);

impl<T: Transport> Driver<'_, T> {
    /// Makes a call that starts or stops a guest, and waits for what it asks for.
    pub(super) async fn power(
        &self,
        at: At<'_>,
        (call, is_to_run): (&Call<Upid>, bool),
        within: Patience,
    ) -> Result<(), Error> {
        let upid = self.client.send(call).await?;
        self.client.wait(&upid, within, |_| {}).await?;
        match upid.is_order() {
            true => self.carried_out(at, is_to_run).await,
            false => Ok(()),
        }
    }

    async fn carried_out(&self, at: At<'_>, is_to_run: bool) -> Result<(), Error> {
        let within = Patience::of(SHUTDOWN + ORDERED);
        let until = Instant::now() + within.deadline;
        let mut pause = within.first;
        loop {
            match self.client.send(&guests::status(at)).await {
                Ok(status) if status.is_running() == is_to_run => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind.is_passing() => {}
                Err(error) => return Err(error),
            }
            if Instant::now() + pause > until {
                let s = within.deadline.as_secs();
                let text = format!("high availability was told {s} s ago, and has not done it");
                return Err(Error::new(Kind::TimedOut, text));
            }
            sleep(pause).await;
            pause = (pause * 2).min(within.most);
        }
    }

    /// Has high availability leave a guest stopped that it would start: one that its system has shut down, or that was given
    /// to it meanwhile.
    pub(super) async fn leave_stopped(&self, facts: &Facts, vmid: Vmid) -> Result<(), Error> {
        let managed = self.client.send(&ha::resources()).await?.rows;
        if !wants(&managed, vmid.get()) {
            return Ok(());
        }
        let at = self.at(&facts.host, vmid);
        let call = guests::stop(at, false);
        self.power(at, (&call, false), Patience::of(TASK)).await
    }

    /// Starts a guest that was stopped to be sure of its end.
    ///
    /// # Errors
    /// It is not there, or its host refuses.
    pub async fn start_again(&self, guest: &Guest) -> Result<(), Error> {
        let rows = self.client.send(&cluster::guests()).await?.rows;
        let (Some(vmid), Presence::Ours(facts)) =
            (seen::vmid(guest), self.look(guest, &rows).await?.presence)
        else {
            return Err(Error::new(Kind::NotFound, "it is not there"));
        };
        let at = self.at(&facts.host, vmid);
        self.power(at, (&guests::start(at), true), Patience::of(TASK))
            .await
    }
}
