//! `[container]` and `[hooks]`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Size, millis, set};
use crate::container::{Container, Ulimit};
use crate::hooks::{Hooks, Init, PreStop};

/// `[container]`. A list or table replaces all that was said of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ContainerTable {
    /// Another user than the image's.
    pub user: Option<String>,
    /// The root filesystem cannot be written to.
    pub read_only: Option<bool>,
    /// Capabilities beside those that every container has.
    pub cap_add: Option<BTreeSet<String>>,
    /// Capabilities that it does not have.
    pub cap_drop: Option<BTreeSet<String>>,
    /// Most processes and threads.
    pub pids: Option<u32>,
    /// Swap beyond the memory limit.
    pub swap: Option<Size>,
    /// Limits of each process.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, crate::schema::Amount>>))]
    pub ulimits: Option<BTreeMap<String, Ulimit>>,
    /// Folders in memory, with their sizes.
    pub tmpfs: Option<BTreeMap<String, Size>>,
    /// Size of `/dev/shm`.
    pub shm: Option<Size>,
    /// Kernel settings of its own namespaces.
    pub sysctls: Option<BTreeMap<String, String>>,
    /// A small init runs as its first process.
    pub init: Option<bool>,
    /// What asks it to end.
    pub stop_signal: Option<String>,
}

impl ContainerTable {
    pub(super) fn apply(&self, to: &mut Container) {
        let bytes = |size: Size| size.as_u64();
        to.user = self.user.clone().or(to.user.take());
        set(&mut to.read_only, self.read_only);
        set(&mut to.cap_add, self.cap_add.clone());
        set(&mut to.cap_drop, self.cap_drop.clone());
        set(&mut to.pids, self.pids);
        set(&mut to.swap_bytes, self.swap.map(bytes));
        set(&mut to.ulimits, self.ulimits.clone());
        let sized = |(path, size): (&String, &Size)| (path.clone(), bytes(*size));
        let tmpfs = self.tmpfs.as_ref();
        set(
            &mut to.tmpfs,
            tmpfs.map(|all| all.iter().map(sized).collect()),
        );
        set(&mut to.shm_bytes, self.shm.map(bytes));
        set(&mut to.sysctls, self.sysctls.clone());
        set(&mut to.init, self.init);
        to.stop_signal = self.stop_signal.clone().or(to.stop_signal.take());
    }
}

/// `[hooks]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HooksTable {
    /// Runs once for each new release, before it takes over.
    pub release: Option<Vec<String>>,
    /// When that is given up.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub release_timeout: Option<Duration>,
    /// Run before each container: replaces all that were said.
    pub init: Option<Vec<InitTable>>,
    /// Asked of each container before its stop signal.
    pub pre_stop: Option<PreStop>,
}

/// One of `[[hooks.init]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InitTable {
    /// What runs.
    pub command: Vec<String>,
    /// When it is given up.
    #[serde(with = "humantime_serde", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub timeout: Option<Duration>,
}

impl HooksTable {
    pub(super) fn apply(&self, to: &mut Hooks) {
        set(&mut to.release, self.release.clone());
        set(&mut to.release_timeout_ms, self.release_timeout.map(millis));
        let init = self.init.as_ref().map(|all| {
            let read = |init: &InitTable| Init {
                command: init.command.clone(),
                timeout_ms: init.timeout.map_or(Init::DEFAULT_TIMEOUT_MS, millis),
            };
            all.iter().map(read).collect()
        });
        set(&mut to.init, init);
        to.pre_stop = self.pre_stop.clone().or(to.pre_stop.take());
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::Manifest;
    use crate::spec::ServiceSpec;

    #[test]
    fn limits_and_hooks_are_read_in_the_units_that_people_write() {
        let text = r#"
            [container]
            user = "1000:1000"
            read_only = true
            cap_add = ["NET_RAW"]
            cap_drop = ["ALL"]
            pids = 200
            shm = "128MiB"
            ulimits = { nofile = 65536, core = "0:0" }
            stop_signal = "SIGQUIT"
            [container.tmpfs]
            "/tmp" = "64MiB"
            [container.sysctls]
            "net.core.somaxconn" = "4096"
            [hooks]
            release = ["/app", "migrate"]
            release_timeout = "5m"
            pre_stop = { exec = ["/app", "drain"] }
            [[hooks.init]]
            command = ["/app", "wait-for-db"]
            timeout = "30s"
            [health]
            check = { grpc = "shop.v1.Orders" }
            [health.startup]
            check = { log = "ready" }
            [health.liveness]
            check = { exec = ["/app", "alive"] }
            interval = "5s"
            failures = 2
        "#;
        let manifest = Manifest::parse(text).expect("accepted");
        let spec = manifest.apply(&ServiceSpec::default()).expect("units");
        let it = &spec.container;
        assert_eq!(
            (it.pids, it.shm_bytes, it.tmpfs["/tmp"]),
            (200, 128 << 20, 64 << 20)
        );
        assert_eq!((it.ulimits["nofile"].hard, it.read_only), (65_536, true));
        assert_eq!(it.capabilities(), ["NET_RAW"].into());
        assert_eq!(spec.hooks.release_timeout_ms, 300_000);
        assert_eq!(spec.hooks.init[0].timeout_ms, 30_000);
        let liveness = spec.health.liveness.as_ref().expect("said");
        assert_eq!((liveness.interval_ms, liveness.failures), (5_000, 2));
        // A file that says nothing of it leaves it as it is on the service.
        let silent = Manifest::parse("replicas = 2").expect("accepted");
        let again = silent.apply(&spec).expect("units");
        assert_eq!(
            (again.container, again.hooks, again.health),
            (spec.container, spec.hooks, spec.health)
        );
    }
}
