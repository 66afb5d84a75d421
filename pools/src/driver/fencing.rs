//! Ends a guest for good reasons, and says what is known of that.

use skep_model::pool::Guest;
use skep_proxmox::calls::{cluster, guests, ha};
use skep_proxmox::{Error, Kind, Patience, Transport, Vmid};

use super::Driver;
use crate::fence::{Around, Away, Verdict, confirmed_dead, wants};
use crate::seen::{self, Facts, Presence, Seen};
use crate::whereabouts::whereabouts;

/// A stop asks nobody; what holds it up is a lock.
const STOP: std::time::Duration = std::time::Duration::from_secs(60);

impl<T: Transport> Driver<'_, T> {
    /// Stops a guest at once, where its host answers, and says whether what ran in it has ended. `away`: what the caller has
    /// seen before of hosts that are away; this look is taken in. `now_ms`: by the clock of those looks, which nobody sets.
    ///
    /// # Errors
    /// The hosts cannot be looked at, or refuse: nothing is known, and it may be asked again.
    pub async fn fence(
        &self,
        guest: &Guest,
        away: &mut Away,
        now_ms: u64,
    ) -> Result<Verdict, Error> {
        let (Some(vmid), Some(_), Some(made_on)) =
            (seen::vmid(guest), &guest.identity, guest.host.as_deref())
        else {
            return Ok(Verdict::NotYet {
                why: "it was never seen".to_owned(),
            });
        };
        let cluster = self.client.send(&cluster::status()).await?;
        away.look(&cluster, now_ms);
        let managed = self.client.send(&ha::resources()).await?.rows;
        let rows = self.client.send(&cluster::guests()).await?.rows;
        let hosts = whereabouts(&rows);
        let host = hosts.get(&vmid.get()).map_or(made_on, String::as_str);
        let mut seen = match self.look(guest, &rows).await {
            Ok(seen) => seen,
            Err(error) if error.kind == Kind::HostUnreachable => Seen {
                presence: Presence::Unknown(error.to_string()),
                is_busy: false,
            },
            Err(error) => return Err(error),
        };
        // Without a majority nothing can be changed, and nothing is asked for that may happen later.
        let was_stopped = match &mut seen.presence {
            Presence::Ours(facts) if cluster.is_quorate => {
                let is_managed = managed.iter().any(|it| it.has(vmid.get()));
                if wants(&managed, vmid.get()) {
                    away.ends(vmid.get());
                }
                self.stop(facts, (vmid, is_managed)).await?
            }
            _ => false,
        };
        let around = Around {
            cluster: &cluster,
            managed: &managed,
            away_since: away.since(),
            now_ms,
        };
        let mut verdict = confirmed_dead((vmid.get(), host), &seen, was_stopped, around);
        if let Verdict::Dead { is_wanted, .. } = &mut verdict {
            *is_wanted |= away.had_ended(vmid.get());
        }
        Ok(verdict)
    }

    /// Whether it was stopped, and its host has said so since. The list of all guests lags: its host itself is asked.
    async fn stop(
        &self,
        facts: &mut Facts,
        (vmid, is_managed): (Vmid, bool),
    ) -> Result<bool, Error> {
        let at = self.at(&facts.host, vmid);
        let call = guests::stop(at, !is_managed);
        match self.power(at, (&call, false), Patience::of(STOP)).await {
            Ok(()) => {}
            Err(error) if error.kind == Kind::NotRunning => {}
            // It went away meanwhile.
            Err(error) if error.kind == Kind::HostUnreachable => return Ok(false),
            Err(error) => return Err(error),
        }
        let status = self.client.send(&guests::status(at)).await?;
        facts.is_running = status.is_running();
        Ok(!facts.is_running)
    }
}
