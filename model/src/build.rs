//! What a user says about builds: how one is bounded, what it is given, and what the builders need that
//! make an image without a Dockerfile. Knows no Docker and no git.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name;
use crate::problem::Problem;
use crate::spec::{between, check_image, inside};
use crate::variable::{self, VariableInput};

/// How long a build may take where nobody says otherwise, in ms: a hung one must not hold its node.
pub const DEFAULT_TIMEOUT_MS: u64 = 15 * 60_000;
/// Longest time that a build can be given, in ms.
pub const MAX_TIMEOUT_MS: u64 = 2 * 3_600_000;
/// Builds that a node does at a time: each takes a core and more.
pub const PER_NODE: usize = 2;
/// How often a build is given to a node when the one before was lost, the first time included.
pub const MAX_ATTEMPTS: u32 = 3;
/// Processes and threads of a build where nobody says otherwise.
pub const DEFAULT_PIDS: u32 = 4_096;
/// Most arguments, secrets, packages, headers.
const MAX_ENTRIES: usize = 64;
/// Longest command, name of a package or value of a header, in bytes.
const MAX_TEXT: usize = 2_048;
/// Longest text of known hosts, in bytes.
const MAX_KNOWN_HOSTS: usize = 16 << 10;
/// What stands before the name of a program of the node.
const EXEC: &str = "exec:";

/// What turns a source into an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Builder {
    /// `docker build` of the Dockerfile.
    Dockerfile,
    /// A ready image, named by reference.
    Image,
    /// Nixpacks: detects the language.
    Nixpacks,
    /// Files that a web server hands out, made by the site's own tools.
    Static,
    /// A program that the node's operator has given this name.
    Exec(String),
}

impl Builder {
    /// The name of the operator's program, where it is one.
    pub fn program(&self) -> Option<&str> {
        match self {
            Self::Exec(name) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dockerfile => f.write_str("dockerfile"),
            Self::Image => f.write_str("image"),
            Self::Nixpacks => f.write_str("nixpacks"),
            Self::Static => f.write_str("static"),
            Self::Exec(name) => write!(f, "{EXEC}{name}"),
        }
    }
}

impl FromStr for Builder {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        Ok(match text {
            "dockerfile" => Self::Dockerfile,
            "image" => Self::Image,
            "nixpacks" => Self::Nixpacks,
            "static" => Self::Static,
            other => match other.strip_prefix(EXEC) {
                Some(program) => {
                    name::check("builder", program)?;
                    Self::Exec(program.to_owned())
                }
                None => {
                    let text = format!("`{}` is not a builder", other.escape_debug());
                    return Err(Problem::invalid("builder", text).hint(
                        "dockerfile, image, nixpacks, static, or exec:NAME for a program of the node",
                    ));
                }
            },
        })
    }
}

impl TryFrom<String> for Builder {
    type Error = Problem;

    fn try_from(text: String) -> Result<Self, Problem> {
        text.parse()
    }
}

impl From<Builder> for String {
    fn from(builder: Builder) -> Self {
        builder.to_string()
    }
}

/// What a build is given and how far it may go. Arguments and secrets are given to nothing that does
/// not ask for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Build {
    /// The stage of the Dockerfile that becomes the image; none: its last.
    pub target: Option<String>,
    /// Values for `ARG`: they stay readable in the image's history.
    pub args: BTreeMap<String, String>,
    /// Variables of the service for `RUN --mount=type=secret,id=NAME`: they are in no image.
    pub secrets: BTreeSet<String>,
    /// When it is given up, in ms.
    pub timeout_ms: u64,
    /// Memory of each step, in bytes; 0: what the node has.
    pub memory_bytes: u64,
    /// CPU of each step, in thousandths of a core; 0: what the node has.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
}

impl Default for Build {
    fn default() -> Self {
        Self {
            target: None,
            args: BTreeMap::new(),
            secrets: BTreeSet::new(),
            timeout_ms: DEFAULT_TIMEOUT_MS,
            memory_bytes: 0,
            cpu_millis: 0,
            pids: DEFAULT_PIDS,
        }
    }
}

