//! The size of one guest, and a guest that gets another one than the recipe of its pool.

use serde::{Deserialize, Serialize};

use crate::node::Admin;
use crate::problem::Problem;

/// Most processors of a guest: as many as Proxmox lets a container or a socket of a VM have.
const MAX_CORES: u32 = 8_192;
/// The least memory of a guest, MiB: with less no system with Docker starts.
const MIN_MEMORY_MIB: u32 = 256;
/// The most, MiB: 4 TiB, which is the most that Proxmox plugs into a VM that runs.
const MAX_MEMORY_MIB: u32 = 4 << 20;
/// The largest disk, GiB: Proxmox' own limit.
const MAX_DISK_GIB: u32 = 128 << 10;

/// How large a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GuestSize {
    /// Processors.
    pub cores: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// The disk of its system, GiB.
    pub disk_gib: u32,
}

/// A guest that becomes larger or smaller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resizing {
    /// When that was asked for, ms since 1970.
    pub asked_ms: u64,
    /// What it was before.
    pub from: GuestSize,
    /// It has to be down for it: its node is drained, then it is shut down, changed and started.
    pub stops: bool,
    /// What is on its node and can be nowhere else may be stopped for that.
    pub may_interrupt: bool,
    /// How long its node may take to become empty, ms: what is left then is stopped.
    pub drain_ms: u64,
    /// What was done to its node so that nothing new comes; none: nothing, or somebody else has done it.
    pub held: Option<Held>,
    /// It was shut down for it, and what its node was like then; none: not yet.
    pub down: Option<Down>,
    /// When it had its size, and ran, ms since 1970: what is left is its agent, and its node. None: not yet.
    pub done_ms: Option<u64>,
}

/// A node that takes nothing new while its guest is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Somebody had cordoned it before: so it is again afterwards.
    pub was_cordoned: bool,
    /// It is drained, until then, ms since 1970; none: it is cordoned, and what is there stays.
    pub deadline_ms: Option<u64>,
}

/// A node as it was when its guest was shut down: one that differs has its agent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Down {
    /// The seat of its agent's life; 0: an older agent, which has none.
    pub seat: u128,
    /// CPU that its agent said, thousandths of a core.
    pub cpu_millis: u32,
    /// Memory that its agent said, bytes.
    pub memory_bytes: u64,
}

impl Held {
    /// What is wanted of the node meanwhile.
    pub const fn admin(self) -> Admin {
        match self.deadline_ms {
            Some(deadline_ms) => Admin::Draining { deadline_ms },
            None => Admin::Cordoned,
        }
    }

    /// What it is given back to.
    pub const fn before(self) -> Admin {
        match self.was_cordoned {
            true => Admin::Cordoned,
            false => Admin::Eligible,
        }
    }
}

impl Resizing {
    /// Whether nothing may be let onto its node: it is to be shut down, or is.
    pub const fn keeps_empty(&self) -> bool {
        self.stops && self.done_ms.is_none()
    }
}

impl GuestSize {
    /// Refuses what no guest can have.
    ///
    /// # Errors
    /// Names the field, and says what is accepted.
    pub fn check(&self) -> Result<(), Problem> {
        for (field, amount, unit, least, most) in [
            ("cores", self.cores, "cores", 1, MAX_CORES),
            (
                "memory_mib",
                self.memory_mib,
                "MiB",
                MIN_MEMORY_MIB,
                MAX_MEMORY_MIB,
            ),
            ("disk_gib", self.disk_gib, "GiB", 1, MAX_DISK_GIB),
        ] {
            if !(least..=most).contains(&amount) {
                let text = format!("a guest cannot have {amount} {unit}");
                return Err(Problem::invalid(field, text).hint(format!("{least} to {most}")));
            }
        }
        Ok(())
    }

    /// Refuses what a guest of this size cannot become: disks only grow.
    ///
    /// # Errors
    /// Names the field, and says what is accepted.
    pub fn check_next(&self, next: &Self) -> Result<(), Problem> {
        next.check()?;
        if next.disk_gib < self.disk_gib {
            let text = format!(
                "its disk has {} GiB, and a disk never becomes smaller",
                self.disk_gib
            );
            return Err(Problem::invalid("disk_gib", text).hint(format!(
                "{} or more; `skep node replace` makes another node with the disk of its pool's recipe",
                self.disk_gib
            )));
        }
        Ok(())
    }
}

impl std::fmt::Display for GuestSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} cores, {} MiB, {} GiB",
            self.cores, self.memory_mib, self.disk_gib
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_one_that_a_guest_can_have_and_its_disk_only_grows() {
        let now = GuestSize {
            cores: 4,
            memory_mib: 8_192,
            disk_gib: 32,
        };
        now.check_next(&now).expect("the same");
        now.check_next(&GuestSize { cores: 1, ..now })
            .expect("fine");
        type Change = fn(&mut GuestSize);
        let cases: [(&str, Change); 6] = [
            ("cores", |it| it.cores = 0),
            ("cores", |it| it.cores = MAX_CORES + 1),
            ("memory_mib", |it| it.memory_mib = MIN_MEMORY_MIB - 1),
            ("memory_mib", |it| it.memory_mib = MAX_MEMORY_MIB + 1),
            ("disk_gib", |it| it.disk_gib = 31),
            ("disk_gib", |it| it.disk_gib = MAX_DISK_GIB + 1),
        ];
        for (field, change) in cases {
            let mut next = now;
            change(&mut next);
            let problem = now.check_next(&next).expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field));
        }
    }
}
