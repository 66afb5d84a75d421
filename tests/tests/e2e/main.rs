//! End-to-end: the real `skep` binary on real Docker, as users and forges use it. Needs `SKEP_BIN`
//! and `SKEP_TEST_APP`, which `make test` sets; fails, and is never skipped, where something is
//! missing. `SKEP_CHAOS=full` does the full number of faults.

mod around;
mod autoscale;
mod backup;
mod builders;
mod builds;
mod certificates;
mod clock;
mod confine;
mod crash;
mod daemon;
mod dev;
mod disk;
mod faults;
mod flood;
mod git;
mod guards;
mod history;
mod hooks;
mod identity;
mod images;
mod jobs;
mod logs;
mod node;
mod ports;
mod ready;
mod restart;
mod rolling;
mod rollouts;
mod routes;
mod samples;
mod shells;
mod sockets;
mod split;
mod steps;
mod surface;
mod tcp;
mod traefik;
mod traefik_file;
mod traefik_rolling;
mod traefik_specs;
mod up;
mod variables;
mod volumes;
mod zones;
