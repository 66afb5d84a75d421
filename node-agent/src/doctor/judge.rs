//! What is made of what was found. Pure.

use std::path::Path;

use bollard::models::SystemInfo;
use skep_model::machine::{Guest, Machine};

use super::Finding;
use super::container::Ran;
use super::look::{Clock, Docker, Error};

/// The check that fails where Docker is not there at all.
pub(super) const DOCKER: &str = "docker";

/// Docker 20.10, and Podman's compatible socket.
const API_MIN: (u32, u32) = (1, 41);
/// Clocks that differ by more are told: certificates live for a day.
const SKEW_WARN_S: u64 = 60;
/// And by more than this they cannot be judged.
const SKEW_FAIL_S: u64 = 300;
/// Less of the data folder's disk is soon nothing.
const FREE_MIN_BYTES: u64 = 512 << 20;

/// What a node cannot do without.
pub(super) fn essentials(docker: &Docker) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &docker.info {
        Err(Error(why)) => {
            let fix = "start it (systemctl start docker), name its socket with --docker-socket, and let \
                       this user open it (group docker); where it hangs, restart it";
            findings.push(Finding::fail(DOCKER, why, fix));
            return findings;
        }
        Ok((api, info)) => {
            findings.push(version(api, info));
            findings.push(limits(info));
        }
    }
    match &docker.ran {
        None => {}
        Some(Err(Error(why))) => findings.push(Finding::fail("container", why, advice(why))),
        Some(Ok(ran)) => findings.extend(container(ran)),
    }
    findings
}

fn version(api: &str, info: &SystemInfo) -> Finding {
    let said = info.server_version.as_deref().unwrap_or("of no version");
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
    let mut parts = api.split('.');
    let pair = (number(parts.next()), number(parts.next()));
    match pair {
        (Some(major), Some(minor)) if (major, minor) >= API_MIN => {
            Finding::ok(DOCKER, format!("Docker {said}, API {api}"))
        }
        _ => Finding::fail(
            "version",
            format!("Docker {said} speaks API {api}"),
            format!(
                "at least {}.{} is needed: Docker 20.10 or newer",
                API_MIN.0, API_MIN.1
            ),
        ),
    }
}

/// Without limits one app takes the whole node with it.
fn limits(info: &SystemInfo) -> Finding {
    let has = [
        ("memory", info.memory_limit),
        ("pids", info.pids_limit),
        ("cpu", info.cpu_cfs_quota),
    ];
    let lacks: Vec<&str> = has
        .iter()
        .filter(|(_, has)| *has == Some(false))
        .map(|(name, _)| *name)
        .collect();
    if lacks.is_empty() {
        return Finding::ok("cgroups", "Docker can limit memory, CPU and processes");
    }
    Finding::fail(
        "cgroups",
        format!("Docker cannot limit: {}", lacks.join(", ")),
        "enable these controllers: `cgroup_enable=memory` on the kernel's command line; in LXC set \
         nesting=1",
    )
}

/// What is known of the errors that people meet.
fn advice(why: &str) -> &'static str {
    let known = [
        (
            "ip_unprivileged_port_start",
            "a known break between runc and AppArmor in LXC: on the Proxmox host install lxc-pve 6.0.5-2 or \
             newer",
        ),
        ("keyring", "in LXC set the features keyctl=1 and nesting=1"),
        ("apparmor", "in LXC set the feature nesting=1"),
        ("quota exceeded", "raise kernel.keys.maxkeys on the host"),
        (
            "no space left",
            "make room under Docker's data root: docker system df",
        ),
        (
            "did not",
            "Docker hangs: restart it, and look at its log (journalctl -u docker)",
        ),
    ];
    let lower = why.to_lowercase();
    let found = known.iter().find(|(word, _)| lower.contains(word));
    found.map_or(
        "`docker run` shows the same: see Docker's log (journalctl -u docker)",
        |(_, fix)| fix,
    )
}

