//! `skep operator`: certificates for operators and automation.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use serde_json::json;
use skep_control_plane::api::types::{OperatorRequest, OperatorView};
use skep_identity::keypair::KeyAndRequest;
use skep_identity::secret_file;

use crate::failure::{Failure, chain};
use crate::output::time;
use crate::session::Session;

/// Certificates for operators and automation
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a key here and have it certified: for the gRPC service `Control`
    #[command(after_help = "\
Example:
  skep operator cert --out ~/.config/skep/operator --ttl 7d

Writes operator.key, operator.crt and ca.crt (mode 0600). The key never leaves this machine.")]
    Cert {
        /// Folder to write to; made if missing
        #[arg(long, value_name = "DIR", default_value = "operator")]
        out: PathBuf,
        /// How long it is good: 90s, 15m, 1h, 7d
        #[arg(long, value_name = "SPAN", default_value = "1d", value_parser = time::parse_span)]
        ttl: Duration,
    },
}

/// Runs the command.
///
/// # Errors
/// Not reachable, refused, or the folder cannot be written.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let Command::Cert { out, ttl } = command;
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::failed(chain(error));
    let client = session.client()?;
    let key = KeyAndRequest::generate().map_err(|error| failed(&error))?;
    let request = OperatorRequest {
        csr_pem: key.csr_pem.clone(),
        ttl_s: ttl.as_secs(),
    };
    let view: OperatorView = client.send(Method::POST, "/v1/operators", &request).await?;
    secret_file::ensure_private_dir(&out).map_err(|error| failed(&error))?;
    for (name, text) in [
        ("operator.key", key.key_pem.as_str()),
        ("operator.crt", &view.certificate_pem),
        ("ca.crt", &view.ca_pem),
    ] {
        secret_file::write_private(&out.join(name), text.as_bytes())
            .map_err(|error| failed(&error))?;
    }
    let words = json!({
        "id": view.id, "folder": out, "servers": view.servers, "expires_ms": view.expires_ms,
    });
    session.out.result(&words, || {
        format!(
            "operator {} is certified: {}/operator.crt\nservers   {}",
            view.id,
            out.display(),
            view.servers.join(", ")
        )
    });
    Ok(())
}
