//! One host: a network namespace with one cable, a folder, and what can befall it.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::command::{run, run_at_end};
use crate::process::Process;

/// Written at once while a disk is filled.
const FILL_CHUNK_BYTES: usize = 64 << 10;
const FILLER: &str = "filler";

/// A host. Its cable and its disks are given back whole by [`Host::mend`] and [`Host::empty_disk`].
pub struct Host {
    name: String,
    namespace: String,
    interface: String,
    address: Ipv4Addr,
    dir: PathBuf,
}

impl Host {
    pub(super) fn new(
        name: String,
        namespace: String,
        interface: String,
        address: Ipv4Addr,
        dir: PathBuf,
    ) -> Self {
        Self {
            name,
            namespace,
            interface,
            address,
            dir,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its only address beside loopback.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A folder or file of this host.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A program that runs on this host once it is started. Its process id is its own: what leads
    /// it into the host becomes it.
    pub fn process(&self, name: &str, program: &Path) -> Process {
        let log = self.dir.join(format!("{name}.log"));
        let [enter, network] = self.entry();
        Process::new(&format!("{name}@{}", self.name), Path::new(&enter), log)
            .args([network])
            .args([program])
    }

    /// What is put before a command so that it runs on this host.
    pub fn entry(&self) -> [OsString; 2] {
        let network = format!("--net=/run/netns/{}", self.namespace);
        ["nsenter".into(), network.into()]
    }

    /// Runs a program on this host to its end.
    ///
    /// # Errors
    /// It fails.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let namespace = format!("--net=/run/netns/{}", self.namespace);
        let all = [&[namespace.as_str(), program][..], arguments].concat();
        run("nsenter", &all).await
    }

    async fn rule(&self, rule: &[&str]) -> Result<()> {
        // -w: another rule of this host may be on its way.
        self.run("iptables", &[&["-w"][..], rule].concat())
            .await
            .map(drop)
    }

    /// From now on nothing that `from` sends arrives here. What is sent to `from` does arrive.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn deafen(&self, from: Ipv4Addr) -> Result<()> {
        let source = from.to_string();
        self.rule(&["-A", "INPUT", "-s", &source, "-j", "DROP"])
            .await
    }

    /// From now on this host and `other` hear nothing of each other.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn cut_from(&self, other: Ipv4Addr) -> Result<()> {
        self.deafen(other).await?;
        let target = other.to_string();
        self.rule(&["-A", "OUTPUT", "-d", &target, "-j", "DROP"])
            .await
    }

    /// From now on nothing comes in and nothing goes out, without a word to anybody.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn cut(&self) -> Result<()> {
        self.rule(&["-A", "INPUT", "-i", &self.interface, "-j", "DROP"])
            .await?;
        self.rule(&["-A", "OUTPUT", "-o", &self.interface, "-j", "DROP"])
            .await
    }

    /// From now on this share of what arrives is lost at random.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn lose(&self, percent: u32) -> Result<()> {
        let share = format!("{:.2}", f64::from(percent) / 100.0);
        let what = ["-A", "INPUT", "-i", &self.interface];
        let random = ["-m", "statistic", "--mode", "random", "--probability"];
        self.rule(&[&what[..], &random, &[share.as_str(), "-j", "DROP"]].concat())
            .await
    }

    /// The cable is whole again.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn mend(&self) -> Result<()> {
        self.rule(&["-F"]).await
    }

    /// A disk of this size in memory, mounted on a folder of this host.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn small_disk(&self, name: &str, mib: u32) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::create_dir_all(&path)?;
        let options = format!("size={mib}m,mode=0700");
        let point = path.to_str().context("the path is no text")?;
        let device = format!("skep-lab-{}", self.namespace);
        run("mount", &["-t", "tmpfs", "-o", &options, &device, point]).await?;
        Ok(path)
    }

    /// Fills such a disk to its last byte; answers how many bytes were free.
    ///
    /// # Errors
    /// The disk fails otherwise than by being full.
    pub fn fill_disk(disk: &Path) -> Result<u64> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(disk.join(FILLER))?;
        let chunk = vec![0u8; FILL_CHUNK_BYTES];
        let mut written = 0;
        loop {
            match file.write(&chunk) {
                Ok(bytes) => written += bytes as u64,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    return Ok(written);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes away what filled it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn empty_disk(disk: &Path) -> Result<()> {
        match std::fs::remove_file(disk.join(FILLER)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Unmounts every disk of the host.
    pub(super) fn unmount(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        // What was mounted last goes first.
        let points: Vec<&str> = points
            .filter(|point| Path::new(point).starts_with(&self.dir))
            .collect();
        for point in points.iter().rev() {
            run_at_end("umount", &["-l", point]);
        }
    }
}
