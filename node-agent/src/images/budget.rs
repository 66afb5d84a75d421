//! How much of the disk images may take, and how much of it stays free. Pure but for asking the disk.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Most of the disk that may be said.
const PERCENT_MAX: u64 = 90;
/// Free space below which images go before their budget says so, as a share of the disk.
const FREE_PERCENT: u64 = 10;
/// And as bytes: a large disk is not full because a tenth of it is left.
const FREE_MAX_BYTES: u64 = 10 << 30;

/// What `--image-budget` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the disk.
    Percent(u64),
}

impl Default for Budget {
    fn default() -> Self {
        Self::Percent(10)
    }
}

impl Budget {
    /// In bytes, on a disk of this size. A disk of unknown size (0) gets what a small one would.
    pub(crate) fn bytes(self, disk_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(_) if disk_bytes == 0 => 2 << 30,
            Self::Percent(percent) => disk_bytes / 100 * percent,
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "`{text}` is not a budget: bytes such as `10GiB`, or a share of the disk such as `10%`"
            )
        };
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().map_err(|_| refused())?;
            return match percent {
                1..=PERCENT_MAX => Ok(Self::Percent(percent)),
                _ => Err(format!("1% to {PERCENT_MAX}% are accepted")),
            };
        }
        let size: bytesize::ByteSize = text.parse().map_err(|_| refused())?;
        match size.as_u64() {
            0 => Err(refused()),
            bytes => Ok(Self::Bytes(bytes)),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{}", bytesize::ByteSize(*bytes)),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The filesystem under a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Its size in bytes; 0: not known.
    pub(crate) total_bytes: u64,
    /// What of it is free, in bytes.
    pub(crate) free_bytes: u64,
}

impl Disk {
    /// Of the filesystem that holds `path`. Blocks on the disk.
    pub(crate) fn of(path: &Path) -> Self {
        // Of whatever kind it is: lists of disks leave out what lies in memory.
        let Ok(about) = rustix::fs::statvfs(path) else {
            return Self::default();
        };
        Self {
            total_bytes: about.f_blocks * about.f_frsize,
            free_bytes: about.f_bavail * about.f_frsize,
        }
    }

    /// Bytes that must be freed for the disk not to fill up; `incoming_bytes` are about to be written.
    pub(crate) fn lacks(self, incoming_bytes: u64) -> u64 {
        if self.total_bytes == 0 {
            return 0;
        }
        let reserve = (self.total_bytes / 100 * FREE_PERCENT).min(FREE_MAX_BYTES);
        (reserve + incoming_bytes).saturating_sub(self.free_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_bytes_or_a_share() {
        assert_eq!("10GiB".parse(), Ok(Budget::Bytes(10 << 30)));
        assert_eq!("25%".parse(), Ok(Budget::Percent(25)));
        for bad in ["", "0", "0%", "91%", "-1", "lots", "10 %x"] {
            assert!(bad.parse::<Budget>().is_err(), "{bad}");
        }
        assert_eq!(Budget::default().to_string(), "10%");
        assert_eq!(Budget::Percent(10).bytes(1_000), 100);
        assert!(Budget::default().bytes(0) > 0);
    }

    #[test]
    fn this_machine_has_a_disk_and_nowhere_has_none() {
        let disk = Disk::of(Path::new("/"));
        assert!(disk.total_bytes >= disk.free_bytes && disk.total_bytes > 0);
        assert_eq!(Disk::of(Path::new("/no/such/folder")), Disk::default());
    }

    #[test]
    fn a_disk_lacks_what_its_reserve_needs() {
        let disk = |free_bytes| Disk {
            total_bytes: 1_000,
            free_bytes,
        };
        let cases = [
            (500, 0, 0),
            (100, 0, 0),
            (99, 0, 1),
            (150, 100, 50),
            (0, 0, 100),
        ];
        for (free, incoming, lacks) in cases {
            assert_eq!(disk(free).lacks(incoming), lacks, "{free} {incoming}");
        }
        let large = Disk {
            total_bytes: 1 << 50,
            free_bytes: 11 << 30,
        };
        assert_eq!(large.lacks(0), 0);
        assert_eq!(
            Disk::default().lacks(9),
            0,
            "of an unknown disk nothing is said"
        );
    }
}
