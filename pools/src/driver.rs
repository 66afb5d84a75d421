//! Looks at the hosts, and does the next thing with one guest: at most one call that changes anything in a turn.

mod backup;
mod configure;
mod fencing;
mod introduction;
mod power;
mod resize;
mod restore;

use std::time::Duration;

use skep_model::pool::{Guest, Note, Recipe};
use skep_proxmox::calls::{agent, cluster, guests, lxc, qemu, tasks};
use skep_proxmox::{At, Call, Client, Error, GuestKind, Kind, Patience, Transport, Upid, Vmid};
use tokio::time::Instant;

use crate::next::{Ask, Step, next};
use crate::place::{Choice, choose};
use crate::seen::{self, Facts, Presence, Seen};

/// For a shutdown, before the guest is ended.
const SHUTDOWN: Duration = Duration::from_secs(120);
/// A number that was somebody's is another's after two tasks at least: what was read within this time is still so.
const FRESH: Duration = Duration::from_secs(1);
/// For a task of any other kind; a full clone of a large disk takes its time.
const TASK: Duration = Duration::from_secs(30 * 60);

/// What came of a turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// To be written down before the next turn.
    Note(Note),
    /// The guest is ready to be told how to join. Whoever calls makes a token, writes [`Note::Introduced`] down, and only
    /// then has it told ([`Driver::introduce`]): killed in between, the guest is told later, with another token.
    Introduce,
    /// Something was done: look again.
    Did(Ask),
    /// Nothing can be done now, and why.
    Wait(String),
    /// Nothing is left to do.
    Done,
}

/// What drives guests of one pool.
#[derive(Debug, Clone, Copy)]
pub struct Driver<'a, T> {
    /// The hosts.
    pub client: &'a Client<T>,
    /// What guests are made of.
    pub recipe: &'a Recipe,
}

