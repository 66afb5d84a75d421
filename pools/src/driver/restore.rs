//! A guest that becomes a copy of itself: its disks are replaced, and whether they are the right one's is looked at before
//! they are started and before that is said.

use std::time::Duration;

use skep_model::pool::{Guest, Note, Restoring};
use skep_proxmox::calls::{backups, tasks};
use skep_proxmox::{Error, Kind, Patience, Transport, Vmid};

use super::{Driver, Turn};
use crate::restore::{LOG_LINES, Last, Named, judge, named, newest};
use crate::seen::{self, Facts, Presence};

/// For a copy on its way back; what takes longer is found by its task later.
const RESTORE: Duration = Duration::from_secs(6 * 60 * 60);

impl<T: Transport> Driver<'_, T> {
    /// Has a guest that has stopped become a copy of it, unless that is what the last task has done: whoever asked for it may
    /// have died.
    pub(super) async fn bring_back(
        &self,
        guest: &Guest,
        facts: &Facts,
        vmid: Vmid,
    ) -> Result<Turn, Error> {
        let Some(restoring) = &guest.restoring else {
            return Ok(Turn::Wait("no copy is named".to_owned()));
        };
        let archive = &restoring.archive;
        if self.last_restore((&facts.host, vmid), restoring).await? != Last::IsIt {
            self.leave_stopped(facts, vmid).await?;
            if let Some(why) = self.is_changed(guest, facts, vmid).await? {
                return Ok(Turn::Wait(why.to_owned()));
            }
            let call = backups::put_back(self.at(&facts.host, vmid), archive);
            let ran = self.client.run(&call, Patience::of(RESTORE)).await;
            ran.map_err(|error| Error {
                text: format!("it does not become `{archive}`: {}", error.text),
                ..error
            })?;
        }
        Ok(Turn::Note(Note::BroughtBack(archive.clone())))
    }

    /// What is seen of a guest, with whether its disks are still those that it was said to have become. An answer that was
    /// lost, or somebody else, may have put another copy there.
    pub(super) async fn with_copy(
        &self,
        guest: &Guest,
        presence: Presence,
    ) -> Result<Presence, Error> {
        let back = guest.restoring.as_ref().filter(|it| it.is_back);
        Ok(match (presence, back, seen::vmid(guest)) {
            (Presence::Ours(facts), Some(restoring), Some(vmid)) => {
                let last = self.last_restore((&facts.host, vmid), restoring).await?;
                Presence::Ours(Facts {
                    is_another: last == Last::Another,
                    ..facts
                })
            }
            (presence, ..) => presence,
        })
    }

    async fn last_restore(
        &self,
        (host, vmid): (&str, Vmid),
        restoring: &Restoring,
    ) -> Result<Last, Error> {
        let listed = tasks::about(host, vmid, restoring.asked_ms / 1_000);
        let listed = self.client.send(&listed).await?.rows;
        let mut last = Vec::new();
        for task in newest(&listed) {
            let log = tasks::log(&task.upid, 0, LOG_LINES);
            let named = match self.client.send(&log).await {
                Ok(log) => named(&log.rows, vmid, &restoring.archive),
                // It was somebody else's, or is kept no more.
                Err(error) if matches!(error.kind, Kind::NotFound | Kind::Permission(_)) => {
                    Named::Nothing
                }
                Err(error) => return Err(error),
            };
            last.push((task, named));
        }
        Ok(judge(&listed, &last))
    }
}