impl Build {
    /// Whether nothing is said.
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        if let Some(target) = &self.target {
            one_line("build.target", target)?;
        }
        few("build.args", self.args.len())?;
        for (key, value) in &self.args {
            check_variable("build.args", key, value)?;
        }
        few("build.secrets", self.secrets.len())?;
        for secret in &self.secrets {
            check_variable("build.secrets", secret, "")?;
        }
        between("build.timeout_ms", self.timeout_ms, 1_000, MAX_TIMEOUT_MS)?;
        if self.memory_bytes != 0 {
            between("build.memory_bytes", self.memory_bytes, 32 << 20, 1 << 50)?;
        }
        if self.cpu_millis != 0 {
            between(
                "build.cpu_millis",
                u64::from(self.cpu_millis),
                10,
                1_000_000,
            )?;
        }
        between("build.pids", u64::from(self.pids), 16, 1_000_000)
    }
}

/// What Nixpacks is told beside what it finds out itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Nixpacks {
    /// Replaces the command that installs dependencies.
    pub install: Option<String>,
    /// Replaces the command that builds.
    pub build: Option<String>,
    /// Replaces the command that starts the app.
    pub start: Option<String>,
    /// Nix packages beside those that it chooses.
    pub packages: Vec<String>,
    /// Debian packages beside those that it chooses.
    pub apt: Vec<String>,
    /// The version of the language, where Nixpacks takes one by a variable of its provider: the name
    /// of the provider and the version, such as `node` and `20`.
    pub versions: BTreeMap<String, String>,
}

impl Nixpacks {
    /// Providers whose version Nixpacks takes by a variable, and that variable.
    pub const VERSIONS: [(&'static str, &'static str); 12] = [
        ("csharp", "NIXPACKS_CSHARP_SDK_VERSION"),
        ("deno", "NIXPACKS_DENO_VERSION"),
        ("elixir", "NIXPACKS_ELIXIR_VERSION"),
        ("fsharp", "NIXPACKS_FSHARP_SDK_VERSION"),
        ("go", "NIXPACKS_GO_VERSION"),
        ("java", "NIXPACKS_JDK_VERSION"),
        ("node", "NIXPACKS_NODE_VERSION"),
        ("php", "NIXPACKS_PHP_VERSION"),
        ("python", "NIXPACKS_PYTHON_VERSION"),
        ("ruby", "NIXPACKS_RUBY_VERSION"),
        ("rust", "NIXPACKS_RUST_VERSION"),
        ("swift", "NIXPACKS_SWIFT_VERSION"),
    ];

    /// Whether nothing is said.
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        let commands = [
            ("nixpacks.install", &self.install),
            ("nixpacks.build", &self.build),
            ("nixpacks.start", &self.start),
        ];
        for (field, command) in commands {
            command
                .as_deref()
                .map_or(Ok(()), |it| one_line(field, it))?;
        }
        for (field, packages) in [
            ("nixpacks.packages", &self.packages),
            ("nixpacks.apt", &self.apt),
        ] {
            few(field, packages.len())?;
            packages.iter().try_for_each(|it| package(field, it))?;
        }
        for (provider, version) in &self.versions {
            let is_known = Self::VERSIONS.iter().any(|(name, _)| name == provider);
            if !is_known {
                let known: Vec<&str> = Self::VERSIONS.iter().map(|(name, _)| *name).collect();
                let text = format!("Nixpacks takes no version of `{}`", provider.escape_debug());
                return Err(Problem::invalid("nixpacks.versions", text).hint(known.join(", ")));
            }
            package("nixpacks.versions", version)?;
        }
        Ok(())
    }
}

/// A site of files. What is not said is found out from what is in the folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct StaticSite {
    /// Replaces the command that installs dependencies; empty: none.
    pub install: Option<String>,
    /// Replaces the command that builds; empty: none, the files are ready.
    pub build: Option<String>,
    /// Folder with what was built, inside the app's folder.
    pub output: Option<String>,
    /// Paths that are no file get `index.html`: the app has routes of its own.
    pub spa: Option<bool>,
    /// File for what does not exist, inside the output.
    pub not_found: Option<String>,
    /// Headers of every answer.
    pub headers: BTreeMap<String, String>,
    /// Image in which it is built; none: that of the tools that were found.
    pub image: Option<String>,
    /// Image of the web server that hands it out, an nginx.
    pub server: Option<String>,
}

