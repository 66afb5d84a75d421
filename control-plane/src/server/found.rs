//! A cluster's beginning, and opening its data key again at each start: CA, data key, administrator's
//! token.

use std::time::SystemTime;

use skep_identity::ca::{self, ClusterCa};
use skep_identity::seal::SealingKey;
use skep_identity::token::JoinToken as JoinTokenText;
use skep_identity::{digest, key_file, random, secret_file};
use skep_model::id::{ClusterId, TokenId, WorkspaceId};
use skep_model::problem::Problem;
use skep_model::server::{JoinToken, Role, Server};
use skep_model::settings::Scope;
use skep_model::tenancy::{DEFAULT_WORKSPACE, Workspace};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::Cluster;

use super::Options;
use crate::secrets::Secrets;
use crate::store::{Store, now_ms};

/// Bytes of randomness in the administrator's token.
const TOKEN_BYTES: usize = 32;
/// The file of the administrator's token.
const TOKEN_FILE: &str = "admin.token";
/// Life of the join token in a bootstrap file, and how many nodes may use it.
const JOIN_TTL_MS: u64 = 3_600_000;
const JOIN_USES: u32 = 100;

/// The cluster cannot be founded or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Certificates.
    #[error("the cluster's CA cannot be made")]
    Ca(#[from] ca::Error),
    /// The data key.
    #[error(
        "the data key cannot be opened with the operator's key: is it the key file of this cluster?"
    )]
    Key(#[from] key_file::Error),
    /// A private file.
    #[error(transparent)]
    File(#[from] secret_file::Error),
    /// Refused by the state.
    #[error("the cluster could not be founded: {0}")]
    Refused(#[from] Problem),
    /// Not text.
    #[error("{0} is not text")]
    Text(&'static str),
    /// A worker thread ended.
    #[error("a worker thread ended")]
    Join(#[from] tokio::task::JoinError),
}

/// The data key as the state holds it, wrapped by the founder's operator key.
pub(super) fn data_key(cluster: &Cluster, operator: &SealingKey) -> Result<SealingKey, Error> {
    Ok(key_file::unwrap(operator, &cluster.wrapped_data_key.0)?)
}

/// Founds a cluster with this one server; answers with its data key.
pub(super) async fn found(
    store: &Store,
    options: &Options,
    (operator, own): (&SealingKey, &Server),
) -> Result<SealingKey, Error> {
    let cluster = ClusterId::from_u128(random::new_id());
    let ca = ClusterCa::generate(cluster, SystemTime::now())?;
    let data_key = SealingKey::generate();
    // On disk before its hash is in the log: a crash between the two leaves a token that opens
    // nothing, never a cluster that nobody can open.
    let token = random::token(TOKEN_BYTES);
    let path = options.data_dir.join(TOKEN_FILE);
    let hash = digest::sha256(token.as_bytes());
    tokio::task::spawn_blocking(move || secret_file::write_private(&path, token.as_bytes()))
        .await??;
    let workspace = Workspace {
        id: WorkspaceId::from_u128(random::new_id()),
        name: DEFAULT_WORKSPACE.to_owned(),
    };
    let command = v1::InitCluster {
        cluster: id_bytes(cluster.as_u128()),
        ca_cert_pem: ca.cert_pem().to_owned(),
        sealed_ca_key: Secrets::new(data_key.clone()).seal_ca_key(&ca.key_pem()),
        wrapped_data_key: key_file::wrap(operator, &data_key),
        base_domain: options.base_domain.clone(),
        workspace: Some((&workspace).into()),
        admin_token_hash: hash.to_vec(),
        server: Some(own.into()),
    };
    store.propose(Kind::InitCluster(command)).await?;
    if options.relaxed {
        let command = v1::SetScope {
            scope: Some(Scope::Workspace(workspace.id).into()),
            relaxed: Some(v1::set_scope::Relaxed::Said(true)),
            ..v1::SetScope::default()
        };
        store.propose(Kind::SetScope(command)).await?;
    }
    let (fingerprint, api) = (ca.fingerprint(), &own.api_address);
    let token = options.data_dir.join(TOKEN_FILE);
    tracing::info!(%cluster, %fingerprint, "cluster founded");
    tracing::info!(
        "to use it: skep login --server https://{api} --fingerprint {fingerprint} --use < {}",
        token.display()
    );
    Ok(data_key)
}

/// The administrator's token, from its file; none: the cluster was founded elsewhere.
pub(super) async fn admin_token(options: &Options) -> Result<Option<String>, Error> {
    let path = options.data_dir.join(TOKEN_FILE);
    let read = tokio::task::spawn_blocking(move || secret_file::read_private(&path)).await?;
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8(bytes.to_vec());
    text.map(Some)
        .map_err(|_| Error::Text("the administrator's token"))
}

/// A fresh join token for nodes.
pub(super) async fn join_token(store: &Store, ca: &ClusterCa) -> Result<String, Error> {
    let id = TokenId::from_u128(random::new_id());
    let text = JoinTokenText::generate(ca.fingerprint(), id);
    let token = JoinToken {
        id,
        secret_hash: text.secret_hash().to_vec(),
        expires_ms: now_ms() + JOIN_TTL_MS,
        uses_left: JOIN_USES,
        role: Role::Node,
        note: "bootstrap file".to_owned(),
        created_ms: 0,
    };
    store
        .propose(Kind::PutToken(v1::PutToken {
            token: Some((&token).into()),
        }))
        .await?;
    Ok(text.to_text().to_string())
}
