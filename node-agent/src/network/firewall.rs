//! The fences between environments: chains of this node's own in the machine's firewall, by the program that
//! Docker uses for its own rules. Written whole each time, in one transaction, so that there is never half of
//! them; looked at again and again, since others change firewalls, too.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use parking_lot::Mutex;
use skep_model::network::Pool;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::{DNS_PORT, PROXY_PORT};

/// Another program may hold the firewall's lock.
const LIMIT: Duration = Duration::from_secs(10);
/// How long `iptables` itself waits for the lock, in seconds.
const LOCK_S: &str = "5";

/// The firewall is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The program is not there, or cannot be started.
    #[error("`{program}` cannot be started ({source}): install iptables")]
    Program {
        /// Which.
        program: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// It said no.
    #[error("`{program}` failed: {said}")]
    Refused {
        /// Which.
        program: &'static str,
        /// In its words.
        said: String,
    },
    /// Rules of ours are not there.
    #[error(
        "somebody changed the firewall: rules of the private network are missing until they are written again"
    )]
    Gone,
    /// It hangs.
    #[error("`{program}` did not end within {} s", LIMIT.as_secs())]
    Hangs {
        /// Which.
        program: &'static str,
    },
}

/// What one bridge is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fence {
    /// The bridge.
    pub(super) interface: String,
    /// This node on it.
    pub(super) gateway: Ipv4Addr,
    /// Blocks of private addresses of its environment.
    pub(super) blocks: BTreeSet<u32>,
    /// Where this node serves apps.
    pub(super) entrances: BTreeSet<SocketAddr>,
    /// From where all bridges of the node have their networks: their gateways are no entrance.
    pub(super) bridges: Option<Pool>,
}

/// The chains of one node.
#[derive(Debug)]
pub(super) struct Firewall {
    chains: Chains,
    /// What was written last.
    written: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Chains {
    redirect: String,
    forward: String,
    input: String,
}

impl Firewall {
    pub(super) fn new(tag: &str) -> Self {
        Self {
            chains: Chains {
                redirect: format!("SKEP-N-{tag}"),
                forward: format!("SKEP-F-{tag}"),
                input: format!("SKEP-I-{tag}"),
            },
            written: Mutex::default(),
        }
    }

    /// Whether nothing was ever written.
    pub(super) fn is_untouched(&self) -> bool {
        self.written.lock().is_none()
    }

    /// Whether the firewall may be changed at all.
    pub(super) async fn probe(&self) -> Result<(), Error> {
        run(
            "iptables",
            &["-w", LOCK_S, "-t", "nat", "-S", "PREROUTING"],
            None,
        )
        .await?;
        Ok(())
    }

    /// Makes it as it should be, where it is not; says so where somebody else has changed it.
    pub(super) async fn ensure(&self, fences: &[Fence]) -> Result<(), Error> {
        let wanted = self.chains.render(fences);
        let is_same = self.written.lock().as_ref() == Some(&wanted);
        if is_same && self.is_whole(&wanted).await {
            return Ok(());
        }
        if is_same {
            tracing::warn!("somebody changed the firewall: private networks are fenced off again");
        }
        self.apply(fences).await
    }

    /// Whether it is as it should be; changes nothing.
    pub(super) async fn look(&self, fences: &[Fence]) -> Result<(), Error> {
        match self.is_whole(&self.chains.render(fences)).await {
            true => Ok(()),
            false => Err(Error::Gone),
        }
    }

    /// Writes it.
    pub(super) async fn apply(&self, fences: &[Fence]) -> Result<(), Error> {
        let wanted = self.chains.render(fences);
        let restore = ["-w", LOCK_S, "--noflush"];
        run("iptables-restore", &restore, Some(&wanted)).await?;
        for [table, from, to] in self.hooks().await {
            let rule = |action: &'static str| ["-w", LOCK_S, "-t", table, action, from, "-j", to];
            if run("iptables", &rule("-C"), None).await.is_err() {
                run("iptables", &rule("-I"), None).await?;
            }
        }
        *self.written.lock() = Some(wanted);
        Ok(())
    }

    /// Where the chains hang: table, chain, and which of ours.
    async fn hooks(&self) -> [[&str; 3]; 3] {
        // Docker asks it first, whatever it adds later; it has none where it keeps off the firewall.
        let of_docker = ["-w", LOCK_S, "-S", "DOCKER-USER"];
        let forward = match run("iptables", &of_docker, None).await {
            Ok(_) => "DOCKER-USER",
            Err(_) => "FORWARD",
        };
        [
            ["nat", "PREROUTING", &self.chains.redirect],
            ["filter", forward, &self.chains.forward],
            ["filter", "INPUT", &self.chains.input],
        ]
    }

    /// Whether as many rules are there as were written, and are asked.
    async fn is_whole(&self, wanted: &str) -> bool {
        for [table, from, to] in self.hooks().await {
            let hook = ["-w", LOCK_S, "-t", table, "-C", from, "-j", to];
            if run("iptables", &hook, None).await.is_err() {
                return false;
            }
            let list = ["-w", LOCK_S, "-t", table, "-S", to];
            let Ok(found) = run("iptables", &list, None).await else {
                return false;
            };
            let rule = format!("-A {to} ");
            let count = |text: &str| text.lines().filter(|line| line.starts_with(&rule)).count();
            if count(&found) != count(wanted) {
                return false;
            }
        }
        true
    }
}

impl Chains {
    /// All rules, as `iptables-restore` takes them.
    fn render(&self, fences: &[Fence]) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = self.write(&mut text, fences);
        text
    }

