//! `docker build` through the Docker API, by the classic builder: every daemon has it. The context
//! is packed by a blocking thread as fast as the daemon takes it, and never lies on a disk.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::BuildInfo;
use bollard::query_parameters::BuildImageOptions;
use bytes::Bytes;
use futures_util::StreamExt;
use skep_model::deployment::Built;
use skep_model::id::ServiceId;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::context::{Summary, pack_with};
use super::folder::{WorkFolder, blocking};
use super::progress::Progress;
use super::{Env, LABEL_CLUSTER, LABEL_SERVICE, image, say};

/// Size of the pieces of a context on their way to the daemon.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces between disk and daemon.
const PIECES: usize = 4;
/// The daemon begins its answer when it has the context: the deadline of a build is the order's,
/// which is set around all of it. This is only above every such deadline.
const ANSWER_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// One build of a Dockerfile.
pub(super) struct Build<'a> {
    pub(super) env: &'a Env,
    pub(super) work: &'a WorkFolder,
    /// The context.
    pub(super) folder: PathBuf,
    /// Inside the context.
    pub(super) dockerfile: String,
    /// Name for the image.
    pub(super) tag: String,
    /// Whose.
    pub(super) service: ServiceId,
}

impl Build<'_> {
    /// Builds. Dropping the future closes the connection, upon which the daemon gives up too.
    pub(super) async fn run(self, lines: &mpsc::Sender<String>) -> Result<Built, Problem> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let (folder, dockerfile) = (self.folder.clone(), self.dockerfile.clone());
        let hold = self.work.hold();
        let packing = tokio::spawn(blocking(move || {
            let _hold = hold;
            send_context(&folder, &dockerfile, sender)
        }));
        let built = self.build(receiver, lines).await;
        let packed = packing
            .await
            .unwrap_or_else(|_| Err(Problem::new(Code::Internal, "packing the folder panicked")));
        match (built, packed) {
            // The daemon hung up first: what it says counts.
            (Err(problem), Ok(_)) => Err(problem),
            (Err(problem), Err(packing)) if packing.code == Code::Unavailable => Err(problem),
            (_, Err(packing)) => Err(packing),
            (Ok(id), Ok(_)) => image::built(self.env, &id, Some(&self.tag)).await,
        }
    }

    async fn build(
        &self,
        context: mpsc::Receiver<io::Result<Bytes>>,
        lines: &mpsc::Sender<String>,
    ) -> Result<String, Problem> {
        let labels = [
            (LABEL_CLUSTER, self.env.cluster.to_string()),
            (LABEL_SERVICE, self.service.to_string()),
        ];
        let options = BuildImageOptions {
            dockerfile: self.dockerfile.clone(),
            t: Some(self.tag.clone()),
            rm: true,
            forcerm: true,
            labels: Some(HashMap::from(
                labels.map(|(name, value)| (name.to_owned(), value)),
            )),
            ..Default::default()
        };
        let docker = self.env.docker.clone().with_timeout(ANSWER_LIMIT);
        let body = bollard::body_try_stream(ReceiverStream::new(context));
        let mut answers = std::pin::pin!(docker.build_image(options, None, Some(body)));
        let mut progress = Progress::default();
        let mut id = None;
        let mut failed = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(info) => id = tell(info, &mut progress, lines).await.or(id),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if let Some(line) = progress.finish() {
            say(lines, line).await;
        }
        match failed {
            Some(error) => Err(explain(&error, &progress)),
            None => Ok(id.unwrap_or_else(|| self.tag.clone())),
        }
    }
}

/// Passes one message on; gives the image's id where it says one.
async fn tell(
    info: BuildInfo,
    progress: &mut Progress,
    lines: &mpsc::Sender<String>,
) -> Option<String> {
    if let Some(text) = &info.stream {
        for line in progress.text(text) {
            say(lines, line).await;
        }
    }
    if let Some(status) = &info.status
        && let Some(line) = progress.status(info.id.as_deref(), status)
    {
        say(lines, line).await;
    }
    info.aux.and_then(|image| image.id)
}

