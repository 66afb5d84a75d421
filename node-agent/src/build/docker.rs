//! `docker build` through the Docker API: by BuildKit where the daemon has it, else by the classic
//! builder. The context is packed by a blocking thread as fast as the daemon takes it, and never
//! lies on a disk.

mod buildkit;
pub(super) mod cache;
mod cage;
mod classic;
mod detect;
mod explain;
mod session;
mod trace;

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use bytes::Bytes;
use skep_model::deployment::Built;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;

use super::builder::{Job, Recipe};
use super::context::{Summary, pack_with};
use super::folder::blocking;
use super::reuse::LABEL_DEPLOYMENT;
use super::{LABEL_CLUSTER, LABEL_SERVICE, image, say};
use cage::{Cage, Limits};
use detect::Builder;

/// Size of the pieces of a context on their way to the daemon.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces between disk and daemon.
const PIECES: usize = 4;

/// A context on its way.
type Context = mpsc::Receiver<io::Result<Bytes>>;

/// One build of a Dockerfile.
pub(super) struct Build<'a> {
    /// Whose, and of which folder.
    pub(super) job: &'a Job<'a>,
    /// What is built of it.
    pub(super) recipe: Recipe,
}

impl Build<'_> {
    /// Builds. Dropping the future closes the connection, upon which the daemon gives up too.
    pub(super) async fn run(self, lines: &mpsc::Sender<String>) -> Result<Built, Problem> {
        let Job { env, name, .. } = *self.job;
        let daemon = detect::ask(env).await?;
        say(lines, daemon.line()).await;
        let limits = self.limits();
        let cage = Cage::make(
            env,
            (daemon.builder, self.job.order.deployment),
            limits.pids,
        )
        .await;
        for line in limits.told(daemon.builder, &cage) {
            say(lines, line).await;
        }
        if daemon.builder == Builder::Classic && !self.recipe.secrets.is_empty() {
            return Err(explain::needs_buildkit("`build.secrets`").at("build.secrets"));
        }
        let (sender, receiver) = mpsc::channel(PIECES);
        let (folder, hold) = (self.job.folder.to_owned(), self.job.work.hold());
        let (dockerfile, kept) = (self.recipe.dockerfile.clone(), self.recipe.kept.clone());
        let packing = tokio::spawn(blocking(move || {
            let _hold = hold;
            send_context(&folder, (&dockerfile, &kept), sender)
        }));
        let built = match daemon.builder {
            Builder::BuildKit => buildkit::build(&self, receiver, lines).await,
            Builder::Classic => classic::build((&self, cage.parent()), receiver, lines).await,
        };
        let packed = packing
            .await
            .unwrap_or_else(|_| Err(Problem::new(Code::Internal, "packing the folder panicked")));
        match (built, packed) {
            // The daemon hung up first: what it says counts.
            (Err(problem), Ok(_)) => Err(problem),
            (Err(problem), Err(packing)) if packing.code == Code::Unavailable => Err(problem),
            (_, Err(packing)) => Err(packing),
            (Ok(id), Ok(_)) => image::built(env, (&id, None), name, lines).await,
        }
    }

    /// Whose image it is, as labels on it.
    fn labels(&self) -> HashMap<String, String> {
        let Job { env, order, .. } = *self.job;
        let labels = [
            (LABEL_CLUSTER, env.cluster.to_string()),
            (LABEL_SERVICE, order.service.to_string()),
            (LABEL_DEPLOYMENT, order.deployment.to_string()),
        ];
        let own = labels.map(|(name, value)| (name.to_owned(), value));
        let recipes = self.recipe.labels.clone();
        recipes.into_iter().chain(own).collect()
    }

    fn limits(&self) -> Limits {
        let build = &self.job.spec.build;
        Limits {
            memory_bytes: build.memory_bytes,
            cpu_millis: build.cpu_millis,
            pids: build.pids,
        }
    }
}

fn send_context(
    folder: &std::path::Path,
    parts: (&str, &str),
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> Result<Summary, Problem> {
    let mut writer = BufWriter::with_capacity(
        PIECE_BYTES,
        Pieces {
            sender: sender.clone(),
        },
    );
    let packed = pack_with(folder, parts, &mut writer).and_then(|summary| {
        writer.flush().map_err(|error| {
            Problem::new(
                Code::Unavailable,
                format!("the context could not be sent: {error}"),
            )
        })?;
        Ok(summary)
    });
    if packed.is_err() {
        // A body that just ended would be a context that lacks files.
        let _ = sender.blocking_send(Err(io::Error::other("the context could not be packed")));
    }
    // Its buffer must not follow that error.
    drop(writer.into_parts());
    packed
}

struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(PIECE_BYTES);
        self.sender
            .blocking_send(Ok(Bytes::copy_from_slice(&bytes[..len])))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_cannot_be_packed_ends_in_an_error_not_in_an_end() {
        let (sender, mut receiver) = mpsc::channel(PIECES);
        let missing = std::path::Path::new("/nonexistent/folder");
        let problem = send_context(missing, ("Dockerfile", ""), sender).expect_err("no folder");
        assert_eq!(problem.code, Code::SourceFailed);
        assert!(receiver.blocking_recv().expect("a last piece").is_err());
        assert!(receiver.blocking_recv().is_none());
    }
}
