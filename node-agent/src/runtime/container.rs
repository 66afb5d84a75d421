//! How an assignment becomes a container: its name, its labels, its limits. Pure.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HostConfig, HostConfigLogConfig, PortBinding,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum, SystemInfo,
};
use skep_model::assignment::Assignment;
use skep_model::container::Ulimit;
use skep_model::id::{AllocationId, ClusterId, NodeId, ServiceId};

use crate::network::Bridge;
use crate::plan::Grant;

/// Labels of every container that is ours.
pub(crate) const LABEL_CLUSTER: &str = "sh.skep.cluster";
/// The node whose agent made it.
pub(crate) const LABEL_NODE: &str = "sh.skep.node";
/// The service, by id.
pub(crate) const LABEL_SERVICE: &str = "sh.skep.service";
/// The service, for people.
const LABEL_SERVICE_NAME: &str = "sh.skep.service-name";
/// The release's number.
const LABEL_RELEASE: &str = "sh.skep.release";
/// The deployment that brought it.
const LABEL_DEPLOYMENT: &str = "sh.skep.deployment";
/// The allocation that it runs.
pub(crate) const LABEL_ALLOCATION: &str = "sh.skep.allocation";
/// Its number within the allocation.
pub(crate) const LABEL_ATTEMPT: &str = "sh.skep.attempt";

/// What of the node it has for itself, as JSON.
pub(crate) const LABEL_GRANT: &str = "sh.skep.grant";

/// Which of the commands before an app's own it runs.
pub(crate) const LABEL_INIT: &str = "sh.skep.init";

/// Docker's unit: shares of one core.
const SHARES_PER_CORE: i64 = 1_024;
/// The kernel's smallest.
const SHARES_MIN: i64 = 2;
/// Longest part of a service's label in a container's name.
const NAME_LABEL_MAX: usize = 40;
/// Docker's log files: with fewer a reader that is late loses half of what is kept at each turn.
const LOG_FILES: u64 = 3;
/// What a bare name is completed with.
const SEARCH: &str = "internal";
/// Containers that share a node's budget for logs.
const LOG_SHARES: u64 = 100;
/// Smallest file: turned over more often, Docker does little else.
const LOG_SIZE_MIN: u64 = 1 << 20;

/// Whose containers they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Labels {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// This node.
    pub(crate) node: NodeId,
}

impl Labels {
    /// Docker's filter for all of ours.
    pub(crate) fn filter(&self) -> Vec<String> {
        vec![
            format!("{LABEL_CLUSTER}={}", self.cluster),
            format!("{LABEL_NODE}={}", self.node),
        ]
    }

    /// Docker's filter for one allocation.
    pub(crate) fn filter_of(&self, allocation: AllocationId) -> Vec<String> {
        let mut labels = self.filter();
        labels.push(format!("{LABEL_ALLOCATION}={allocation}"));
        labels
    }

    /// Docker's filter for one service.
    pub(crate) fn filter_of_service(&self, service: ServiceId) -> Vec<String> {
        let mut labels = self.filter();
        labels.push(format!("{LABEL_SERVICE}={service}"));
        labels
    }
}

/// `skep-<service>-<allocation>-<attempt>`: unique, and readable in `docker ps`.
pub(crate) fn name(assignment: &Assignment, attempt: u32) -> String {
    let label: String = assignment
        .service_label
        .chars()
        .take(NAME_LABEL_MAX)
        .collect();
    let label = label.trim_end_matches('-');
    format!("skep-{label}-{}-{attempt}", assignment.allocation.short())
}

/// What Docker is asked to make. Publishes only the ports that were asked for: traffic from the ingress
/// comes over the bridge.
pub(crate) fn body(
    assignment: &Assignment,
    (attempt, grant): (u32, &Grant),
    labels: &Labels,
    (image, init, log_size): (&str, bool, u64),
) -> ContainerCreateBody {
    let mut env: Vec<String> = assignment
        .environment
        .iter()
        .filter(|(name, _)| name != "PORT" || assignment.port.is_none())
        .filter(|(name, _)| {
            !assignment
                .storage
                .secrets
                .iter()
                .any(|it| it.variable == *name)
        })
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    env.extend(assignment.port.map(|port| format!("PORT={port}")));
    env.extend(variables(grant));
    let grace_s = assignment.stop_grace_ms.div_ceil(1_000);
    ContainerCreateBody {
        image: Some(image.to_owned()),
        env: Some(env),
        cmd: (!assignment.command.is_empty()).then(|| assignment.command.clone()),
        labels: Some(label_map(assignment, (attempt, grant), labels)),
        exposed_ports: (!grant.ports.is_empty()).then(|| published(grant).collect()),
        // For whoever stops it by hand, and for Docker's own end.
        stop_timeout: i64::try_from(grace_s).ok(),
        stop_signal: assignment.container.stop_signal.clone(),
        user: assignment.container.user.clone(),
        host_config: Some(host_config(assignment, grant, (init, log_size))),
        ..Default::default()
    }
}

