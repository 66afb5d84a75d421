//! A Traefik that `skep net` runs itself: on sockets that it owns, started again when it ends, handed over to successors.
//! While no Traefik has the routes the ingress serves its addresses.

mod child;
mod config;
mod door;
mod keeper;

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use semver::Version;
use skep_ingress::TlsError;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::table::Tables;
use config::Told;
use door::Door;
use keeper::Keeper;

/// What it is called in the data folder.
const CONFIG: &str = "traefik.yml";

/// Which Traefik, and where it serves.
#[derive(Debug, Clone)]
pub struct Supervised {
    /// The program.
    pub program: PathBuf,
    /// Where it serves apps.
    pub web_addr: SocketAddr,
    /// Where it serves them under TLS. None: it does not.
    pub https_addr: Option<SocketAddr>,
}

/// Traefik cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not run.
    #[error("--run-traefik {}: it cannot be run: give the whole path of Traefik's program", path.display())]
    Program {
        /// What was given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else.
    #[error("--run-traefik {}: it is not a Traefik: `traefik version` does not say a version", path.display())]
    Unlike {
        /// What was given.
        path: PathBuf,
    },
    /// It does not know what it is to be told.
    #[error("--run-traefik {}: it is {version}, and {oldest} or newer is needed: install that", path.display())]
    Old {
        /// What was given.
        path: PathBuf,
        /// It says.
        version: Version,
        /// The first that would do.
        oldest: Version,
    },
    /// It would get no certificates.
    #[error(
        "--traefik-https-addr: certificates are given only to who has the token of the admin endpoint: set one by --admin-token"
    )]
    NoToken,
    /// It is told by polls.
    #[error("--run-traefik has Traefik poll: leave --traefik-file away")]
    ByFile,
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for Traefik: `ss -ltnp` on this node shows who has it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// TLS of the ingress, where it stands in.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Whether it can be run as `options` say.
pub(super) async fn check(options: &Options) -> Result<(), Error> {
    let Some(traefik) = &options.run_traefik else {
        return Ok(());
    };
    if options.traefik_file.is_some() {
        return Err(Error::ByFile);
    }
    if traefik.https_addr.is_some() && options.admin_token.is_none() {
        return Err(Error::NoToken);
    }
    let version = child::check(&traefik.program).await?;
    tracing::info!(program = %traefik.program.display(), %version, "Traefik is run by this process");
    Ok(())
}

/// What is counted of it.
#[derive(Debug, Default)]
pub(super) struct Figures {
    starts: AtomicU64,
    is_up: AtomicBool,
}

impl Figures {
    /// For Prometheus.
    pub(super) fn render(&self) -> String {
        let starts = self.starts.load(Ordering::Relaxed);
        let up = u8::from(self.is_up.load(Ordering::Relaxed));
        let mut text = String::new();
        let _ = write!(
            text,
            "# HELP skep_net_traefik_starts_total How often Traefik was started.\n\
             # TYPE skep_net_traefik_starts_total counter\n\
             skep_net_traefik_starts_total {starts}\n\
             # HELP skep_net_traefik_up Whether Traefik gets connections; otherwise the ingress stands in.\n\
             # TYPE skep_net_traefik_up gauge\n\
             skep_net_traefik_up {up}\n"
        );
        text
    }
}

/// Its addresses, with whom the ingress stands in.
#[derive(Debug)]
pub(super) struct Doors {
    /// Each with the entry point of its name.
    all: Vec<(&'static str, Door)>,
    /// They were a predecessor's: its Traefik gets the connections until it lets go.
    given: bool,
}

impl Doors {
    /// Opens them; those of a predecessor are among `entries`.
    pub(super) fn open(
        options: &Options,
        entries: &mut Vec<TcpListener>,
    ) -> Result<Option<Self>, Error> {
        let Some(traefik) = &options.run_traefik else {
            return Ok(None);
        };
        let https = traefik.https_addr.map(|address| (config::HTTPS, address));
        let mut doors = Self {
            all: Vec::new(),
            given: false,
        };
        for (name, address) in [(config::WEB, traefik.web_addr)].into_iter().chain(https) {
            let is_it = |it: &TcpListener| it.local_addr().is_ok_and(|at| at == address);
            let place = entries.iter().position(is_it);
            let given = place.map(|place| entries.swap_remove(place));
            doors.given |= given.is_some();
            let door = Door::open(address, given);
            let door = door.map_err(|source| Error::Listen { address, source })?;
            doors.all.push((name, door));
        }
        Ok(Some(doors))
    }

    /// The ingress's sockets, for a successor.
    pub(super) fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        self.all.iter().map(|(_, door)| door.own()).collect()
    }

    fn told(&self, options: &Options, admin: SocketAddr) -> Told {
        let address = |of: &str| {
            let door = self.all.iter().find(|(name, _)| *name == of);
            door.map(|(_, door)| door.address())
        };
        let edge = &options.edge;
        let networks = edge.trusted_proxies.iter().flat_map(|it| it.networks());
        let https = address(config::HTTPS);
        Told {
            web: address(config::WEB).expect("it is the first that is opened"),
            https,
            api: admin,
            admin,
            token: options.admin_token.clone(),
            trusted: networks.map(|it| it.to_string()).collect(),
            proxy_protocol: edge.proxy_protocol,
            https_redirect: edge.https_redirect.filter(|_| https.is_some()),
        }
    }
}

/// What becomes of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Supervision {
    /// No Traefik of this process gets a connection any more.
    pub(super) shut: CancellationToken,
    /// It has ended.
    pub(super) ended: CancellationToken,
    pub(super) figures: Option<Arc<Figures>>,
}

impl Supervision {
    /// Of no Traefik.
    pub(super) fn none() -> Self {
        let none = Self::default();
        none.shut.cancel();
        none.ended.cancel();
        none
    }

    /// Cancels `next` when the process is `asked` to end and Traefik has.
    pub(super) async fn end_first(self, asked: CancellationToken, next: CancellationToken) {
        asked.cancelled().await;
        self.ended.cancelled().await;
        next.cancel();
    }
}

/// When a Traefik has to go.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    /// The process is to end.
    pub(super) asked: CancellationToken,
    /// A successor serves.
    pub(super) handed: CancellationToken,
    /// The predecessor's Traefik gets no connection any more.
    pub(super) older_shut: CancellationToken,
}

/// Serves `doors` and runs Traefik, which polls `admin`, until one of `ends`.
pub(super) fn start(
    options: &Options,
    (doors, admin): (&Arc<Doors>, SocketAddr),
    tables: &Arc<Tables>,
    ends: Ends,
) -> Result<Supervision, Error> {
    let Some(traefik) = &options.run_traefik else {
        return Ok(Supervision::none());
    };
    if !doors.given {
        ends.older_shut.cancel();
    }
    let figures = Arc::new(Figures::default());
    let supervision = Supervision {
        figures: Some(Arc::clone(&figures)),
        ..Supervision::default()
    };
    let keeper = Keeper {
        program: traefik.program.clone(),
        config: options.data_dir.join(CONFIG),
        told: doors.told(options, admin),
        api: options.traefik_api,
        doors: Arc::clone(doors),
        tables: Arc::clone(tables),
        figures,
        ends,
        serving: keeper::Serving::default(),
    };
    keeper.serve_own()?;
    let (shut, ended) = (supervision.shut.clone(), supervision.ended.clone());
    tokio::spawn(async move {
        // Also if it panics.
        let (_shut, _ended) = (shut.clone().drop_guard(), ended.drop_guard());
        keeper.keep(shut).await;
    });
    Ok(supervision)
}
