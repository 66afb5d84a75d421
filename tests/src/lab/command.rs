//! Programs of the operating system (`ip`, `iptables`, `mount`) that a lab is made with.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio::time::timeout;

/// Each of them takes milliseconds; a wait for the kernel's locks may take a little longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a program to its end; answers what it printed.
///
/// # Errors
/// It cannot be run, hangs or fails; tells what it said.
pub async fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let shown = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, output).await;
    let output = output.with_context(|| format!("`{shown}` hangs"))?;
    let output = output.with_context(|| format!("{program} cannot be run"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}`: {}", said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same, blocking and without a word: for what is cleaned up while a test ends.
pub(super) fn run_at_end(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}
