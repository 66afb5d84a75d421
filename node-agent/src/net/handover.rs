//! From one data plane to its successor without a connection lost: the listening sockets themselves
//! change hands (SCM_RIGHTS, unix(7)), so that no client is ever refused, and the older process
//! finishes what it has begun.
//!
//! Over a socket beside the agent's, in the same private folder:
//!
//! 1. The successor connects. The older takes no more tables from here on, and sends its
//!    listeners with the sequence up to which everything is drained there.
//! 2. The successor loads the last table, serves, and says so. Until then nothing has changed: where it
//!    dies, the older goes on.
//! 3. The older confirms, accepts nothing more and drains. The connection ends with the process: until
//!    then the successor says of nothing newer that it is drained. Before, it says when the Traefik that
//!    it runs, if any, gets no connection any more.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// Each step of the other side: a table of the largest size is loaded within it.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// Listeners that change hands first, in this order: apps, admin, agent, other nodes, a proxy on this machine
/// for requests, apps under TLS (where they are not served so: admin once more), and that proxy for
/// connections. An older process sends the first five or six.
const FIRST_LISTENERS: usize = 7;
/// Those of TCP routes follow, so many in one message: the kernel takes 253. Each message says how many are
/// still to come.
const MAX_LISTENERS: usize = 200;
/// What a process may send of them.
const MAX_ENTRIES: u64 = 1 << 16;
/// What the two say.
const READY: u8 = b'R';
const CONFIRMED: u8 = b'C';
const LET_GO: u8 = b'L';

/// The sockets could not change hands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nobody to take over from.
    #[error("no data plane hands over at {}: is one running, and new enough?", path.display())]
    Nobody {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it is not there.
        source: io::Error,
    },
    /// It broke off.
    #[error("the other data plane broke off the handover")]
    Broken(#[source] io::Error),
    /// It says something else.
    #[error("the other data plane does not keep to the handover: it may be of another version")]
    Unlike,
}

/// Where the older process waits for its successor.
pub(super) fn path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".next");
    path.into()
}

/// The listeners of a data plane.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) apps: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) agent: StdUnixListener,
    /// Other nodes, if they are served.
    pub(super) mesh: Option<TcpListener>,
    /// A proxy on this machine, if it is served.
    pub(super) endpoints: Option<TcpListener>,
    /// Apps under TLS, if they are served so.
    pub(super) https: Option<TcpListener>,
    /// Connections from a proxy on this machine, if they are served.
    pub(super) named: Option<TcpListener>,
    /// Ports of TCP routes.
    pub(super) entries: Vec<TcpListener>,
}

/// The successor's side of a handover.
#[derive(Debug)]
pub(super) struct Succession {
    stream: UnixStream,
    /// Everything up to this sequence is drained in the older process.
    pub(super) drained: u64,
}

/// Takes the listeners of the data plane that serves `socket`, which accepts on until
/// [`Succession::ready`].
pub(super) async fn succeed(socket: &Path) -> Result<(Listeners, Succession), Error> {
    let path = path(socket);
    let nobody = |source| Error::Nobody {
        path: path.clone(),
        source,
    };
    let stream = UnixStream::connect(&path).await.map_err(nobody)?;
    let received = timeout(STEP_LIMIT, receive_all(&stream)).await;
    let received = received.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let (drained, fds, entries) = received.map_err(Error::Broken)?;
    let mut fds = fds.into_iter();
    let mut next = || fds.next();
    let (Some(apps), Some(admin), Some(agent)) = (next(), next(), next()) else {
        return Err(Error::Unlike);
    };
    let admin = TcpListener::from(admin);
    // An older one serves neither.
    let (mesh, endpoints) = (next().map(Into::into), next().map(Into::into));
    let is_admin = |it: &TcpListener| {
        let (one, other) = (it.local_addr(), admin.local_addr());
        one.is_ok() && one.ok() == other.ok()
    };
    let https = next().map(TcpListener::from).filter(|it| !is_admin(it));
    let listeners = Listeners {
        https,
        named: next().map(Into::into),
        entries: entries.into_iter().map(Into::into).collect(),
        apps: apps.into(),
        admin,
        agent: agent.into(),
        mesh,
        endpoints,
    };
    Ok((listeners, Succession { stream, drained }))
}

