//! An object store on this machine's loopback: `s3s-fs`, which speaks S3, looks at signatures, and keeps objects as files.
//! It can be ended and started again where it was, with what it has.

use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::place::free_address;
use crate::process::Process;
use crate::wait;

const START: Duration = Duration::from_secs(30);
/// A build and the begin of a put: longer than that, and it hangs.
const PUT: Duration = Duration::from_secs(300);

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

    /// A way to it on which it can be ended in the middle of an object: more than `bytes` of a connection do not get
    /// through before that.
    ///
    /// # Errors
    /// No address can be had.
    pub async fn way(&self, bytes: usize) -> Result<Way> {
        Way::start(self.address, bytes).await
    }

    /// Ends it at once when so much of an object has come on this way. From then on all gets through.
    ///
    /// # Errors
    /// No such object comes.
    pub async fn kill_within(&self, way: &Way) -> Result<()> {
        let full = timeout(PUT, way.gate.full.notified());
        full.await.context("no object was begun")?;
        self.kill().await
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

/// What keeps an object from being whole.
struct Gate {
    bytes: usize,
    /// It holds one connection once.
    is_used: AtomicBool,
    full: Notify,
}

/// A way to an object store; ends with this value.
pub struct Way {
    address: SocketAddr,
    gate: Arc<Gate>,
    task: JoinHandle<()>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Way {
    async fn start(store: SocketAddr, bytes: usize) -> Result<Self> {
        let listener = TcpListener::bind((store.ip(), 0)).await?;
        let address = listener.local_addr()?;
        let gate = Arc::new(Gate {
            bytes,
            is_used: AtomicBool::new(false),
            full: Notify::new(),
        });
        let kept = gate.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let kept = kept.clone();
                tokio::spawn(async move {
                    // A store that is away is what the client is to see.
                    if let Ok(store) = TcpStream::connect(store).await {
                        pass(client, store, &kept).await.ok();
                    }
                });
            }
        });
        Ok(Self {
            address,
            gate,
            task,
        })
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }
}

/// Passes on what both say, until one of them ends.
async fn pass(mut client: TcpStream, mut store: TcpStream, gate: &Gate) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_store, mut to_store) = store.split();
    let up = async {
        copy(
            &mut (&mut from_client).take(gate.bytes as u64),
            &mut to_store,
        )
        .await?;
        let mut next = [0];
        if from_client.peek(&mut next).await? > 0 && !gate.is_used.swap(true, Ordering::Relaxed) {
            gate.full.notify_one();
            return pending().await;
        }
        copy(&mut from_client, &mut to_store).await
    };
    tokio::select! {
        ended = up => ended?,
        ended = copy(&mut from_store, &mut to_client) => ended?,
    };
    Ok(())
}
