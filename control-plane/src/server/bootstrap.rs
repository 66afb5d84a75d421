//! The file that says how to reach a server, with its secrets: for `skep dev`, tests and installers.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use skep_identity::ca::ClusterCa;
use skep_identity::secret_file;
use tokio_util::sync::CancellationToken;

use super::listeners::{Listeners, local_address};
use super::{Error, Options, found};
use crate::store::Store;

/// Between two tries to make the join token: a server that has just started may wait for a leader.
const RETRY: Duration = Duration::from_millis(500);

/// How to reach a server.
#[derive(Debug, Serialize)]
pub(super) struct Bootstrap {
    api: String,
    http: Option<String>,
    agents: String,
    ca_fingerprint: String,
    ca_pem: String,
    /// The administrator's; none where the cluster was founded elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    join_token: String,
}

impl Bootstrap {
    /// What there is to say before anything is served.
    pub(super) async fn begin(
        options: &Options,
        ca: &ClusterCa,
        listeners: &Listeners,
    ) -> Result<Self, Error> {
        let http = listeners.http.as_ref().map(local_address).transpose()?;
        Ok(Self {
            api: format!("https://{}", local_address(&listeners.api)?),
            http: http.map(|address| format!("http://{address}")),
            agents: local_address(&listeners.cluster)?.to_string(),
            ca_fingerprint: ca.fingerprint().to_string(),
            ca_pem: ca.cert_pem().to_owned(),
            token: found::admin_token(options).await?,
            join_token: String::new(),
        })
    }

    /// Adds a join token, waiting for a leader, and writes the file.
    pub(super) async fn write(
        mut self,
        path: &Path,
        (store, ca): (&Store, &ClusterCa),
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        while !shutdown.is_cancelled() {
            match found::join_token(store, ca).await {
                Ok(token) => {
                    self.join_token = token;
                    break;
                }
                Err(error) => tracing::warn!(%error, "no join token yet"),
            }
            let pause = shutdown.run_until_cancelled(tokio::time::sleep(RETRY));
            pause.await;
        }
        let bytes = serde_json::to_vec_pretty(&self)?;
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || secret_file::write_private(&path, &bytes))
            .await
            .map_err(|error| Error::Part(error.to_string()))??;
        Ok(())
    }
}
