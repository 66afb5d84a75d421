//! Who writes the records of proofs in DNS, as arguments.

use std::path::PathBuf;

use skep_control_plane::api::types::DnsRequest;
use skep_model::certificate::{DnsProvider, MAX_DNS_SECRET_BYTES, TsigAlgorithm};

use super::read;
use crate::failure::Failure;

/// For `--challenge dns-01`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Who writes the records for dns-01
    #[arg(long, value_name = "PROVIDER", value_parser = ["rfc2136", "cloudflare", "webhook", "exec"])]
    dns: Option<String>,
    /// rfc2136: the zone's server that takes updates
    #[arg(long, value_name = "HOST:PORT", requires = "dns")]
    dns_server: Option<String>,
    /// rfc2136: name of the key that updates are signed with
    #[arg(long, value_name = "NAME", requires = "dns")]
    dns_key_name: Option<String>,
    /// rfc2136: what the key signs with
    #[arg(long, value_name = "NAME", requires = "dns", default_value = "hmac-sha256",
        value_parser = ["hmac-sha256", "hmac-sha384", "hmac-sha512"])]
    dns_key_algorithm: String,
    /// rfc2136: file of the key, base64
    #[arg(
        long,
        value_name = "FILE",
        requires = "dns",
        conflicts_with = "dns_token_file"
    )]
    dns_key_file: Option<PathBuf>,
    /// cloudflare, webhook: file of the token
    #[arg(long, value_name = "FILE", requires = "dns")]
    dns_token_file: Option<PathBuf>,
    /// webhook: where it is asked
    #[arg(long, value_name = "URL", requires = "dns")]
    dns_url: Option<String>,
}

impl Args {
    /// What is asked of the API; none: nobody was named.
    ///
    /// # Errors
    /// Something that the provider needs is missing, or a file cannot be read.
    pub(super) fn request(self) -> Result<Option<DnsRequest>, Failure> {
        let Some(kind) = &self.dns else {
            return Ok(None);
        };
        let needed = |flag: &str| Failure::usage(format!("--dns {kind} needs {flag}"));
        let (provider, file) = match kind.as_str() {
            "rfc2136" => (
                DnsProvider::Rfc2136 {
                    server: self.dns_server.ok_or_else(|| needed("--dns-server"))?,
                    key_name: self.dns_key_name.ok_or_else(|| needed("--dns-key-name"))?,
                    algorithm: match self.dns_key_algorithm.as_str() {
                        "hmac-sha384" => TsigAlgorithm::HmacSha384,
                        "hmac-sha512" => TsigAlgorithm::HmacSha512,
                        _ => TsigAlgorithm::HmacSha256,
                    },
                },
                Some(self.dns_key_file.ok_or_else(|| needed("--dns-key-file"))?),
            ),
            "cloudflare" => (
                DnsProvider::Cloudflare,
                Some(
                    self.dns_token_file
                        .ok_or_else(|| needed("--dns-token-file"))?,
                ),
            ),
            "webhook" => (
                DnsProvider::Webhook {
                    url: self.dns_url.ok_or_else(|| needed("--dns-url"))?,
                },
                self.dns_token_file,
            ),
            _ => (DnsProvider::Exec, None),
        };
        let secret = file.map(|path| read(&path, MAX_DNS_SECRET_BYTES));
        let secret = secret.transpose()?.map(|text| text.trim().to_owned());
        Ok(Some(DnsRequest { provider, secret }))
    }
}