impl<T: Transport> Driver<'_, T> {
    /// Does the next thing with a guest. `others` are all guests that are written down, of every pool at these hosts: their
    /// numbers are taken.
    ///
    /// # Errors
    /// The hosts cannot be looked at, or refuse: nothing was changed, or nobody knows. The next turn looks again.
    pub async fn turn(&self, guest: &Guest, others: &[Guest], now_ms: u64) -> Result<Turn, Error> {
        let rows = self.client.send(&cluster::guests()).await?.rows;
        let seen = self.look(guest, &rows).await?;
        let seen = Seen {
            presence: self.with_copy(guest, seen.presence).await?,
            ..seen
        };
        let step = next(self.recipe, guest, &seen, now_ms);
        match step {
            Step::Record(note) => Ok(Turn::Note(note)),
            Step::Wait(why) => Ok(Turn::Wait(why)),
            Step::Done => Ok(Turn::Done),
            Step::Choose => self.choose(guest, others, (&rows, now_ms)).await,
            Step::Introduce => self.is_ready(guest, &seen.presence).await,
            Step::Ask(ask) => self.carry_out(ask, guest, (&seen, (others, now_ms))).await,
        }
    }

    async fn choose(
        &self,
        guest: &Guest,
        others: &[Guest],
        (rows, now_ms): (&[cluster::Guest], u64),
    ) -> Result<Turn, Error> {
        let hosts = self.client.send(&cluster::hosts()).await?.rows;
        Ok(match choose(self.recipe, guest, others, (&hosts, rows)) {
            Ok(Choice {
                host,
                vmid,
                address,
            }) => Turn::Note(Note::Chosen {
                host,
                vmid,
                address,
                now_ms,
            }),
            Err(why) => Turn::Wait(why),
        })
    }

    async fn look(&self, guest: &Guest, rows: &[cluster::Guest]) -> Result<Seen, Error> {
        let (Some(vmid), Some(made_on)) = (seen::vmid(guest), guest.host.as_deref()) else {
            return Ok(Seen {
                presence: Presence::Absent,
                is_busy: false,
            });
        };
        let row = rows.iter().find(|row| row.vmid() == Some(vmid));
        if row.is_some_and(|row| row.kind().is_some_and(|kind| kind != self.kind())) {
            return Ok(Seen {
                presence: Presence::Foreign,
                is_busy: false,
            });
        }
        let host = row.and_then(|row| row.node.as_deref()).unwrap_or(made_on);
        let config = self.client.send(&guests::config(self.at(host, vmid))).await;
        let presence = match config {
            Ok(config) => seen::presence(guest, row, Some(config)),
            Err(error) if error.kind == Kind::NotFound => seen::presence(guest, row, None),
            // What is not ours to see is somebody's; what was ours cannot have become it.
            Err(error) if matches!(error.kind, Kind::Permission(_)) => match guest.identity {
                None => Presence::Foreign,
                Some(_) => Presence::Unknown(error.to_string()),
            },
            Err(error) => return Err(error),
        };
        let presence = match presence {
            Presence::Ours(facts) if guest.is_changing() => {
                Presence::Ours(self.look_closely(facts, vmid).await?)
            }
            other => other,
        };
        Ok(Seen {
            presence,
            is_busy: self.is_busy(host, vmid).await?,
        })
    }

    /// Whether a task about it runs where it is.
    async fn is_busy(&self, host: &str, vmid: Vmid) -> Result<bool, Error> {
        let listed = self.client.send(&tasks::about(host, vmid, 0)).await?;
        Ok(listed.rows.iter().any(|task| task.endtime.is_none()))
    }

    async fn carry_out(
        &self,
        ask: Ask,
        guest: &Guest,
        (seen, known): (&Seen, (&[Guest], u64)),
    ) -> Result<Turn, Error> {
        let Some(vmid) = seen::vmid(guest) else {
            return Ok(Turn::Wait("it has no number".to_owned()));
        };
        if let Presence::Ours(facts) = &seen.presence
            && let Some(why) = self.is_without_room(guest, facts, &ask).await?
        {
            return Ok(Turn::Wait(why));
        }
        if let Presence::Ours(facts) = &seen.presence
            && ask == Ask::Remove
            && let Some(why) = self.is_changed(guest, facts, vmid).await?
        {
            return Ok(Turn::Wait(why.to_owned()));
        }
        let done = match (&ask, &seen.presence) {
            (Ask::Clone, _) => match self.clone_call(guest, vmid)? {
                Some(call) => self.client.run(&call, Patience::of(TASK)).await.map(drop),
                None => {
                    let host = guest.host.as_deref().unwrap_or_default();
                    return Ok(Turn::Wait(format!("the recipe has no template on {host}")));
                }
            },
            (_, Presence::Ours(facts)) => match ask {
                Ask::FindAddress => return self.find_address(facts, vmid).await,
                Ask::Restore => return self.bring_back(guest, facts, vmid).await,
                Ask::Configure => self.configure(guest, facts, vmid).await,
                Ask::Reshape => self.reshape(guest, facts, vmid).await,
                Ask::Resize => self.enlarge(guest, facts, vmid).await,
                Ask::Forget => self.forget(facts, vmid).await,
                _ => self.change(&ask, facts, vmid).await,
            },
            (_, Presence::Absent | Presence::Foreign | Presence::Unknown(_)) => {
                return Ok(Turn::Wait("it is not there".to_owned()));
            }
        };
        match done {
            Ok(()) => Ok(Turn::Did(ask)),
            // Somebody was faster: maybe we were, and an answer was lost.
            Err(error) if ask == Ask::Clone && error.kind == Kind::Exists => {
                self.taken(guest, known).await
            }
            Err(error) => Err(error),
        }
    }

    /// None: the guest's host is in the recipe no more.
    fn clone_call(&self, guest: &Guest, vmid: Vmid) -> Result<Option<Call<Upid>>, Error> {
        let host = guest.host.as_deref().unwrap_or_default();
        let Some(template) = self.recipe.templates.get(host) else {
            return Ok(None);
        };
        let template = self.at(host, Vmid::new(*template)?);
        let name = guest.name();
        let pool = Some(self.recipe.resource_pool.as_str());
        let (full, storage) = (self.recipe.full_clone, self.recipe.storage.as_deref());
        Ok(Some(match self.kind() {
            GuestKind::Qemu => {
                let how = qemu::Clone {
                    vmid,
                    name: &name,
                    pool,
                    full,
                    target: None,
                    storage,
                    description: None,
                };
                qemu::clone(template, &how)
            }
            GuestKind::Lxc => {
                let how = lxc::Clone {
                    vmid,
                    hostname: &name,
                    pool,
                    full,
                    target: None,
                    storage,
                    description: None,
                };
                lxc::clone(template, &how)
            }
        }))
    }

    /// The number that was chosen is somebody's. Where nothing is to be seen of that, it is behind the fence of our rights:
    /// another number, then.
    async fn taken(&self, guest: &Guest, (others, now_ms): (&[Guest], u64)) -> Result<Turn, Error> {
        let rows = self.client.send(&cluster::guests()).await?.rows;
        let seen = self.look(guest, &rows).await?;
        match seen.presence {
            Presence::Absent | Presence::Foreign => {
                self.choose(guest, others, (&rows, now_ms)).await
            }
            Presence::Ours(_) => Ok(Turn::Did(Ask::Clone)),
            Presence::Unknown(why) => Ok(Turn::Wait(why)),
        }
    }

    /// Why it is not certain any more that a number is this guest's. Neither a removal nor a restore can be made on a
    /// condition, and between the look and now there were other calls.
    async fn is_changed(
        &self,
        guest: &Guest,
        facts: &Facts,
        vmid: Vmid,
    ) -> Result<Option<&'static str>, Error> {
        let since = Instant::now();
        let call = guests::config(self.at(&facts.host, vmid));
        let config = match self.client.send(&call).await {
            Ok(config) => config,
            Err(error) if error.kind == Kind::NotFound => {
                return Ok(Some("it has gone just now"));
            }
            Err(error) => return Err(error),
        };
        let presence = seen::presence(guest, None, Some(config));
        Ok(match presence {
            Presence::Ours(_) if since.elapsed() <= FRESH => None,
            Presence::Ours(_) => Some("its host answers too slowly to be sure whose its number is"),
            _ => Some("it has changed just now"),
        })
    }

    async fn change(&self, ask: &Ask, facts: &Facts, vmid: Vmid) -> Result<(), Error> {
        let at = self.at(&facts.host, vmid);
        let call = match ask {
            Ask::ShutDown => guests::shut_down(at, SHUTDOWN, true),
            Ask::Remove => {
                let what = guests::Remove {
                    purge: true,
                    unreferenced_disks: true,
                };
                guests::remove(at, what)
            }
            // The others are done elsewhere.
            _ => guests::start(at),
        };
        let within = Patience::of(TASK);
        match ask {
            Ask::ShutDown => self.power(at, (&call, false), within).await,
            Ask::Remove => self.client.run(&call, within).await.map(drop),
            _ => self.power(at, (&call, true), within).await,
        }
    }

    async fn enlarge(&self, guest: &Guest, facts: &Facts, vmid: Vmid) -> Result<(), Error> {
        let (at, to) = (self.at(&facts.host, vmid), guest.size(self.recipe));
        let call = guests::resize(at, &self.recipe.disk, to.disk_gib);
        self.finish(self.client.send(&call).await?).await
    }

    async fn finish(&self, upid: Option<Upid>) -> Result<(), Error> {
        let Some(upid) = upid else { return Ok(()) };
        let waited = self.client.wait(&upid, Patience::of(TASK), |_| {});
        waited.await.map(drop)
    }

    async fn find_address(&self, facts: &Facts, vmid: Vmid) -> Result<Turn, Error> {
        let interfaces = match self.kind() {
            GuestKind::Qemu => {
                self.client
                    .send(&agent::interfaces(&facts.host, vmid))
                    .await
            }
            GuestKind::Lxc => self.client.send(&lxc::interfaces(&facts.host, vmid)).await,
        };
        let interfaces = match interfaces {
            Ok(interfaces) => interfaces,
            Err(error) if matches!(error.kind, Kind::NoAgent | Kind::NotRunning | Kind::Odd) => {
                return Ok(Turn::Wait(format!("it has no address yet: {}", error.text)));
            }
            Err(error) => return Err(error),
        };
        let mac = facts.identity().map(|it| it.mac).unwrap_or_default();
        Ok(match agent::address_by_mac(&interfaces, &mac) {
            Some(address) => Turn::Note(Note::Found(address)),
            None => Turn::Wait("it has no address yet".to_owned()),
        })
    }

    fn kind(&self) -> GuestKind {
        seen::kind(self.recipe)
    }

    fn at<'h>(&self, host: &'h str, vmid: Vmid) -> At<'h> {
        At {
            host,
            kind: self.kind(),
            vmid,
        }
    }
}
