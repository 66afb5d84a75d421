//! Records that prove hosts in DNS: each is in the replicated state before it is in a zone, and until it is out of it
//! again. An order holds those that it needs; what nobody holds is taken away by whoever leads, be the order done,
//! failed, or gone with its leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use skep_model::certificate::{DnsAccess, DnsRecord};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::Trouble;
use super::dns::{Lookup, Means, Record, Writer};
use crate::secrets::Secrets;
use crate::store::{Store, now_ms};

/// How long it is tried to take a record away.
const LIFE_MS: u64 = 24 * 3_600_000;
/// First and longest pause after a record could not be taken away.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3_600));

/// Name and value.
type Key = (String, String);

/// Who is at which record just now: never two.
#[derive(Debug, Default)]
struct Hands {
    held: BTreeSet<Key>,
    swept: BTreeSet<Key>,
    /// Those that could not be taken away: how often, and when it is tried again.
    late: BTreeMap<Key, (u32, Instant)>,
}

/// The records of one cluster while this server leads it.
pub(crate) struct Records {
    store: Store,
    secrets: Secrets,
    means: Means,
    hands: Mutex<Hands>,
    let_go: Notify,
}

/// A record that an order needs; dropped, it may be taken away.
pub(super) struct Held<'a> {
    records: &'a Records,
    key: Key,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.records.hands.lock().held.remove(&self.key);
        self.records.let_go.notify_waiters();
    }
}

impl Records {
    pub(super) fn new(store: Store, secrets: Secrets, means: Means) -> Self {
        Self {
            store,
            secrets,
            means,
            hands: Mutex::default(),
            let_go: Notify::new(),
        }
    }

    /// Writes what proves `host`, and waits until its zone's servers show it.
    pub(super) async fn write(
        &self,
        access: &DnsAccess,
        host: &str,
        value: String,
    ) -> Result<Held<'_>, Trouble> {
        let writer = Writer::open(access, &self.secrets, &self.means)?;
        let lookup = Lookup::new(&self.means.resolvers);
        let name = lookup.follow(&format!("_acme-challenge.{host}")).await?;
        let held = self.hold((name, value)).await;
        let record = DnsRecord {
            name: held.key.0.clone(),
            value: held.key.1.clone(),
            access: access.clone(),
            until_ms: now_ms() + LIFE_MS,
        };
        let command = v1::PutDnsRecord {
            record: Some((&record).into()),
        };
        self.store.propose(Kind::PutDnsRecord(command)).await?;
        let record = Record {
            name: &held.key.0,
            value: &held.key.1,
        };
        if let Err(error) = writer.present(record).await {
            if error.is_refusal() {
                self.forget(&held.key).await;
            }
            return Err(error.into());
        }
        lookup.seen(record).await?;
        Ok(held)
    }

    /// Waits for whoever takes away the very same one, which an issuer may ask for again.
    async fn hold(&self, key: Key) -> Held<'_> {
        loop {
            let let_go = self.let_go.notified();
            tokio::pin!(let_go);
            // Listens from here on: what is let go between looking and waiting is heard of.
            let_go.as_mut().enable();
            {
                let mut hands = self.hands.lock();
                if !hands.swept.contains(&key) {
                    hands.held.insert(key.clone());
                    return Held { records: self, key };
                }
            }
            let_go.await;
        }
    }

    /// Until an order has let go of a record.
    pub(crate) fn let_go(&self) -> Notified<'_> {
        self.let_go.notified()
    }

    /// Those in the state that nobody holds and whose time has come; nobody else gets them until they are done with.
    fn take_orphans(&self) -> Vec<Arc<DnsRecord>> {
        let view = self.store.view();
        let now = Instant::now();
        let mut guard = self.hands.lock();
        let hands = &mut *guard;
        let there: BTreeSet<Key> = view.dns_records().map(|it| it.key()).collect();
        hands.late.retain(|key, _| there.contains(key));
        let is_free = |it: &&Arc<DnsRecord>| {
            let key = it.key();
            let is_late = hands.late.get(&key).is_some_and(|(_, at)| *at > now);
            !is_late && !hands.held.contains(&key) && !hands.swept.contains(&key)
        };
        let orphans: Vec<_> = view.dns_records().filter(is_free).cloned().collect();
        hands.swept.extend(orphans.iter().map(|it| it.key()));
        orphans
    }

    /// Takes away what nobody holds; tells when it wants to be asked again.
    pub(crate) async fn sweep(&self) -> Option<Instant> {
        let orphans = self.take_orphans();
        // Nobody is to hear of a look that found nothing: this one's caller would look again for ever.
        if !orphans.is_empty() {
            let _swept = Swept {
                records: self,
                keys: orphans.iter().map(|it| it.key()).collect(),
            };
            join_all(orphans.iter().map(|it| self.take_away(it))).await;
        }
        let hands = self.hands.lock();
        hands.late.values().map(|(_, at)| *at).min()
    }

    async fn take_away(&self, record: &DnsRecord) {
        let name = &record.name;
        let gone = async {
            let writer = Writer::open(&record.access, &self.secrets, &self.means)?;
            let value = &record.value;
            writer.cleanup(Record { name, value }).await
        };
        match gone.await {
            Ok(()) => tracing::info!(name, "a record in DNS was taken away"),
            Err(error) if record.until_ms <= now_ms() => {
                tracing::error!(name, value = record.value, %error, "a record stays in DNS: take it away by hand");
            }
            Err(error) => {
                tracing::warn!(name, %error, "a record in DNS cannot be taken away: trying again");
                return self.put_off(record.key());
            }
        }
        self.forget(&record.key()).await;
    }

    /// It is in no zone.
    async fn forget(&self, key: &Key) {
        let command = v1::RemoveDnsRecord {
            name: key.0.clone(),
            value: key.1.clone(),
        };
        if let Err(problem) = self.store.propose(Kind::RemoveDnsRecord(command)).await {
            tracing::debug!(%problem, "that a record is gone was not taken down");
            self.put_off(key.clone());
        }
    }

    fn put_off(&self, key: Key) {
        let mut hands = self.hands.lock();
        let late = hands.late.entry(key).or_insert((0, Instant::now()));
        let pause = PAUSES.0 * (1 << late.0.min(10));
        *late = (late.0 + 1, Instant::now() + pause.min(PAUSES.1));
    }
}

/// Those that are being taken away; dropped, they are not.
struct Swept<'a> {
    records: &'a Records,
    keys: Vec<Key>,
}

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        let mut hands = self.records.hands.lock();
        for key in &self.keys {
            hands.swept.remove(key);
        }
        drop(hands);
        self.records.let_go.notify_waiters();
    }
}
