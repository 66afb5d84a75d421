//! The command line as a user has it: the real binary, with a context of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longest run of a command; a deployment that fails has its own, shorter deadlines.
const DEADLINE: Duration = Duration::from_secs(300);

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What was typed.
    pub command: String,
    /// Its exit code; none: killed by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// Wants this exit code.
    ///
    /// # Errors
    /// It was another; shows everything that the command said.
    pub fn code(self, wanted: i32) -> Result<Self> {
        if self.code != Some(wanted) {
            bail!("wanted exit code {wanted}: {self}");
        }
        Ok(self)
    }

    /// Wants success.
    ///
    /// # Errors
    /// As `code`.
    pub fn ok(self) -> Result<Self> {
        self.code(0)
    }

    /// Its output as one JSON document.
    ///
    /// # Errors
    /// It failed, or printed something else.
    pub fn json(self) -> Result<Value> {
        let ended = self.ok()?;
        serde_json::from_str(&ended.stdout).with_context(|| ended.to_string())
    }

    /// Wants each of these texts in what was said, on either stream.
    ///
    /// # Errors
    /// One is missing.
    pub fn says(self, texts: &[&str]) -> Result<Self> {
        let said = format!("{}{}", self.stdout, self.stderr);
        match texts.iter().find(|text| !said.contains(**text)) {
            Some(missing) => bail!("not said: {missing:?}: {self}"),
            None => Ok(self),
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}

/// The binary and the folder of its contexts.
#[derive(Debug, Clone)]
pub struct Skep {
    binary: PathBuf,
    config: PathBuf,
}

impl Skep {
    /// A command line that keeps its contexts in `config`.
    pub fn new(binary: &Path, config: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            config: config.to_owned(),
        }
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("SKEP_CONFIG_DIR", &self.config)
            // What it keeps for people goes with the test.
            .env("TMPDIR", &self.config)
            .env("NO_COLOR", "1")
            .env_remove("SKEP_TOKEN")
            .current_dir(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// How a shell runs it: with the same contexts.
    ///
    /// # Errors
    /// A path that is no text.
    pub fn line(&self) -> Result<String> {
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path of text");
        let (binary, config) = (text(&self.binary)?, text(&self.config)?);
        Ok(format!("SKEP_CONFIG_DIR='{config}' '{binary}'"))
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// It cannot be run, or hangs.
    pub async fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Ended> {
        self.finish(arguments, self.command(arguments)).await
    }

    /// Runs a command to its end in a folder.
    ///
    /// # Errors
    /// As `run`.
    pub async fn run_in<A: AsRef<OsStr>>(&self, dir: &Path, arguments: &[A]) -> Result<Ended> {
        let mut command = self.command(arguments);
        command.current_dir(dir);
        self.finish(arguments, command).await
    }

    /// Runs git to its end in a folder: what `skep` has set up there, and none of the settings of whoever runs the
    /// tests.
    ///
    /// # Errors
    /// As `run`.
    pub async fn git<A: AsRef<OsStr>>(&self, dir: &Path, arguments: &[A]) -> Result<Ended> {
        self.finish(arguments, self.git_command(dir, arguments))
            .await
    }

    /// Starts a git that is to be killed, and what it starts with it.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn spawn_git<A: AsRef<OsStr>>(&self, dir: &Path, arguments: &[A]) -> Result<Group> {
        let mut command = self.git_command(dir, arguments);
        let child = command.process_group(0).spawn()?;
        Ok(Group { child })
    }

    fn git_command<A: AsRef<OsStr>>(&self, dir: &Path, arguments: &[A]) -> Command {
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(dir)
            .env("SKEP_CONFIG_DIR", &self.config)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            // Before what the repository says, where it is set.
            .env_remove("GIT_SSL_CAINFO")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command with this token in its environment.
    ///
    /// # Errors
    /// As `run`.
    pub async fn run_with_token<A: AsRef<OsStr>>(
        &self,
        token: &str,
        arguments: &[A],
    ) -> Result<Ended> {
        self.run_with(("SKEP_TOKEN", token), arguments).await
    }

    /// Runs a command with this in its environment.
    ///
    /// # Errors
    /// As `run`.
    pub async fn run_with<A: AsRef<OsStr>>(
        &self,
        (name, value): (&str, &str),
        arguments: &[A],
    ) -> Result<Ended> {
        let mut command = self.command(arguments);
        command.env(name, value);
        self.finish(arguments, command).await
    }

    /// Runs a command to its end with this input; answers its output byte by byte, too.
    ///
    /// # Errors
    /// As `run`.
    pub async fn feed<A: AsRef<OsStr>>(
        &self,
        arguments: &[A],
        input: &[u8],
    ) -> Result<(Ended, Vec<u8>)> {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        let write = async move {
            // A command need not read all of it.
            let _ = stdin.write_all(input).await;
        };
        let both = async { tokio::join!(write, child.wait_with_output()).1 };
        let output = timeout(DEADLINE, both).await;
        let output = output.context("the command hangs")??;
        let words = arguments.iter().map(|word| word.as_ref().to_string_lossy());
        let ended = Ended {
            command: words.collect::<Vec<_>>().join(" "),
            code: code_of(output.status),
            stdout: format!("{} bytes", output.stdout.len()),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        Ok((ended, output.stdout))
    }

    async fn finish<A: AsRef<OsStr>>(
        &self,
        arguments: &[A],
        mut command: Command,
    ) -> Result<Ended> {
        let words = arguments
            .iter()
            .map(|word| word.as_ref().to_string_lossy().into_owned());
        let shown = format!("skep {}", words.collect::<Vec<_>>().join(" "));
        let output = timeout(DEADLINE, command.output()).await;
        let output = output.with_context(|| format!("`{shown}` hangs"))?;
        let output = output.with_context(|| format!("{} cannot be run", self.binary.display()))?;
        Ok(Ended {
            command: shown,
            code: code_of(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a command that goes on, as `skep logs -f`; it ends when it is dropped.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn spawn<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Child> {
        Ok(self.command(arguments).spawn()?)
    }
}

/// A program and what it has started.
pub struct Group {
    child: Child,
}

impl Group {
    /// Kills all of them.
    ///
    /// # Errors
    /// They have ended by themselves.
    pub async fn kill(self) -> Result<()> {
        let id = self.child.id().context("it has ended")?;
        // The shell's own `kill`, as for one process.
        let status = Command::new("sh")
            .args(["-c", &format!("kill -s KILL -- -{id}")])
            .status()
            .await?;
        if !status.success() {
            bail!("kill of the group {id}: {status}");
        }
        Ok(())
    }
}

fn code_of(status: ExitStatus) -> Option<i32> {
    status.code()
}
