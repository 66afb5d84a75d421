//! Copies of whole guests: when they are made, where they go, and how many of each guest are kept.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::schedule::{Schedule, UTC};

/// Most copies of a guest that are kept.
pub const MAX_KEPT: u32 = 1_000;
/// Longest name of a storage or of an archive, in bytes.
pub const MAX_ARCHIVE: usize = 500;

/// When guests of a pool are copied, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = GuestBackups))]
#[serde(deny_unknown_fields)]
pub struct Backups {
    /// When: five fields as of a cron service, or `@weekly` and the like.
    pub schedule: String,
    /// In this time zone, a name of the IANA list.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// The Proxmox storage that the copies are on.
    pub storage: String,
    /// How many copies of a guest are kept; older ones are removed once there is a newer one.
    pub keep: u32,
    /// From when on there are to be copies, ms since 1970: when this was said. The cluster writes it.
    #[serde(default)]
    pub since_ms: u64,
}

fn utc() -> String {
    UTC.to_owned()
}

/// A guest that becomes what a copy of it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// The name of the copy: `backups:backup/vzdump-qemu-5001-2026_11_29-03_00_00.vma.zst`.
    pub archive: String,
    /// When that was asked for, ms since 1970: what was restored before is not it.
    pub asked_ms: u64,
    /// Its disks are the copy's: what is left is to start it. Until it runs another copy may be named in this one's place.
    pub is_back: bool,
}

impl Restoring {
    /// One that is asked for at `now_ms` since 1970, or that takes the place of a first one. Providers count in seconds: of a
    /// second one, no second counts in which something may have been done for the first.
    pub fn asked(archive: String, first: Option<&Self>, now_ms: u64) -> Self {
        let asked_ms = match first {
            None => now_ms,
            Some(first) => (now_ms.max(first.asked_ms) / 1_000 + 1) * 1_000,
        };
        Self {
            archive,
            asked_ms,
            is_back: false,
        }
    }
}

impl Backups {
    /// Checks every field.
    ///
    /// # Errors
    /// Names the field, and says what is accepted.
    pub fn check(&self) -> Result<(), Problem> {
        self.schedule()?;
        if self.storage.is_empty() || self.storage.len() > MAX_ARCHIVE {
            return Err(Problem::invalid("backups.storage", "no storage is named")
                .hint("a Proxmox storage that holds backups: `pvesm status --content backup`"));
        }
        if self.keep == 0 || self.keep > MAX_KEPT {
            let text = format!("{} copies cannot be kept", self.keep);
            return Err(Problem::invalid("backups.keep", text).hint(format!("1 to {MAX_KEPT}")));
        }
        Ok(())
    }

    /// When copies are due.
    ///
    /// # Errors
    /// It is no schedule, or there is no such time zone.
    pub fn schedule(&self) -> Result<Schedule, Problem> {
        Schedule::parse(&self.schedule, &self.time_zone).map_err(|problem| {
            let field = match problem.field.as_deref() {
                Some("run.time_zone") => "backups.time_zone",
                _ => "backups.schedule",
            };
            problem.at(field)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_never_be_done_is_refused_by_its_field() {
        let good = Backups {
            schedule: "0 3 * * 0".into(),
            time_zone: UTC.into(),
            storage: "nas".into(),
            keep: 4,
            since_ms: 0,
        };
        good.check().expect("fine");
        type Change = fn(&mut Backups);
        let cases: [(&str, Change); 5] = [
            ("backups.schedule", |it| it.schedule = "weekly".into()),
            ("backups.time_zone", |it| it.time_zone = "Mars".into()),
            ("backups.storage", |it| it.storage.clear()),
            ("backups.keep", |it| it.keep = 0),
            ("backups.keep", |it| it.keep = MAX_KEPT + 1),
        ];
        for (field, change) in cases {
            let mut bad = good.clone();
            change(&mut bad);
            let problem = bad.check().expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field));
        }
    }
}
