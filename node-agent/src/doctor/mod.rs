//! `skep agent doctor`: whether this machine can be a node, found out by doing what a node does. Owns
//! what is looked at and how it is judged; changes nothing that stays. A node does not join while
//! an essential check fails.

mod container;
mod judge;
mod look;
mod program;

use std::path::PathBuf;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and will hurt.
    Warn,
    /// It does not work: such a machine cannot be a node.
    Fail,
}

/// One check and its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: one word.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do; none: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            text: text.into(),
            fix: None,
        }
    }

    fn warn(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Warn,
            text: text.into(),
            fix: Some(fix.into()),
        }
    }

    fn fail(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(check, text, fix)
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.check, self.text)?;
        match &self.fix {
            Some(fix) => write!(f, ": {fix}"),
            None => Ok(()),
        }
    }
}

/// What the doctor is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Docker's socket.
    pub docker_socket: PathBuf,
    /// The data plane's; none: not looked at.
    pub net_socket: Option<PathBuf>,
    /// The agent's data folder; none: not looked at.
    pub data_dir: Option<PathBuf>,
    /// Where servers take agents, as the agent is told; none: not looked at.
    pub server: Option<String>,
    /// With it a server is trusted before the node has joined.
    pub join_token: Option<String>,
    /// An operator's word on the node's memory, bytes.
    pub memory_bytes: Option<u64>,
    /// The program that plans builds; none: not looked at.
    pub nixpacks: Option<PathBuf>,
}

/// Whether Docker is not there at all: at the machine's start it may come after the agent.
pub fn is_docker_away(findings: &[Finding]) -> bool {
    let mut failed = findings.iter().filter(|one| one.level == Level::Fail);
    failed.any(|one| one.check == judge::DOCKER)
}

/// What a node must be able to do: Docker, and a real container on its network.
pub async fn essentials(options: &Options) -> Vec<Finding> {
    judge::essentials(&look::docker(&options.docker_socket).await)
}

/// Every check.
pub async fn examine(options: &Options) -> Vec<Finding> {
    let docker = look::docker(&options.docker_socket).await;
    let mut findings = judge::essentials(&docker);
    findings.extend(judge::comforts(&docker));
    let (machine, memory) = crate::facts::this_machine(options.memory_bytes);
    findings.extend(judge::machine(&machine, memory));
    if let Some(folder) = options.data_dir.clone() {
        findings.push(judge::folder(&look::folder(folder.clone()).await, &folder));
    }
    if let Some(socket) = &options.net_socket {
        findings.push(judge::data_plane(look::listens(socket).await, socket));
    }
    if let Some(server) = &options.server {
        findings.push(judge::clock(&look::clock(options, server).await, server));
    }
    if let Some(program) = &options.nixpacks {
        findings.push(judge::nixpacks(program, &look::version(program).await));
    }
    findings
}