impl StaticSite {
    /// Whether nothing is said.
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        for (field, command) in [
            ("static.install", &self.install),
            ("static.build", &self.build),
        ] {
            let said = command.as_deref().filter(|it| !it.is_empty());
            said.map_or(Ok(()), |it| one_line(field, it))?;
        }
        for (field, path) in [
            ("static.output", &self.output),
            ("static.not_found", &self.not_found),
        ] {
            path.as_deref().map_or(Ok(()), |it| plain_path(field, it))?;
        }
        if self.spa == Some(true) && self.not_found.is_some() {
            let text = "with `spa` there is no path that does not exist";
            return Err(Problem::invalid("static.not_found", text).hint("leave one of them out"));
        }
        few("static.headers", self.headers.len())?;
        for (key, value) in &self.headers {
            header(key, value)?;
        }
        for (field, image) in [
            ("static.image", &self.image),
            ("static.server", &self.server),
        ] {
            image
                .as_deref()
                .map_or(Ok(()), |it| check_image(field, it))?;
        }
        Ok(())
    }
}

/// The variable that a token of a GitHub App is in, where a build's server puts one. Reserved: no service has it, and no
/// build can ask for it.
pub const APP_TOKEN: &str = "SKEP_APP_TOKEN";

/// How a repository is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Fetch {
    /// Submodules too, and theirs.
    pub submodules: bool,
    /// What Git LFS keeps beside the repository.
    pub lfs: bool,
    /// The variable of the service that holds an SSH private key (a deploy key).
    pub ssh_key: Option<String>,
    /// Lines as in `known_hosts`: the only keys that the repository's host may show.
    pub known_hosts: Option<String>,
    /// The variable of the service that holds a token or password, for https.
    pub token: Option<String>,
    /// The user that goes with the token; none: `git`.
    pub user: Option<String>,
}

impl Fetch {
    /// Whether nothing is said.
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        for (field, variable) in [
            ("fetch.ssh_key", &self.ssh_key),
            ("fetch.token", &self.token),
        ] {
            // What the server puts there itself: no service has a variable of this name.
            let said = variable.as_deref().filter(|it| *it != APP_TOKEN);
            said.map_or(Ok(()), |it| check_variable(field, it, ""))?;
        }
        if let Some(user) = &self.user {
            one_line("fetch.user", user)?;
        }
        match &self.known_hosts {
            None if self.ssh_key.is_some() => Err(Problem::invalid(
                "fetch.known_hosts",
                "a key is given to no host that has not been named",
            )
            .hint("the lines that `ssh-keyscan HOST` prints, once you have compared them")),
            Some(text) if text.len() > MAX_KNOWN_HOSTS || text.contains('\0') => Err(
                Problem::invalid("fetch.known_hosts", "too long, or not text")
                    .hint(format!("up to {MAX_KNOWN_HOSTS} bytes")),
            ),
            _ => Ok(()),
        }
    }
}

fn few(field: &str, count: usize) -> Result<(), Problem> {
    if count <= MAX_ENTRIES {
        return Ok(());
    }
    Err(Problem::invalid(field, format!("more than {MAX_ENTRIES}")))
}

fn one_line(field: &str, text: &str) -> Result<(), Problem> {
    let is_odd = text.trim().is_empty() || text.chars().any(char::is_control);
    if !is_odd && text.len() <= MAX_TEXT {
        return Ok(());
    }
    let told = format!("`{}` is not accepted", text.escape_debug());
    Err(Problem::invalid(field, told).hint(format!("one line of up to {MAX_TEXT} bytes")))
}

fn package(field: &str, text: &str) -> Result<(), Problem> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-+*^~".contains(&b);
    let begins = text.bytes().next().is_some_and(|b| b != b'-');
    if begins && text.len() <= 128 && text.bytes().all(is_plain) {
        return Ok(());
    }
    let told = format!("`{}` is not accepted", text.escape_debug());
    Err(Problem::invalid(field, told).hint("letters, digits and ._-+*^~"))
}

/// A path that goes into a Dockerfile and into the configuration of a web server as it is.
fn plain_path(field: &str, path: &str) -> Result<(), Problem> {
    inside(field, path)?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/@".contains(&b);
    if !path.is_empty() && path.len() <= MAX_TEXT && path.bytes().all(is_plain) {
        return Ok(());
    }
    let told = format!("`{}` is not accepted", path.escape_debug());
    Err(Problem::invalid(field, told).hint("a relative path of letters, digits and ._-/@"))
}

