//! The agent's side of the socket: publishes tables, follows progress, connects again by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use skep_identity::grpc::channel_uds;
use skep_identity::keypair::Credentials;
use skep_model::machine::Warning;
use skep_proto::v1::net_client::NetClient;
use skep_proto::v1::{
    CertificateList, ChallengeList, IngressReading, LeaseTerm, MeasureRequest, NetStatus,
    NodeCredentials, NodeTable, WatchRequest,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::MAX_TABLE_BYTES;

/// Applying a table takes milliseconds and one write to the disk.
const PUBLISH_LIMIT: Duration = Duration::from_secs(10);
/// The first answer of a watch comes at once.
const WATCH_LIMIT: Duration = Duration::from_secs(5);
/// Waits between tries to reach a process that is not there, growing from the first to the last.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LAST_WAIT: Duration = Duration::from_secs(1);

/// How far the data plane is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetStatusLocal {
    /// No new request uses a table older than this.
    pub applied_sequence: u64,
    /// No request is in flight on a backend that this table or an older one removed.
    pub drained_sequence: u64,
    /// Where apps are served.
    pub ingress_port: u16,
    /// Where other nodes are served; 0: nowhere.
    pub mesh_port: u16,
    /// It hands out the files of static sites.
    pub serves_files: bool,
    /// Where apps are served, in clear and under TLS.
    pub entrances: [Option<SocketAddr>; 2],
    /// Ports of TCP routes on which it cannot listen.
    pub unbound: Unbound,
}

/// How many ports cannot be listened on, and one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unbound {
    /// So many.
    pub count: usize,
    /// The lowest; 0: none.
    pub first: u16,
}

impl Unbound {
    /// What it means for the node; none: nothing.
    pub(crate) fn warning(self) -> Option<Warning> {
        let more = match self.count {
            0 => return None,
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let first = self.first;
        Some(Warning {
            text: format!(
                "TCP routes: cannot listen on port {first}{more}, so connections to it end here"
            ),
            fix: format!(
                "`ss -ltnp sport = :{first}` on the node shows who has it; free it, or give the service another entry"
            ),
        })
    }
}

impl From<NetStatus> for NetStatusLocal {
    fn from(status: NetStatus) -> Self {
        Self {
            applied_sequence: status.applied_sequence,
            drained_sequence: status.drained_sequence,
            // It was a port before it was a number.
            ingress_port: u16::try_from(status.ingress_port).unwrap_or(0),
            mesh_port: u16::try_from(status.mesh_port).unwrap_or(0),
            serves_files: status.serves_files,
            entrances: [0, 1].map(|at| status.entrances.get(at)?.parse().ok()),
            unbound: Unbound {
                count: status.unbound.len(),
                first: status.unbound.first().map_or(0, |port| *port as u16),
            },
        }
    }
}

/// A connection to the node's data plane. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    net: NetClient<Channel>,
}

impl Client {
    /// A client of the data plane at `socket`, which need not exist yet. Must be called within a
    /// tokio runtime.
    pub fn new(socket: PathBuf) -> Self {
        let net = NetClient::new(channel_uds(&socket)).max_encoding_message_size(MAX_TABLE_BYTES);
        Self { net }
    }

