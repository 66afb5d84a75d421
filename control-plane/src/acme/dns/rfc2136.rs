//! Writes into a zone by updates at its own server (RFC 2136), signed with a key that both know (RFC 8945).

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_net::NetError;
use hickory_net::client::ClientHandle as _;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{Name, RData, Record as DnsRecord, RecordType, TSigner};
use skep_model::certificate::TsigAlgorithm as Algorithm;

use super::lookup::{ask, connect, parse, zone_of};
use super::{Doing, Error, Provider, Record};

/// How far the clocks of both may be apart, in seconds: what is usual.
const FUDGE_S: u16 = 300;
/// How long others may keep a record, in seconds: it is gone within minutes.
const TTL_S: u32 = 60;
/// What is to be done where the key is not taken.
const KEY_HINT: &str = "are the key's name, its algorithm and its secret those of the DNS server, and the clocks right?";
/// What is to be done where the key is taken and the update is not.
const POLICY_HINT: &str = "the key must be allowed to update TXT records there: `update-policy` or `allow-update` in BIND";

/// What is done to a record.
#[derive(Debug, Clone, Copy)]
enum Update {
    Add,
    Remove,
}

/// One server and the key that it knows.
pub(super) struct Rfc2136 {
    server: String,
    signer: TSigner,
}

/// Checks that a secret is a key.
///
/// # Errors
/// It is no base64.
pub(crate) fn check_key(secret: &str) -> Result<Vec<u8>, String> {
    let decoded = STANDARD.decode(secret.trim());
    let key = decoded.ok().filter(|key| !key.is_empty());
    key.ok_or_else(|| "the key of updates is base64, as `tsig-keygen` writes it".to_owned())
}

impl Rfc2136 {
    /// Updates at `server` (`HOST:PORT`), signed with a key of this name, algorithm and secret.
    pub(super) fn new(
        server: &str,
        (key_name, algorithm, secret): (&str, Algorithm, &str),
    ) -> Result<Self, Error> {
        let key = check_key(secret).map_err(Error::Unusable)?;
        let algorithm = match algorithm {
            Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            Algorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
            Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        };
        let signer = TSigner::new(key, algorithm, parse(key_name)?, FUDGE_S);
        Ok(Self {
            server: server.to_owned(),
            signer: signer.map_err(|error| Error::Unusable(error.to_string()))?,
        })
    }

    async fn update(&self, record: Record<'_>, update: Update) -> Result<(), Error> {
        let at = self.address().await?;
        let name = parse(record.name)?;
        let zone = self.zone(at, &name).await?;
        let text = RData::TXT(TXT::new(vec![record.value.to_owned()]));
        let set = DnsRecord::from_rdata(name, TTL_S, text);
        let connected = connect(at, Some(self.signer.clone())).await;
        let (mut client, background) = connected.map_err(|error| self.unreachable(&error))?;
        let updated = async {
            match update {
                Update::Add => client.append(set, zone, false).await,
                Update::Remove => client.delete_by_rdata(set, zone).await,
            }
        };
        let answer = tokio::select! {
            answer = updated => answer,
            _ = background => Err(NetError::NoConnections),
        };
        let refused = |said: String, hint| Error::Refused {
            who: format!("the DNS server {}", self.server),
            said,
            hint,
        };
        match answer {
            Ok(answer) => match answer.metadata.response_code {
                ResponseCode::NoError => Ok(()),
                code @ ResponseCode::NotAuth => Err(refused(code.to_string(), KEY_HINT)),
                code => Err(refused(code.to_string(), POLICY_HINT)),
            },
            // It does not sign what it says of a key that it does not take.
            Err(NetError::Proto(error)) => {
                tracing::debug!(server = self.server, %error, "an answer without a signature");
                let said = format!(
                    "its answer is not signed with the key `{}`",
                    self.key_name()
                );
                Err(refused(said, KEY_HINT))
            }
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    fn key_name(&self) -> String {
        let name = self.signer.signer_name().to_ascii();
        name.trim_end_matches('.').to_owned()
    }

    async fn address(&self) -> Result<SocketAddr, Error> {
        let found = tokio::net::lookup_host(&self.server).await;
        let mut found = found.map_err(|error| self.unreachable(&error))?;
        found.next().ok_or_else(|| self.unreachable(&"no address"))
    }

    /// The zone that a name is in, as this server has it.
    async fn zone(&self, at: SocketAddr, name: &Name) -> Result<Name, Error> {
        let answer = ask(at, name, RecordType::SOA).await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        let zone = zone_of(&answer).filter(|_| answer.metadata.authoritative);
        zone.ok_or_else(|| Error::Refused {
            who: format!("the DNS server {}", self.server),
            said: format!("it does not serve the zone of {name}"),
            hint: "updates go to the zone's primary server",
        })
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Unreachable {
            who: format!("the DNS server {}", self.server),
            why: why.to_string(),
        }
    }
}

impl Provider for Rfc2136 {
    fn name(&self) -> &'static str {
        "the DNS server"
    }

    fn present<'a>(&'a self, record: Record<'a>) -> Doing<'a> {
        Box::pin(self.update(record, Update::Add))
    }

    fn cleanup<'a>(&'a self, record: Record<'a>) -> Doing<'a> {
        Box::pin(self.update(record, Update::Remove))
    }
}