fn send_context(
    folder: &std::path::Path,
    dockerfile: &str,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> Result<Summary, Problem> {
    let mut writer = BufWriter::with_capacity(
        PIECE_BYTES,
        Pieces {
            sender: sender.clone(),
        },
    );
    let packed = pack_with(folder, dockerfile, &mut writer).and_then(|summary| {
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

/// What Docker's error means for whoever wrote the Dockerfile.
fn explain(error: &Error, progress: &Progress) -> Problem {
    let said = match error {
        Error::DockerStreamError { error } => error,
        Error::DockerResponseServerError { message, .. } => message,
        other => return image::unreachable(other),
    };
    let said = said.trim();
    let mut message = match (progress.step(), exit_code(said)) {
        (Some(step), Some(code)) => format!("{step} failed with exit code {code}"),
        (Some(step), None) => format!("{step} failed: {said}"),
        (None, _) => format!("Docker refused the build: {said}"),
    };
    for line in progress.tail() {
        message.push_str("\n  ");
        message.push_str(line);
    }
    let problem = Problem::new(Code::BuildFailed, message);
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    if has(&["requires BuildKit", "--mount option", "--chmod option"]) {
        return problem
            .hint("this Dockerfile needs BuildKit: leave out RUN --mount and COPY --chmod");
    }
    if has(&[
        "pull access denied",
        "manifest for",
        "repository does not exist",
    ]) {
        return problem.hint("check the image that FROM names: its registry says that it does not exist or needs a login");
    }
    if has(&[
        "dial tcp",
        "Client.Timeout",
        "no such host",
        "TLS handshake",
    ]) {
        return problem
            .hint("the registry of the image that FROM names cannot be reached from this node");
    }
    if has(&["COPY failed", "ADD failed"]) {
        return problem.hint("is the file in the app's folder, and not left out by .dockerignore?");
    }
    problem.hint("the step's last lines tell why: correct it, then deploy again")
}

/// Out of `The command '...' returned a non-zero code: 2`: the step has named the command.
fn exit_code(said: &str) -> Option<&str> {
    let (_, code) = said.rsplit_once("returned a non-zero code: ")?;
    said.starts_with("The command '").then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_error(text: &str) -> Error {
        Error::DockerStreamError {
            error: text.to_owned(),
        }
    }

    #[test]
    fn a_failed_step_is_named_with_its_last_lines() {
        let mut progress = Progress::default();
        progress
            .text("Step 2/3 : RUN make\n ---> Running in 1\ncc: no such file\nmake: *** [all] 1\n");
        let error = stream_error("The command '/bin/sh -c make' returned a non-zero code: 2");
        let problem = explain(&error, &progress);
        assert_eq!(problem.code, Code::BuildFailed);
        assert_eq!(
            problem.message,
            "step 2/3 (RUN make) failed with exit code 2\n  \
             cc: no such file\n  make: *** [all] 1"
        );
    }

    #[test]
    fn known_failures_say_what_to_do() {
        let cases = [
            ("the --mount option requires BuildKit. Refer to", "BuildKit"),
            (
                "pull access denied for x, repository does not exist or may require 'docker login'",
                "FROM",
            ),
            (
                "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io",
                "reached",
            ),
            (
                "COPY failed: file not found in build context or excluded by .dockerignore: stat x",
                ".dockerignore",
            ),
        ];
        for (said, hint) in cases {
            let problem = explain(&stream_error(said), &Progress::default());
            assert!(
                problem
                    .hint
                    .as_deref()
                    .is_some_and(|text| text.contains(hint)),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_refused_dockerfile_and_a_missing_daemon_are_told_apart() {
        let refused = Error::DockerResponseServerError {
            status_code: 400,
            message: "dockerfile parse error line 3: unknown instruction: FORM".to_owned(),
        };
        let problem = explain(&refused, &Progress::default());
        assert_eq!(problem.code, Code::BuildFailed);
        assert!(problem.message.contains("line 3"), "{problem}");
        let problem = explain(&Error::RequestTimeoutError, &Progress::default());
        assert_eq!(problem.code, Code::Runtime);
    }

    #[test]
    fn a_context_that_cannot_be_packed_ends_in_an_error_not_in_an_end() {
        let (sender, mut receiver) = mpsc::channel(PIECES);
        let missing = std::path::Path::new("/nonexistent/folder");
        let problem = send_context(missing, "Dockerfile", sender).expect_err("no folder");
        assert_eq!(problem.code, Code::SourceFailed);
        assert!(receiver.blocking_recv().expect("a last piece").is_err());
        assert!(receiver.blocking_recv().is_none());
    }
}
