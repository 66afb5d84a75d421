//! Running the `git` program: a clean environment, bounded output, a deadline for every call.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use skep_identity::secret_file;
use skep_model::problem::{Code, Problem};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::super::folder::{Hold, WorkFolder, blocking, chain};
use super::super::program::Group;
use super::login::Login;
use super::remote::Remote;

/// A large repository over a slow line; the build's own deadline may be shorter.
const FETCH_LIMIT: Duration = Duration::from_secs(15 * 60);
/// One question to the other side.
const LIST_LIMIT: Duration = Duration::from_secs(60);
/// What happens on this disk alone.
pub(super) const LOCAL_LIMIT: Duration = Duration::from_secs(5 * 60);
/// What is kept of git's output: names of branches at most.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// The name that the configuration file gives to the repository.
const REMOTE: &str = "skep-source";

/// Where git looks for other copies' objects, and for commits whose parents it has not.
const ALTERNATES: &str = "objects/info/alternates";
const SHALLOW: &str = "shallow";

/// Settings that hold for every call: nobody is asked, nothing of the repository is run.
const SETTINGS: [&str; 10] = [
    "credential.helper=",
    "core.askPass=",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "gc.auto=0",
    // Each fetch is one pack, which can be counted.
    "fetch.unpackLimit=1",
    // A line that gives less than 1000 bytes a second for a minute is dead.
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
];

/// Our copy of a repository. Its environment is nobody's to see.
pub(super) struct Git {
    pub(super) remote: Remote,
    copy: PathBuf,
    config: PathBuf,
    environment: Vec<(String, String)>,
    _hold: Hold,
}

