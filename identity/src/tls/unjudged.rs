//! TLS with whoever answers: for a look at what everybody may see, where nothing secret is told and nothing that comes
//! back is relied upon. Nothing of the cluster speaks so.

use std::sync::Arc;

use rustls::Error;
use rustls::client::ClientConfig;

use super::verifier::{self, Judge, Shown};

/// A client configuration without a certificate that talks to any server, whatever that shows. That the server has the
/// key of what it shows is still checked.
pub fn unjudged_client_config(alpn: &[&[u8]]) -> Arc<ClientConfig> {
    Arc::new(verifier::client_config(Anybody, None, alpn))
}

#[derive(Debug)]
struct Anybody;

impl Judge for Anybody {
    fn judge(&self, _: &Shown<'_>) -> Result<(), Error> {
        Ok(())
    }
}
