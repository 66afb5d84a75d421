//! The node's identity: joining with a token once, keeping the certificate fresh ever after.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_identity::grpc::{self, ChannelError};
use skep_identity::key_id::KeyId;
use skep_identity::keypair::{self, Credentials, KeyAndRequest};
use skep_identity::name::Role;
use skep_identity::renewal;
use skep_identity::tls::{self, ALPN_GRPC, Expected, OutOfTime, Reloadable};
use skep_identity::token::{self, JoinToken};
use skep_model::node::Facts;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::options::Options;
use crate::servers::Servers;

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

/// Clocks that differ by more are told: certificates live for a day.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);
/// When another CA begins to sign all nodes renew, but not in the same moment.
const SPREAD: Duration = Duration::from_secs(5);

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
    /// The request cannot be signed by the old key.
    #[error("the certificate has run out, and cannot be renewed")]
    Proof(#[from] renewal::Error),
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
) -> Result<Own, Error> {
    let folder = options.data_dir.join(FOLDER);
    if let Some(credentials) = load(folder.clone()).await? {
        return Ok(Own::new(use_as_node(&credentials)?, folder));
    }
    let text = options.join_token.as_deref().ok_or(Error::NoToken)?;
    let token: JoinToken = text.parse()?;
    let config = tls::pinned_client_config(token.ca, ALPN_GRPC);
    let dial = move |address: &str| grpc::channel(address, config.clone());
    let servers = Servers::new(options.servers(), Vec::new(), dial)?;
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
        let mut client = AgentsClient::new(servers.channel());
        match call(client.join(request.clone())).await {
            Ok(reply) => break reply,
            Err(status) if !is_retryable(&status) => {
                return Err(Error::Refused(status.message().to_owned()));
            }
            Err(status) => {
                let why = explain(&status);
                tracing::warn!(server = %servers.address(), %why, "cannot join yet");
                servers.move_on();
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
    Ok(Own::new(loaded, folder))
}

/// Whether there are credentials in a data folder.
pub(crate) fn is_there(data_dir: &Path) -> bool {
    data_dir.join(FOLDER).exists()
}

/// Asks a server something that it refuses, for the sake of its answer; none: there is nothing by which
/// a server could be trusted. Changes nothing on either side.
///
/// # Errors
/// The token, the address or the credentials mean nothing.
pub(crate) async fn ask_in_vain(
    options: &crate::doctor::Options,
    server: &str,
) -> Result<Option<tonic::Status>, Error> {
    let held = match &options.data_dir {
        Some(folder) => load(folder.join(FOLDER)).await?,
        None => None,
    };
    let config = match (held, &options.join_token) {
        (Some(held), _) => {
            let expected = Expected::Role(Role::Server);
            tls::client_config(&use_as_node(&held)?, expected, ALPN_GRPC)
        }
        (None, Some(token)) => {
            let token: JoinToken = token.parse()?;
            tls::pinned_client_config(token.ca, ALPN_GRPC)
        }
        (None, None) => return Ok(None),
    };
    let address = server.split(',').next().unwrap_or_default().trim();
    let mut client = AgentsClient::new(grpc::channel(address, config)?);
    // No request to sign is in it.
    let answer = call(client.renew(v1::RenewRequest::default())).await;
    Ok(answer.err())
}

/// The node's credentials in use, and where they are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    reloadable: Arc<Reloadable>,
    folder: PathBuf,
    /// Held while the folder is read and written.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// The CA that signs now, as a server said.
    signer: Arc<watch::Sender<Option<KeyId>>>,
    /// How often other credentials came into use.
    changed: Arc<watch::Sender<u64>>,
}

impl Own {
    fn new(reloadable: Arc<Reloadable>, folder: PathBuf) -> Self {
        Self {
            reloadable,
            folder,
            writing: Arc::default(),
            signer: Arc::new(watch::Sender::new(None)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Wakes when other credentials come into use.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The credentials in use.
    ///
    /// # Errors
    /// Their files cannot be read.
    pub(crate) async fn credentials(&self) -> Result<Credentials, Error> {
        let _writing = self.writing.lock().await;
        load(self.folder.clone()).await?.ok_or(Error::NotANode)
    }

    /// The credentials as TLS uses them.
    pub(crate) fn reloadable(&self) -> &Arc<Reloadable> {
        &self.reloadable
    }

    /// Trusts these CAs from now on: an empty text changes nothing.
    ///
    /// # Errors
    /// It is no list of certificates that cover the own one, or the disk.
    pub(crate) async fn trust(&self, ca_pem: String) -> Result<(), Error> {
        if ca_pem.is_empty() {
            return Ok(());
        }
        let _writing = self.writing.lock().await;
        let Some(held) = load(self.folder.clone()).await? else {
            return Ok(());
        };
        if held.ca_pem == ca_pem {
            return Ok(());
        }
        self.use_fresh(Credentials { ca_pem, ..held }).await?;
        tracing::info!("the cluster's CAs have changed");
        Ok(())
    }

    /// This CA signs from now on: a certificate of another one is renewed.
    pub(crate) fn signed_by(&self, ca: Option<KeyId>) {
        self.signer.send_if_modified(|known| {
            let is_news = ca.is_some() && *known != ca;
            if is_news {
                *known = ca;
            }
            is_news
        });
    }

    /// Whether the certificate is of a CA that does not sign any more.
    fn is_superseded(&self) -> bool {
        let signer = *self.signer.borrow();
        signer.is_some() && self.reloadable.issuer() != signer
    }

    /// On disk first: what is used must survive a restart.
    async fn use_fresh(&self, fresh: Credentials) -> Result<(), Error> {
        Reloadable::new(&fresh)?;
        save(fresh.clone(), &self.folder).await?;
        self.reloadable.replace(&fresh)?;
        self.changed.send_modify(|times| *times += 1);
        Ok(())
    }
}

fn use_as_node(credentials: &Credentials) -> Result<Arc<Reloadable>, Error> {
    let loaded = Reloadable::new(credentials)?;
    match loaded.identity().node_id() {
        Some(_) => Ok(loaded),
        None => Err(Error::NotANode),
    }
}

/// The servers, spoken to under the node's own certificate.
///
/// # Errors
/// A given address is not one.
pub(crate) async fn servers(options: &Options, own: &Own) -> Result<Servers, Error> {
    let expected = Expected::Role(Role::Server);
    let config = tls::client_config(own.reloadable(), expected, ALPN_GRPC);
    let known = crate::servers::load(options.data_dir.clone()).await;
    let dial = move |address: &str| grpc::channel(address, config.clone());
    Ok(Servers::new(options.servers(), known, dial)?)
}

/// Renews the certificate whenever two thirds of its life are over or another CA signs, until
/// `cancel`. One that has run out while the machine was off is renewed, too.
pub(crate) async fn renew(own: Own, servers: Servers, cancel: CancellationToken) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let mut signer = own.signer.subscribe();
    loop {
        let validity = own.reloadable().validity();
        let left = validity.renew_at().duration_since(SystemTime::now());
        let left = left.unwrap_or_default();
        let pause = if !left.is_zero() && !own.is_superseded() {
            left.min(LOOK_AGAIN)
        } else {
            match renew_once(&own, &servers).await {
                // A server that is behind still signs under the old CA.
                Ok(()) if own.is_superseded() => backoff.next().max(RENEW_PAUSE),
                Ok(()) => {
                    backoff.reset();
                    RENEW_PAUSE
                }
                Err(error) => {
                    let (why, ends) = (explain(&error), validity.not_after);
                    tracing::warn!(%why, ?ends, "the certificate could not be renewed yet");
                    backoff.next()
                }
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = sleep(pause) => {}
            Ok(()) = signer.changed() => {
                let drawn = u64::from_le_bytes(skep_identity::random::bytes());
                let share = Duration::from_millis(drawn % SPREAD.as_millis() as u64);
                if cancel.run_until_cancelled(sleep(share)).await.is_none() {
                    return;
                }
            }
        }
    }
}

async fn renew_once(own: &Own, servers: &Servers) -> Result<(), Error> {
    let key = KeyAndRequest::generate()?;
    let request = v1::RenewRequest {
        csr_pem: key.csr_pem.clone(),
        ..v1::RenewRequest::default()
    };
    let now = SystemTime::now();
    let reply = if own.reloadable().validity().not_after > now {
        let mut client = AgentsClient::new(servers.channel());
        match call(client.renew(request.clone())).await {
            Err(status) if tls::out_of_time(&status) == Some(OutOfTime::Ours) => {
                tracing::warn!(
                    "the server takes this node's certificate for expired: its clock, or this machine's, is wrong"
                );
                renew_lapsed(own, servers, request).await?
            }
            answer => answer.map_err(refused)?,
        }
    } else {
        renew_lapsed(own, servers, request).await?
    };
    let _writing = own.writing.lock().await;
    own.use_fresh(key.certified(reply.certificate_pem, reply.ca_pem))
        .await?;
    tracing::info!("the certificate is renewed");
    if let Some(text) = disagreement(reply.clock_ms, SystemTime::now()) {
        tracing::warn!("{text}: set the clocks (NTP), else certificates cannot be judged");
    }
    Ok(())
}

/// Without a certificate in TLS, which no server would take: the old one and its key's signature are
/// in the request. The server is verified as ever.
async fn renew_lapsed(
    own: &Own,
    servers: &Servers,
    mut request: v1::RenewRequest,
) -> Result<v1::RenewReply, Error> {
    let held = {
        let _writing = own.writing.lock().await;
        load(own.folder.clone()).await?.ok_or(Error::NoToken)?
    };
    let ended = own.reloadable().validity().not_after;
    tracing::warn!(
        ?ended,
        "the certificate has run out: renewing it by its key"
    );
    let proof = renewal::prove(&held, &request.csr_pem)?;
    request.expired_pem = proof.expired_pem;
    request.signature = proof.signature;
    let expected = Expected::Role(Role::Server);
    let config = tls::anonymous_client_config(own.reloadable(), expected, ALPN_GRPC);
    let mut client = AgentsClient::new(grpc::channel(&servers.address(), config)?);
    call(client.renew(request)).await.map_err(refused)
}

fn refused(status: tonic::Status) -> Error {
    Error::Refused(explain(&status))
}

/// Whether the server's clock and this machine's differ by more than is harmless; 0: it did not say.
fn disagreement(server_ms: u64, now: SystemTime) -> Option<String> {
    let now_ms = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis();
    let apart = u128::from(server_ms).abs_diff(now_ms) / 1_000;
    if server_ms == 0 || apart <= u128::from(CLOCK_TOLERANCE.as_secs()) {
        return None;
    }
    let way = if u128::from(server_ms) > now_ms {
        "behind"
    } else {
        "ahead of"
    };
    let span = match apart {
        172_800.. => format!("{} days", apart / 86_400),
        seconds => format!("{seconds} s"),
    };
    Some(format!("this machine's clock is {span} {way} the server's"))
}

/// An error with everything that caused it; in plain words where a wrong clock may be the reason.
pub(crate) fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = crate::error_chain(error);
    match tls::out_of_time(error) {
        None => chain,
        Some(OutOfTime::Theirs(reason)) => format!(
            "the server's certificate is not valid by this machine's clock, so one of the two clocks \
             is wrong ({reason}): {chain}"
        ),
        Some(OutOfTime::Ours) => {
            format!("this node's certificate has run out by the server's clock: {chain}")
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_two_days_wrong_says_so() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let at = |offset_s: i64| (1_800_000_000 + offset_s) as u64 * 1_000;
        assert_eq!(disagreement(0, now), None, "an older server does not say");
        assert_eq!(disagreement(at(60), now), None);
        let said = |offset| disagreement(at(offset), now).expect("too far apart");
        assert_eq!(
            said(2 * 86_400),
            "this machine's clock is 2 days behind the server's"
        );
        assert_eq!(
            said(-61),
            "this machine's clock is 61 s ahead of the server's"
        );
    }
}
