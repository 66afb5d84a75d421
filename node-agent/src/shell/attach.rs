//! What a container writes, from now on, past Docker's log files.

use std::time::Duration;

use skep_model::problem::{Code, Problem};
use tokio::time::{sleep, timeout};

use super::wire::Wire;
use super::{begun, hijack, refused};
use crate::plan::Phase;
use crate::runtime::{self, Runtime};

/// For Docker to begin.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A container's output may end a moment before Docker has written down how it did.
const CODE_TRIES: u32 = 100;
const CODE_PAUSE: Duration = Duration::from_millis(50);

/// Sends what the container writes; answers its exit code once it has ended.
pub(super) async fn run(runtime: &Runtime, container: &str, wire: &Wire) -> Result<i32, Problem> {
    const WHAT: &str = "attach to the container";
    let path = format!("/containers/{container}/attach?stream=1&stdout=1&stderr=1");
    let asked = hijack::open(runtime.socket(), (&path, Vec::new()), false);
    // No container of ours has an input.
    let (mut output, _input) = match timeout(CALL_TIMEOUT, asked).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(source)) => {
            let action = WHAT;
            return Err(refused(WHAT, &runtime::Error::Docker { action, source }));
        }
        Err(_) => {
            let (action, limit) = (WHAT, CALL_TIMEOUT);
            return Err(refused(WHAT, &runtime::Error::Timeout { action, limit }));
        }
    };
    begun(wire, None).await?;
    loop {
        match output.next().await {
            Ok(Some((data, is_stderr))) => wire.data(data, is_stderr).await?,
            Ok(None) => break,
            Err(error) => {
                let text = format!("the connection to the container broke: {error}");
                return Err(Problem::new(Code::Runtime, text));
            }
        }
    }
    for _ in 0..CODE_TRIES {
        let seen = runtime.inspect(container).await;
        match seen.map_err(|error| refused("inspect the container", &error))? {
            Some(seen) => {
                if let Phase::Exited(exit) = seen.phase {
                    return Ok(i32::try_from(exit.code).unwrap_or(-1));
                }
            }
            None => return Err(Problem::new(Code::Conflict, "the container was removed")),
        }
        sleep(CODE_PAUSE).await;
    }
    // It runs on, and has closed what it wrote to.
    Ok(0)
}
