//! The node's identity: joining with a token once, keeping the certificate fresh ever after.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_identity::grpc::{self, ChannelError};
use skep_identity::keypair::{self, Credentials, KeyAndRequest};
use skep_identity::tls::{self, ALPN_GRPC, Expected, Reloadable};
use skep_identity::token::{self, JoinToken};
use skep_model::node::Facts;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::backoff::Backoff;
use crate::options::Options;

/// Folder of the credentials within the data directory.
const FOLDER: &str = "identity";
/// One call, connecting included.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// First and longest pause before a server is asked again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Between two renewals, whatever the certificates say: a clock may be wrong by their whole life.
const RENEW_PAUSE: Duration = Duration::from_secs(2);
/// The wall clock may jump, and a sleeping machine's timers stop: look again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to join with.
    #[error(
        "this node belongs to no cluster yet: give a join token (skep-join.1....), as made by a server"
    )]
    NoToken,
    /// The token.
    #[error("the join token")]
    Token(#[from] token::Error),
    /// A server said no.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// The server's address.
    #[error("the server's address")]
    Address(#[from] ChannelError),
    /// The credentials' files.
    #[error("the node's credentials")]
    Files(#[from] keypair::Error),
    /// The certificate is of no use.
    #[error("the node's certificate")]
    Load(#[from] tls::LoadError),
    /// The server gave another kind of certificate.
    #[error("the certificate is not a node's")]
    NotANode,
    /// The agent ends.
    #[error("the agent ends")]
    Closing,
}

/// The credentials on disk, or new ones by joining. A server that cannot be reached is asked again
/// until `cancel`; one that refuses is not.
///
/// # Errors
/// No usable token where one is needed, a refusal, or the disk.
pub(crate) async fn ensure(
    options: &Options,
    facts: &Facts,
    cancel: &CancellationToken,
) -> Result<Arc<Reloadable>, Error> {
    let folder = options.data_dir.join(FOLDER);
    if let Some(credentials) = load(folder.clone()).await? {
        return use_as_node(&credentials);
    }
    let text = options.join_token.as_deref().ok_or(Error::NoToken)?;
    let token: JoinToken = text.parse()?;
    let config = tls::pinned_client_config(token.ca, ALPN_GRPC);
    let channel = grpc::channel(&options.server, config)?;
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    // One key for all attempts: a server may have answered without being heard.
    let key = KeyAndRequest::generate()?;
    let request = v1::JoinRequest {
        token: id_bytes(token.id.as_u128()),
        secret: token.secret().to_owned(),
        name: options.name.clone(),
        csr_pem: key.csr_pem.clone(),
        facts: Some(facts.into()),
    };
    let reply = loop {
        let mut client = AgentsClient::new(channel.clone());
        match call(client.join(request.clone())).await {
            Ok(reply) => break reply,
            Err(status) if !is_retryable(&status) => {
                return Err(Error::Refused(status.message().to_owned()));
            }
            Err(status) => {
                let why = crate::error_chain(&status);
                tracing::warn!(server = %options.server, %why, "cannot join yet");
            }
        }
        if cancel
            .run_until_cancelled(sleep(backoff.next()))
            .await
            .is_none()
        {
            return Err(Error::Closing);
        }
    };
    let credentials = key.certified(reply.certificate_pem, reply.ca_pem);
    let loaded = use_as_node(&credentials)?;
    save(credentials, &folder).await?;
    tracing::info!(node = %loaded.identity(), "joined");
    Ok(loaded)
}

fn use_as_node(credentials: &Credentials) -> Result<Arc<Reloadable>, Error> {
    let loaded = Reloadable::new(credentials)?;
    match loaded.identity().node_id() {
        Some(_) => Ok(loaded),
        None => Err(Error::NotANode),
    }
}

/// A channel to the server under the node's own certificate.
///
/// # Errors
/// The address is not one.
pub(crate) fn channel(server: &str, credentials: &Arc<Reloadable>) -> Result<Channel, Error> {
    let expected = Expected::Role(skep_identity::name::Role::Server);
    let config = tls::client_config(credentials, expected, ALPN_GRPC);
    Ok(grpc::channel(server, config)?)
}

/// Renews the certificate whenever two thirds of its life are over, until `cancel`.
pub(crate) async fn renew(
    options: Options,
    credentials: Arc<Reloadable>,
    channel: Channel,
    cancel: CancellationToken,
) {
    let folder = options.data_dir.join(FOLDER);
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        let left = credentials
            .validity()
            .renew_at()
            .duration_since(SystemTime::now());
        let pause = match left {
            Ok(left) if !left.is_zero() => left.min(LOOK_AGAIN),
            _ => match renew_once(&credentials, &channel, &folder).await {
                Ok(()) => {
                    backoff.reset();
                    RENEW_PAUSE
                }
                Err(error) => {
                    let why = crate::error_chain(&error);
                    let ends = credentials.validity().not_after;
                    tracing::warn!(%why, ?ends, "the certificate could not be renewed yet");
                    backoff.next()
                }
            },
        };
        if cancel.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn renew_once(
    credentials: &Arc<Reloadable>,
    channel: &Channel,
    folder: &Path,
) -> Result<(), Error> {
    let key = KeyAndRequest::generate()?;
    let request = v1::RenewRequest {
        csr_pem: key.csr_pem.clone(),
    };
    let mut client = AgentsClient::new(channel.clone());
    let reply = call(client.renew(request)).await;
    let reply = reply.map_err(|status| Error::Refused(crate::error_chain(&status)))?;
    let fresh = key.certified(reply.certificate_pem, reply.ca_pem);
    // On disk first: what is used must survive a restart.
    Reloadable::new(&fresh)?;
    save(fresh.clone(), folder).await?;
    credentials.replace(&fresh)?;
    tracing::info!("the certificate is renewed");
    Ok(())
}

async fn call<T>(
    asked: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, tonic::Status> {
    match timeout(CALL_TIMEOUT, asked).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time")),
    }
}

fn is_retryable(status: &tonic::Status) -> bool {
    use tonic::Code::{
        Aborted, Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown,
    };
    matches!(
        status.code(),
        Aborted
            | Cancelled
            | DeadlineExceeded
            | Internal
            | ResourceExhausted
            | Unavailable
            | Unknown
    )
}

async fn load(folder: std::path::PathBuf) -> Result<Option<Credentials>, Error> {
    let loaded = spawn_blocking(move || Credentials::load(&folder)).await;
    match loaded.map_err(|_| Error::Closing)? {
        Ok(credentials) => Ok(Some(credentials)),
        Err(keypair::Error::File(error)) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn save(credentials: Credentials, folder: &Path) -> Result<(), Error> {
    let folder = folder.to_owned();
    let saved = spawn_blocking(move || credentials.save(&folder)).await;
    Ok(saved.map_err(|_| Error::Closing)??)
}
