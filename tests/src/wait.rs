//! Waiting for what can be seen from outside only by asking again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Between two looks: short against what is waited for, long against what a look costs.
const PAUSE: Duration = Duration::from_millis(20);
/// Limits say what hangs and not what is slow. They are given as a machine keeps them that has two cores and nothing else
/// to do, and several clusters share one, at times with strangers.
const SHARED: u32 = 3;

/// Asks until the answer is `Some`. An error of the asking ends the waiting.
///
/// # Errors
/// The asking failed, or `within` passed; names `what` was waited for.
pub async fn until<T>(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let within = within * SHARED;
    let begun = Instant::now();
    loop {
        if let Some(found) = ask()
            .await
            .with_context(|| format!("while waiting for {what}"))?
        {
            return Ok(found);
        }
        if begun.elapsed() > within {
            bail!("waited {within:?} in vain for {what}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks until the answer is yes; errors of the asking count as no.
///
/// # Errors
/// `within` passed; tells the last error of the asking.
pub async fn until_ok<T>(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let within = within * SHARED;
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(found) => return Ok(found),
            Err(error) if begun.elapsed() > within => {
                return Err(error.context(format!("waited {within:?} in vain for {what}")));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
