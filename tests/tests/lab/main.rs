//! Several servers on hosts of a lab: real processes, real partitions, full disks, moved clocks.
//! Needs root, `SKEP_BIN`, iproute2, iptables and libfaketime; fails, and is never skipped, where
//! something is missing. `SKEP_CHAOS=full` does the full number of faults.

mod apps;
mod asleep;
mod autoscale;
mod building;
mod certified;
mod chaos;
mod compose;
mod connections;
mod death;
mod exclusive;
mod gitpush;
mod group;
mod growth;
mod history;
mod host_death;
mod images;
mod lease;
mod mesh;
mod network;
mod pipeline;
mod places;
mod private;
mod rebalance;
mod samples;
mod shells;
mod sites;
mod troubles;
mod versions;
