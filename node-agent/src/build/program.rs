//! Programs of the node that take part in a build: in a process group of their own, which is killed as a
//! whole when the build ends, with nothing of the agent's environment, and with bounded output.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use skep_model::problem::{Code, Problem};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::folder::WorkFolder;
use super::progress::Lines;
use super::say;

/// What is kept of a program's output; the rest is read, told and dropped.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// A piece of output.
const PIECE_BYTES: usize = 8 << 10;
/// Where programs are found that the agent was not told of.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// With exit code 0.
    pub(super) is_success: bool,
    status: ExitStatus,
    /// The beginning of its output.
    pub(super) output: String,
    /// Of its output, the last line that is not empty.
    pub(super) last_line: String,
    /// The beginning of what it complained about.
    errors: String,
}

impl Ended {
    /// Why it failed, as far as it says.
    pub(super) fn why(&self) -> String {
        let lines = self.errors.lines().map(str::trim);
        // Of a Rust program whose operator wants to see where it fails.
        let lines = lines.take_while(|line| *line != "Stack backtrace:");
        let said: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        let tail: Vec<&str> = said.iter().rev().take(5).rev().copied().collect();
        match tail.is_empty() {
            true => self.status.to_string(),
            false => tail.join("\n  "),
        }
    }
}

/// The processes of a program, the children of its children too. Dropping it ends them all.
pub(super) struct Group(Option<Pid>);

impl Group {
    /// Of a child that was started in a group of its own.
    pub(super) fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.take() {
            // None left: then there is nothing to end.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// `program` with an environment of its own: a home that goes with the build.
pub(super) fn command(program: &Path, work: &WorkFolder) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| PATH.into()),
        )
        .env("HOME", work.path())
        .env("LC_ALL", "C.UTF-8");
    command
}

/// Runs it to its end; what it writes is told to `lines`.
///
/// # Errors
/// It cannot be started.
pub(super) async fn run(
    mut command: Command,
    lines: Option<&mpsc::Sender<String>>,
) -> Result<Ended, Problem> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let cannot = |error: io::Error| {
        Problem::new(Code::Runtime, format!("cannot run {program}: {error}"))
            .hint("is it there on the node, and may the agent run it?")
    };
    let mut child = command.spawn().map_err(cannot)?;
    let _group = Group::of(&child);
    let (out, errors) = (child.stdout.take(), child.stderr.take());
    let (out, errors, status) = tokio::join!(read(out, lines), read(errors, lines), child.wait());
    let status = status.map_err(cannot)?;
    let ((output, last_line), (errors, _)) = (out, errors);
    Ok(Ended {
        is_success: status.success(),
        status,
        output,
        last_line,
        errors,
    })
}

/// The beginning of a pipe and its last line.
async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    lines: Option<&mpsc::Sender<String>>,
) -> (String, String) {
    let (mut kept, mut last) = (Vec::new(), String::new());
    let (mut parts, mut piece) = (Lines::default(), vec![0; PIECE_BYTES]);
    let Some(mut pipe) = pipe else {
        return (String::new(), last);
    };
    let mut tell = async |line: String| {
        if let Some(lines) = lines {
            say(lines, line.clone()).await;
        }
        if !line.trim().is_empty() {
            last = line;
        }
    };
    // A pipe that breaks is one that ends.
    while let Ok(count @ 1..) = pipe.read(&mut piece).await {
        let room = MAX_OUTPUT_BYTES - kept.len();
        kept.extend_from_slice(&piece[..count.min(room)]);
        for line in parts.text(&String::from_utf8_lossy(&piece[..count])) {
            tell(line).await;
        }
    }
    if let Some(line) = parts.finish() {
        tell(line).await;
    }
    (String::from_utf8_lossy(&kept).into_owned(), last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn lines_are_told_and_output_is_bounded() {
        let (sender, mut told) = mpsc::channel(64);
        let ended = run(shell("echo one; echo two >&2; exit 3"), Some(&sender)).await;
        let ended = ended.expect("started");
        assert!(!ended.is_success && ended.why() == "two", "{ended:?}");
        drop(sender);
        let mut lines = Vec::new();
        while let Some(line) = told.recv().await {
            lines.push(line);
        }
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
        let much = shell("head -c 4000000 /dev/zero | tr '\\0' x; echo; echo image:1; echo");
        let ended = run(much, None).await.expect("started");
        assert_eq!(ended.output.len(), MAX_OUTPUT_BYTES);
        assert_eq!(ended.last_line, "image:1");
        let problem = run(Command::new("/no/such/program"), None).await;
        assert_eq!(problem.expect_err("none").code, Code::Runtime);
    }

    #[tokio::test]
    async fn whoever_gives_up_ends_the_children_of_children() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("pid");
        let script = format!(
            "(sh -c 'echo $$ > {0}.new; mv {0}.new {0}; sleep 1000') & wait",
            file.display()
        );
        let running = tokio::spawn(async move { run(shell(&script), None).await.map(drop) });
        let read = || std::fs::read_to_string(&file).ok();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while read().is_none() && std::time::Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        let pid: i32 = read().expect("begun").trim().parse().expect("a number");
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        assert!(alive());
        running.abort();
        while alive() && std::time::Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        assert!(!alive(), "it goes on");
    }
}
