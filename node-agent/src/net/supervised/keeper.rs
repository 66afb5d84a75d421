//! Runs one Traefik after the other: each is let at the doors when it says that it has the routes, and taken off them
//! before it ends, or as soon as it has.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use skep_identity::secret_file;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::child::Running;
use super::config::{self, Told};
use super::door::{self, Who};
use super::{Doors, Ends, Error, Figures};
use crate::backoff::Backoff;
use crate::error_chain;
use crate::net::table::Tables;
use crate::net::{DRAIN_LIMIT, HANDOVER_LIMIT, traefik};

/// Pauses before one that has ended is started again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// One that was up for so long has ended for a reason of its own.
const STEADY: Duration = Duration::from_secs(60);
/// Handshakes that were under way when connections were led elsewhere are done, and what Traefik took is on its way
/// ([`config::ACCEPTS`]).
const LINGER: Duration = Duration::from_secs(5);

/// Runs them.
pub(super) struct Keeper {
    pub(super) program: PathBuf,
    pub(super) config: PathBuf,
    pub(super) told: Told,
    /// Where its API is to be. None: anywhere.
    pub(super) api: Option<SocketAddr>,
    pub(super) doors: Arc<Doors>,
    pub(super) tables: Arc<Tables>,
    pub(super) figures: Arc<Figures>,
    pub(super) ends: Ends,
    pub(super) serving: Serving,
}

/// What the ingress serves in place of Traefik.
#[derive(Default)]
pub(super) struct Serving {
    tasks: TaskTracker,
    /// Nothing more is taken from the doors' own sockets: a successor does, or nobody.
    next: CancellationToken,
    until: CancellationToken,
}

impl Keeper {
    /// Has the ingress serve the doors' own sockets.
    pub(super) fn serve_own(&self) -> Result<(), Error> {
        for (name, door) in &self.doors.all {
            let own = door.own().and_then(tokio_of);
            let own = own.map_err(|source| Error::Listen {
                address: door.address(),
                source,
            })?;
            self.serve(name, own, self.serving.next.clone());
        }
        Ok(())
    }

    fn serve(&self, name: &str, socket: tokio::net::TcpListener, stop: CancellationToken) {
        let ingress = self.tables.ingress().clone();
        let (until, next) = (self.serving.until.clone(), (stop, HANDOVER_LIMIT));
        let is_tls = name == config::HTTPS;
        self.serving.tasks.spawn(async move {
            if !is_tls {
                ingress.serve_or_hand_over(socket, until, next).await;
                return;
            }
            let served = ingress.serve_tls_or_hand_over(socket, until, next).await;
            if let Err(error) = served {
                tracing::error!(
                    error = error_chain(&error),
                    "the ingress cannot stand in for Traefik under TLS"
                );
            }
        });
    }

