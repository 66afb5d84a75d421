//! A GitHub, as far as Apps go: makes one of a manifest, installs it, says who people are, gives tokens that end to whoever
//! proves with the App's key to be it, and shows repositories to whoever has such a token. It believes nothing: a proof is
//! checked against the public key and the clock, a token against those that it gave.

mod answers;
mod backend;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// GitHub's number for the App.
pub const APP: u64 = 4_711;
/// Its name in URLs.
pub const SLUG: &str = "skep-test";
/// Where it is installed.
pub const INSTALLATION: u64 = 990_001;
/// An installation at somebody else's account.
pub const OTHERS: u64 = 990_002;
/// Names it where people sign in.
const CLIENT: &str = "Iv1.test";
/// Goes with that.
pub const CLIENT_SECRET: &str = "client-s3cret-of-the-test";
/// Signs deliveries, at first.
pub const HOOK_SECRET: &str = "hook-s3cret-of-the-test";

/// A token that was given.
#[derive(Debug, Clone)]
pub struct Given {
    /// In plain text.
    pub token: String,
    /// The repository that it is for, and for reading alone; none: all of the installation.
    pub contents_of: Option<String>,
    /// When it ends.
    pub ends: SystemTime,
}

#[derive(Debug, Default)]
struct Known {
    manifest: Option<Value>,
    /// Codes that stand for something once: of the App, or of a person.
    codes: BTreeMap<String, String>,
    /// Tokens of people.
    people: BTreeMap<String, String>,
    given: Vec<Given>,
    lasts: Duration,
    /// What the person who comes is in the organization.
    role: String,
    hook_secret: String,
    statuses: Vec<(String, Value)>,
    /// Requests that were refused, and why.
    refused: Vec<String>,
    counted: u64,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    repositories: PathBuf,
    known: Mutex<Known>,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panics while changing it")
    }
}

/// The GitHub; ends when dropped.
pub struct GitHub {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl GitHub {
    /// Starts one. `repositories` has `OWNER/NAME.git`, bare; the organization is `acme`, the person `ada`, its owner.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(repositories: &Path) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            address,
            repositories: repositories.to_owned(),
            known: Mutex::new(Known {
                lasts: Duration::from_secs(3_600),
                role: "admin".to_owned(),
                hook_secret: HOOK_SECRET.to_owned(),
                ..Known::default()
            }),
        });
        let answering = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&answering);
                let service =
                    service_fn(move |request| answers::answer(Arc::clone(&shared), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move {
                    // A client that goes away is the client's business.
                    let _ = connection.await;
                });
            }
        });
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// Where people see it.
    pub fn web_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where its API is.
    pub fn api_url(&self) -> String {
        format!("http://{}/api/v3", self.address)
    }

    /// The manifest that the App was made of.
    pub fn manifest(&self) -> Option<Value> {
        self.shared.known().manifest.clone()
    }

    /// From now on whoever signs in is this in the organization.
    pub fn role(&self, role: &str) {
        self.shared.known().role = role.to_owned();
    }

    /// From now on tokens end after so long.
    pub fn lasts(&self, lasts: Duration) {
        self.shared.known().lasts = lasts;
    }

    /// Tokens that it gave, in their order.
    pub fn given(&self) -> Vec<Given> {
        self.shared.known().given.clone()
    }

    /// Every token that it gave has ended.
    pub fn end_tokens(&self) {
        let mut known = self.shared.known();
        known
            .given
            .iter_mut()
            .for_each(|it| it.ends = SystemTime::UNIX_EPOCH);
    }

    /// Statuses that it took: the path of each, and what it says.
    pub fn statuses(&self) -> Vec<(String, Value)> {
        self.shared.known().statuses.clone()
    }

    /// What it refused, and why.
    pub fn refused(&self) -> Vec<String> {
        self.shared.known().refused.clone()
    }

    /// Tokens of people that are still good.
    pub fn people(&self) -> usize {
        self.shared.known().people.len()
    }

    /// What deliveries are signed with.
    pub fn hook_secret(&self) -> String {
        self.shared.known().hook_secret.clone()
    }

    /// A code of the person who signs in, as a redirect has it.
    pub fn sign_in(&self) -> String {
        self.shared.known().code("person")
    }
}

impl Known {
    fn code(&mut self, of: &str) -> String {
        self.counted += 1;
        let code = format!("code{:08}", self.counted);
        self.codes.insert(code.clone(), of.to_owned());
        code
    }
}

impl Drop for GitHub {
    fn drop(&mut self) {
        self.server.abort();
    }
}