fn header(key: &str, value: &str) -> Result<(), Problem> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let is_value = |b: u8| (b' '..=b'~').contains(&b) && !b"\"\\$".contains(&b);
    let name_fits = (1..=128).contains(&key.len()) && key.bytes().all(is_name);
    if name_fits && value.len() <= MAX_TEXT && value.bytes().all(is_value) {
        return Ok(());
    }
    let told = format!("`{}` is not accepted", key.escape_debug());
    Err(Problem::invalid("static.headers", told)
        .hint("letters, digits and -; a value of plain text without \" \\ and $"))
}

fn check_variable(field: &str, key: &str, value: &str) -> Result<(), Problem> {
    let input = VariableInput {
        name: key.to_owned(),
        value: value.to_owned(),
        secret: false,
    };
    variable::check(&input).map_err(|problem| problem.at(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_are_words() {
        for word in ["dockerfile", "image", "nixpacks", "static", "exec:bazel"] {
            let builder: Builder = word.parse().expect(word);
            assert_eq!(builder.to_string(), word);
        }
        for wrong in [
            "",
            "Dockerfile",
            "exec:",
            "exec:a b",
            "exec:../x",
            "railpack",
        ] {
            let problem = wrong.parse::<Builder>().expect_err(wrong);
            assert_eq!(problem.field.as_deref(), Some("builder"), "{wrong}");
        }
    }

    #[test]
    fn what_would_break_out_of_a_file_is_refused() {
        let site = |change: fn(&mut StaticSite)| {
            let mut site = StaticSite::default();
            change(&mut site);
            site.check().err().and_then(|problem| problem.field)
        };
        assert_eq!(site(|_| {}), None);
        assert_eq!(site(|it| it.install = Some(String::new())), None);
        assert_eq!(
            site(|it| it.output = Some("dist/my-app/browser".into())),
            None
        );
        type Change = fn(&mut StaticSite);
        let cases: [(Change, &str); 7] = [
            (|it| it.build = Some("a\nUSER root".into()), "static.build"),
            (|it| it.output = Some("../x".into()), "static.output"),
            (|it| it.output = Some("a b".into()), "static.output"),
            (|it| it.not_found = Some("4;0".into()), "static.not_found"),
            (
                |it| drop(it.headers.insert("A".into(), "\"; x".into())),
                "static.headers",
            ),
            (
                |it| drop(it.headers.insert("A b".into(), "x".into())),
                "static.headers",
            ),
            (
                |it| (it.spa, it.not_found) = (Some(true), Some("404.html".into())),
                "static.not_found",
            ),
        ];
        for (change, field) in cases {
            assert_eq!(site(change).as_deref(), Some(field));
        }
    }

    #[test]
    fn bounds_hold() {
        let build = |change: fn(&mut Build)| {
            let mut build = Build::default();
            change(&mut build);
            build.check().err().and_then(|problem| problem.field)
        };
        assert_eq!(build(|_| {}), None);
        type Change = fn(&mut Build);
        let cases: [(Change, &str); 6] = [
            (|it| it.timeout_ms = 999, "build.timeout_ms"),
            (|it| it.timeout_ms = MAX_TIMEOUT_MS + 1, "build.timeout_ms"),
            (|it| it.memory_bytes = 1, "build.memory_bytes"),
            (|it| it.pids = 1, "build.pids"),
            (|it| it.target = Some(String::new()), "build.target"),
            (|it| it.secrets = ["A=B".to_owned()].into(), "build.secrets"),
        ];
        for (change, field) in cases {
            assert_eq!(build(change).as_deref(), Some(field));
        }
        let nixpacks = Nixpacks {
            versions: [("cobol".to_owned(), "1".to_owned())].into(),
            ..Nixpacks::default()
        };
        assert!(nixpacks.check().is_err());
        let nixpacks = Nixpacks {
            packages: vec!["--help".into()],
            ..Nixpacks::default()
        };
        assert!(nixpacks.check().is_err());
    }

    #[test]
    fn a_key_is_given_to_named_hosts_alone() {
        let mut fetch = Fetch {
            ssh_key: Some("DEPLOY_KEY".into()),
            ..Fetch::default()
        };
        let problem = fetch.check().expect_err("no hosts");
        assert_eq!(problem.field.as_deref(), Some("fetch.known_hosts"));
        fetch.known_hosts = Some("h ssh-ed25519 AAAA".into());
        assert_eq!(fetch.check(), Ok(()));
    }
}
