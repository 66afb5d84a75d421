//! A Docker daemon of a test's own, beside the machine's: its own folders, socket and bridge, so
//! that it can be stopped without hurting anybody.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::process::Command;

use crate::containers::Containers;
use crate::process::{Process, signal};
use crate::wait;

/// Loading its state and making its containerd.
const START: Duration = Duration::from_secs(60);
/// Stopping its containers first.
const STOP: Duration = Duration::from_secs(60);
/// Longest name of a network interface: 15 bytes.
const BRIDGE_PREFIX: &str = "skep";
/// Daemons that one process of tests starts, at most.
const DAEMONS: u32 = 4;
static STARTED: AtomicU32 = AtomicU32::new(0);

/// A daemon.
pub struct Dockerd {
    process: Process,
    bridge: String,
    socket: String,
    dir: TempDir,
}

impl Dockerd {
    /// Makes a bridge and starts a daemon on it. Needs root, as every daemon does.
    ///
    /// # Errors
    /// The bridge cannot be made, or the daemon does not start; tells what it said.
    pub async fn start() -> Result<Self> {
        Self::start_with(&serde_json::json!({})).await
    }

    /// The same, with `config` as its daemon.json.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_with(config: &serde_json::Value) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("skepd-").tempdir()?;
        let file = dir.path().join("daemon.json");
        std::fs::write(&file, config.to_string())?;
        // Several in one process, and several processes, are beside each other.
        let started = STARTED.fetch_add(1, Ordering::Relaxed);
        let number = (std::process::id().wrapping_mul(DAEMONS) + started) % 4_096;
        let bridge = format!("{BRIDGE_PREFIX}{number}");
        make_bridge(&bridge, number).await?;
        let socket = text(&dir.path().join("sock"))?;
        let process = Process::new(
            "dockerd",
            Path::new("dockerd"),
            dir.path().join("dockerd.log"),
        )
        .args([
            "--config-file",
            &text(&file)?,
            "--data-root",
            &text(&dir.path().join("root"))?,
            "--exec-root",
            &text(&dir.path().join("exec"))?,
            "--pidfile",
            &text(&dir.path().join("pid"))?,
            "--host",
            &format!("unix://{socket}"),
            "--bridge",
            &bridge,
            // Its containers are reached from this machine alone, and the machine's own rules stay.
            "--iptables=false",
            "--ip-masq=false",
            "--ip-forward=false",
        ]);
        let daemon = Self {
            process,
            bridge,
            socket,
            dir,
        };
        daemon.start_again().await?;
        Ok(daemon)
    }

    /// Starts it after a stop.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn start_again(&self) -> Result<()> {
        self.process.start().await?;
        let answers = wait::until_ok("a dockerd of the test's own", START, async || {
            let containers = Containers::connect(&self.socket).await?;
            Ok(containers.docker().info().await?)
        });
        answers.await.map(drop).with_context(|| self.process.log())
    }

    /// Stops it as an administrator would; its containers stop with it.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(&self) -> Result<()> {
        self.process.terminate(STOP).await.map(drop)
    }

    /// Ends it as a power cut does: with its containerd, and without a word to anybody. Its containers'
    /// processes are the caller's to end before.
    ///
    /// # Errors
    /// Something lives on.
    pub async fn cut(&self) -> Result<()> {
        self.process.kill().await?;
        let file = self.dir.path().join("exec/containerd/containerd.pid");
        let pid = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        signal(pid.trim().parse()?, "KILL").await?;
        // After a power cut /run is empty: without it the next daemon waits for a process that only its
        // parent, long gone, could have buried.
        std::fs::remove_file(&file).with_context(|| file.display().to_string())
    }

    /// Its socket.
    pub fn socket(&self) -> &str {
        &self.socket
    }

    /// Stops it and removes its bridge and what it mounted.
    ///
    /// # Errors
    /// Something stays.
    pub async fn remove(self) -> Result<()> {
        if self.process.is_running().await? {
            self.stop().await?;
        }
        run("ip", &["link", "delete", &self.bridge]).await?;
        unmount_below(self.dir.path()).await?;
        self.dir
            .close()
            .context("the daemon's folder cannot be removed")
    }
}

/// A private network of its own for each run: several may be at it.
async fn make_bridge(name: &str, number: u32) -> Result<()> {
    // Sixteen addresses for each.
    let [_, _, high, low] = (number << 4).to_be_bytes();
    let address = format!("{}/28", Ipv4Addr::new(10, 213, high, low | 1));
    run("ip", &["link", "add", name, "type", "bridge"]).await?;
    run("ip", &["address", "add", &address, "dev", name]).await?;
    run("ip", &["link", "set", name, "up"]).await
}

async fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(dir)) {
        run("umount", &[point]).await?;
    }
    Ok(())
}

async fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().await;
    let output = output.with_context(|| format!("{program} cannot be run"))?;
    if !output.status.success() {
        bail!(
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("the path is no text")?.to_owned())
}
