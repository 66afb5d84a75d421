//! Pebble, the certificate authority that Let's Encrypt made for tests (Debian's `pebble`), with the resolver that comes
//! with it: every host leads to this machine. It refuses good nonces now and then, and looks at proofs for real.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::http::Request;
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::Full;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pki::Pki;
use crate::process::Process;
use crate::{http, place, tls, wait};

/// From start to answering.
const START: Duration = Duration::from_secs(30);
/// A handshake.
const SHAKE: Duration = Duration::from_secs(30);
/// Of each hundred good nonces so many are refused: clients have to try again, and give up after three.
const BAD_NONCES: &str = "5";

/// What an authority does besides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ways {
    /// How long its certificates live, in seconds; none: for years.
    pub life_s: Option<u32>,
    /// The one account that others must be bound to: its key's name and the key, base64url.
    pub binding: Option<(&'static str, &'static str)>,
    /// Which DNS server it asks; none: its own, which leads every host to this machine.
    pub resolver: Option<SocketAddr>,
    /// Where it answers; none: on loopback.
    pub at: Option<Ipv4Addr>,
}

/// A running authority.
pub struct Pebble {
    authority: Process,
    resolver: Process,
    /// URL of its directory.
    pub directory: String,
    /// Proves who answers there.
    pub root: PathBuf,
    management: SocketAddr,
    resolver_management: SocketAddr,
    trusted: String,
}

impl Pebble {
    /// Starts one that looks at proofs on these ports; its files go to `dir`.
    ///
    /// # Errors
    /// It cannot be run or does not start.
    pub async fn start(dir: &Path, ports: (u16, u16), ways: Ways) -> Result<Self> {
        let (http_port, tls_port) = ports;
        std::fs::create_dir_all(dir)?;
        let at = IpAddr::V4(ways.at.unwrap_or(Ipv4Addr::LOCALHOST));
        let pki = Pki::make(dir, at)?;
        let [mut address, mut management, dns, resolver_management] = [
            place::free_address()?,
            place::free_address()?,
            place::free_address()?,
            place::free_address()?,
        ];
        address.set_ip(at);
        management.set_ip(at);
        let mut config = json!({ "pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": pki.certificate,
            "privateKey": pki.key,
            "httpPort": http_port,
            "tlsPort": tls_port,
        }});
        if let Some(life_s) = ways.life_s {
            config["pebble"]["certificateValidityPeriod"] = json!(life_s);
        }
        if let Some((id, key)) = ways.binding {
            config["pebble"]["externalAccountBindingRequired"] = json!(true);
            config["pebble"]["externalAccountMACKeys"] = json!({ id: key });
        }
        let file = dir.join("pebble.json");
        std::fs::write(&file, config.to_string())?;
        let resolver = Process::new(
            "pebble-challtestsrv",
            Path::new("/usr/bin/pebble-challtestsrv"),
            dir.join("resolver.log"),
        );
        let resolver = resolver.args([
            "-defaultIPv4".to_owned(),
            "127.0.0.1".to_owned(),
            "-defaultIPv6=".to_owned(),
            format!("-dns01={dns}"),
            "-http01=".to_owned(),
            "-https01=".to_owned(),
            "-tlsalpn01=".to_owned(),
            format!("-management={resolver_management}"),
        ]);
        let authority = Process::new(
            "pebble",
            Path::new("/usr/bin/pebble"),
            dir.join("pebble.log"),
        );
        let authority = authority
            .args([
                "-config".to_owned(),
                file.display().to_string(),
                format!("-dnsserver={}", ways.resolver.unwrap_or(dns)),
            ])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", BAD_NONCES);
        resolver.start().await?;
        authority.start().await?;
        let mut pebble = Self {
            authority,
            resolver,
            directory: format!("https://{address}/dir"),
            trusted: std::fs::read_to_string(&pki.ca)?,
            root: pki.ca,
            management,
            resolver_management,
        };
        let issues_under = wait::until_ok("Pebble", START, async || pebble.issues_under().await);
        pebble.trusted = issues_under.await.with_context(|| pebble.authority.log())?;
        Ok(pebble)
    }

    /// The root of what it issues: another one in each of its lives.
    async fn issues_under(&self) -> Result<String> {
        let config = tls::client(&self.trusted, None, b"http/1.1")?;
        let request = Request::get("/roots/0")
            .header("host", "localhost")
            .body(Full::default())?;
        let answer = http::send_over(self.management, Some(config), request).await?;
        if answer.status != 200 {
            bail!("/roots/0 answers {}", answer.status);
        }
        Ok(answer.text())
    }

    /// Where it finds `host` from now on.
    ///
    /// # Errors
    /// Its resolver does not answer.
    pub async fn resolve(&self, host: &str, address: Ipv4Addr) -> Result<()> {
        let set = json!({ "host": host, "addresses": [address.to_string()] });
        // Addresses are added to those that it has.
        for (path, body) in [("/clear-a", json!({ "host": host })), ("/add-a", set)] {
            let body = Bytes::from(body.to_string());
            let answer = http::post(self.resolver_management, "localhost", path, body).await?;
            if answer.status != 200 {
                bail!("the resolver answers {} at {path}", answer.status);
            }
        }
        Ok(())
    }

    /// Shakes hands at `address` as a browser that trusts this authority alone; tells the certificate's digits.
    ///
    /// # Errors
    /// No certificate for `host` of this authority is shown there.
    pub async fn trusts(&self, address: SocketAddr, host: &str) -> Result<Vec<u8>> {
        trusts(&self.trusted, address, host).await
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.authority.log()
    }

    /// Ends both.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn stop(&self) -> Result<()> {
        self.authority.kill().await?;
        self.resolver.kill().await
    }
}

/// Shakes hands at `address` as a browser that trusts these roots alone; tells the certificate's digits.
///
/// # Errors
/// No certificate for `host` under one of them is shown there.
pub async fn trusts(roots_pem: &str, address: SocketAddr, host: &str) -> Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())?;
    let shaken = async {
        let stream = TcpStream::connect(address).await?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let leaf = shown.and_then(<[_]>::first).context("a certificate")?;
        Ok(leaf.to_vec())
    };
    tokio::time::timeout(SHAKE, shaken).await?
}
