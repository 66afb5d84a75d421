//! One child process of a cluster: started, killed and started again by its own id, its output in
//! a file.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// What is run, and the child while it runs.
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// A process that does not run yet; its output is appended to `log`.
    pub fn new(name: &str, program: &Path, log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            log,
            child: Mutex::new(None),
        }
    }

    /// The same with these arguments after those it has.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Another process like this one that does not run yet, with `to` for `from`, be it the program or
    /// an argument.
    #[must_use]
    pub fn like(&self, from: &Path, to: &Path) -> Self {
        let swapped = |argument: &OsString| match argument == from.as_os_str() {
            true => to.as_os_str().to_owned(),
            false => argument.clone(),
        };
        Self {
            name: self.name.clone(),
            program: swapped(&self.program.clone().into()).into(),
            arguments: self.arguments.iter().map(swapped).collect(),
            environment: self.environment.clone(),
            log: self.log.clone(),
            child: Mutex::new(None),
        }
    }

    /// Whether it is started with this.
    pub fn has_argument(&self, argument: &str) -> bool {
        self.arguments.iter().any(|given| given == argument)
    }

    /// The same with this variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Sets a variable for its next start.
    pub fn set_env(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Starts it.
    ///
    /// # Errors
    /// It runs already, or cannot be run.
    pub async fn start(&self) -> Result<()> {
        let mut child = self.child.lock().await;
        if let Some(running) = child.as_mut()
            && running.try_wait()?.is_none()
        {
            bail!("{} runs already", self.name);
        }
        *child = Some(self.spawn()?);
        Ok(())
    }

    fn spawn(&self) -> Result<Child> {
        let log = self.open_log()?;
        Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // A pipe that ends with the tests: the parts of a cluster end then, too.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be run", self.program.display()))
    }

    fn open_log(&self) -> Result<File> {
        let file = OpenOptions::new().create(true).append(true).open(&self.log);
        file.with_context(|| format!("{} cannot be written", self.log.display()))
    }

    /// SIGKILL, and waits until it is gone. Nothing when it does not run.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn kill(&self) -> Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            child
                .kill()
                .await
                .with_context(|| format!("killing {}", self.name))?;
        }
        Ok(())
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// It does not run, or did not end `within`.
    pub async fn terminate(&self, within: Duration) -> Result<ExitStatus> {
        let Some(mut child) = self.child.lock().await.take() else {
            bail!("{} does not run", self.name);
        };
        let Some(pid) = child.id() else {
            bail!("{} has ended by itself", self.name);
        };
        signal(pid, "TERM").await?;
        // Waiting closes the pipe: held open, so that it is the signal that ends the process.
        let _pipe = child.stdin.take();
        match tokio::time::timeout(within, child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} did not end within {within:?} of SIGTERM", self.name),
        }
    }

    /// SIGTERM where it runs, and started again from what `change` makes of it.
    ///
    /// # Errors
    /// It did not end `within`, or cannot be run.
    pub async fn restart_as(
        &mut self,
        within: Duration,
        change: impl FnOnce(Self) -> Self,
    ) -> Result<()> {
        if self.is_running().await? {
            self.terminate(within).await?;
        }
        // The same one: nothing is named by an empty path.
        let nothing = Path::new("");
        *self = change(self.like(nothing, nothing));
        self.start().await
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It did not `within`, or does not run.
    pub async fn ended(&self, within: Duration) -> Result<ExitStatus> {
        let mut child = self.child.lock().await;
        let Some(running) = child.as_mut() else {
            bail!("{} does not run", self.name);
        };
        // Waiting closes the pipe: held open, so that it ends for a reason of its own.
        let _pipe = running.stdin.take();
        match tokio::time::timeout(within, running.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} goes on after {within:?}", self.name),
        }
    }

    /// Its process id while it runs.
    pub async fn pid(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// The kernel does not say.
    pub async fn is_running(&self) -> Result<bool> {
        match self.child.lock().await.as_mut() {
            Some(child) => Ok(child.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    /// Resident memory in bytes (`VmRSS` of proc(5)).
    ///
    /// # Errors
    /// It does not run.
    pub async fn rss_bytes(&self) -> Result<u64> {
        let Some(pid) = self.pid().await else {
            bail!("{} does not run", self.name);
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        let kib: u64 = number.context("no VmRSS in /proc/PID/status")?.parse()?;
        Ok(kib * 1024)
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// CPU time so far, of all its threads (`utime` and `stime` of proc(5)).
    ///
    /// # Errors
    /// It does not run.
    pub async fn cpu_time(&self) -> Result<Duration> {
        let Some(pid) = self.pid().await else {
            bail!("{} does not run", self.name);
        };
        cpu_time_of(pid)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Whether a process with this in its command line runs on the machine: steps of builds are no secret to it.
pub fn runs(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(mark))
}

/// CPU time of a process so far, of all its threads.
///
/// # Errors
/// There is no such process.
pub fn cpu_time_of(pid: u32) -> Result<Duration> {
    /// `USER_HZ`: what Linux shows user space on every platform that Skep runs on.
    const TICKS_PER_S: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything; `utime` is the 14th field, the 12th behind it.
    let (_, rest) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks: Vec<u64> = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let ms = ticks.iter().sum::<u64>() * 1_000 / TICKS_PER_S;
    Ok(Duration::from_millis(ms))
}

/// Sends a signal to one process.
///
/// # Errors
/// There is no such process.
pub async fn signal(pid: u32, name: &str) -> Result<()> {
    // The shell's own `kill`: there in every image, while the program is not.
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status()
        .await?;
    if !status.success() {
        bail!("kill -{name} {pid}: {status}");
    }
    Ok(())
}
