//! What names a guest.

use std::fmt;

use crate::error::Error;

/// The number of a guest, VM or container: 100 to 999,999,999, one number space in a whole Proxmox cluster. Numbers are used
/// again at once when a guest is gone: a number alone never proves which guest it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vmid(u32);

/// What a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuestKind {
    /// A virtual machine.
    Qemu,
    /// A container.
    Lxc,
}

/// Where a guest is asked for: its host now (guests move), and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At<'a> {
    /// The Proxmox host, by the name that the cluster knows it by.
    pub host: &'a str,
    /// What it is.
    pub kind: GuestKind,
    /// Which.
    pub vmid: Vmid,
}

impl Vmid {
    /// The lowest that Proxmox takes.
    pub const MIN: u32 = 100;
    /// The highest.
    pub const MAX: u32 = 999_999_999;

    /// # Errors
    /// It is out of Proxmox's range.
    pub fn new(number: u32) -> Result<Self, Error> {
        match (Self::MIN..=Self::MAX).contains(&number) {
            true => Ok(Self(number)),
            false => Err(Error::invalid(format!(
                "{number} is no guest's number: {} to {}",
                Self::MIN,
                Self::MAX
            ))),
        }
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vmid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl GuestKind {
    /// As paths and lists call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }
}