fn container(ran: &Ran) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("container", "a container was run and removed")];
    findings.push(match (ran.address, ran.reached) {
        (Some(address), true) => {
            Finding::ok("network", format!("a container is reached at {address}"))
        }
        (Some(address), false) => Finding::fail(
            "network",
            format!("a container at {address} cannot be reached from this machine"),
            "let the machine through to Docker's bridge: firewall rules on docker0, or an address range \
             that is in use elsewhere (\"bip\" in /etc/docker/daemon.json)",
        ),
        (None, _) => Finding::fail(
            "network",
            "a container gets no address",
            "Docker needs its default bridge: remove \"bridge\": \"none\" from /etc/docker/daemon.json",
        ),
    });
    if !ran.has_spoken {
        findings.push(Finding::warn(
            "logs",
            "what a container writes cannot be read",
            "use the logging driver json-file",
        ));
    }
    findings
}

/// What Docker does well or badly.
pub(super) fn comforts(docker: &Docker) -> Vec<Finding> {
    let Ok((_, info)) = &docker.info else {
        return Vec::new();
    };
    let driver = info.driver.as_deref().unwrap_or("unknown");
    let mut machine = Machine::default();
    crate::facts::judge_storage(&mut machine, driver);
    let mut findings: Vec<Finding> = machine
        .warnings
        .into_iter()
        .map(|warning| Finding::warn("storage", warning.text, warning.fix))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok("storage", format!("storage driver {driver}")));
    }
    if info.live_restore_enabled != Some(true) {
        findings.push(Finding::warn(
            "live-restore",
            "containers stop when Docker is restarted",
            "set \"live-restore\": true in /etc/docker/daemon.json",
        ));
    }
    findings
}

/// What this machine is.
pub(super) fn machine(machine: &Machine, memory_bytes: u64) -> Vec<Finding> {
    let guest = machine.guest.map_or("not known", Guest::word);
    let mut findings = vec![Finding::ok("machine", format!("runs in: {guest}"))];
    let warnings = machine.warnings.iter();
    findings.extend(warnings.map(|it| Finding::warn("memory", it.text.clone(), it.fix.clone())));
    if !machine.memory_unknown {
        let mib = memory_bytes >> 20;
        findings.push(Finding::ok("memory", format!("{mib} MiB")));
    }
    findings
}

/// The agent's data folder.
pub(super) fn folder(looked: &Result<(u64, u64), Error>, folder: &Path) -> Finding {
    let name = folder.display();
    match looked {
        Err(Error(why)) => Finding::fail(
            "data",
            format!("{name}: {why}"),
            "give the agent a folder of its own that nobody else may enter",
        ),
        // Not every filesystem says.
        Ok((0, _)) => Finding::ok("data", format!("{name} can be written")),
        Ok((_, free)) if *free < FREE_MIN_BYTES => Finding::warn(
            "data",
            format!("{} MiB are free under {name}", free >> 20),
            "make room: the agent cannot keep what it is to run on a full disk",
        ),
        Ok((_, free)) => Finding::ok("data", format!("{} MiB are free under {name}", free >> 20)),
    }
}

/// The data plane's socket.
pub(super) fn data_plane(listens: bool, socket: &Path) -> Finding {
    let name = socket.display();
    match listens {
        true => Finding::ok("net", format!("the data plane listens on {name}")),
        false => Finding::warn(
            "net",
            format!("no data plane listens on {name}"),
            "start `skep net` with this socket: apps here get no requests before",
        ),
    }
}

/// The program that plans builds of folders without a Dockerfile.
pub(super) fn nixpacks(program: &Path, version: &Result<String, Error>) -> Finding {
    match version {
        Ok(version) => Finding::ok("nixpacks", version),
        Err(Error(why)) => Finding::warn(
            "nixpacks",
            format!("{} does not run: {why}", program.display()),
            "folders without a Dockerfile are not built here before: cargo install nixpacks, or name it \
             with --nixpacks",
        ),
    }
}