    fn write(&self, text: &mut String, fences: &[Fence]) -> std::fmt::Result {
        let Self {
            redirect,
            forward,
            input,
        } = self;
        writeln!(text, "*nat\n:{redirect} - [0:0]")?;
        for fence in fences {
            let (from, gateway) = (&fence.interface, fence.gateway);
            for protocol in ["udp", "tcp"] {
                writeln!(
                    text,
                    "-A {redirect} -i {from} -d {gateway} -p {protocol} --dport 53 -j REDIRECT --to-ports {DNS_PORT}"
                )?;
            }
            for block in &fence.blocks {
                let block = Ipv4Addr::from(*block);
                writeln!(
                    text,
                    "-A {redirect} -i {from} -d {block}/27 -p tcp -j REDIRECT --to-ports {PROXY_PORT}"
                )?;
            }
        }
        writeln!(
            text,
            "COMMIT\n*filter\n:{forward} - [0:0]\n:{input} - [0:0]"
        )?;
        for fence in fences {
            let own = &fence.interface;
            // Containers of one environment on one bridge.
            writeln!(text, "-A {forward} -i {own} -o {own} -j RETURN")?;
            for block in &fence.blocks {
                let block = Ipv4Addr::from(*block);
                // What is not TCP would go to wherever the default route leads.
                writeln!(text, "-A {forward} -i {own} -d {block}/27 -j REJECT")?;
            }
            writeln!(
                text,
                "-A {forward} -o {own} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
            )?;
            // A port of the node that was asked for.
            writeln!(
                text,
                "-A {forward} -o {own} -m conntrack --ctstate DNAT -j RETURN"
            )?;
            writeln!(text, "-A {forward} -o {own} -j DROP")?;
            writeln!(
                text,
                "-A {input} -i {own} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
            )?;
            for (protocol, port) in [("udp", DNS_PORT), ("tcp", DNS_PORT), ("tcp", PROXY_PORT)] {
                let gateway = fence.gateway;
                writeln!(
                    text,
                    "-A {input} -i {own} -d {gateway} -p {protocol} --dport {port} -j ACCEPT"
                )?;
            }
            self.write_entrances(text, fence)?;
            writeln!(
                text,
                "-A {input} -i {own} -p tcp -j REJECT --reject-with tcp-reset"
            )?;
            writeln!(text, "-A {input} -i {own} -j DROP")?;
        }
        writeln!(text, "COMMIT")
    }

    /// The public entrance of apps, for a container as for anybody: their public names may lead to this very
    /// node. An address of its own says where it is, else it is at every one that is no bridge's.
    fn write_entrances(&self, text: &mut String, fence: &Fence) -> std::fmt::Result {
        let (input, own) = (&self.input, &fence.interface);
        for entrance in &fence.entrances {
            let to = match (entrance.ip(), fence.bridges) {
                (ip, _) if ip.is_loopback() => continue,
                (IpAddr::V4(ip), _) if !ip.is_unspecified() => format!("-d {ip} "),
                (IpAddr::V6(ip), _) if !ip.is_unspecified() => continue,
                (_, Some(bridges)) => format!("! -d {bridges} "),
                (_, None) => String::new(),
            };
            let port = entrance.port();
            writeln!(
                text,
                "-A {input} -i {own} {to}-p tcp --dport {port} -j ACCEPT"
            )?;
        }
        Ok(())
    }
}

/// Runs a program to its end and answers what it said.
async fn run(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<String, Error> {
    let failed = |source| Error::Program { program, source };
    let work = async {
        let mut child = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends before it has read all says why.
            let _ = stdin.write_all(input.unwrap_or_default().as_bytes()).await;
        }
        let ended = child.wait_with_output().await.map_err(failed)?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
            return Err(Error::Refused { program, said });
        }
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    };
    timeout(LIMIT, work)
        .await
        .unwrap_or(Err(Error::Hangs { program }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bridge_is_fenced_and_only_its_own_addresses_are_redirected() {
        let fence = |name: &str, last: u8, block: u8| Fence {
            interface: name.to_owned(),
            gateway: Ipv4Addr::new(10, 202, last, 1),
            blocks: [u32::from(Ipv4Addr::new(10, 201, 0, block))].into(),
            entrances: ["0.0.0.0:80", "10.0.0.5:443", "127.0.0.1:8000"]
                .map(|it| it.parse().expect("an address"))
                .into(),
            bridges: Some("10.202.0.0/16".parse().expect("a pool")),
        };
        let firewall = Firewall::new("abc");
        let text = firewall
            .chains
            .render(&[fence("ska", 0, 0), fence("skb", 1, 32)]);
        for expected in [
            "-A SKEP-N-abc -i ska -d 10.201.0.0/27 -p tcp -j REDIRECT --to-ports 7077",
            "-A SKEP-N-abc -i skb -d 10.202.1.1 -p udp --dport 53 -j REDIRECT --to-ports 7053",
            "-A SKEP-F-abc -o skb -j DROP",
            "-A SKEP-I-abc -i ska -j DROP",
            "-A SKEP-I-abc -i ska ! -d 10.202.0.0/16 -p tcp --dport 80 -j ACCEPT",
            "-A SKEP-I-abc -i skb -d 10.0.0.5 -p tcp --dport 443 -j ACCEPT",
        ] {
            assert!(
                text.lines().any(|line| line == expected),
                "{expected}\n{text}"
            );
        }
        assert!(!text.contains("-i ska -d 10.201.0.32"), "{text}");
        assert!(
            !text.contains("--dport 8000"),
            "served to this machine alone"
        );
        // What one bridge may do stands before what it may not.
        let at = |wanted: &str| text.find(wanted).expect("a rule");
        assert!(at("-i ska ! -d 10.202.0.0/16") < at("-I-abc -i ska -j DROP"));
        assert!(at("-F-abc -o ska -m conntrack") < at("-F-abc -o ska -j DROP"));
    }
}
