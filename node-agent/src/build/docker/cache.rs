//! BuildKit's cache on this node, held below a bound: every context and every layer goes into it, and
//! a daemon cleans it by itself only since Docker 23.

use std::time::Duration;

use bollard::BollardRequest;
use bollard::errors::Error;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Request, StatusCode};
use tokio::time::timeout;

use crate::runtime::transport::Socket;

/// What may stay: the newest of it. What is in use is never touched.
const KEPT_BYTES: u64 = 10 << 30;
/// What may stay of it where the disk is about to fill up.
const KEPT_SHORT_BYTES: u64 = 1 << 30;
/// Deleting that much takes a slow disk a while.
const TRIM_LIMIT: Duration = Duration::from_secs(300);

/// Trims it beside whatever else happens: nobody waits for it, and the next build tries again.
pub(super) fn trim(socket: &Socket, base: &str) {
    let (socket, base) = (socket.clone(), base.to_owned());
    tokio::spawn(async move { trim_to(&socket, &base, KEPT_BYTES).await });
}

/// Trims it further, because the disk is short.
pub(crate) async fn trim_short(socket: &Socket) {
    trim_to(socket, "", KEPT_SHORT_BYTES).await;
}

async fn trim_to(socket: &Socket, base: &str, kept_bytes: u64) {
    match timeout(TRIM_LIMIT, ask(socket, base, kept_bytes)).await {
        Ok(Ok(StatusCode::OK)) => {}
        Ok(Ok(status)) => tracing::warn!(%status, "the build cache was not trimmed"),
        Ok(Err(error)) => tracing::warn!(%error, "the build cache was not trimmed"),
        Err(_) => tracing::warn!("the build cache was not trimmed in time"),
    }
}

async fn ask(socket: &Socket, base: &str, kept_bytes: u64) -> Result<StatusCode, Error> {
    let request: BollardRequest =
        Request::post(path(base, kept_bytes)).body(bollard::body_full(Bytes::new()))?;
    let answer = socket.send(request).await?;
    let status = answer.status();
    // The daemon stops when nobody listens: the answer is read to its end, and thrown away.
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(status)
}

/// Under both names that the bound has had: a daemon that knew neither would delete everything.
fn path(base: &str, kept_bytes: u64) -> String {
    format!("{base}/build/prune?keep-storage={kept_bytes}&reserved-space={kept_bytes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_daemon_is_told_how_much_stays() {
        assert_eq!(
            path("/v1.41", KEPT_BYTES),
            "/v1.41/build/prune?keep-storage=10737418240&reserved-space=10737418240"
        );
    }
}