    /// Makes the data plane use `table`. When this returns, no new request can use an older one. A
    /// table older than the one in use changes nothing, and is no error.
    ///
    /// # Errors
    /// `Unavailable` or `DeadlineExceeded`: the process is away, try again; `InvalidArgument`: the
    /// table means nothing.
    pub async fn publish(&self, table: NodeTable) -> Result<(), Status> {
        let mut net = self.net.clone();
        let publish = net.publish(Request::new(table));
        match timeout(PUBLISH_LIMIT, publish).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(Status::deadline_exceeded("the data plane does not answer")),
        }
    }

    /// Says who this node is among other nodes.
    ///
    /// # Errors
    /// `Unavailable` or `DeadlineExceeded`: the process is away; `Unimplemented`: it is older;
    /// `InvalidArgument`: the credentials are of no use.
    pub(crate) async fn identify(&self, own: &Credentials) -> Result<(), Status> {
        let mut net = self.net.clone();
        let message = NodeCredentials {
            certificate: own.cert_chain_pem.clone(),
            key: own.key_pem.to_string(),
            ca: own.ca_pem.clone(),
        };
        match timeout(WATCH_LIMIT, net.identify(message)).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(Status::deadline_exceeded("the data plane does not answer")),
        }
    }

    /// Makes the data plane show these certificates, and no others of the cluster.
    ///
    /// # Errors
    /// `Unavailable` or `DeadlineExceeded`: the process is away; `Unimplemented`: it is older.
    pub(crate) async fn certify(&self, list: CertificateList) -> Result<(), Status> {
        let mut net = self.net.clone();
        match timeout(PUBLISH_LIMIT, net.certify(list)).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(Status::deadline_exceeded("the data plane does not answer")),
        }
    }

    /// Makes the data plane answer these challenges, and no others.
    ///
    /// # Errors
    /// As [`Client::certify`].
    pub(crate) async fn challenge(&self, list: ChallengeList) -> Result<(), Status> {
        let mut net = self.net.clone();
        match timeout(WATCH_LIMIT, net.challenge(list)).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(Status::deadline_exceeded("the data plane does not answer")),
        }
    }

    /// Says for how long the servers count on this node.
    ///
    /// # Errors
    /// As [`Client::certify`].
    pub(crate) async fn renew(&self, remaining: Duration) -> Result<(), Status> {
        let mut net = self.net.clone();
        let remaining_ms = u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX);
        match timeout(WATCH_LIMIT, net.renew(LeaseTerm { remaining_ms })).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(Status::deadline_exceeded("the data plane does not answer")),
        }
    }

    /// What the ingress has counted: all of it first, then every period what changed.
    ///
    /// # Errors
    /// `Unavailable` or `DeadlineExceeded`: the process is away; `Unimplemented`: it is older.
    pub(crate) async fn measure(&self) -> Result<Streaming<IngressReading>, Status> {
        let mut net = self.net.clone();
        match timeout(WATCH_LIMIT, net.measure(MeasureRequest {})).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Status::deadline_exceeded("the data plane does not answer")),
        }
    }

    /// Follows the data plane until `cancel`, connecting again by itself. None while it is away.
    pub fn watch(&self, cancel: CancellationToken) -> watch::Receiver<Option<NetStatusLocal>> {
        let (sender, receiver) = watch::channel(None);
        let net = self.net.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = sender.closed() => {}
                () = follow_for_ever(net, &sender) => {}
            }
        });
        receiver
    }
}

async fn follow_for_ever(net: NetClient<Channel>, sender: &watch::Sender<Option<NetStatusLocal>>) {
    let mut wait = FIRST_WAIT;
    loop {
        match follow(net.clone(), sender).await {
            Ok(()) => wait = FIRST_WAIT,
            Err(error) => tracing::debug!(%error, "the data plane is away"),
        }
        sender.send_if_modified(|status| status.take().is_some());
        // Nothing tells that a socket has appeared.
        sleep(wait).await;
        wait = (wait * 2).min(LAST_WAIT);
    }
}

/// Follows one stream to its end. An error: not even its beginning came.
async fn follow(
    mut net: NetClient<Channel>,
    sender: &watch::Sender<Option<NetStatusLocal>>,
) -> Result<(), Status> {
    let late = |_| Status::deadline_exceeded("the data plane does not answer");
    let mut stream = timeout(WATCH_LIMIT, net.watch(WatchRequest {}))
        .await
        .map_err(late)??
        .into_inner();
    let mut next = timeout(WATCH_LIMIT, stream.message())
        .await
        .map_err(late)??;
    while let Some(status) = next {
        sender.send_replace(Some(status.into()));
        // Silence is no sign: keep-alive ends a dead connection.
        next = stream.message().await.unwrap_or_default();
    }
    Ok(())
}
