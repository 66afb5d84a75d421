//! Proofs in DNS (RFC 8555, 8.4): who writes a record into a zone, and whether the zone's own servers show it. What is to
//! be written and when it goes is for the orders; nothing here knows of issuers.

mod cloudflare;
mod exec;
mod lookup;
mod rest;
mod rfc2136;
#[cfg(test)]
mod tests;
mod webhook;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use skep_model::certificate::{DnsAccess, DnsProvider};
use skep_model::problem::Problem;

pub(crate) use lookup::Lookup;
pub(crate) use rfc2136::check_key;

use crate::secrets::{Acme, Secrets};

/// What one writing or taking away may take, whoever does it.
const DEADLINE: Duration = Duration::from_secs(60);
/// Most of what a provider says that is shown, in characters.
const MAX_SAID: usize = 300;

/// What this server has for proofs in DNS, told at its start.
#[derive(Debug, Clone, Default)]
pub struct Means {
    /// The program that may be run; none: no program may be.
    pub exec: Option<PathBuf>,
    /// Who is asked where zones are; none: those of the machine.
    pub resolvers: Vec<SocketAddr>,
}

/// One text at one name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// Without a last dot.
    pub(crate) name: &'a str,
    /// The text.
    pub(crate) value: &'a str,
}

/// Why a record is not there, or still is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "{who} cannot be reached ({why}): it is asked by the server that leads, which must reach it"
    )]
    Unreachable { who: String, why: String },
    #[error("{who} refuses: {said} ({hint})")]
    Refused {
        who: String,
        said: String,
        hint: &'static str,
    },
    /// As above, by somebody of whom it is not known what he had done by then.
    #[error("{who} failed: {said} ({hint})")]
    Failed {
        who: String,
        said: String,
        hint: &'static str,
    },
    #[error("{who} took more than {} s", DEADLINE.as_secs())]
    Late { who: &'static str },
    #[error(
        "no DNS server that this server asks knows the zone of {name}: {why} (is the domain registered? `skep server --acme-resolver` asks others)"
    )]
    NoZone { name: String, why: String },
    #[error(
        "the record at {name} was written, but {missing} did not show it within {seconds} s: does the provider write into the zone that the world asks?"
    )]
    NotSeen {
        name: String,
        missing: String,
        seconds: u64,
    },
    #[error("{0}")]
    Unusable(String),
}

impl Error {
    /// Whether nothing was written.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Unusable(_))
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Unusable(problem.to_string())
    }
}

/// What a provider does with a record.
type Doing<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Somebody who writes into zones.
trait Provider: Send + Sync {
    /// For people.
    fn name(&self) -> &'static str;

    /// Writes a record beside those that are there. One that is there already is no problem.
    fn present<'a>(&'a self, record: Record<'a>) -> Doing<'a>;

    /// Takes this record away and no other. One that is not there is no problem.
    fn cleanup<'a>(&'a self, record: Record<'a>) -> Doing<'a>;
}

/// Somebody who writes into zones, with a deadline.
pub(crate) struct Writer(Box<dyn Provider>);

impl Writer {
    /// Who this is a way to.
    ///
    /// # Errors
    /// Its secret is of no use, or this server may not.
    pub(crate) fn open(
        access: &DnsAccess,
        secrets: &Secrets,
        means: &Means,
    ) -> Result<Self, Error> {
        let place = access.provider.place();
        let secret = access.secret.as_ref();
        let secret = secret.map(|it| secrets.open_acme(Acme::Dns, &place, it));
        let secret = secret.transpose()?;
        Ok(Self(match &access.provider {
            DnsProvider::Rfc2136 {
                server,
                key_name,
                algorithm,
            } => Box::new(rfc2136::Rfc2136::new(
                server,
                (key_name, *algorithm, &secret.unwrap_or_default()),
            )?),
            DnsProvider::Cloudflare => {
                Box::new(cloudflare::Cloudflare::new(secret.unwrap_or_default())?)
            }
            DnsProvider::Webhook { url } => Box::new(webhook::Webhook::new(url, secret)?),
            DnsProvider::Exec => Box::new(exec::Exec::new(means.exec.as_deref())?),
        }))
    }

    /// Writes a record.
    ///
    /// # Errors
    /// It may or may not be there.
    pub(crate) async fn present(&self, record: Record<'_>) -> Result<(), Error> {
        self.in_time(self.0.present(record)).await
    }

    /// Takes a record away.
    ///
    /// # Errors
    /// It may still be there.
    pub(crate) async fn cleanup(&self, record: Record<'_>) -> Result<(), Error> {
        self.in_time(self.0.cleanup(record)).await
    }

    async fn in_time(&self, doing: Doing<'_>) -> Result<(), Error> {
        let who = self.0.name();
        let late = |_| Error::Late { who };
        tokio::time::timeout(DEADLINE, doing).await.map_err(late)?
    }
}

/// What somebody said, on one line and not too long.
fn said(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let shown: String = line
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_SAID)
        .collect();
    match shown.is_empty() {
        true => "without a reason".to_owned(),
        false => shown,
    }
}
