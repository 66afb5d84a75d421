//! Joining a cluster with a token, from the joining server's side; and what it keeps of that. The
//! token carries the fingerprint of the cluster's CA: nothing is said to anybody who cannot prove to
//! be of that cluster.

use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use skep_identity::fingerprint::Fingerprint;
use skep_identity::grpc::{self, ChannelError};
use skep_identity::keypair::{self, Credentials, KeyAndRequest};
use skep_identity::name::Subject;
use skep_identity::seal::SealingKey;
use skep_identity::tls::{ALPN_GRPC, pinned_client_config};
use skep_identity::token::{self, JoinToken};
use skep_identity::{key_file, seal, secret_file};
use skep_model::id::ClusterId;
use skep_model::server::Server;
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::servers_client::ServersClient;
use tokio_rustls::rustls::Error as TlsError;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::Join;

/// Folder of the credentials within the data folder.
const FOLDER: &str = "identity";
/// What was given at joining, within that folder.
const FILE: &str = "joined";
/// First byte of that file.
const FORMAT: u8 = 1;
/// One call, connecting and the cluster's commit included.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// First and longest pause before a server that cannot be reached is asked again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// The server could not join.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token.
    #[error("the join token")]
    Token(#[from] token::Error),
    /// The address.
    #[error("the address of the server to join")]
    Address(#[from] ChannelError),
    /// The cluster says no.
    #[error("the cluster refuses: {0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error("the answer is not one that a server gives: {0}")]
    Answer(&'static str),
    /// The key pair, or the credentials' files.
    #[error("the server's credentials")]
    Credentials(#[from] keypair::Error),
    /// What was kept cannot be opened.
    #[error(
        "the data key cannot be opened with the operator's key: is it the key file of this server?"
    )]
    Key(#[from] key_file::Error),
    /// The data key that came.
    #[error("the data key that the cluster gave is none")]
    DataKey(#[from] seal::Error),
    /// The file of what was kept.
    #[error(transparent)]
    File(#[from] secret_file::Error),
    /// The file does not decode.
    #[error("{0} is damaged, or of a newer version: rebuild this server")]
    Damaged(String),
    /// Asked to end.
    #[error("the server was asked to end before it could join")]
    Closing,
}

/// What a server was given when it joined.
pub(super) struct Kept {
    pub(super) cluster: ClusterId,
    pub(super) member: u64,
    pub(super) data_key: SealingKey,
    pub(super) credentials: Credentials,
    /// The group as it was told then.
    pub(super) servers: Vec<Server>,
}

/// Asks until it is taken in, refused, or `shutdown`.
pub(super) async fn join(
    with: &Join,
    (own, is_rebuild): (&Server, bool),
    shutdown: &CancellationToken,
) -> Result<Kept, Error> {
    let token: JoinToken = with.token.parse()?;
    let channel = grpc::channel(&with.server, pinned_client_config(token.ca, ALPN_GRPC))?;
    let key = KeyAndRequest::generate()?;
    let request = v1::JoinServerRequest {
        token: id_bytes(token.id.as_u128()),
        secret: token.secret().to_owned(),
        server: Some(own.into()),
        csr_pem: key.csr_pem.clone(),
        rebuild: is_rebuild,
    };
    let mut pause = RETRY.0;
    let reply = loop {
        let mut client = ServersClient::new(channel.clone());
        let asked = tokio::time::timeout(CALL_DEADLINE, client.join(request.clone()));
        let Some(answer) = shutdown.run_until_cancelled(asked).await else {
            return Err(Error::Closing);
        };
        match answer {
            Ok(Ok(reply)) => break reply.into_inner(),
            Ok(Err(status)) => match fate(&status) {
                // Obeyed or not, it is the same join when it is asked for again: the key pair is the
                // same.
                Fate::Open => {
                    let why = status_text(&status);
                    tracing::warn!(server = %with.server, %why, "cannot join yet");
                }
                Fate::Refused => return Err(Error::Refused(status_text(&status))),
            },
            Err(_) => {
                tracing::warn!(server = %with.server, "cannot join yet: no answer in time");
            }
        }
        let slept = shutdown.run_until_cancelled(tokio::time::sleep(pause));
        if slept.await.is_none() {
            return Err(Error::Closing);
        }
        pause = (pause * 2).min(RETRY.1);
    };
    accept(reply, key, (own, token.ca))
}

/// Checks what came: it is used from now on without asking anybody.
fn accept(
    reply: v1::JoinServerReply,
    key: KeyAndRequest,
    (own, ca): (&Server, Fingerprint),
) -> Result<Kept, Error> {
    let bits = id_bits("cluster", &reply.cluster).map_err(|_| Error::Answer("the cluster"))?;
    let cluster = ClusterId::from_u128(bits);
    if reply.member == 0 {
        return Err(Error::Answer("the member id"));
    }
    let credentials = key.certified(reply.certificate_pem, reply.ca_pem);
    let identity = credentials.identity()?;
    if identity.cluster != cluster || identity.subject != Subject::Server(own.id) {
        return Err(Error::Answer("the certificate names somebody else"));
    }
    tracing::info!(%cluster, member = reply.member, %ca, "taken in by the cluster");
    Ok(Kept {
        cluster,
        member: reply.member,
        data_key: SealingKey::from_bytes(&reply.data_key)?,
        credentials,
        servers: understood(reply.servers).ok_or(Error::Answer("the servers"))?,
    })
}

fn understood(servers: Vec<v1::Server>) -> Option<Vec<Server>> {
    let servers = servers.into_iter().map(Server::try_from);
    servers.collect::<Result<_, _>>().ok()
}

/// What became of a call that failed.
enum Fate {
    /// Nobody there, nobody who can decide, or an answer that got lost.
    Open,
    /// No, for good.
    Refused,
}

fn fate(status: &Status) -> Fate {
    let mut source = std::error::Error::source(status);
    if source.is_none() {
        // The server's own word.
        return match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => {
                Fate::Open
            }
            _ => Fate::Refused,
        };
    }
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let inner = error.get_ref();
            if inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<TlsError>) {
                return Fate::Refused;
            }
        }
        source = error.source();
    }
    Fate::Open
}