/// What is drained, the listeners that each data plane has, and those of TCP routes.
async fn receive_all(stream: &UnixStream) -> io::Result<(u64, Vec<OwnedFd>, Vec<OwnedFd>)> {
    let next = async || {
        loop {
            stream.readable().await?;
            match stream.try_io(tokio::io::Interest::READABLE, || receive(stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    };
    let (drained, fds) = next().await?;
    let mut entries = Vec::new();
    // An older one has no more to say.
    let mut left = u64::from(fds.len() == FIRST_LISTENERS);
    while left > 0 {
        let (still, more) = next().await?;
        if still > MAX_ENTRIES || (still > 0 && more.is_empty()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        left = still;
        entries.extend(more);
    }
    Ok((drained, fds, entries))
}

impl Succession {
    /// This process serves: the older is to stop accepting. Answers when it has.
    pub(super) async fn ready(&mut self) -> Result<(), Error> {
        let step = async {
            self.stream.write_all(&[READY]).await?;
            self.stream.read_u8().await
        };
        let step = timeout(STEP_LIMIT, step).await;
        let step = step.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match step.map_err(Error::Broken)? {
            CONFIRMED => Ok(()),
            _ => Err(Error::Unlike),
        }
    }

    /// Waits until the older process's Traefik gets no connection any more.
    pub(super) async fn let_go(&mut self) {
        let _ = self.stream.read_u8().await;
    }

    /// Waits for the end of the older process, however it comes.
    pub(super) async fn over(mut self) {
        while self.stream.read_u8().await.is_ok() {}
    }
}

/// Offers the listeners to one successor after the other until one of them serves; answers with the
/// connection that is to be held to the end of the process. `freeze` is called for each: while what it
/// answers lives no table is taken; it tells what is drained, and the listeners of TCP routes.
pub(super) async fn offer<G>(
    socket: StdUnixListener,
    listeners: &[OwnedFd],
    freeze: impl Fn() -> BoxFuture<'static, (G, u64, Vec<OwnedFd>)>,
) -> io::Result<Held<G>> {
    let waiting = UnixListener::from_std(socket)?;
    loop {
        let (mut stream, _) = waiting.accept().await?;
        let (frozen, drained, entries) = freeze().await;
        let all = (listeners, &entries[..]);
        match timeout(STEP_LIMIT, hand_over(&mut stream, all, drained)).await {
            Ok(Ok(())) => {
                // The successor waits for its own under this name.
                drop(waiting);
                return Ok(Held {
                    stream,
                    _frozen: frozen,
                });
            }
            Ok(Err(error)) => tracing::warn!(%error, "a successor broke off: serving on"),
            Err(_) => tracing::warn!("a successor took too long: serving on"),
        }
    }
}

/// A handover that holds until the end of the process.
pub(super) struct Held<G> {
    stream: UnixStream,
    _frozen: G,
}

impl<G> Held<G> {
    /// Nothing more is accepted here.
    pub(super) async fn confirm(&mut self) {
        // A successor that died now leaves nobody to serve: whoever watches the processes starts one.
        if let Err(error) = self.stream.write_all(&[CONFIRMED]).await {
            tracing::error!(%error, "the successor is gone");
        }
    }

    /// No Traefik of this process gets a connection any more.
    pub(super) async fn let_go(&mut self) {
        // A successor that is gone needs no word.
        let _ = self.stream.write_all(&[LET_GO]).await;
    }
}

async fn hand_over(
    stream: &mut UnixStream,
    (listeners, entries): (&[OwnedFd], &[OwnedFd]),
    drained: u64,
) -> io::Result<()> {
    say(stream, listeners, drained).await?;
    let mut left = entries.len();
    let mut pieces = entries.chunks(MAX_LISTENERS);
    loop {
        let piece = pieces.next().unwrap_or_default();
        left -= piece.len();
        say(stream, piece, left as u64).await?;
        if left == 0 {
            break;
        }
    }
    match stream.read_u8().await? {
        READY => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn say(stream: &UnixStream, listeners: &[OwnedFd], number: u64) -> io::Result<()> {
    loop {
        stream.writable().await?;
        let sent = stream.try_io(tokio::io::Interest::WRITABLE, || {
            send(stream, listeners, number)
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

fn send(to: impl AsFd, listeners: &[OwnedFd], number: u64) -> io::Result<()> {
    let fds: Vec<_> = listeners.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LISTENERS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let has_room = control.push(SendAncillaryMessage::ScmRights(&fds));
        debug_assert!(has_room, "the space is made for them");
    }
    let bytes = number.to_be_bytes();
    let sent = sendmsg(
        to,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    match sent == bytes.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn receive(from: impl AsFd) -> io::Result<(u64, Vec<OwnedFd>)> {
    let mut bytes = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LISTENERS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(from, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes != 8 || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(given) = message {
            fds.extend(given);
        }
    }
    Ok((u64::from_be_bytes(bytes), fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use skep_identity::grpc::bind_uds;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    fn listeners(folder: &Path) -> (Vec<OwnedFd>, [std::net::SocketAddr; 2]) {
        let bind = || TcpListener::bind("127.0.0.1:0").expect("bound");
        let (apps, admin, https) = (bind(), bind(), bind());
        let addresses = [&apps, &https].map(|it| it.local_addr().expect("an address"));
        let agent = StdUnixListener::bind(folder.join("agent")).expect("bound");
        let fds = vec![
            apps.into(),
            admin.into(),
            agent.into(),
            bind().into(),
            bind().into(),
            https.into(),
            bind().into(),
        ];
        (fds, addresses)
    }

    #[tokio::test]
    async fn what_a_data_plane_does_not_serve_is_not_handed_over() {
        let folder = tempfile::tempdir().expect("folder");
        let socket = folder.path().join("run/net.sock");
        let bound = bind_uds(&path(&socket)).expect("bound").into_listener();
        let (mut fds, _) = listeners(folder.path());
        fds[5] = fds[1].try_clone().expect("admin once more");
        let older = tokio::spawn(async move {
            let freeze = || async { ((), 7, Vec::new()) }.boxed();
            offer(bound, &fds, freeze).await.expect("handed over")
        });
        let (taken, mut succession) = succeed(&socket).await.expect("the listeners");
        assert!(taken.https.is_none() && taken.entries.is_empty());
        assert!(taken.named.is_some());
        let ready = succession.ready();
        let (ready, _) = tokio::join!(ready, async {
            older.await.expect("no panic").confirm().await;
        });
        ready.expect("confirmed");
    }

    #[tokio::test]
    async fn listeners_change_hands_and_a_successor_that_dies_changes_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let socket = folder.path().join("run/net.sock");
        let bound = bind_uds(&path(&socket)).expect("bound").into_listener();
        let (fds, [address, https]) = listeners(folder.path());
        let frozen = Arc::new(AtomicU32::new(0));
        let times = frozen.clone();
        // More than one message holds.
        let entries = MAX_LISTENERS + 50;
        let older = tokio::spawn(async move {
            let freeze = move || {
                let count = times.fetch_add(1, Relaxed);
                let entries: Vec<OwnedFd> = (0..entries)
                    .map(|_| TcpListener::bind("127.0.0.1:0").expect("bound").into())
                    .collect();
                async move { (count, 7, entries) }.boxed()
            };
            let mut held = offer(bound, &fds, freeze).await.expect("handed over");
            held.confirm().await;
            held.let_go().await;
            held
        });
        // One that dies before it serves.
        drop(succeed(&socket).await.expect("the listeners"));
        let (taken, mut succession) = succeed(&socket).await.expect("the listeners");
        assert_eq!(succession.drained, 7);
        assert_eq!(taken.apps.local_addr().expect("an address"), address);
        assert_eq!(taken.entries.len(), entries);
        let encrypted = taken.https.expect("it is sent");
        assert_eq!(encrypted.local_addr().expect("an address"), https);
        succession.ready().await.expect("confirmed");
        let held = older.await.expect("no panic");
        assert_eq!(frozen.load(Relaxed), 2);
        // The older is gone, and its address still accepts.
        succession.let_go().await;
        let over = tokio::spawn(succession.over());
        tokio::task::yield_now().await;
        assert!(!over.is_finished(), "it lives on");
        drop(held);
        over.await.expect("heard of its end");
        taken.apps.set_nonblocking(false).expect("set");
        let client = std::net::TcpStream::connect(address).expect("connects");
        taken.apps.accept().expect("accepted here");
        drop(client);
        assert!(matches!(succeed(&socket).await, Err(Error::Nobody { .. })));
    }
}