pub(super) struct Output {
    pub(super) is_success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Git {
    /// An empty copy beside the app's folder, that knows the repository.
    pub(super) async fn prepare(
        (remote, login): (Remote, &Login),
        work: &WorkFolder,
    ) -> Result<Self, Problem> {
        let mut git = Self {
            environment: Vec::new(),
            copy: work.path().join("copy.git"),
            config: work.path().join("git.config"),
            _hold: work.hold(),
            remote,
        };
        let (path, remote) = (git.config.clone(), git.remote.clone());
        let (folder, login) = (work.path().to_owned(), login.clone());
        git.environment = blocking(move || {
            let text = configuration(&remote);
            secret_file::write_private(&path, text.as_bytes())
                .map_err(|error| Problem::new(Code::Internal, chain(&error)))?;
            login.environment(&remote, &folder)
        })
        .await?;
        git.init().await?;
        Ok(git)
    }

    async fn init(&self) -> Result<(), Problem> {
        let mut command = self.command();
        // Templates may hold hooks.
        command
            .args(["init", "--quiet", "--bare", "--template=", "--"])
            .arg(&self.copy);
        let made = self.run(command, LOCAL_LIMIT).await?;
        self.expect(made)
    }

    /// The same repository with a copy that is kept; made where it is not there.
    pub(super) async fn with_copy(&self, kept: &Path) -> Result<Self, Problem> {
        let git = Self {
            remote: self.remote.clone(),
            copy: kept.to_owned(),
            config: self.config.clone(),
            environment: self.environment.clone(),
            _hold: self._hold.clone(),
        };
        if !kept.join("HEAD").exists() {
            git.init().await?;
        }
        Ok(git)
    }

    /// Lets our copy read what the kept one has, which stays as it is.
    pub(super) async fn borrow(&self, kept: &Path) -> Result<(), Problem> {
        let (own, kept) = (self.copy.clone(), kept.to_owned());
        blocking(move || {
            let objects = format!("{}\n", kept.join("objects").display());
            let mut lent = std::fs::write(own.join(ALTERNATES), objects);
            // Which commits have no parents there: none, where it has all of them.
            if kept.join(SHALLOW).exists() {
                let copied = std::fs::copy(kept.join(SHALLOW), own.join(SHALLOW));
                lent = lent.and(copied.map(drop));
            }
            lent.map_err(|error| Problem::new(Code::Internal, chain(&error)))
        })
        .await
    }

    /// Gives back what was borrowed.
    pub(super) async fn give_back(&self) -> Result<(), Problem> {
        let own = self.copy.clone();
        blocking(move || {
            // What is not there need not go.
            let _ = std::fs::remove_file(own.join(ALTERNATES));
            let _ = std::fs::remove_file(own.join(SHALLOW));
            Ok(())
        })
        .await
    }

    /// Fetches one refspec. The inner error is the other side's no.
    pub(super) async fn fetch(
        &self,
        refspec: &str,
        how: &[&str],
    ) -> Result<Result<(), Problem>, Problem> {
        let mut command = self.command_in_copy();
        command
            .args(["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"])
            .args(how)
            .args(["--", REMOTE, refspec]);
        let output = self.run(command, FETCH_LIMIT).await?;
        Ok(if output.is_success {
            Ok(())
        } else {
            Err(self.remote.explain(&output.stderr))
        })
    }

    /// The repository's branches.
    pub(super) async fn branches(&self) -> Result<Vec<String>, Problem> {
        let mut command = self.command_in_copy();
        command.args(["ls-remote", "--quiet", "--heads", "--", REMOTE]);
        let output = self.run(command, LIST_LIMIT).await?;
        if !output.is_success {
            return Err(self.remote.explain(&output.stderr));
        }
        let name = |line: &str| Some(line.split_once("refs/heads/")?.1.to_owned());
        Ok(output.stdout.lines().filter_map(name).collect())
    }

    /// The repository's branches and tags as git lists them, the newest version first.
    pub(super) async fn references(&self) -> Result<String, Problem> {
        let mut command = self.command_in_copy();
        command.args([
            "ls-remote",
            "--quiet",
            "--heads",
            "--tags",
            "--sort=-version:refname",
            "--",
            REMOTE,
        ]);
        let output = self.run(command, LIST_LIMIT).await?;
        match output.is_success {
            true => Ok(output.stdout),
            false => Err(self.remote.explain(&output.stderr)),
        }
    }

    /// Whether one commit of our copy is among what came before another.
    pub(super) async fn is_before(&self, older: &str, newer: &str) -> Result<bool, Problem> {
        let mut command = self.command_in_copy();
        command.args(["merge-base", "--is-ancestor", older, newer]);
        Ok(self.run(command, LOCAL_LIMIT).await?.is_success)
    }

    /// The commits from one to another with their files: a mark, the id, the message, a mark, the files.
    pub(super) async fn came(
        &self,
        since: &str,
        tip: &str,
        (commit, files): (char, char),
    ) -> Result<String, Problem> {
        let mut command = self.command_in_copy();
        let format = format!("--format=tformat:{commit}%H%n%B{files}");
        // What a merge brought is listed by its own commits.
        command
            .args(["log", "-z", "--name-only", "--no-renames", &format])
            .arg(format!("{since}..{tip}"))
            .arg("--");
        let output = self.run(command, LIST_LIMIT).await?;
        match output.is_success {
            true => Ok(output.stdout),
            false => Err(self.remote.explain(&output.stderr)),
        }
    }

    /// The full name of a commit that our copy has.
    pub(super) async fn commit_of(&self, name: &str) -> Result<Option<String>, Problem> {
        let mut command = self.command_in_copy();
        command
            .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
            .arg(format!("{name}^{{commit}}"));
        let output = self.run(command, LOCAL_LIMIT).await?;
        let commit = output.stdout.trim();
        Ok((output.is_success && commit.len() >= 40).then(|| commit.to_owned()))
    }

    /// Writes the files of `commit` into the new folder `tree`.
    pub(super) async fn check_out(&self, commit: &str, tree: &Path) -> Result<(), Problem> {
        let made = tree.to_owned();
        blocking(move || {
            std::fs::create_dir(&made).map_err(|error| {
                Problem::new(
                    Code::Internal,
                    format!("the node has no folder to check out into: {error}"),
                )
            })
        })
        .await?;
        let mut command = self.command_in_copy();
        command
            .current_dir(tree)
            .arg("--work-tree")
            .arg(tree)
            .args(["checkout", "--quiet", "--force", "--detach", commit, "--"]);
        let output = self.run(command, LOCAL_LIMIT).await?;
        self.expect(output)
    }

    /// Brings the submodules into the tree, and theirs.
    pub(super) async fn submodules(&self, tree: &Path) -> Result<(), Problem> {
        let mut command = self.command();
        if self.remote.local.is_some() {
            // As the repository itself: elsewhere git takes none that is a path on this node.
            command.args(["-c", "protocol.file.allow=always"]);
        }
        self.in_tree(&mut command, tree);
        command.args([
            "submodule",
            "update",
            "--init",
            "--recursive",
            "--depth=1",
            "--quiet",
        ]);
        let output = self.run(command, FETCH_LIMIT).await?;
        if output.is_success {
            return Ok(());
        }
        let said = output.stderr.replace(&self.remote.url, &self.remote.shown);
        Err(Problem::new(
            Code::SourceFailed,
            format!("a submodule cannot be fetched: {}", last_words(&said)),
        )
        .at("source.submodules")
        .hint("check its address in .gitmodules, and that the login of the repository may read it too"))
    }

    /// A submodule that is beside its repository is nowhere, where that was pushed.
    pub(super) async fn refuse_relative_submodules(&self, tree: &Path) -> Result<(), Problem> {
        let mut command = self.command();
        command
            .args(["config", "--file"])
            .arg(tree.join(".gitmodules"))
            .args(["--get-regexp", r"^submodule\..*\.url$"]);
        // Without any it fails: then there is nothing to refuse.
        let output = self.run(command, LOCAL_LIMIT).await?;
        let address = |line: &str| Some(line.rsplit_once(' ')?.1.to_owned());
        let mut all = output.stdout.lines().filter_map(address);
        let Some(found) = all.find(|it| it.starts_with('.') || it.starts_with('/')) else {
            return Ok(());
        };
        let text = format!(
            "the submodule at `{}` is beside a repository, and a pushed one is beside nothing",
            found.escape_debug()
        );
        Err(Problem::new(Code::SourceFailed, text)
            .at("source.submodules")
            .hint("name it by its whole address (https://...) in .gitmodules"))
    }

    /// Brings the files that Git LFS keeps.
    pub(super) async fn lfs(&self, tree: &Path) -> Result<(), Problem> {
        let mut command = self.command();
        self.in_tree(&mut command, tree);
        command.args(["lfs", "pull", REMOTE]);
        let output = self.run(command, FETCH_LIMIT).await?;
        if output.is_success {
            return Ok(());
        }
        let failed = |text: String| Problem::new(Code::SourceFailed, text).at("source.lfs");
        if output.stderr.contains("is not a git command") {
            return Err(failed("this node has no Git LFS".to_owned())
                .hint("install it: apt install git-lfs; or leave `lfs` out"));
        }
        let said = output.stderr.replace(&self.remote.url, &self.remote.shown);
        Err(failed(format!("Git LFS failed: {}", last_words(&said)))
            .hint("does the repository's server keep them, and may its login read them?"))
    }

    fn in_tree(&self, command: &mut Command, tree: &Path) {
        command
            .current_dir(tree)
            .env("GIT_DIR", &self.copy)
            .env("GIT_WORK_TREE", tree)
            .args(["-c", "core.bare=false"]);
    }

    fn expect(&self, output: Output) -> Result<(), Problem> {
        if output.is_success {
            return Ok(());
        }
        let said = output.stderr.replace(&self.remote.url, &self.remote.shown);
        Err(Problem::new(
            Code::SourceFailed,
            format!("git failed: {}", said.trim()),
        ))
    }

    pub(super) fn command_in_copy(&self) -> Command {
        let mut command = self.command();
        command.arg("--git-dir").arg(&self.copy);
        command
    }

    fn command(&self) -> Command {
        let mut command = plain();
        command
            .env("GIT_CONFIG_GLOBAL", &self.config)
            .env_remove("GIT_CONFIG_NOSYSTEM")
            .envs(self.environment.iter().cloned());
        command
    }

    async fn run(&self, mut command: Command, limit: Duration) -> Result<Output, Problem> {
        let work = async {
            let mut child = command.spawn()?;
            // With it the programs that it starts: ssh, transports, LFS.
            let _group = Group::of(&child);
            let stdout = read_some(child.stdout.take());
            let stderr = read_some(child.stderr.take());
            let (stdout, stderr, status) = tokio::join!(stdout, stderr, child.wait());
            Ok(Output {
                is_success: status?.success(),
                stdout: stdout?,
                stderr: stderr?,
            })
        };
        match timeout(limit, work).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(cannot_run(&error)),
            Err(_) => Err(Problem::new(
                Code::Timeout,
                format!(
                    "git did not finish with {} within {} s",
                    self.remote.shown,
                    limit.as_secs()
                ),
            )
            .hint("can this node reach it?")),
        }
    }
}

