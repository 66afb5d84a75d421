//! Looks at the things that are judged. Every look has a deadline.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bollard::models::SystemInfo;
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Options;
use super::container::{self, Ran};
use crate::runtime::transport::Socket;

/// Calls that only read.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Why something could not be looked at, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Error(pub(super) String);

/// What was found of Docker.
pub(super) struct Docker {
    /// API version, and what it says of itself.
    pub(super) info: Result<(String, SystemInfo), Error>,
    /// How a container fared; none: not tried.
    pub(super) ran: Option<Result<Ran, Error>>,
}

/// One call to Docker.
pub(super) async fn call<T>(
    action: &'static str,
    limit: Duration,
    asked: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, Error> {
    match timeout(limit, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Error(format!(
            "Docker cannot {action}: {}",
            crate::error_chain(&error)
        ))),
        Err(_) => Err(Error(format!(
            "Docker did not {action} within {} s",
            limit.as_secs()
        ))),
    }
}

pub(super) async fn docker(socket: &Path) -> Docker {
    let asked = async {
        let docker = Socket::new(socket).docker();
        let docker = docker.map_err(|error| Error(crate::error_chain(&error)))?;
        let agreed = docker.negotiate_version();
        let docker = call("say its version", READ_TIMEOUT, agreed).await?;
        let version = call("say its version", READ_TIMEOUT, docker.version()).await?;
        // What a wedged daemon does not answer.
        let info = call("answer GET /info", READ_TIMEOUT, docker.info()).await?;
        Ok((docker, version.api_version.unwrap_or_default(), info))
    };
    match asked.await {
        Ok((docker, version, info)) => Docker {
            info: Ok((version, info)),
            ran: Some(container::run(&docker).await),
        },
        Err(error) => Docker {
            info: Err(error),
            ran: None,
        },
    }
}

/// Size of the filesystem of a folder and what of it is free, where the folder is private and can be
/// written.
pub(super) async fn folder(folder: PathBuf) -> Result<(u64, u64), Error> {
    let looked = spawn_blocking(move || {
        skep_identity::secret_file::ensure_private_dir(&folder)
            .map_err(|error| Error(crate::error_chain(&error)))?;
        let trial = tempfile::tempfile_in(&folder);
        trial.map_err(|error| Error(format!("it cannot be written: {error}")))?;
        Ok(crate::facts::disk_room(&folder))
    });
    looked
        .await
        .unwrap_or_else(|error| Err(Error(error.to_string())))
}

pub(super) async fn listens(socket: &Path) -> bool {
    matches!(
        timeout(READ_TIMEOUT, UnixStream::connect(socket)).await,
        Ok(Ok(_))
    )
}

/// What a program says of its version.
pub(super) async fn version(program: &Path) -> Result<String, Error> {
    let asked = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let said = match timeout(READ_TIMEOUT, asked).await {
        Ok(Ok(said)) if said.status.success() => said,
        Ok(Ok(said)) => return Err(Error(said.status.to_string())),
        Ok(Err(error)) => return Err(Error(error.to_string())),
        Err(_) => return Err(Error("it does not answer".to_owned())),
    };
    let text = String::from_utf8_lossy(&said.stdout);
    Ok(text.trim().chars().take(200).collect())
}

/// What a server's clock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Clock {
    /// Seconds that the server's is ahead of this machine's; it tells no fractions.
    Apart(i64),
    /// Certificates are out of time, as somebody sees it.
    OutOfTime(String),
    /// No server answers.
    Away(String),
    /// There is neither a certificate nor a token by which a server could be trusted.
    NoTrust,
}

pub(super) async fn clock(options: &Options, server: &str) -> Clock {
    let status = match crate::credentials::ask_in_vain(options, server).await {
        Ok(Some(status)) => status,
        Ok(None) => return Clock::NoTrust,
        Err(error) => return Clock::Away(crate::error_chain(&error)),
    };
    // Every answer carries the server's time (RFC 9110, 6.6.1), a refusal too.
    let date = status
        .metadata()
        .get("date")
        .and_then(|it| it.to_str().ok());
    match date.and_then(crate::clock::parse_http_date) {
        Some(theirs) => {
            let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let ours = ours.map_or(0, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
            Clock::Apart(theirs - ours)
        }
        None if skep_identity::tls::out_of_time(&status).is_some() => {
            Clock::OutOfTime(crate::credentials::explain(&status))
        }
        None => Clock::Away(crate::credentials::explain(&status)),
    }
}