fn status_text(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Writes down what was given; the data key only as the operator's key wraps it. Blocks on the disk.
pub(super) fn save(data_dir: &Path, kept: &Kept, operator: &SealingKey) -> Result<(), Error> {
    let folder = data_dir.join(FOLDER);
    kept.credentials.save(&folder)?;
    let message = v1::JoinServerReply {
        cluster: id_bytes(kept.cluster.as_u128()),
        member: kept.member,
        data_key: key_file::wrap(operator, &kept.data_key),
        servers: kept.servers.iter().map(Into::into).collect(),
        ..v1::JoinServerReply::default()
    };
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&message.encode_to_vec());
    secret_file::write_private(&folder.join(FILE), &bytes)?;
    Ok(())
}

/// What [`save`] wrote; none: this server founded its cluster, or has none. Blocks on the disk.
pub(super) fn load(data_dir: &Path, operator: &SealingKey) -> Result<Option<Kept>, Error> {
    let folder = data_dir.join(FOLDER);
    let path = folder.join(FILE);
    let bytes = match secret_file::read_private(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let damaged = || Error::Damaged(path.display().to_string());
    let message = match bytes.split_first() {
        Some((&FORMAT, rest)) => v1::JoinServerReply::decode(rest).map_err(|_| damaged())?,
        _ => return Err(damaged()),
    };
    let bits = id_bits("cluster", &message.cluster).map_err(|_| damaged())?;
    Ok(Some(Kept {
        cluster: ClusterId::from_u128(bits),
        member: message.member,
        data_key: key_file::unwrap(operator, &message.data_key)?,
        credentials: Credentials::load(&folder)?,
        servers: understood(message.servers).ok_or_else(damaged)?,
    }))
}
