//! What runs in guests: a process for each that runs and was told how to join, as a template's service would start it. It
//! ends with its guest, and with the guest's host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::disks::{PID, folder_of};
use crate::guest::{Guest, Owner};
use crate::{Line, World};

/// Between two looks at the world, which tells nobody when something in it changes.
const LOOK: Duration = Duration::from_millis(100);
/// Before what has ended by itself is started again, as systemd would.
const AGAIN: Duration = Duration::from_secs(2);

/// What is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Arguments before those that say which machine it is.
    pub arguments: Vec<String>,
    /// A folder; each guest gets one in it.
    pub folder: PathBuf,
}

/// One guest's.
struct Running {
    child: Child,
    since: Instant,
    told: String,
    boots: u32,
}

/// The file in a guest's folder that says how large it is, for a program that looks.
const SIZE: &str = "size.json";

/// All of them.
pub struct Agents {
    line: Line,
    program: Program,
    /// By what proves a guest: numbers are used again.
    running: BTreeMap<String, Running>,
}

impl Agents {
    /// None yet.
    pub fn new(line: Line, program: Program) -> Self {
        Self {
            line,
            program,
            running: BTreeMap::new(),
        }
    }

    /// Starts and ends what has to be, for good.
    ///
    /// # Errors
    /// The program cannot be started.
    pub async fn keep(mut self) -> Result<()> {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let meant = self.line.with(|world| meant(world));
            self.end_others(&meant).await;
            for (mac, guest) in meant {
                self.ensure(mac, &guest)?;
            }
        }
    }

    /// Without power nothing says goodbye.
    async fn end_others(&mut self, meant: &BTreeMap<String, Guest>) {
        let goes_on = |mac: &String, running: &Running| {
            let guest = meant.get(mac);
            // Between two looks a guest may have stopped and started.
            guest.is_some_and(|guest| guest.boots == running.boots)
        };
        let others: Vec<String> = self
            .running
            .iter()
            .filter(|(mac, running)| !goes_on(mac, running))
            .map(|(mac, _)| mac.clone())
            .collect();
        for mac in others {
            if let Some(mut running) = self.running.remove(&mac) {
                // It may have ended by itself.
                let _ = running.child.kill().await;
                let _ = std::fs::remove_file(folder_of(&self.program.folder, &mac).join(PID));
            }
        }
    }

    fn ensure(&mut self, mac: String, guest: &Guest) -> Result<()> {
        let told = guest.told.clone().unwrap_or_default();
        let folder = folder_of(&self.program.folder, &mac);
        std::fs::create_dir_all(&folder)?;
        tell_size(&folder, guest)?;
        if let Some(running) = self.running.get_mut(&mac) {
            let has_ended = running.child.try_wait()?.is_some();
            let is_news = running.told != told;
            if !has_ended || (running.since.elapsed() < AGAIN && !is_news) {
                return Ok(());
            }
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))?;
        let mut command = Command::new(&self.program.path);
        command
            .args(&self.program.arguments)
            .arg("--mac")
            .arg(&mac)
            .arg("--data")
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        if let Some(uuid) = guest.smbios() {
            command.arg("--uuid").arg(uuid);
        }
        // As a service's `EnvironmentFile`: a secret is no argument.
        command.envs(told.lines().filter_map(|line| line.split_once('=')));
        let child = command.spawn();
        let child = child.with_context(|| format!("{}", self.program.path.display()))?;
        let pid = child.id().map(|pid| pid.to_string()).unwrap_or_default();
        std::fs::write(folder.join(PID), pid)?;
        let since = Instant::now();
        let running = Running {
            child,
            since,
            told,
            boots: guest.boots,
        };
        self.running.insert(mac, running);
        Ok(())
    }
}

/// As its system would see it: cores, and memory in MiB.
fn tell_size(folder: &Path, guest: &Guest) -> Result<()> {
    let number = |name: &str| guest.config.get(name)?.parse::<u64>().ok();
    let cores = number("vcpus").or(number("cores"));
    let said = json!({"cores": cores, "memory_mib": number("memory")}).to_string();
    let file = folder.join(SIZE);
    if std::fs::read_to_string(&file).is_ok_and(|known| known == said) {
        return Ok(());
    }
    let beside = folder.join("size.new");
    std::fs::write(&beside, said)?;
    Ok(std::fs::rename(beside, file)?)
}

/// Guests that their agents run in.
fn meant(world: &World) -> BTreeMap<String, Guest> {
    let all = world.guests.values();
    let its = all.filter(|guest| {
        let is_told = guest.told.as_deref().unwrap_or_default().contains("SKEP_");
        let is_ours = matches!(guest.owner, Owner::Ours(_));
        is_ours && is_told && guest.is_running && world.hosts.get(&guest.host) == Some(&true)
    });
    its.filter_map(|guest| Some((guest.mac()?, guest.clone())))
        .collect()
}
