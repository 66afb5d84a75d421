//! Which servers there are, and which one this agent speaks to. Owns the list (kept on disk, so that
//! an agent finds its cluster again when the server it was started with is gone) and the one channel
//! that session, renewal, logs and uploads share. Decides nothing about the session itself.

mod choice;

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use skep_identity::grpc::ChannelError;
use skep_identity::key_id::KeyId;
use skep_identity::secret_file;
use skep_proto::v1;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::credentials::Own;
use choice::Choice;

/// The list within the data directory: one address a line.
const FILE: &str = "servers";
/// Most addresses that are kept: a cluster has five servers at most.
const SERVERS_MAX: usize = 16;
/// Longest address that is kept, in bytes.
const ADDRESS_MAX_BYTES: usize = 300;

type Dial = dyn Fn(&str) -> Result<Channel, ChannelError> + Send + Sync;

/// The servers as this agent knows them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Servers {
    inner: Arc<Inner>,
}

struct Inner {
    dial: Box<Dial>,
    current: Mutex<(Choice, Channel)>,
    news: watch::Sender<Option<v1::ServerList>>,
    moved: watch::Sender<u64>,
}

impl Servers {
    /// `configured` is what the agent was started with, `known` what it has learned before.
    ///
    /// # Errors
    /// No address is one that can be dialed.
    pub(crate) fn new(
        configured: Vec<String>,
        known: Vec<String>,
        dial: impl Fn(&str) -> Result<Channel, ChannelError> + Send + Sync + 'static,
    ) -> Result<Self, ChannelError> {
        // What was typed must be right, whatever else is known.
        for address in &configured {
            dial(address)?;
        }
        let known = known
            .into_iter()
            .filter(|address| dial(address).is_ok())
            .collect();
        let choice = Choice::new(configured, known, &mut draw);
        let channel = dial(choice.address())?;
        Ok(Self {
            inner: Arc::new(Inner {
                dial: Box::new(dial),
                current: Mutex::new((choice, channel)),
                news: watch::Sender::new(None),
                moved: watch::Sender::new(0),
            }),
        })
    }

    /// The channel to the server of the moment; ask again for each call.
    pub(crate) fn channel(&self) -> Channel {
        self.inner.current.lock().1.clone()
    }

    /// The address of the server of the moment.
    pub(crate) fn address(&self) -> String {
        self.inner.current.lock().0.address().to_owned()
    }

    /// The server of the moment does not serve: speak to the next one.
    pub(crate) fn move_on(&self) {
        let mut current = self.inner.current.lock();
        if !current.0.move_on() {
            return;
        }
        match (self.inner.dial)(current.0.address()) {
            Ok(channel) => current.1 = channel,
            Err(error) => tracing::warn!(%error, "a server's address cannot be dialed"),
        }
    }

    /// A server has told the list; [`keep`] takes it from here.
    pub(crate) fn hear(&self, list: v1::ServerList) {
        self.inner.news.send_replace(Some(list));
    }

    /// Changes when the session should end and begin again with the server of the moment.
    pub(crate) fn moved(&self) -> watch::Receiver<u64> {
        self.inner.moved.subscribe()
    }

    /// The addresses told by servers replace those told before.
    fn learn(&self, addresses: Vec<String>) {
        let mut current = self.inner.current.lock();
        if !current.0.learn(addresses, &mut draw) {
            return;
        }
        if let Ok(channel) = (self.inner.dial)(current.0.address()) {
            current.1 = channel;
        }
        let address = current.0.address().to_owned();
        drop(current);
        tracing::info!(%address, "moving to another server: the cluster has new ones");
        self.inner.moved.send_modify(|count| *count += 1);
    }

    #[cfg(test)]
    pub(crate) fn only(channel: Channel) -> Self {
        let dial = move |_: &str| Ok(channel.clone());
        Self::new(vec!["here:1".to_owned()], Vec::new(), dial).expect("dials anything")
    }
}

fn draw(below: usize) -> usize {
    let drawn = u64::from_le_bytes(skep_identity::random::bytes());
    usize::try_from(drawn % below.max(1) as u64).expect("below a usize")
}

/// What was learned in earlier runs; a file that cannot be read is as good as none.
pub(crate) async fn load(data_dir: PathBuf) -> Vec<String> {
    let read = spawn_blocking(move || secret_file::read_private(&data_dir.join(FILE))).await;
    match read {
        Ok(Ok(bytes)) => accepted(String::from_utf8_lossy(&bytes).lines()),
        Ok(Err(error)) if error.is_not_found() => Vec::new(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the list of servers cannot be read");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

fn accepted<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut taken: Vec<String> = Vec::new();
    for address in addresses {
        let address = address.trim();
        let is_sane = !address.is_empty()
            && address.len() <= ADDRESS_MAX_BYTES
            && address.bytes().all(|byte| byte.is_ascii_graphic());
        if is_sane && taken.len() < SERVERS_MAX && !taken.iter().any(|it| it == address) {
            taken.push(address.to_owned());
        }
    }
    taken
}

/// Takes the lists that servers tell, until `cancel`: onto the disk, then into use.
pub(crate) async fn keep(servers: Servers, own: Own, data_dir: PathBuf, cancel: CancellationToken) {
    let mut news = servers.inner.news.subscribe();
    loop {
        match cancel.run_until_cancelled(news.changed()).await {
            Some(Ok(())) => {}
            _ => return,
        }
        let Some(list) = news.borrow_and_update().clone() else {
            continue;
        };
        own.signed_by(KeyId::from_bytes(&list.ca));
        if let Err(error) = own.trust(list.ca_pem).await {
            let why = crate::error_chain(&error);
            tracing::warn!(%why, "the CAs that a server told are not taken");
        }
        let addresses = accepted(list.addresses.iter().map(String::as_str));
        if addresses.is_empty() {
            continue;
        }
        let (path, text) = (data_dir.join(FILE), addresses.join("\n"));
        let written =
            spawn_blocking(move || secret_file::write_private(&path, text.as_bytes())).await;
        if let Ok(Err(error)) = written {
            let why = crate::error_chain(&error);
            tracing::warn!(%why, "the list of servers could not be written down");
        }
        servers.learn(addresses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_addresses_are_dropped_and_the_list_is_bounded() {
        let long = "x".repeat(ADDRESS_MAX_BYTES + 1);
        let given = ["a:1", " a:1 ", "", "b c", &long, "b:1"];
        assert_eq!(accepted(given), ["a:1", "b:1"]);
        let many: Vec<String> = (0..99).map(|n| format!("s{n}:1")).collect();
        assert_eq!(accepted(many.iter().map(String::as_str)).len(), SERVERS_MAX);
    }
}