/// Git as it is run here: nobody's settings but ours, no prompts, nothing of a repository is run.
pub(super) fn plain() -> Command {
    let mut command = Command::new("git");
    for (name, _) in std::env::vars_os() {
        // Of whoever started the agent: another repository, other prompts.
        if name.to_string_lossy().starts_with("GIT_") {
            command.env_remove(name);
        }
    }
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("SSH_ASKPASS")
        // Its words are read.
        .env("LC_ALL", "C");
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

pub(super) fn last_words(stderr: &str) -> String {
    let lines = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

pub(super) fn cannot_run(error: &io::Error) -> Problem {
    let problem = Problem::new(
        Code::Runtime,
        format!("cannot run git on this node: {error}"),
    );
    if error.kind() == io::ErrorKind::NotFound {
        return problem.hint("install it: apt install git");
    }
    problem
}

/// The beginning of a pipe; the rest is read and dropped, so that the writer ends.
pub(super) async fn read_some(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let Some(mut pipe) = pipe else {
        return Ok(String::new());
    };
    let mut kept = Vec::new();
    (&mut pipe)
        .take(MAX_OUTPUT_BYTES)
        .read_to_end(&mut kept)
        .await?;
    tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

/// The configuration of one build, in place of the user's, which it includes: proxies and keys
/// that an operator has set up hold here too. A repository on this node may belong to another
/// user: git serves it only when it is named here, because the serving process takes no settings
/// from its caller's environment.
fn configuration(remote: &Remote) -> String {
    let mut text = String::new();
    // A system service may have no home, and git fails over a `~` that it cannot resolve.
    if let Some(home) = std::env::home_dir().filter(|home| home.is_absolute()) {
        let path = home.join(".gitconfig");
        text += &format!("[include]\n\tpath = {}\n", quoted(&path.to_string_lossy()));
    }
    text += &format!("[remote \"{REMOTE}\"]\n\turl = {}\n", quoted(&remote.url));
    if let Some(path) = &remote.local {
        let path = path.to_string_lossy();
        let path = path.trim_end_matches('/');
        text += "[safe]\n";
        for directory in [
            path.to_owned(),
            format!("{path}/.git"),
            format!("{path}.git"),
        ] {
            text += &format!("\tdirectory = {}\n", quoted(&directory));
        }
    }
    text
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}
