//! Has a program of the server's operator write records: `PROGRAM present|cleanup NAME VALUE`. It ends with 0 when that is
//! done; else the end of what it wrote to stderr is the reason. Only one program may be run, and only the one who starts
//! the server says which.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::{Doing, Error, Provider, Record, said};

/// Most of what a program writes that is read, in bytes.
const MAX_WRITTEN: u64 = 16 << 10;

/// One program.
pub(super) struct Exec {
    program: PathBuf,
}

impl Exec {
    /// The one that this server's operator allowed.
    pub(super) fn new(allowed: Option<&Path>) -> Result<Self, Error> {
        let program = allowed.ok_or_else(|| {
            let text = "the server that leads may run no program for proofs in DNS: start each server with `--acme-exec PATH`";
            Error::Unusable(text.to_owned())
        })?;
        Ok(Self {
            program: program.to_owned(),
        })
    }

    async fn run(&self, action: &str, record: Record<'_>) -> Result<(), Error> {
        let who = self.program.display().to_string();
        let unreachable =
            |error: std::io::Error| Error::Unusable(format!("{who} cannot be run: {error}"));
        let child = Command::new(&self.program)
            .args([action, record.name, record.value])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(unreachable)?;
        let mut written = Vec::new();
        if let Some(mut stderr) = child.stderr.take() {
            let mut beginning = (&mut stderr).take(MAX_WRITTEN);
            let read = beginning.read_to_end(&mut written);
            read.await.map_err(unreachable)?;
            // The rest is of no interest, but the program is not to die of nobody reading it.
            let mut nowhere = tokio::io::sink();
            let rest = tokio::io::copy(&mut stderr, &mut nowhere);
            rest.await.map_err(unreachable)?;
        }
        let status = child.wait().await.map_err(unreachable)?;
        if status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&written);
        Err(Error::Failed {
            said: format!("{status}: {}", said(&text)),
            who,
            hint: "it is run on the server that leads, as PROGRAM present|cleanup NAME VALUE",
        })
    }
}

impl Provider for Exec {
    fn name(&self) -> &'static str {
        "the program for proofs in DNS"
    }

    fn present<'a>(&'a self, record: Record<'a>) -> Doing<'a> {
        Box::pin(self.run("present", record))
    }

    fn cleanup<'a>(&'a self, record: Record<'a>) -> Doing<'a> {
        Box::pin(self.run("cleanup", record))
    }
}
