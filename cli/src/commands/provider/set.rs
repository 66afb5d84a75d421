//! `skep provider set`: what is said of a provider on the command line. Three kinds of flags, of which one is said.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use skep_control_plane::api::types::ProviderRequest;
use skep_model::pool::{Machine, Program};
use skep_model::provider::Trust;

use crate::failure::Failure;
use crate::output::time;

/// Largest secret that is read, in bytes.
const SECRET_MAX: u64 = 4_096;

/// How a Proxmox cluster is reached, which program makes machines, or which machines exist.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep provider set home --host https://pve1.lan:8006 --host https://pve2.lan:8006 \\
    --ca pve-root-ca.pem --token-id 'skep@pve!skep' --secret-stdin < secret.txt
  skep provider set home --host https://pve1.lan:8006 --pin AA:BB:... \\
    --token-id 'skep@pve!skep' --secret-stdin < secret.txt
  skep provider set cloud --program hetzner.sh --parameter type=cx22 --parameter location=fsn1
  skep provider set rack --machine m1,10.0.0.11,bc:24:11:00:00:01 \\
    --machine m2,10.0.0.12,bc:24:11:00:00:02
  skep provider set rack --machines rack.toml     [[machine]] with name, address, mac

The CA is /etc/pve/pve-root-ca.pem of any host; a fingerprint is what `pvenode cert info` shows, of
each host. With neither, nobody is asked: whoever is, gets the token. The rights that it needs are
in docs/install-proxmox.md. Whoever changes the CA, the fingerprints or the token's name says the
secret again.

A program is a file in the folder that each server was started with (`skep server
--provider-programs DIR`); what it is asked and answers is in docs/node-pools.md. Machines that
exist are told how to join by a person: `skep node introduction`.")]
pub(crate) struct Set {
    /// What it is called here
    #[arg(value_name = "PROVIDER")]
    provider: String,
    /// The API of a host, https://pve1.lan:8006; repeatable: the next is asked where one does not answer
    #[arg(long = "host", value_name = "URL", required_unless_present_any = ["program", "machine", "machines"])]
    hosts: Vec<String>,
    /// The CA that has signed the hosts' certificates, a PEM file
    #[arg(long, value_name = "FILE", required_unless_present_any = ["pins", "program", "machine", "machines"])]
    ca: Option<PathBuf>,
    /// SHA-256 of a host's certificate, in its place; repeatable: one for each host, and for the next certificate
    #[arg(long = "pin", value_name = "FINGERPRINT", conflicts_with = "ca")]
    pins: Vec<String>,
    /// The API token's name: USER@REALM!NAME
    #[arg(long, value_name = "ID", required_unless_present_any = ["program", "machine", "machines"])]
    token_id: Option<String>,
    /// Read the API token's secret from stdin: the one way, so that no shell remembers it; without it the one that is
    /// there already stays
    #[arg(long)]
    secret_stdin: bool,
    /// A program that makes machines: the name of its file in the servers' folder for them
    #[arg(
        long,
        value_name = "FILE-NAME",
        conflicts_with_all = ["hosts", "ca", "pins", "token_id", "secret_stdin", "machine", "machines"]
    )]
    program: Option<String>,
    /// What the program is told of each machine, as it understands it; repeatable. No secrets: they are shown
    #[arg(long = "parameter", value_name = "KEY=VALUE", value_parser = pair, requires = "program")]
    parameters: Vec<(String, String)>,
    /// How long the program may take for one answer: at most 1h [5m]
    #[arg(long, value_name = "SPAN", value_parser = time::parse_span, requires = "program")]
    deadline: Option<std::time::Duration>,
    /// A machine that exists: its name, its address, the MAC of its first network card; repeatable
    #[arg(
        long,
        value_name = "NAME,ADDRESS,MAC",
        value_parser = machine,
        conflicts_with_all = ["hosts", "ca", "pins", "token_id", "secret_stdin"]
    )]
    machine: Vec<Machine>,
    /// The same of each in a TOML file: [[machine]] with name, address, mac
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["hosts", "ca", "pins", "token_id", "secret_stdin"]
    )]
    machines: Option<PathBuf>,
}

/// A file of machines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    machine: Vec<Machine>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is expected")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn machine(text: &str) -> Result<Machine, String> {
    let expected = "NAME,ADDRESS,MAC is expected: m1,10.0.0.11,bc:24:11:00:00:01";
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let [name, address, mac] = parts[..] else {
        return Err(expected.to_owned());
    };
    let address = address
        .parse()
        .map_err(|_| format!("`{address}` is no IP address: {expected}"))?;
    Ok(Machine {
        name: name.to_owned(),
        address,
        mac: mac.to_owned(),
    })
}

impl Set {
    /// What it is called.
    pub(super) fn provider(&self) -> &str {
        &self.provider
    }

