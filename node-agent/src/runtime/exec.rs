//! A command in a container that runs: for checks and hooks, not for people.

use std::time::Duration;

use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{Error, READ_TIMEOUT, Runtime};

/// What is kept of its output: enough for a reason.
const OUTPUT_MAX: usize = 1_024;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Its exit code.
    pub(crate) code: i64,
    /// The beginning of what it wrote.
    pub(crate) output: String,
}

impl Runtime {
    /// Runs a command to its end. One that is given up goes on in its container: Docker ends none.
    ///
    /// # Errors
    /// It could not be begun, or had not ended within `limit`.
    pub(crate) async fn exec(
        &self,
        container: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<Ran, Error> {
        let action = "run a command in a container";
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..Default::default()
        };
        let created = self.docker.create_exec(container, config);
        let created = self.call(action, READ_TIMEOUT, created).await?;
        let read = async {
            let options = StartExecOptions::default();
            let started = self.docker.start_exec(&created.id, Some(options)).await?;
            let mut kept = Vec::new();
            if let StartExecResults::Attached { mut output, .. } = started {
                while let Some(frame) = output.next().await {
                    // Read to its end: a pipe that nobody reads would hold the command up.
                    let frame = frame?.into_bytes();
                    let room = OUTPUT_MAX - kept.len();
                    kept.extend_from_slice(&frame[..frame.len().min(room)]);
                }
            }
            Ok::<_, bollard::errors::Error>(String::from_utf8_lossy(&kept).trim().to_owned())
        };
        let output = match timeout(limit, read).await {
            Ok(Ok(output)) => output,
            Ok(Err(source)) => return Err(Error::Docker { action, source }),
            // Slow commands are the app's affair: no failure of Docker's is counted.
            Err(_) => return Err(Error::Timeout { action, limit }),
        };
        let asked = self.docker.inspect_exec(&created.id);
        let ended = self.call(action, READ_TIMEOUT, asked).await?;
        let code = ended.exit_code.ok_or(Error::Answer {
            what: "an exit code",
        })?;
        Ok(Ran { code, output })
    }
}
