//! A container without Skep: what Docker and the app take by themselves.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bollard::models::ContainerCreateBody;

use crate::{Cluster, http};

/// From creation to the first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// From Docker's create to the first 200 from the container itself, which is then removed.
///
/// # Errors
/// Docker refused, or it never answers.
pub async fn run_alone(cluster: &Cluster, image: &str) -> Result<Duration> {
    let docker = cluster.containers.docker();
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        ..ContainerCreateBody::default()
    };
    let begun = Instant::now();
    let id = docker.create_container(None, body).await?.id;
    docker.start_container(&id, None).await?;
    let address: SocketAddr = format!("{}:8080", cluster.containers.address(&id).await?).parse()?;
    first_200(address, "alone", FIRST_ANSWER).await?;
    let took = begun.elapsed();
    cluster.containers.remove(&id).await?;
    Ok(took)
}

/// Asks almost without a pause: the pause would be measured.
///
/// # Errors
/// There is no 200 in time.
pub async fn first_200(address: SocketAddr, host: &str, within: Duration) -> Result<()> {
    let begun = Instant::now();
    loop {
        match http::get(address, host, "/").await {
            Ok(answer) if answer.status == 200 => return Ok(()),
            _ if begun.elapsed() > within => bail!("no 200 from {host} within {within:?}"),
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}
