//! An object store on this machine's loopback: `s3s-fs`, which speaks S3, looks at signatures, and keeps objects as files.
//! It can be ended and started again where it was, with what it has.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

use crate::place::free_address;
use crate::process::{Process, signal};
use crate::wait;

const START: Duration = Duration::from_secs(30);
/// A build and the begin of a put.
const PUT: Duration = Duration::from_secs(120);

/// The id of the key that it knows.
pub const KEY: &str = "lab-key";
/// That key's secret.
pub const SECRET: &str = "lab-secret";
/// The bucket that it has.
pub const BUCKET: &str = "sites";

/// A running object store; ends with its process.
pub struct LocalObjects {
    address: SocketAddr,
    root: PathBuf,
    process: Process,
}

impl LocalObjects {
    /// Starts one with its files in `dir`.
    ///
    /// # Errors
    /// It does not start; tells what it said.
    pub async fn start(dir: &Path) -> Result<Self> {
        let root = dir.join("data");
        fs::create_dir_all(root.join(BUCKET))?;
        let address = free_address()?;
        let program = std::env::var_os("SKEP_S3").unwrap_or_else(|| "s3s-fs".into());
        let process = Process::new("objects", Path::new(&program), dir.join("log")).args([
            "--host".into(),
            address.ip().to_string().into(),
            "--port".into(),
            address.port().to_string().into(),
            "--access-key".into(),
            KEY.into(),
            "--secret-key".into(),
            SECRET.into(),
            root.clone().into_os_string(),
        ]);
        let store = Self {
            address,
            root,
            process,
        };
        store.start_again().await?;
        Ok(store)
    }

    /// Starts it where it was before, with what it has.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_again(&self) -> Result<()> {
        self.process.start().await?;
        wait::until_ok("the object store to listen", START, async || {
            TcpStream::connect(self.address).await?;
            Ok(())
        })
        .await
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// It does not end.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }

    /// Ends it at once while it takes an object that is longer than this. Gives how much of it it had.
    ///
    /// # Errors
    /// No such object comes.
    pub async fn kill_within(&self, object_bytes: u64) -> Result<u64> {
        let pid = self.process.pid().await.context("it runs")?;
        let root = self.root.clone();
        // What is on its way lies beside the buckets. Looked at without a pause: it may be there for a moment only.
        let look = spawn_blocking(move || {
            let begun = Instant::now();
            while begun.elapsed() < PUT {
                let longest = fs::read_dir(&root)?.flatten().filter_map(|it| {
                    let about = it.metadata().ok()?;
                    about.is_file().then_some(about.len())
                });
                if let Some(bytes) = longest.max().filter(|bytes| *bytes > 1 << 20) {
                    return Ok(bytes);
                }
            }
            bail!("no object was begun")
        });
        let had = look.await??;
        signal(pid, "STOP").await?;
        self.process.kill().await?;
        ensure!(had < object_bytes, "it had all {had} bytes");
        Ok(had)
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The files of the objects of a service, below `folder`.
    ///
    /// # Errors
    /// There are none.
    pub fn objects(&self, folder: &str) -> Result<Vec<PathBuf>> {
        let folder = self.root.join(BUCKET).join(folder);
        let entries = fs::read_dir(&folder);
        let entries = entries.with_context(|| format!("nothing in {}", folder.display()))?;
        let all: io::Result<Vec<_>> = entries.map(|it| Ok(it?.path())).collect();
        Ok(all?)
    }
}
