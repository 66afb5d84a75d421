//! A Traefik as a child process: its sockets, its output, its end.

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use semver::Version;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Error;

/// The first that knows all that it is told.
const OLDEST: Version = Version::new(3, 7, 12);
/// It prints a few lines.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// The first descriptor that is passed, sd_listen_fds(3).
const FIRST_FD: i32 = 3;
/// Sockets are for the process of this id, which nobody knows before it is there.
const START: &str = r#"LISTEN_PID=$$; export LISTEN_PID; exec "$0" "$@""#;
/// Ends Traefik when nobody is left who could answer what it takes: the pipe ends with us, however we end.
const WATCH: &str = r#"read -r _; kill -KILL "$0""#;
/// The shell that every Unix has.
const SHELL: &str = "/bin/sh";
/// Our own secrets are not for it.
const SECRETS: [&str; 1] = ["SKEP_NET_ADMIN_TOKEN"];

/// Whether `program` is a Traefik that can be run.
pub(super) async fn check(program: &Path) -> Result<Version, Error> {
    let cannot = |source| Error::Program {
        path: program.to_owned(),
        source,
    };
    let ask = Command::new(program)
        .arg("version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let said = timeout(VERSION_LIMIT, ask).await;
    let said = said.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let said = String::from_utf8_lossy(&said.map_err(cannot)?.stdout).into_owned();
    let Some(version) = version(&said) else {
        let path = program.to_owned();
        return Err(Error::Unlike { path });
    };
    match version >= OLDEST {
        true => Ok(version),
        false => Err(Error::Old {
            path: program.to_owned(),
            version,
            oldest: OLDEST,
        }),
    }
}

/// Of what `traefik version` prints.
fn version(said: &str) -> Option<Version> {
    let mut lines = said
        .lines()
        .filter_map(|line| line.strip_prefix("Version:"));
    let word = lines.next()?.trim();
    Version::parse(word.strip_prefix('v').unwrap_or(word)).ok()
}

/// One that runs. Dropped it is killed.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// Holds the pipe, too.
    _watch: Child,
}

impl Running {
    /// Starts `program` on the file `config` with `sockets`, each named after its entry point.
    pub(super) fn start(
        program: &Path,
        config: &Path,
        sockets: Vec<(&'static str, TcpListener)>,
    ) -> io::Result<Self> {
        let (names, sockets): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
        let numbered = (FIRST_FD..).zip(sockets);
        let mappings = numbered.map(|(child_fd, socket)| FdMapping {
            parent_fd: socket.into(),
            child_fd,
        });
        let mut command = Command::new(SHELL);
        command
            .args(["-c", START])
            .arg(program)
            .arg("--configfile")
            .arg(config)
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ends when we say so: what a terminal sends to us is not for it.
            .process_group(0)
            .kill_on_drop(true);
        for secret in SECRETS {
            command.env_remove(secret);
        }
        let passed = command.fd_mappings(mappings.collect());
        passed.expect("each has a number of its own");
        let mut child = command.spawn()?;
        let id = child.id().expect("nobody has waited for it");
        let watch = Command::new(SHELL)
            .args(["-c", WATCH, &id.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let outputs = (child.stdout.take(), child.stderr.take());
        if let (Some(out), Some(err)) = outputs {
            tokio::spawn(relay(out));
            tokio::spawn(relay(err));
        }
        Ok(Self {
            child,
            _watch: watch,
        })
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end. Nothing if it has.
    pub(super) fn terminate(&self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id.and_then(Pid::from_raw)
            && let Err(error) = kill_process(id, Signal::TERM)
        {
            tracing::warn!(%error, "Traefik cannot be asked to end");
        }
    }

    /// Waits for its end, and ends it after `limit`.
    pub(super) async fn end_within(&mut self, limit: Duration) {
        if timeout(limit, self.child.wait()).await.is_err() {
            tracing::warn!(
                ?limit,
                "Traefik has not finished what it had begun: it is killed"
            );
            if let Err(error) = self.child.kill().await {
                tracing::error!(%error, "Traefik cannot be killed");
            }
        }
    }
}

/// Each line to our log.
async fn relay(output: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(output).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        match level(&line).as_deref() {
            Some("error" | "fatal" | "panic") => tracing::error!(target: "traefik", "{line}"),
            Some("warn") => tracing::warn!(target: "traefik", "{line}"),
            Some("debug" | "trace") => tracing::debug!(target: "traefik", "{line}"),
            _ => tracing::info!(target: "traefik", "{line}"),
        }
    }
}

/// Of a line in JSON.
fn level(line: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
    }
    let line: Line = serde_json::from_str(line).ok()?;
    Some(line.level)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn program(dir: &Path, name: &str, script: &str) -> std::path::PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        let all = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&path, all).expect("set");
        path
    }

    #[test]
    fn the_version_is_read_where_there_is_one() {
        for (said, expected) in [
            (
                "Version:      3.7.15\nCodename:     langres\n",
                Some("3.7.15"),
            ),
            ("Version:      v3.8.0-rc.1\n", Some("3.8.0-rc.1")),
            ("Version:      dev\n", None),
            ("Usage: something else\n", None),
            ("", None),
        ] {
            let found = version(said).map(|it| it.to_string());
            assert_eq!(found.as_deref(), expected, "{said}");
        }
    }

    #[test]
    fn the_level_of_a_line_is_read_where_there_is_one() {
        for (line, expected) in [
            (r#"{"level":"error","message":"x"}"#, Some("error")),
            ("panic: runtime error", None),
            ("{}", None),
        ] {
            assert_eq!(level(line).as_deref(), expected, "{line}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_no_traefik_or_too_old_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, script, expected) in [
            ("old", "echo 'Version:      3.0.4'", Some("3.7.12 or newer")),
            ("other", "echo hello", Some("is not a Traefik")),
            ("good", "echo 'Version:      3.7.12'", None),
        ] {
            let path = program(dir.path(), name, script);
            let said = check(&path).await.err().map(|error| error.to_string());
            match (expected, &said) {
                (None, None) => {}
                (Some(expected), Some(said)) => assert!(said.contains(expected), "{said}"),
                _ => panic!("{name}: {said:?}"),
            }
        }
        let missing = check(&dir.path().join("missing")).await;
        let said = missing.expect_err("nothing is there").to_string();
        assert!(said.contains("--run-traefik"), "{said}");
    }

    #[tokio::test]
    async fn it_is_killed_when_the_pipe_ends() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = program(dir.path(), "waits", "exec sleep 100");
        let none = Path::new("/dev/null");
        let mut running = Running::start(&path, none, Vec::new()).expect("started");
        drop(running._watch.stdin.take());
        let status = timeout(VERSION_LIMIT, running.ended()).await;
        let status = status.expect("in time").expect("waited for");
        assert_eq!(status.signal(), Some(9), "{status}");
    }
}
