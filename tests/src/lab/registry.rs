//! A registry on a host of a lab: Debian's `docker-registry`. Images that it has can be pulled by every
//! node; those that were built on a node alone stay there.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::net::TcpStream;

use super::Host;
use crate::pki::Pki;
use crate::process::Process;
use crate::{http, wait};

const PORT: u16 = 5000;
const START: Duration = Duration::from_secs(30);

/// Who may log in at a closed one.
pub const USER: &str = "lab-user";
/// With this.
pub const PASSWORD: &str = "lab-password";
/// Both, as the registry wants them: bcrypt at its lowest cost.
const HTPASSWD: &str = "lab-user:$2y$04$evHUv.BG/dTnVO2RrWPhbuyLTACYI8mFAMXM3myscuMehyYW47N8u\n";

/// A running registry; ends with its process.
pub struct Registry {
    address: SocketAddr,
    process: Process,
}

impl Registry {
    /// Starts one on a host.
    ///
    /// # Errors
    /// It does not start; tells what it said.
    pub async fn start(host: &Host) -> Result<Self> {
        let registry = Self::start_with(host, "", "").await?;
        registry.answers(200).await?;
        Ok(registry)
    }

    /// The same under TLS, without which Docker asks no registry that it was not told to trust blindly.
    ///
    /// # Errors
    /// It does not start; tells what it said.
    pub async fn start_tls(host: &Host) -> Result<Self> {
        let dir = host.path("registry-pki");
        std::fs::create_dir_all(&dir)?;
        let pki = Pki::make(&dir, host.address().into())?;
        let tls = format!(
            ", tls: {{ certificate: \"{}\", key: \"{}\" }}",
            pki.certificate.display(),
            pki.key.display()
        );
        let registry = Self::start_with(host, &tls, "").await?;
        wait::until_ok("the registry to listen", START, async || {
            Ok(TcpStream::connect(registry.address).await.map(drop)?)
        })
        .await?;
        Ok(registry)
    }

    /// The same, for whoever logs in as `USER` with `PASSWORD` alone.
    ///
    /// # Errors
    /// It does not start; tells what it said.
    pub async fn start_closed(host: &Host) -> Result<Self> {
        let file = host.path("htpasswd");
        std::fs::write(&file, HTPASSWD)?;
        let auth = format!(
            "auth: {{ htpasswd: {{ realm: lab, path: \"{}\" }} }}\n",
            file.display()
        );
        let registry = Self::start_with(host, "", &auth).await?;
        registry.answers(401).await?;
        Ok(registry)
    }

    async fn start_with(host: &Host, tls: &str, auth: &str) -> Result<Self> {
        let address = SocketAddr::from((host.address(), PORT));
        let (config, data) = (host.path("registry.yml"), host.path("registry"));
        let text = format!(
            "version: 0.1\nlog: {{ level: warn }}\nstorage: {{ filesystem: {{ rootdirectory: \"{}\" }} }}\nhttp: {{ addr: \"{address}\"{tls} }}\n{auth}",
            data.display()
        );
        std::fs::write(&config, text)?;
        let process = host
            .process("registry", Path::new("docker-registry"))
            .args(["serve".into(), config.into_os_string()]);
        process.start().await?;
        Ok(Self { address, process })
    }

    async fn answers(&self, status: u16) -> Result<()> {
        wait::until_ok("the registry to answer", START, async || {
            let answer = http::get(self.address, &self.address.to_string(), "/v2/").await?;
            ensure!(answer.status == status, "{}", answer.text());
            Ok(())
        })
        .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What an image is called there.
    pub fn reference(&self, name: &str, tag: &str) -> String {
        format!("{}/{name}:{tag}", self.address)
    }

    /// What it said.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(&self) -> Result<()> {
        self.process.kill().await
    }
}
