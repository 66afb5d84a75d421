//! A real container from an image made here: run, reached, and removed with everything it left.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateImageOptions, LogsOptions, RemoveContainerOptions, RemoveImageOptions,
};
use bollard::{Docker, body_full};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::look::{Error, call};
use super::program::{PATH, WORD, program, root};

/// Making, starting and removing: a slow disk takes seconds.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// The container's word is there at once.
const WORD_TIMEOUT: Duration = Duration::from_secs(10);
/// Nothing tells when Docker has taken a word into its log.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A connection on the own machine is answered in less than a millisecond.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
/// Nobody listens on it: being refused is the answer.
const PORT: u16 = 9;
/// Docker refuses less than 6 MiB.
const MEMORY_BYTES: i64 = 16 << 20;
/// The program is one process.
const PIDS_MAX: i64 = 8;
/// Name of the image; its tag is drawn, so that two doctors do not disturb each other.
const IMAGE: &str = "skep-doctor";

/// How a container fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ran {
    /// Whether its word was in its log.
    pub(super) has_spoken: bool,
    /// Its address on the bridge.
    pub(super) address: Option<IpAddr>,
    /// Whether this machine reaches that address.
    pub(super) reached: bool,
}

/// Runs one, and leaves nothing.
pub(super) async fn run(docker: &Docker) -> Result<Ran, Error> {
    let tag = skep_identity::random::hex(8);
    let image = format!("{IMAGE}:{tag}");
    let ran = match import(docker, &tag).await {
        Ok(()) => with_image(docker, &image).await,
        Err(error) => Err(error),
    };
    let options = RemoveImageOptions {
        force: true,
        ..Default::default()
    };
    let asked = docker.remove_image(&image, Some(options), None);
    // What could not be imported is not there.
    let _ = call("remove the image", CHANGE_TIMEOUT, asked).await;
    ran
}

async fn import(docker: &Docker, tag: &str) -> Result<(), Error> {
    let program = program().ok_or_else(|| Error("no program for this architecture".into()))?;
    let root = root(&program).map_err(|error| Error(error.to_string()))?;
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(IMAGE.to_owned()),
        tag: Some(tag.to_owned()),
        ..Default::default()
    };
    let mut lines = docker.create_image(Some(options), Some(body_full(Bytes::from(root))), None);
    let all = async {
        while let Some(line) = lines.next().await {
            line?;
        }
        Ok(())
    };
    call("import an image", CHANGE_TIMEOUT, all).await
}

async fn with_image(docker: &Docker, image: &str) -> Result<Ran, Error> {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec![format!("/{PATH}")]),
        host_config: Some(HostConfig {
            memory: Some(MEMORY_BYTES),
            memory_swap: Some(MEMORY_BYTES),
            pids_limit: Some(PIDS_MAX),
            ..Default::default()
        }),
        ..Default::default()
    };
    let asked = docker.create_container(None, body);
    let id = call("create a container", CHANGE_TIMEOUT, asked).await?.id;
    let ran = started(docker, &id).await;
    let options = RemoveContainerOptions {
        force: true,
        v: true,
        ..Default::default()
    };
    let asked = docker.remove_container(&id, Some(options));
    let removed = call("remove a container", CHANGE_TIMEOUT, asked).await;
    let ran = ran?;
    removed.map(|()| ran)
}

async fn started(docker: &Docker, id: &str) -> Result<Ran, Error> {
    let asked = docker.start_container(id, None);
    call("start a container", CHANGE_TIMEOUT, asked).await?;
    let asked = docker.inspect_container(id, None);
    let found = call("inspect a container", CHANGE_TIMEOUT, asked).await?;
    let networks = found.network_settings.and_then(|it| it.networks);
    let mut addresses = networks.into_iter().flatten();
    let address = addresses.find_map(|(_, end)| end.ip_address?.parse::<IpAddr>().ok());
    let reached = match address {
        Some(address) => reaches(SocketAddr::new(address, PORT)).await,
        None => false,
    };
    Ok(Ran {
        has_spoken: spoke(docker, id).await,
        address,
        reached,
    })
}

async fn reaches(address: SocketAddr) -> bool {
    match timeout(REACH_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

async fn spoke(docker: &Docker, id: &str) -> bool {
    let deadline = Instant::now() + WORD_TIMEOUT;
    while Instant::now() < deadline {
        let options = LogsOptions {
            stdout: true,
            ..Default::default()
        };
        let mut text = String::new();
        let read = async {
            let mut frames = std::pin::pin!(docker.logs(id, Some(options)));
            while let Some(Ok(frame)) = frames.next().await {
                text.push_str(&String::from_utf8_lossy(&frame.into_bytes()));
            }
        };
        let _ = timeout(WORD_TIMEOUT, read).await;
        if text.contains(WORD.trim_end()) {
            return true;
        }
        sleep(LOOK_AGAIN).await;
    }
    false
}
