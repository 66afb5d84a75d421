//! A lab's number: names and addresses follow from it. Held by a lock that ends with the process,
//! however that ends; who finds a number without its holder removes what was left behind.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::command::run_at_end;

const LOCKS: &str = "/run/skep-lab";
/// Labs at once on one machine. Their networks are 10.214.NUMBER.0/24, which nothing else of Skep
/// or Docker takes by itself.
const NUMBERS: u8 = 64;

/// The number, for as long as it lives.
#[derive(Debug)]
pub(super) struct Number {
    value: u8,
    _lock: File,
}

impl Number {
    /// Sweeps every number that nobody holds and takes the first.
    pub(super) fn take() -> Result<Self> {
        std::fs::create_dir_all(LOCKS).with_context(|| format!("{LOCKS} cannot be made"))?;
        let mut taken = None;
        for value in 0..NUMBERS {
            let path = Path::new(LOCKS).join(value.to_string());
            let is_known = path.exists();
            if taken.is_some() && !is_known {
                continue;
            }
            let lock = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .with_context(|| format!("{} cannot be opened", path.display()))?;
            if lock.try_lock().is_err() {
                continue;
            }
            let number = Self { value, _lock: lock };
            if is_known {
                number.sweep();
            }
            taken.get_or_insert(number);
        }
        match taken {
            Some(number) => Ok(number),
            None => bail!("{NUMBERS} labs run at once: wait for one to end"),
        }
    }

    /// Name of the namespace of a host; the switch is a host of this name, too.
    pub(super) fn namespace(&self, host: &str) -> String {
        format!("{}{host}", self.prefix())
    }

    /// The machine's own end of its cable to the switch.
    pub(super) fn uplink(&self) -> String {
        format!("skl{}", self.value)
    }

    fn prefix(&self) -> String {
        format!("skl{}-", self.value)
    }

    /// Address of a host by its place; 1 is the machine itself.
    pub(super) fn address(&self, place: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 214, self.value, place)
    }

    /// Ends what runs in the lab's namespaces and removes them. Nothing when there are none.
    pub(super) fn sweep(&self) {
        let listed = run_at_end("ip", &["netns", "list"]);
        let names = listed.lines().filter_map(|line| line.split(' ').next());
        for name in names.filter(|name| name.starts_with(&self.prefix())) {
            for pid in run_at_end("ip", &["netns", "pids", name]).split_whitespace() {
                run_at_end("sh", &["-c", &format!("kill -KILL {pid}")]);
            }
            run_at_end("ip", &["netns", "delete", name]);
        }
        run_at_end("ip", &["link", "delete", &self.uplink()]);
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.sweep();
    }
}
