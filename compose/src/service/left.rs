//! Keys of Compose that have no counterpart, and what to do instead.

/// What to do instead of a key of a service; none: no key of Compose's that is known here.
pub(super) fn hint(key: &str) -> Option<&'static str> {
    let all = LEFT.iter();
    let found = all.clone().find(|(keys, _)| keys.contains(&key));
    found.map(|(_, hint)| *hint)
}

const CONFINED: &str =
    "containers are confined on purpose; where a program really needs this, run it beside Skep";
const NETWORK: &str = "services of an environment reach each other by name, others reach none: docs/private-network.md";

const LEFT: &[(&[&str], &str)] = &[
    (
        &["entrypoint"],
        "an image's ENTRYPOINT stays: say the whole command as `command` where the image has none, or build one that \
         has yours",
    ),
    (
        &["working_dir"],
        "WORKDIR in the image, or `command: [sh, -c, \"cd DIR && exec ...\"]`",
    ),
    (
        &[
            "privileged",
            "devices",
            "device_cgroup_rules",
            "gpus",
            "pid",
            "ipc",
            "uts",
            "userns_mode",
            "cgroup",
            "cgroup_parent",
            "runtime",
            "isolation",
            "credential_spec",
            "group_add",
            "use_api_socket",
        ],
        CONFINED,
    ),
    (
        &[
            "network_mode",
            "links",
            "external_links",
            "mac_address",
            "domainname",
        ],
        NETWORK,
    ),
    (
        &["extra_hosts", "dns", "dns_search", "dns_opt"],
        "names of other services are known by themselves; for others, a DNS server of the node's",
    ),
    (
        &["extends"],
        "`docker compose config` writes one file with all of it in it: import that",
    ),
    (
        &["volumes_from"],
        "a volume belongs to one service: put what shares it into one image, or share it over the network",
    ),
    (
        &["logging"],
        "`skep logs` has what an app writes; docs/operations.md says how long it is kept",
    ),
    (
        &["platform"],
        "[placement] constraints = [\"node.arch = amd64\"] in skep.toml",
    ),
    (
        &["label_file", "annotations"],
        "only labels of Traefik mean something here: write them under `labels`",
    ),
    (
        &["attach", "develop", "tty", "stdin_open"],
        "it is for a terminal: `skep logs`, `skep exec`, `skep dev`",
    ),
    (
        &["post_start"],
        "[[hooks.init]] in skep.toml runs commands before a container",
    ),
    (&["pre_stop"], "[hooks] pre_stop in skep.toml"),
    (
        &["provider", "models"],
        "run it as a service of its own, and name it in a variable",
    ),
    (
        &[
            "cpu_count",
            "cpu_percent",
            "cpu_shares",
            "cpu_period",
            "cpu_quota",
            "cpu_rt_runtime",
            "cpu_rt_period",
            "cpuset",
        ],
        "`cpus`, or deploy.resources",
    ),
    (
        &[
            "mem_swappiness",
            "oom_kill_disable",
            "oom_score_adj",
            "blkio_config",
            "storage_opt",
        ],
        "deploy.resources.limits: whoever is over its memory is ended and told so",
    ),
];
