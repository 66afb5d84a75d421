//! Where a run finds its tools and keeps its files: the binary under test, the test app, ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};

/// Below the range from which the kernel takes ports for outgoing connections: a part that was
/// killed must get its own port back.
const FIRST_PORT: u32 = 20_000;
const PORTS: u32 = 12_000;
/// Ports that one process of tests takes in a row before the next begins.
const PORTS_OF_PROCESS: u32 = 61;

/// The `skep` binary: `SKEP_BIN`.
///
/// # Errors
/// Not set, or no such file.
pub fn skep_binary() -> Result<PathBuf> {
    file("SKEP_BIN", "make test sets it; by hand: target/debug/skep")
}

/// The `skep` that stands for the next version: `SKEP_NEXT_BIN`.
///
/// # Errors
/// Not set, or no such file.
pub fn next_binary() -> Result<PathBuf> {
    file(
        "SKEP_NEXT_BIN",
        "make test sets it; by hand: make skep-next",
    )
}

/// The static binary of the test app: `SKEP_TEST_APP`.
///
/// # Errors
/// Not set, or no such file.
pub fn test_app() -> Result<PathBuf> {
    file("SKEP_TEST_APP", "make test sets it; by hand: make test-app")
}

/// The program `nixpacks`: `SKEP_AGENT_NIXPACKS`, which agents are told too.
///
/// # Errors
/// Not set, or no such file.
pub fn nixpacks() -> Result<PathBuf> {
    file(
        "SKEP_AGENT_NIXPACKS",
        "make test sets it; by hand: cargo install nixpacks",
    )
}

fn file(variable: &str, hint: &str) -> Result<PathBuf> {
    let Some(path) = std::env::var_os(variable).map(PathBuf::from) else {
        bail!("{variable} is not set ({hint})");
    };
    let path = std::path::absolute(&path)?;
    if !path.is_file() {
        bail!("{variable}={} is no file ({hint})", path.display());
    }
    Ok(path)
}

/// The folder that the build writes to: `CARGO_TARGET_DIR`, else `target` of the workspace.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The workspace.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// A file of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

/// A loopback address that nothing listens on and that no outgoing connection takes meanwhile.
///
/// # Errors
/// All ports are taken.
pub fn free_address() -> Result<SocketAddr> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORTS {
        let step = TAKEN.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id()
            .wrapping_mul(PORTS_OF_PROCESS)
            .wrapping_add(step)
            % PORTS;
        let port = u16::try_from(FIRST_PORT + offset).context("ports end at 32,000")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port from {FIRST_PORT} on")
}
