//! A command before an app's own, in a container of its own that is made like the app's.

use std::time::Duration;

use bollard::models::Mount;
use bollard::query_parameters::CreateContainerOptions;
use futures_util::StreamExt;
use skep_model::assignment::Assignment;
use skep_model::hooks::Init;
use tokio::time::timeout;

use super::container::{self, LABEL_INIT};
use super::{CHANGE_TIMEOUT, Error, Runtime};
use crate::plan::{Exit, Grant, Phase};

impl Runtime {
    /// Runs command number `index` before attempt `attempt` to its end and removes its container; none:
    /// it had not ended within its time, and was killed.
    ///
    /// # Errors
    /// Docker would not; the container may be left, as one that was never started.
    pub(crate) async fn run_init(
        &self,
        assignment: &Assignment,
        (attempt, index): (u32, usize),
        (image, mounts): (&str, &[Mount]),
    ) -> Result<Option<Exit>, Error> {
        let Some(Init {
            command,
            timeout_ms,
        }) = assignment.hooks.init.get(index)
        else {
            return Err(Error::Answer {
                what: "such a command",
            });
        };
        let mut body = self.body(assignment, (attempt, &Grant::default()), (image, mounts));
        body.cmd = Some(command.clone());
        let labels = body.labels.get_or_insert_default();
        labels.insert(LABEL_INIT.to_owned(), index.to_string());
        let options = CreateContainerOptions {
            name: Some(format!(
                "{}-init{index}",
                container::name(assignment, attempt)
            )),
            ..Default::default()
        };
        let slot = self.changes.acquire().await.expect("never closed");
        let asked = self.docker.create_container(Some(options), body);
        let made = self
            .call("create a container", CHANGE_TIMEOUT, asked)
            .await?;
        // Removed however this ends, also where nobody waits for it any more.
        let guard = Leftover {
            runtime: self.clone(),
            container: Some(made.id.clone()),
        };
        let asked = self.docker.start_container(&made.id, None);
        self.call("start a container", CHANGE_TIMEOUT, asked)
            .await?;
        drop(slot);
        let ended = timeout(Duration::from_millis(*timeout_ms), self.wait(&made.id)).await;
        let exit = match ended {
            Ok(waited) => {
                waited?;
                let mut exit = match self.inspect_init(&made.id).await? {
                    Phase::Exited(exit) => exit,
                    _ => return Err(Error::Answer { what: "an exit" }),
                };
                exit.tail = self.tail(&made.id).await;
                Some(exit)
            }
            Err(_) => None,
        };
        guard.remove().await?;
        Ok(exit)
    }

    /// Until a container ends.
    async fn wait(&self, container: &str) -> Result<(), Error> {
        let mut ended = std::pin::pin!(self.docker.wait_container(container, None));
        match ended.next().await {
            // A code other than 0 is told as an error.
            None | Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => {
                Ok(())
            }
            Some(Err(source)) => Err(Error::Docker {
                action: "wait for a container",
                source,
            }),
        }
    }
}

/// A container that must not stay.
struct Leftover {
    runtime: Runtime,
    container: Option<String>,
}

impl Leftover {
    async fn remove(mut self) -> Result<(), Error> {
        let container = self.container.take();
        match container {
            Some(container) => self.runtime.remove(&container).await,
            None => Ok(()),
        }
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        let Some(container) = self.container.take() else {
            return;
        };
        let runtime = self.runtime.clone();
        tokio::spawn(async move {
            if let Err(error) = runtime.remove(&container).await {
                let why = crate::error_chain(&error);
                tracing::warn!(container, %why, "what ran before an app was not removed");
            }
        });
    }
}
