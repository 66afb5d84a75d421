//! A real PostgreSQL of a test's own: in a folder that goes with it, as a user without rights, gone
//! when the test is, however that ends. Its functions block until done. Std and `tempfile` alone:
//! the control plane's own tests use this file, too.

use std::ffi::OsStr;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Where Debian keeps each version: `VERSION/bin`.
const VERSIONS: &str = "/usr/lib/postgresql";
/// `nobody`: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;
const USER: &str = "skep";
/// Starts it, says so, and stops it when stdin ends: as soon as the test is over, SIGKILL included.
const KEEP: &str = r#"
"$1/pg_ctl" --pgdata="$2" --log="$3" --silent --wait start >&2 && echo ready
cat >/dev/null
"$1/pg_ctl" --pgdata="$2" --silent --mode=immediate stop >&2
"#;

/// A PostgreSQL, running or stopped.
#[derive(Debug)]
pub struct Postgres {
    keeper: Option<Child>,
    programs: PathBuf,
    listen: Option<SocketAddr>,
    is_root: bool,
    dir: tempfile::TempDir,
}

impl Postgres {
    /// Makes an empty database and serves it on `listen`, or on a Unix socket alone.
    ///
    /// # Errors
    /// PostgreSQL is not installed or does not start; its own words are on stderr.
    pub fn start(listen: Option<SocketAddr>) -> io::Result<Self> {
        let mut postgres = Self::make(listen)?;
        std::fs::write(
            postgres.data().join("pg_hba.conf"),
            "local all all trust\nhost all all all trust\n",
        )?;
        postgres.resume()?;
        Ok(postgres)
    }

    /// The same, served on TLS alone with this certificate chain and key.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_tls(address: SocketAddr, chain_pem: &str, key_pem: &str) -> io::Result<Self> {
        let mut postgres = Self::make(Some(address))?;
        let key = postgres.data().join("server.key");
        std::fs::write(&key, key_pem)?;
        // PostgreSQL uses no key that others may read.
        std::fs::set_permissions(&key, Permissions::from_mode(0o600))?;
        if postgres.is_root {
            chown(&key, Some(NOBODY), Some(NOBODY))?;
        }
        std::fs::write(postgres.data().join("server.crt"), chain_pem)?;
        std::fs::write(
            postgres.data().join("pg_hba.conf"),
            // The socket is for `pg_ctl`, which waits until it answers.
            "local all all trust\nhostssl all all all trust\n",
        )?;
        postgres.set("ssl = on\n")?;
        postgres.resume()?;
        Ok(postgres)
    }

    fn make(listen: Option<SocketAddr>) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("skep-pg-").tempdir()?;
        // Whose a new folder is tells who this is.
        let is_root = dir.path().metadata()?.uid() == 0;
        if is_root {
            chown(dir.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let postgres = Self {
            keeper: None,
            programs: programs()?,
            listen,
            is_root,
            dir,
        };
        postgres.init()?;
        Ok(postgres)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        match self.listen {
            Some(address) => format!("postgres://{USER}@{address}/postgres"),
            None => format!(
                "postgres://{USER}@localhost/postgres?host={}",
                self.dir.path().display()
            ),
        }
    }

    /// Starts it again, with all that it held.
    ///
    /// # Errors
    /// It does not start; its log says why.
    pub fn resume(&mut self) -> io::Result<()> {
        let log = self.dir.path().join("log");
        let mut keeper = self
            .command("sh")
            .args(["-c", KEEP, "sh"])
            .args([&self.programs, &self.data(), &log])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the tests: it ends by the end of its stdin.
            .process_group(0)
            .spawn()?;
        let mut word = String::new();
        let stdout = keeper.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        BufReader::new(stdout).read_line(&mut word)?;
        self.keeper = Some(keeper);
        if word.trim() != "ready" {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(io::Error::other(format!(
                "PostgreSQL does not start: {log}"
            )));
        }
        Ok(())
    }

    /// Stops it at once, whoever is connected; nothing where it does not run.
    pub fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            // It was there, and is gone now.
            let _ = keeper.wait();
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn init(&self) -> io::Result<()> {
        let made = self
            .command(self.programs.join("initdb"))
            .args([
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ])
            .args(["--username", USER, "--pgdata"])
            .arg(self.data())
            .output()?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(io::Error::other(format!("initdb: {said}")));
        }
        let (host, port) = match self.listen {
            Some(address) => (address.ip().to_string(), address.port()),
            None => (String::new(), 5432),
        };
        self.set(&format!(
            "listen_addresses = '{host}'\nport = {port}\nfsync = off\n\
             unix_socket_directories = '{}'\n",
            self.dir.path().display()
        ))
    }

    fn set(&self, settings: &str) -> io::Result<()> {
        let path = self.data().join("postgresql.auto.conf");
        let mut file = OpenOptions::new().append(true).open(path)?;
        file.write_all(settings.as_bytes())
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path());
        if self.is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The folder of the newest version that is installed.
fn programs() -> io::Result<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let newest = versions
        .map(|version| version.path().join("bin"))
        .filter(|programs| programs.join("initdb").is_file())
        .max_by_key(|programs| major(programs));
    newest.ok_or_else(|| {
        let text = format!("no PostgreSQL in {VERSIONS}: apt-get install postgresql");
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

fn major(programs: &std::path::Path) -> u32 {
    let version = programs.parent().and_then(|folder| folder.file_name());
    let number = version.and_then(|name| name.to_str()?.parse().ok());
    number.unwrap_or_default()
}