/// A server and its clock.
pub(super) fn clock(clock: &Clock, server: &str) -> Finding {
    let fix = "set the clocks (NTP): certificates cannot be judged otherwise";
    match clock {
        Clock::Apart(seconds) => {
            let apart = seconds.unsigned_abs();
            let way = if *seconds > 0 { "behind" } else { "ahead of" };
            let text = format!("this machine's clock is {apart} s {way} the server's");
            match apart {
                apart if apart <= SKEW_WARN_S => Finding::ok("clock", text),
                apart if apart <= SKEW_FAIL_S => Finding::warn("clock", text, fix),
                _ => Finding::fail("clock", text, fix),
            }
        }
        Clock::OutOfTime(why) => Finding::fail("clock", why, fix),
        Clock::Away(why) => Finding::warn(
            "server",
            format!("{server} cannot be asked: {why}"),
            "open the way to the server's agents' port (7072): the agent dials it",
        ),
        Clock::NoTrust => Finding::warn(
            "server",
            "without a join token or a joined data folder no server can be trusted: the clock is not \
             compared",
            "give a join token (--join), or the agent's --data-dir",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn docker(api: &str, memory_limit: bool, ran: Result<Ran, Error>) -> Docker {
        let info = SystemInfo {
            memory_limit: Some(memory_limit),
            pids_limit: Some(true),
            driver: Some("overlay2".into()),
            ..SystemInfo::default()
        };
        Docker {
            info: Ok((api.into(), info)),
            ran: Some(ran),
        }
    }

    fn ran(reached: bool) -> Ran {
        Ran {
            has_spoken: true,
            address: "172.17.0.2".parse().ok(),
            reached,
        }
    }

    fn failing(findings: &[Finding]) -> Vec<&'static str> {
        let failed = findings.iter().filter(|it| it.level == Level::Fail);
        failed.map(|it| it.check).collect()
    }

    #[test]
    fn a_good_docker_has_no_failing_essential() {
        for api in ["1.41", "1.53", "2.0"] {
            let findings = essentials(&docker(api, true, Ok(ran(true))));
            assert_eq!(failing(&findings), Vec::<&str>::new(), "{findings:?}");
        }
    }

    #[test]
    fn each_essential_fails_for_itself_and_says_what_to_do() {
        let away = Docker {
            info: Err(Error("Docker did not answer GET /info within 10 s".into())),
            ran: None,
        };
        let apparmor = "runc: open sysctl net.ipv4.ip_unprivileged_port_start: permission denied";
        let nowhere = Ran {
            address: None,
            ..ran(false)
        };
        let cases = [
            (away, "docker", "systemctl start docker"),
            (docker("1.40", true, Ok(ran(true))), "version", "20.10"),
            (docker("", true, Ok(ran(true))), "version", "20.10"),
            (
                docker("1.41", false, Ok(ran(true))),
                "cgroups",
                "cgroup_enable",
            ),
            (
                docker("1.41", true, Err(Error(apparmor.into()))),
                "container",
                "lxc-pve",
            ),
            (docker("1.41", true, Ok(ran(false))), "network", "docker0"),
            (docker("1.41", true, Ok(nowhere)), "network", "bridge"),
        ];
        for (docker, check, fix) in cases {
            let findings = essentials(&docker);
            assert_eq!(failing(&findings), [check]);
            let told = findings.iter().find(|it| it.check == check).expect("found");
            assert!(
                told.fix.as_deref().is_some_and(|it| it.contains(fix)),
                "{told}"
            );
        }
    }

    #[test]
    fn clocks_are_told_from_a_minute_and_refused_from_five() {
        let level = |seconds| clock(&Clock::Apart(seconds), "s:1").level;
        assert_eq!([level(0), level(60), level(-60)], [Level::Ok; 3]);
        assert_eq!([level(61), level(-300)], [Level::Warn; 2]);
        assert_eq!([level(301), level(-9_000)], [Level::Fail; 2]);
        let text = clock(&Clock::Apart(400), "s:1").text;
        assert_eq!(text, "this machine's clock is 400 s behind the server's");
        assert_eq!(clock(&Clock::NoTrust, "s:1").level, Level::Warn);
    }
}