/// Puts a container on its environment's bridge, where names are asked of this node.
pub(super) fn put_on(body: &mut ContainerCreateBody, bridge: &Bridge) {
    let host = body.host_config.get_or_insert_default();
    host.network_mode = Some(bridge.network.clone());
    host.dns = Some(vec![bridge.gateway.to_string()]);
    host.dns_search = Some(vec![SEARCH.to_owned()]);
}

/// How the app learns what it was given: the ports that the agent chose, and where its devices are.
fn variables(grant: &Grant) -> Vec<String> {
    let list = |items: Vec<String>| items.join(",");
    let mut all = Vec::new();
    let chosen = grant.chosen_ports();
    if !chosen.is_empty() {
        let ports = list(chosen.iter().map(u16::to_string).collect());
        all.push(format!("SKEP_DYNAMIC_PORTS={ports}"));
    }
    for (name, paths) in &grant.devices {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = name.to_ascii_uppercase().chars().map(letter).collect();
        let paths = paths.iter().map(|path| path.display().to_string());
        all.push(format!("SKEP_DEVICE_{name}={}", list(paths.collect())));
    }
    all
}

/// Each port, for both protocols, as Docker writes it.
fn published(grant: &Grant) -> impl Iterator<Item = String> {
    let ports = grant.ports.iter();
    ports.flat_map(|port| [format!("{port}/tcp"), format!("{port}/udp")])
}

fn label_map(
    assignment: &Assignment,
    (attempt, grant): (u32, &Grant),
    labels: &Labels,
) -> HashMap<String, String> {
    let target = &assignment.target;
    let granted = (!grant.is_empty()).then(|| serde_json::to_string(grant).ok());
    let granted = granted.flatten().map(|text| (LABEL_GRANT, text));
    [
        (LABEL_CLUSTER, labels.cluster.to_string()),
        (LABEL_NODE, labels.node.to_string()),
        (LABEL_SERVICE, assignment.service.to_string()),
        (LABEL_SERVICE_NAME, assignment.service_label.clone()),
        (LABEL_RELEASE, target.release.to_string()),
        (LABEL_DEPLOYMENT, target.deployment.to_string()),
        (LABEL_ALLOCATION, assignment.allocation.to_string()),
        (LABEL_ATTEMPT, attempt.to_string()),
    ]
    .into_iter()
    .chain(granted)
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// From which size on a container's log file is turned over, in bytes, where all logs of a node may take
/// `budget`.
pub(super) fn log_size(budget: u64) -> u64 {
    (budget / LOG_SHARES / LOG_FILES).max(LOG_SIZE_MIN)
}

fn host_config(
    assignment: &Assignment,
    grant: &Grant,
    (init, log_size): (bool, u64),
) -> HostConfig {
    let resources = &assignment.resources;
    let memory = i64::try_from(resources.memory_ceiling_bytes()).unwrap_or(i64::MAX);
    let shares = i64::from(resources.cpu_millis) * SHARES_PER_CORE / 1_000;
    let limit = i64::from(resources.cpu_limit_millis);
    let here = |port: String| {
        let number = port.split('/').next().map(str::to_owned);
        let binding = PortBinding {
            host_ip: None,
            host_port: number,
        };
        (port, Some(vec![binding]))
    };
    let devices = grant.devices.values().flatten().map(|path| {
        let path = path.display().to_string();
        DeviceMapping {
            path_on_host: Some(path.clone()),
            path_in_container: Some(path),
            cgroup_permissions: Some("rwm".to_owned()),
        }
    });
    let confined = &assignment.container;
    let swap = i64::try_from(confined.swap_bytes).unwrap_or(i64::MAX);
    let ulimit = |(name, limit): (&String, &Ulimit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: i64::try_from(limit.soft).ok(),
        hard: i64::try_from(limit.hard).ok(),
    };
    let ulimits = confined.ulimits.iter().map(ulimit);
    // Whatever user it has may write to it, and only it is in the container.
    let tmpfs = confined.tmpfs.iter();
    let tmpfs = tmpfs.map(|(path, size)| (path.clone(), format!("size={size},mode=1777")));
    let sysctls = confined.sysctls.clone().into_iter();
    let kept = confined.capabilities().into_iter().map(str::to_owned);
    let log_options = [("max-size", log_size), ("max-file", LOG_FILES)];
    HostConfig {
        cpu_shares: Some(shares.max(SHARES_MIN)),
        nano_cpus: (limit > 0).then_some(limit * 1_000_000),
        memory: Some(memory),
        // Memory and swap together: with none the same.
        memory_swap: Some(memory.saturating_add(swap)),
        pids_limit: Some(i64::from(confined.pids)),
        readonly_rootfs: Some(confined.read_only),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(kept.collect()),
        ulimits: (!confined.ulimits.is_empty()).then(|| ulimits.collect()),
        tmpfs: (!confined.tmpfs.is_empty()).then(|| tmpfs.collect()),
        shm_size: i64::try_from(confined.shm_bytes)
            .ok()
            .filter(|size| *size > 0),
        sysctls: (!confined.sysctls.is_empty()).then(|| sysctls.collect()),
        port_bindings: (!grant.ports.is_empty()).then(|| published(grant).map(here).collect()),
        devices: (!grant.devices.is_empty()).then(|| devices.collect()),
        // A first process without a handler ignores SIGTERM: an init passes it on to one that
        // does not.
        init: Some(init && confined.init),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(
                log_options
                    .map(|(name, value)| (name.to_owned(), value.to_string()))
                    .into(),
            ),
        }),
        ..Default::default()
    }
}

