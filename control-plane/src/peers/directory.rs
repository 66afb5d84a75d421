//! Which member of the Raft group is which server, and where it is reached. Follows the state; knows
//! what was told at joining until the state says it; judges no certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::id::ServerId;
use skep_model::server::Server;
use skep_state::{Change, State};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::consensus::{Batch, Handle};
use crate::machine::Machine;

/// What is known of a server's membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is a server of the cluster.
    Server,
    /// The state has dropped it, the Raft group is not without it yet: heard in Raft's name alone.
    Leaving,
    /// Its member id is from beyond what this replica knows: heard in Raft's name alone.
    Guest,
}

/// One server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its member id.
    pub member: u64,
    /// Its identity.
    pub server: ServerId,
    /// `host:port` where servers and agents are spoken to.
    pub address: String,
    /// What it may do.
    pub standing: Standing,
}

impl Contact {
    /// Whether it is the same server, reached at the same place.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (self.member, self.server, &self.address) == (other.member, other.server, &other.address)
    }
}

impl From<&Server> for Contact {
    fn from(server: &Server) -> Self {
        Self {
            member: server.member,
            server: server.id,
            address: server.cluster_address.clone(),
            standing: Standing::Server,
        }
    }
}

/// Everybody, by member id, this server included.
pub type Contacts = BTreeMap<u64, Contact>;

struct Inner {
    own: u64,
    remembered: Contacts,
    contacts: watch::Sender<Arc<Contacts>>,
}

/// The servers of the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

impl Directory {
    /// Of the server with the member id `own`, which was told of `remembered` when it joined.
    pub fn new(own: u64, remembered: impl IntoIterator<Item = Contact>) -> Self {
        let remembered: Contacts = remembered
            .into_iter()
            .map(|contact| (contact.member, contact))
            .collect();
        let contacts = watch::Sender::new(Arc::new(remembered.clone()));
        Self {
            inner: Arc::new(Inner {
                own,
                remembered,
                contacts,
            }),
        }
    }

    /// This server's member id.
    pub fn own(&self) -> u64 {
        self.inner.own
    }

    /// The server that is this member.
    pub fn get(&self, member: u64) -> Option<Contact> {
        self.inner.contacts.borrow().get(&member).cloned()
    }

    /// The member that is this server of the cluster.
    pub fn of_server(&self, server: ServerId) -> Option<Contact> {
        let contacts = self.inner.contacts.borrow();
        let mut servers = contacts.values().filter(|c| c.standing == Standing::Server);
        servers.find(|contact| contact.server == server).cloned()
    }

    /// Every other server of the cluster.
    pub fn others(&self) -> Vec<Contact> {
        let contacts = self.inner.contacts.borrow();
        let servers = contacts.values().filter(|c| c.standing == Standing::Server);
        let others = servers.filter(|contact| contact.member != self.inner.own);
        others.cloned().collect()
    }

    /// Everybody, and every change of it.
    pub fn watch(&self) -> watch::Receiver<Arc<Contacts>> {
        self.inner.contacts.subscribe()
    }

    /// Returns when `contact` is not true any more: the server was removed, or has moved.
    pub async fn until_changed(&self, contact: &Contact) {
        self.until(contact, |known| !known.is_same_place(contact))
            .await;
    }

    /// Returns when `contact` is no server of the cluster any more.
    pub async fn until_dropped(&self, contact: &Contact) {
        let is_dropped =
            |known: &Contact| known.server != contact.server || known.standing != Standing::Server;
        self.until(contact, is_dropped).await;
    }

    /// Returns when not even the Raft group counts on `contact` any more.
    pub async fn until_removed(&self, contact: &Contact) {
        self.until(contact, |known| known.server != contact.server)
            .await;
    }

    async fn until(&self, contact: &Contact, is_over: impl Fn(&Contact) -> bool) {
        let mut contacts = self.watch();
        // An error means that this directory has ended, and what asks with it.
        let _ = contacts
            .wait_for(|contacts| contacts.get(&contact.member).is_none_or(&is_over))
            .await;
    }

    /// Takes in a server that this replica is too far behind to have heard of.
    pub(super) fn host(&self, guest: Contact) {
        self.inner.contacts.send_if_modified(|contacts| {
            let is_new = !contacts.contains_key(&guest.member);
            if is_new {
                Arc::make_mut(contacts).insert(guest.member, guest);
            }
            is_new
        });
    }

    /// Follows the state until `shutdown`.
    pub async fn follow(self, consensus: Handle<Machine>, shutdown: CancellationToken) {
        // Subscribed before the first look: nothing between the two is missed.
        let mut changes = consensus.changes();
        let mut group = consensus.group();
        let mut has_joined = false;
        loop {
            let view = consensus.view();
            has_joined |= view.servers().any(|server| server.member == self.inner.own);
            let in_group = {
                let group = group.borrow_and_update();
                let members = &group.members;
                let all = [&members.voters, &members.learners, &members.voters_outgoing];
                all.iter().flat_map(|ids| ids.iter().copied()).collect()
            };
            self.update(&view, has_joined, &in_group);
            tokio::select! {
                () = servers_changed(&mut changes) => {}
                changed = group.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn update(&self, view: &State, has_joined: bool, in_group: &BTreeSet<u64>) {
        self.inner.contacts.send_if_modified(|contacts| {
            let mut now: Contacts = view
                .servers()
                .map(|server| (server.member, Contact::from(&**server)))
                .collect();
            // What was told at joining is newer than any state without this server in it.
            if !has_joined {
                now.extend(self.inner.remembered.clone());
            }
            for (member, old) in contacts.iter() {
                // A server on its way out is spoken to until the group is without it, else its
                // removal could wait for a quorum that nobody can reach. One from beyond this
                // replica's knowledge stays until the state has reached it.
                let standing = if is_beyond(view, *member) {
                    Standing::Guest
                } else {
                    Standing::Leaving
                };
                let stays = in_group.contains(member) || standing == Standing::Guest;
                if stays && !now.contains_key(member) {
                    let old = Contact {
                        standing,
                        ..old.clone()
                    };
                    now.insert(*member, old);
                }
            }
            let changed = **contacts != now;
            if changed {
                *contacts = Arc::new(now);
            }
            changed
        });
    }
}

/// Returns when the servers in the state may have changed; never, once the log has ended.
async fn servers_changed(changes: &mut Receiver<Arc<Batch<Change>>>) {
    loop {
        match changes.recv().await {
            Ok(batch) => {
                let is_of_servers =
                    |change: &Change| matches!(change, Change::Server(_) | Change::Cluster);
                if batch.is_reset || batch.changes.iter().any(is_of_servers) {
                    return;
                }
            }
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Whether a state is too old to know anything of this member.
pub(super) fn is_beyond(view: &State, member: u64) -> bool {
    view.cluster().is_none() || member >= view.next_member()
}

#[cfg(test)]
mod tests;
