//! The ports that routes of connections have of their own: each is listened on while the table names it, and
//! tried again where it is taken. And the listener on which a proxy of this machine hands on connections by
//! name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{At, Call, carry};
use crate::arrival::{arrived, introduce, pause_after, told_by_proxy, tune};
use crate::crew::Place;
use crate::ingress::{Ingress, Shared};
use crate::server::{Closed, drain_from};
use crate::tunnel::Tunnels;

/// First and longest pause before a port that is taken is tried again: nothing tells when it is free.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The ports of the table, and what became of them.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    wanted: watch::Sender<BTreeSet<u16>>,
    unbound: watch::Sender<BTreeSet<u16>>,
    open: Mutex<BTreeMap<u16, Open>>,
}

/// A port that is listened on; dropped, it is not.
#[derive(Debug)]
struct Open {
    listener: Arc<TcpListener>,
    _end: DropGuard,
}

impl Entries {
    /// These are to be listened on from now on.
    pub(crate) fn want(&self, ports: BTreeSet<u16>) {
        self.wanted.send_if_modified(|wanted| {
            let is_other = *wanted != ports;
            *wanted = ports;
            is_other
        });
    }
}

impl Ingress {
    /// Listens at `ip` on the entries of the table in use, whatever it is, until `shutdown` or `handover`, as
    /// [`Ingress::serve_or_hand_over`] does; `given` are listeners that another process had. Where an entry
    /// leaves the table its connections go on.
    pub async fn serve_entries(
        &self,
        (ip, given): (IpAddr, Vec<StdListener>),
        shutdown: CancellationToken,
        handover: (CancellationToken, Duration),
    ) -> Closed {
        let gate = Gate::new(&self.shared);
        let entries = &self.shared.entries;
        let mut wanted = entries.wanted.subscribe();
        let mut given = by_port(given);
        let mut pause = AGAIN.0;
        loop {
            let ports = wanted.borrow_and_update().clone();
            let failed = follow(&gate, (ip, &ports), std::mem::take(&mut given)).await;
            let is_missing = !failed.is_empty();
            for (port, error) in &failed {
                if !entries.unbound.borrow().contains(port) {
                    tracing::warn!(port, %ip, %error, "a port of a TCP route cannot be listened on: it is tried again; `ss -ltnp` on this node shows who has it");
                }
            }
            let failed: BTreeSet<u16> = failed.into_keys().collect();
            entries.unbound.send_if_modified(|told| {
                let is_other = *told != failed;
                *told = failed;
                is_other
            });
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = handover.0.cancelled() => break,
                changed = wanted.changed() => match changed {
                    Ok(()) => pause = AGAIN.0,
                    Err(_) => break,
                },
                () = sleep(pause), if is_missing => pause = (pause * 2).min(AGAIN.1),
            }
        }
        entries.open.lock().clear();
        gate.drain(&shutdown, handover.1).await
    }

    /// The entries that cannot be listened on; changes wake the receiver.
    pub fn unbound_entries(&self) -> watch::Receiver<BTreeSet<u16>> {
        self.shared.entries.unbound.subscribe()
    }

    /// Handles of the listeners of entries, for another process.
    ///
    /// # Errors
    /// There are no file descriptors left.
    pub fn entry_listeners(&self) -> io::Result<Vec<StdListener>> {
        let open = self.shared.entries.open.lock();
        let handle = |it: &Open| Ok(it.listener.as_fd().try_clone_to_owned()?.into());
        open.values().map(handle).collect()
    }

    /// Serves the addresses that a proxy on this machine is given for connections by name: it says by the PROXY
    /// protocol whose each is.
    pub async fn serve_tcp_endpoints(
        &self,
        listener: TcpListener,
        shutdown: CancellationToken,
        handover: (CancellationToken, Duration),
    ) -> Closed {
        let gate = Gate::new(&self.shared);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = handover.0.cancelled() => {}
            () = gate.accept(&listener, Source::OwnProxy) => {}
        }
        drop(listener);
        gate.drain(&shutdown, handover.1).await
    }
}

fn by_port(given: Vec<StdListener>) -> BTreeMap<u16, TcpListener> {
    let listener = |listener: StdListener| {
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok::<_, io::Error>((port, TcpListener::from_std(listener)?))
    };
    let all = given.into_iter().map(listener);
    all.filter_map(|it| {
        it.inspect_err(
            |error| tracing::warn!(%error, "a listener that was handed over is of no use"),
        )
        .ok()
    })
    .collect()
}