    /// Runs Traefik until the process ends or is succeeded; `shut` when none gets a connection any more.
    pub(super) async fn keep(self, shut: CancellationToken) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let mut last = None;
        let mut is_due = self.first_table().await;
        while is_due {
            let began = Instant::now();
            match self.run_one().await {
                Ok(running) => last = Some(running),
                Err(error) => {
                    tracing::error!(%error, "Traefik cannot be started: the ingress serves in its place");
                }
            }
            if self.is_over() {
                break;
            }
            if let Some(mut hanging) = last.take() {
                hanging.end_within(DRAIN_LIMIT).await;
            }
            if began.elapsed() > STEADY {
                backoff.reset();
            }
            is_due = self.goes_on(sleep(backoff.next())).await;
        }
        let was_handed = self.ends.handed.is_cancelled();
        if was_handed {
            self.serving.next.cancel();
        } else {
            self.serving.until.cancel();
            let own = self.doors.sockets().unwrap_or_default();
            own.iter().for_each(door::shut);
        }
        shut.cancel();
        self.drain(last, was_handed).await;
    }

    /// What is open goes on for as long as elsewhere in this process.
    async fn drain(&self, last: Option<Running>, was_handed: bool) {
        self.serving.tasks.close();
        if let Some(mut running) = last {
            let limit = if was_handed {
                HANDOVER_LIMIT
            } else {
                DRAIN_LIMIT
            };
            let asked = async {
                match was_handed {
                    true => self.ends.asked.cancelled().await,
                    false => std::future::pending().await,
                }
            };
            let is_cut = tokio::select! {
                () = running.end_within(limit) => false,
                () = asked => true,
            };
            if is_cut {
                running.end_within(DRAIN_LIMIT).await;
            }
        }
        tokio::select! {
            () = self.serving.tasks.wait() => {}
            () = self.ends.asked.cancelled() => {
                self.serving.until.cancel();
                self.serving.tasks.wait().await;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.ends.asked.is_cancelled() || self.ends.handed.is_cancelled()
    }

    /// Waits for `what`; false: there is nothing more to do.
    async fn goes_on(&self, what: impl Future<Output = ()>) -> bool {
        tokio::select! {
            () = what => true,
            () = self.ends.asked.cancelled() => false,
            () = self.ends.handed.cancelled() => false,
        }
    }

    /// A Traefik that has nothing to serve answers everybody with 404.
    async fn first_table(&self) -> bool {
        let mut changes = self.tables.changes();
        let first = async {
            while self.tables.current().is_none() && changes.changed().await.is_ok() {}
            // Its API has the address that is said until then.
            if self.api.is_some() {
                self.ends.older_shut.cancelled().await;
            }
        };
        self.goes_on(first).await
    }

    /// One Traefik, until it ends, does not answer any more, or has to go. It may still have open requests then.
    async fn run_one(&self) -> io::Result<Running> {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let api = TcpListener::bind(self.api.unwrap_or(anywhere))?;
        let address = api.local_addr()?;
        let told = Told {
            api: address,
            ..self.told.clone()
        };
        let path = self.config.clone();
        let write = move || secret_file::write_private(&path, &config::render(&told));
        let written = tokio::task::spawn_blocking(write).await?;
        written.map_err(io::Error::other)?;
        let doors = &self.doors.all;
        let own: Vec<_> = doors
            .iter()
            .map(|(name, door)| Ok((*name, door.another()?)))
            .collect::<io::Result<_>>()?;
        let mut sockets = vec![(config::API, api)];
        for (name, socket) in &own {
            sockets.push((name, socket.try_clone()?));
        }
        let started = Running::start(&self.program, &self.config, sockets);
        let mut running = match started {
            Ok(running) => running,
            Err(error) => {
                own.iter().for_each(|(_, socket)| door::shut(socket));
                return Err(error);
            }
        };
        self.figures.starts.fetch_add(1, Ordering::Relaxed);
        self.attend(&mut running, address).await;
        self.lead_to(Who::Ingress);
        self.figures.is_up.store(false, Ordering::Relaxed);
        running.terminate();
        self.take_the_rest(own).await;
        Ok(running)
    }

    /// Lets it at the doors when it has the routes; answers when it is to be taken off them.
    async fn attend(&self, running: &mut Running, api: SocketAddr) {
        let lead = async {
            traefik::in_use(api, &self.tables).await;
            self.ends.older_shut.cancelled().await;
            self.lead_to(Who::Traefik);
            self.figures.is_up.store(true, Ordering::Relaxed);
            tracing::info!(%api, "Traefik serves");
            traefik::answers_no_more(api).await
        };
        tokio::select! {
            biased;
            ended = running.ended() => match ended {
                Ok(status) => tracing::warn!(%status, "Traefik has ended: the ingress serves in its place until it is back"),
                Err(error) => tracing::error!(%error, "Traefik cannot be waited for"),
            },
            () = self.ends.asked.cancelled() => {}
            () = self.ends.handed.cancelled() => {}
            why = lead => {
                tracing::warn!(why, "Traefik is replaced: the ingress serves in its place until then");
            }
            () = traefik::follow(api, "http", Arc::clone(&self.tables)) => {}
        }
    }

    fn lead_to(&self, who: Who) {
        for (name, door) in &self.doors.all {
            if let Err(error) = door.lead_to(who) {
                tracing::error!(%error, name, ?who, "the kernel does not lead connections elsewhere");
            }
        }
    }

    /// The ingress takes what still comes to the sockets of a Traefik; then they are no more.
    async fn take_the_rest(&self, sockets: Vec<(&'static str, TcpListener)>) {
        let stop = CancellationToken::new();
        for (name, socket) in &sockets {
            match socket.try_clone().and_then(tokio_of) {
                Ok(socket) => self.serve(name, socket, stop.clone()),
                Err(error) => {
                    tracing::error!(%error, "connections that wait for Traefik are lost");
                }
            }
        }
        sleep(LINGER).await;
        sockets.iter().for_each(|(_, socket)| door::shut(socket));
        stop.cancel();
    }
}

fn tokio_of(socket: TcpListener) -> io::Result<tokio::net::TcpListener> {
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
}