    /// What is asked of the API.
    ///
    /// # Errors
    /// A file cannot be read or understood.
    pub(super) fn request(&self) -> Result<ProviderRequest, Failure> {
        if let Some(file) = &self.program {
            let mut program = Program {
                file: file.clone(),
                parameters: self.parameters.iter().cloned().collect(),
                ..Program::default()
            };
            if let Some(deadline) = self.deadline {
                program.deadline_s = u32::try_from(deadline.as_secs()).unwrap_or(u32::MAX);
            }
            program.check()?;
            return Ok(ProviderRequest {
                program: Some(program),
                ..ProviderRequest::default()
            });
        }
        let mut machines = self.machine.clone();
        if let Some(path) = &self.machines {
            machines.extend(listed(path)?);
        }
        if !machines.is_empty() || self.machines.is_some() {
            Machine::check_all(&machines)?;
            return Ok(ProviderRequest {
                machines,
                ..ProviderRequest::default()
            });
        }
        self.proxmox()
    }

    fn proxmox(&self) -> Result<ProviderRequest, Failure> {
        let trust = match &self.ca {
            Some(path) => Trust::Ca(std::fs::read_to_string(path).map_err(|error| {
                Failure::usage(format!("{} cannot be read: {error}", path.display()))
                    .hint("copy /etc/pve/pve-root-ca.pem from any host of the cluster")
            })?),
            None => Trust::Pins(self.pins.clone()),
        };
        let secret = match self.secret_stdin {
            false => None,
            true => {
                let mut text = String::new();
                let mut input = std::io::stdin().take(SECRET_MAX);
                input.read_to_string(&mut text).map_err(|error| {
                    Failure::usage(format!("the secret cannot be read: {error}"))
                })?;
                Some(text.trim().to_owned())
            }
        };
        Ok(ProviderRequest {
            endpoints: self.hosts.clone(),
            trust: Some(trust),
            token_id: self.token_id.clone(),
            secret,
            ..ProviderRequest::default()
        })
    }
}

fn listed(path: &Path) -> Result<Vec<Machine>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{shown} cannot be read: {error}")))?;
    let list: List = toml::from_str(&text).map_err(|error| {
        Failure::usage(format!("{shown} is no list of machines: {error}")).hint(
            "[[machine]] name = \"m1\" address = \"10.0.0.11\" mac = \"bc:24:11:00:00:01\", each on a line of its own",
        )
    })?;
    Ok(list.machine)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        set: Set,
    }

    fn said(line: &str) -> Result<ProviderRequest, String> {
        let words = std::iter::once("set").chain(line.split_whitespace());
        let parsed = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        parsed
            .set
            .request()
            .map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn a_provider_is_one_of_three() {
        let proxmox = said("home --host https://pve1:8006 --pin AA --token-id skep@pve!skep");
        let proxmox = proxmox.expect("as ever");
        assert_eq!(proxmox.token_id.as_deref(), Some("skep@pve!skep"));
        assert!(proxmox.program.is_none() && proxmox.machines.is_empty());
        let program = said("cloud --program h.sh --parameter type=cx22 --deadline 2m");
        let program = program.expect("fine").program.expect("said");
        assert_eq!(program.file, "h.sh");
        assert_eq!(program.parameters["type"], "cx22");
        assert_eq!(program.deadline_s, 120);
        let machine = "--machine m1,10.0.0.1,bc:24:11:00:00:01";
        let machines = said(&format!(
            "rack {machine} --machine m2,10.0.0.2,bc:24:11:00:00:02"
        ));
        assert_eq!(machines.expect("fine").machines.len(), 2);
        for line in [
            "home",
            "home --host https://pve1:8006",
            "home --host https://pve1:8006 --pin AA",
            "home --host https://pve1:8006 --pin AA --token-id a@b!c --program h.sh",
            "home --program h.sh --secret-stdin",
            "home --parameter a=b",
            "home --program h.sh --parameter a",
            "home --program /bin/sh",
            "home --program ../h.sh",
            "home --program h.sh --deadline 2h",
            "home --machine m1,10.0.0.1",
            "home --machine m1,nowhere,bc:24:11:00:00:01",
            "home --machine m1,10.0.0.1,bc:24",
        ] {
            assert!(said(line).is_err(), "{line}");
        }
        for with in ["--program h.sh", "--token-id a@b!c", "--pin AA"] {
            assert!(said(&format!("home {machine} {with}")).is_err(), "{with}");
        }
    }

    #[test]
    fn machines_are_read_from_a_file_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rack.toml");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        let line = format!(
            "rack --machine m1,10.0.0.1,bc:24:11:00:00:01 --machines {}",
            path.display()
        );
        write("[[machine]]\nname = \"m2\"\naddress = \"10.0.0.2\"\nmac = \"bc:24:11:00:00:02\"\n");
        let names = said(&line).expect("fine").machines;
        let names: Vec<&str> = names.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["m1", "m2"]);
        // The same machine twice.
        write("[[machine]]\nname = \"m2\"\naddress = \"10.0.0.1\"\nmac = \"bc:24:11:00:00:02\"\n");
        assert!(said(&line).is_err());
        write("[[machine]]\nname = \"m2\"\nport = 1\n");
        assert!(said(&line).is_err());
    }
}