/// Listens on `ports` and no others; tells on which it cannot, and why.
async fn follow(
    gate: &Gate,
    (ip, ports): (IpAddr, &BTreeSet<u16>),
    mut given: BTreeMap<u16, TcpListener>,
) -> BTreeMap<u16, io::Error> {
    let entries = &gate.shared.entries;
    let missing: Vec<u16> = {
        let mut open = entries.open.lock();
        open.retain(|port, _| ports.contains(port));
        let missing = ports.iter().filter(|port| !open.contains_key(port));
        missing.copied().collect()
    };
    let mut failed = BTreeMap::new();
    for port in missing {
        let bound = match given.remove(&port) {
            Some(listener) => Ok(listener),
            None => TcpListener::bind(SocketAddr::new(ip, port)).await,
        };
        match bound {
            Ok(listener) => {
                let end = CancellationToken::new();
                let listener = Arc::new(listener);
                let (gate, accepted) = (gate.clone(), Arc::clone(&listener));
                let until = end.clone();
                tokio::spawn(async move {
                    let accepting = gate.accept(&accepted, Source::Entry(port));
                    until.run_until_cancelled(accepting).await;
                });
                let open = Open {
                    listener,
                    _end: end.drop_guard(),
                };
                entries.open.lock().insert(port, open);
            }
            Err(error) => drop(failed.insert(port, error)),
        }
    }
    failed
}

/// From where connections come.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// Clients, or load balancers in front.
    Entry(u16),
    /// A proxy that is part of the node.
    OwnProxy,
}

/// Takes connections, as many at the same time as it has room for, and follows them to their end.
#[derive(Clone)]
struct Gate {
    shared: Arc<Shared>,
    tunnels: Tunnels,
    room: Arc<Semaphore>,
}

impl Gate {
    fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            tunnels: Tunnels::default(),
            room: Arc::new(Semaphore::new(shared.options.max_connections)),
        }
    }

    /// Never ends.
    async fn accept(&self, listener: &TcpListener, source: Source) {
        loop {
            let room = Arc::clone(&self.room).acquire_owned().await;
            let room = room.expect("nobody closes it");
            match listener.accept().await {
                Ok((stream, peer)) => {
                    tune(&stream);
                    // Of no runtime until its own has it.
                    let Ok(stream) = stream.into_std() else {
                        continue;
                    };
                    self.take(stream, (peer, source), room);
                }
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// A connection on the thread that serves it.
    fn take(
        &self,
        stream: StdStream,
        (peer, source): (SocketAddr, Source),
        room: OwnedSemaphorePermit,
    ) {
        let (runtime, place) = self.shared.crew.place();
        let (shared, cut) = (Arc::clone(&self.shared), self.tunnels.cut.clone());
        let served = async move {
            let _held: (OwnedSemaphorePermit, Option<Place>) = (room, place);
            cut.run_until_cancelled(serve(&shared, stream, (peer, source)))
                .await;
        };
        self.tunnels.tracker.spawn_on(served, &runtime);
    }

    async fn drain(self, shutdown: &CancellationToken, limit: Duration) -> Closed {
        let drain_timeout = self.shared.options.drain_timeout;
        drain_from(
            (JoinSet::new(), self.tunnels),
            shutdown,
            (limit, drain_timeout),
        )
        .await
    }
}

async fn serve(shared: &Shared, stream: StdStream, (peer, source): (SocketAddr, Source)) {
    let Some(mut stream) = arrived(stream) else {
        return;
    };
    let Ok(dialed) = stream.local_addr() else {
        return;
    };
    let client = match source {
        Source::Entry(_) => introduce(shared, peer, &mut stream).await,
        Source::OwnProxy => told_by_proxy(shared, peer, &mut stream).await,
    };
    let at = match source {
        Source::Entry(port) => Some(At::Entry(port)),
        Source::OwnProxy => shared.names.at(dialed.ip()).map(At::Name),
    };
    if let (Some(client), Some(at)) = (client, at) {
        let call = Call { at, client, dialed };
        carry(shared, &call, stream).await;
    }
}