/// Whether Docker finds its init program: without it, asking for one makes every start fail.
pub(super) fn has_init(info: &SystemInfo) -> bool {
    let Some(name) = info.init_binary.as_deref().filter(|name| !name.is_empty()) else {
        return false;
    };
    // Where dockerd looks (moby's `cli/config`), then its PATH, which is usually also ours.
    let libexec = [
        "/usr/local/libexec/docker",
        "/usr/libexec/docker",
        "/usr/lib/docker",
        "/usr/local/lib/docker",
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(Into::into));
    libexec
        .map(PathBuf::from)
        .into_iter()
        .chain(path)
        .any(|folder| folder.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assignment;

    #[test]
    fn limits_port_and_labels_arrive() {
        let mut wanted = assignment(7);
        wanted.port = Some(8_080);
        wanted.environment = vec![("PORT".into(), "1".into()), ("A".into(), "b=c".into())];
        wanted.resources.cpu_millis = 500;
        wanted.resources.cpu_limit_millis = 1_500;
        wanted.service_label = format!("{}-x", "a".repeat(39));
        let labels = Labels {
            cluster: ClusterId::from_u128(1),
            node: NodeId::from_u128(2),
        };
        let nothing = Grant::default();
        let body = body(&wanted, (3, &nothing), &labels, ("sha256:x", true, 5 << 20));
        assert_eq!(body.env, Some(vec!["A=b=c".into(), "PORT=8080".into()]));
        let host = body.host_config.expect("limits");
        assert_eq!(
            (host.cpu_shares, host.nano_cpus),
            (Some(512), Some(1_500_000_000))
        );
        assert_eq!(host.memory, host.memory_swap);
        let log = host.log_config.and_then(|log| log.config).expect("options");
        assert_eq!(
            (log["max-size"].as_str(), log["max-file"].as_str()),
            ("5242880", "3")
        );
        assert_eq!((log_size(3_000 << 20), log_size(0)), (10 << 20, 1 << 20));
        assert_eq!(host.port_bindings, None);
        let made = body.labels.expect("labels");
        for wanted in labels.filter_of(wanted.allocation) {
            let (name, value) = wanted.split_once('=').expect("name=value");
            assert_eq!(made.get(name).map(String::as_str), Some(value));
        }
        assert_eq!(made.get(LABEL_GRANT), None);
        let name = name(&wanted, 3);
        assert_eq!(
            name,
            format!("skep-{}-{}-3", "a".repeat(39), wanted.allocation.short())
        );
    }

    #[test]
    fn a_secret_that_is_a_file_is_nowhere_in_what_docker_is_told() {
        let mut wanted = assignment(7);
        wanted.environment = vec![("KEY".into(), "s3cret".into()), ("A".into(), "b".into())];
        wanted.storage.secrets = vec![skep_model::storage::SecretFile {
            variable: "KEY".into(),
            path: "/run/secrets/key".into(),
            mode: Default::default(),
            owner: None,
        }];
        let labels = Labels {
            cluster: ClusterId::from_u128(1),
            node: NodeId::from_u128(2),
        };
        let nothing = Grant::default();
        let body = body(&wanted, (1, &nothing), &labels, ("sha256:x", true, 5 << 20));
        assert_eq!(body.env, Some(vec!["A=b".into()]));
        let told = serde_json::to_string(&body).expect("as Docker gets it");
        assert!(!told.contains("s3cret"), "{told}");
    }

    #[test]
    fn ports_and_devices_are_handed_through_and_told() {
        let grant = Grant {
            ports: vec![8_443, 20_001],
            chosen: 1,
            devices: [("my-gpu".to_owned(), vec![PathBuf::from("/dev/null")])].into(),
        };
        let labels = Labels {
            cluster: ClusterId::from_u128(1),
            node: NodeId::from_u128(2),
        };
        let wanted = assignment(7);
        let body = body(&wanted, (1, &grant), &labels, ("sha256:x", true, 5 << 20));
        let env = body.env.expect("variables");
        assert!(
            env.contains(&"SKEP_DYNAMIC_PORTS=20001".to_owned()),
            "{env:?}"
        );
        assert!(
            env.contains(&"SKEP_DEVICE_MY_GPU=/dev/null".to_owned()),
            "{env:?}"
        );
        let host = body.host_config.expect("limits");
        let bound = host.port_bindings.expect("ports");
        assert_eq!(bound.len(), 4);
        let udp = bound["8443/udp"].as_ref().expect("a binding");
        assert_eq!(udp[0].host_port.as_deref(), Some("8443"));
        assert_eq!(host.devices.expect("devices").len(), 1);
        let label = &body.labels.expect("labels")[LABEL_GRANT];
        assert_eq!(serde_json::from_str::<Grant>(label).expect("read"), grant);
    }
}
