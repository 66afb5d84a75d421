//! How each part of `skep dev` is started: arguments and secrets from ports, folders and what the
//! parts that are up already have said. Starts nothing itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::ports::Port;

/// Longest path of a Unix socket that Linux takes, in bytes (`sun_path` and its end).
const SOCKET_MAX: usize = 107;

/// The parts, in the order in which they are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The data plane.
    Net,
    /// The control plane.
    Server,
    /// The agent.
    Agent,
}

impl Part {
    /// The subcommand that runs it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Server => "server",
            Self::Agent => "agent",
        }
    }
}

/// Where everything of one `skep dev` is.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    /// The whole.
    pub(super) root: PathBuf,
}

impl Folders {
    /// Held for as long as a `skep dev` runs here.
    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("dev.lock")
    }

    /// Where it listens, for programs.
    pub(super) fn announcement(&self) -> PathBuf {
        self.root.join("dev.json")
    }

    /// Logs of the parts.
    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The folder of the agent and the data plane.
    pub(super) fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// How to reach the server; written by it at each start.
    pub(super) fn bootstrap(&self) -> PathBuf {
        self.root.join("bootstrap.json")
    }

    /// Between the agent and the data plane.
    pub(super) fn socket(&self) -> PathBuf {
        self.node().join("net.sock")
    }

    /// Whether the system can make a socket at that path.
    pub(super) fn is_socket_short_enough(&self) -> bool {
        self.socket().as_os_str().len() <= SOCKET_MAX
    }
}

/// The ports of all parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) api: Port,
    pub(super) http: Port,
    pub(super) agents: Port,
    pub(super) ingress: Port,
    pub(super) admin: Port,
}

impl Ports {
    /// A part could not start: perhaps somebody took a port in between.
    pub(super) fn give_up(&mut self, part: Part) {
        let (server, net) = (
            [&mut self.api, &mut self.http, &mut self.agents],
            [&mut self.ingress, &mut self.admin],
        );
        match part {
            Part::Server => server.into_iter().for_each(Port::give_up),
            Part::Net => net.into_iter().for_each(Port::give_up),
            Part::Agent => {}
        }
    }
}

/// What the agent needs of the server.
#[derive(Debug, Clone)]
pub(super) struct Joining {
    /// `host:port` of the agents' listener.
    pub(super) agents: String,
    /// For the first start; afterwards the node has credentials of its own.
    pub(super) join_token: String,
}

/// One start of one part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Launch {
    /// Arguments of the binary.
    pub(super) arguments: Vec<OsString>,
    /// Secrets: never among the arguments, which everybody on the machine can read.
    pub(super) environment: Vec<(&'static str, String)>,
}

/// The next start of `part`. The agent needs `joining`.
pub(super) fn launch(
    part: Part,
    folders: &Folders,
    ports: &Ports,
    joining: Option<&Joining>,
) -> Launch {
    let mut options: Vec<(&str, OsString)> = Vec::new();
    let mut environment = Vec::new();
    let path = |path: &Path| path.as_os_str().to_owned();
    let address = |port: Port| port.address().to_string().into();
    match part {
        Part::Server => {
            options.push(("--data-dir", path(&folders.root.join("server"))));
            options.push(("--key-file", path(&folders.root.join("operator.key"))));
            options.push(("--bootstrap", path(&folders.bootstrap())));
            options.push(("--base-domain", "localhost".into()));
            options.push(("--api-addr", address(ports.api)));
            options.push(("--http-addr", address(ports.http)));
            options.push(("--agent-addr", address(ports.agents)));
            // Whoever tries notifications here has the receiver here, too.
            options.push(("--notify-allow", "127.0.0.0/8,::1".into()));
        }
        Part::Net => {
            options.push(("--data-dir", path(&folders.node().join("net"))));
            options.push(("--socket", path(&folders.socket())));
            options.push(("--ingress-addr", address(ports.ingress)));
            options.push(("--admin-addr", address(ports.admin)));
            // There are no other machines.
            options.push(("--mesh-addr", "127.0.0.1:0".into()));
            options.push(("--traefik-port", "0".into()));
            options.push(("--traefik-tcp-port", "0".into()));
        }
        Part::Agent => {
            options.push(("--data-dir", path(&folders.node().join("agent"))));
            options.push(("--net-socket", path(&folders.socket())));
            // There are no other machines.
            options.push(("--peer-listen", "127.0.0.1:0".into()));
            if let Some(joining) = joining {
                options.push(("--server", joining.agents.clone().into()));
                environment.push(("SKEP_JOIN_TOKEN", joining.join_token.clone()));
            }
        }
    }
    let mut arguments: Vec<OsString> = vec![part.name().into()];
    if part != Part::Net {
        arguments.push("run".into());
    }
    arguments.push("--exit-with-parent".into());
    if part == Part::Server {
        // One machine has no zones and no tiers: what production asks for is wished for here.
        arguments.push("--relaxed".into());
    }
    if part == Part::Agent {
        arguments.push("--stop-on-exit".into());
        // Whether Docker answers is told by the node's status here.
        arguments.push("--unexamined".into());
    }
    for (name, value) in options {
        arguments.push(name.into());
        arguments.push(value);
    }
    Launch {
        arguments,
        environment,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn folders() -> Folders {
        Folders {
            root: PathBuf::from("/data"),
        }
    }

    fn ports() -> Ports {
        let any = Port::choose("--x", Some(0), 0).expect("any port");
        Ports {
            api: any,
            http: any,
            agents: any,
            ingress: any,
            admin: any,
        }
    }

    #[test]
    fn every_part_understands_its_arguments_and_no_secret_is_among_them() {
        let joining = Joining {
            agents: "127.0.0.1:1".into(),
            join_token: "secret".into(),
        };
        for part in [Part::Net, Part::Server, Part::Agent] {
            let launch = launch(part, &folders(), &ports(), Some(&joining));
            let line = std::iter::once(OsString::from("skep")).chain(launch.arguments);
            let line: Vec<_> = line.collect();
            assert!(
                !line.iter().any(|argument| argument == "secret"),
                "{line:?}"
            );
            crate::args::Cli::try_parse_from(&line).expect("understood");
            assert_eq!(launch.environment.len(), usize::from(part == Part::Agent));
        }
    }

    #[test]
    fn a_deep_folder_is_noticed_before_the_system_does() {
        assert!(folders().is_socket_short_enough());
        let deep = Folders {
            root: PathBuf::from(format!("/{}", "d".repeat(100))),
        };
        assert!(!deep.is_socket_short_enough());
    }
}
