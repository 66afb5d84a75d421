//! The calls, by what they are about. Each says its path, what it does and the privilege that it takes, as Proxmox's own API
//! description (9.2) does; what is new or gone between 8.4 and 9 is said there.

pub mod access;
pub mod agent;
pub mod backups;
pub mod cluster;
pub mod guests;
pub mod ha;
pub mod hosts;
pub mod lxc;
pub mod pools;
pub mod qemu;
pub mod snapshots;
pub mod storage;
pub mod tasks;

#[cfg(test)]
mod tests;
