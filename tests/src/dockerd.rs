//! A Docker daemon of a test's own, beside the machine's: its own folders, socket and bridge, so
//! that it can be stopped without hurting anybody.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::containers::Containers;
use crate::process::{Process, signal};
use crate::wait;

/// Loading its state and making its containerd.
const START: Duration = Duration::from_secs(60);
/// Stopping its containers first.
const STOP: Duration = Duration::from_secs(60);
const CONFIG: &str = "daemon.json";
/// Longest name of a network interface: 15 bytes.
const BRIDGE_PREFIX: &str = "skep";
/// Daemons, and networks for them, that one process of tests makes, at most.
const DAEMONS: u32 = 8;
static STARTED: AtomicU32 = AtomicU32::new(0);

/// A network of its own for the containers of a daemon.
#[derive(Debug)]
pub struct Bridge {
    name: String,
}

impl Bridge {
    /// Makes one beside all others: several may be in one process, and several processes.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn make() -> Result<Self> {
        let started = STARTED.fetch_add(1, Ordering::Relaxed);
        let number = (std::process::id().wrapping_mul(DAEMONS) + started) % 4_096;
        let name = format!("{BRIDGE_PREFIX}{number}");
        // 10.128.0.0/10 in 4,096 networks of a thousand addresses, as many as a bridge has ports. The rest of 10.0.0.0/8 has the
        // labs' networks and the clusters' own.
        let first = u32::from(Ipv4Addr::new(10, 128, 0, 1)) + (number << 10);
        let address = format!("{}/22", Ipv4Addr::from(first));
        run("ip", &["link", "add", &name, "type", "bridge"]).await?;
        run("ip", &["address", "add", &address, "dev", &name]).await?;
        run("ip", &["link", "set", &name, "up"]).await?;
        Ok(Self { name })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes it.
    ///
    /// # Errors
    /// It stays.
    pub async fn remove(self) -> Result<()> {
        run("ip", &["link", "delete", &self.name]).await
    }
}

/// A daemon.
pub struct Dockerd {
    process: Process,
    bridge: Bridge,
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
        Self::start_in(config, None).await
    }

    /// Its data lies on a disk of its own, of this size: in memory.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_small(mib: u32) -> Result<Self> {
        Self::start_in(&serde_json::json!({}), Some(mib)).await
    }

    async fn start_in(config: &serde_json::Value, disk_mib: Option<u32>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("skepd-").tempdir()?;
        let file = dir.path().join(CONFIG);
        std::fs::write(&file, config.to_string())?;
        let bridge = Bridge::make().await?;
        let root = text(&dir.path().join("root"))?;
        if let Some(mib) = disk_mib {
            std::fs::create_dir(&root)?;
            let size = format!("size={mib}m");
            run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &root]).await?;
        }
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
            &root,
            "--exec-root",
            &text(&dir.path().join("exec"))?,
            "--pidfile",
            &text(&dir.path().join("pid"))?,
            "--host",
            &format!("unix://{socket}"),
            "--bridge",
            bridge.name(),
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

    /// Restarts of the daemon leave its containers running from now on, or no longer.
    ///
    /// # Errors
    /// It does not take this up.
    pub async fn set_live_restore(&self, on: bool) -> Result<()> {
        let config = serde_json::json!({ "live-restore": on });
        std::fs::write(self.dir.path().join(CONFIG), config.to_string())?;
        let pid = self
            .process
            .pid()
            .await
            .context("the daemon does not run")?;
        signal(pid, "HUP").await?;
        wait::until_ok("the daemon to take it up", START, async || {
            let containers = Containers::connect(&self.socket).await?;
            let info = containers.docker().info().await?;
            ensure!(info.live_restore_enabled == Some(on), "not yet");
            Ok(())
        })
        .await
    }

    /// Stops it as an administrator would; its containers stop with it, unless it restores them.
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

    /// A file in its data.
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    /// Stops it and removes its bridge and what it mounted.
    ///
    /// # Errors
    /// Something stays.
    pub async fn remove(self) -> Result<()> {
        if self.process.is_running().await? {
            self.stop().await?;
        }
        self.bridge.remove().await?;
        unmount_below(self.dir.path()).await?;
        self.dir
            .close()
            .context("the daemon's folder cannot be removed")
    }
}

async fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    // What was mounted last is on top.
    let points = mounts.lines().rev();
    let points = points.filter_map(|line| line.split(' ').nth(1));
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
