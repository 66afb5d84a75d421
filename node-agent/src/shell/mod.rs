//! Shells: what people do inside running containers from afar. The server names one on the session,
//! the agent dials a stream for it alone, and only then does anything: a shell that nobody waits for
//! any more leaves no trace. Decides nothing about who may; touches only containers of this node.
//!
//! A shell ends with its stream, whichever side broke it: a command is then ended with all that it
//! started ([`end`]), a copy stops, a connection closes. The session may break and come back meanwhile.

mod attach;
mod copy;
mod end;
mod exec;
mod forward;
mod hijack;
mod push;
mod volumes;
mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use skep_model::id::{AllocationId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::shell::{Frame, Opened, Wish};
use skep_proto::convert::{self, id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build::Stores;
use crate::plan::Phase;
use crate::runtime::Runtime;
use crate::servers::Servers;
use crate::storage::Shelf;
use wire::{Inbox, Wire};

/// Shells on this node at a time; one for each connection of a forwarded port.
const SHELLS_MAX: usize = 128;
/// For the server to answer the dialed stream.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// For the server to take the last words.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What somebody wants.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Names it at the server.
    request: u64,
    allocation: AllocationId,
    wish: Wish,
}

impl TryFrom<v1::OpenShell> for Request {
    type Error = convert::Error;

    fn try_from(message: v1::OpenShell) -> Result<Self, convert::Error> {
        let missing = convert::Error { field: "wish" };
        Ok(Self {
            request: message.request,
            allocation: AllocationId::from_u128(id_bits("allocation", &message.allocation)?),
            wish: message.wish.ok_or(missing)?.try_into()?,
        })
    }
}

/// The container that a shell is opened in.
struct Place {
    /// Docker's id.
    container: String,
    /// Its first process, as the host numbers it.
    pid: u32,
    address: Option<IpAddr>,
}

/// Serves shells, each in a task of its own. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shells {
    runtime: Runtime,
    servers: Servers,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    shelf: Arc<Shelf>,
    stores: Stores,
}

impl Shells {
    /// In containers of `runtime`, on what is in `shelf` and into `stores`, for the servers; ended with
    /// `shutdown`, in tasks of `tasks`.
    pub(crate) fn new(
        (runtime, shelf, stores): (Runtime, Arc<Shelf>, Stores),
        servers: Servers,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            runtime,
            servers,
            room: Arc::new(Semaphore::new(SHELLS_MAX)),
            tasks,
            shutdown,
            shelf,
            stores,
        }
    }

    /// The services whose pushes are kept here.
    pub(crate) async fn stored(&self) -> Vec<Vec<u8>> {
        let stores = self.stores.clone();
        let found = tokio::task::spawn_blocking(move || stores.services()).await;
        let ids = found.unwrap_or_default().into_iter();
        ids.map(|id| id_bytes(id.as_u128())).collect()
    }

    /// These services are no more: what was pushed to them goes.
    pub(crate) fn drop_stores(&self, services: &[Vec<u8>]) {
        for bytes in services {
            match id_bits("services", bytes) {
                Ok(id) => {
                    let stores = self.stores.clone();
                    let service = ServiceId::from_u128(id);
                    self.tasks
                        .spawn(async move { stores.remove(service).await });
                }
                Err(error) => tracing::warn!(%error, "a service that is none"),
            }
        }
    }

    /// Begins to serve a shell.
    pub(crate) fn open(&self, request: Request) {
        let shells = self.clone();
        self.tasks.spawn(async move {
            if let Err(status) = shells.serve(request).await {
                tracing::debug!(%status, "a shell could not be opened");
            }
        });
    }

    async fn serve(&self, request: Request) -> Result<(), tonic::Status> {
        let Request {
            request,
            allocation,
            wish,
        } = request;
        let (frames, queue) = mpsc::channel(wire::FRAMES);
        let first = v1::ShellFrame {
            kind: Some(v1::shell_frame::Kind::Request(request)),
        };
        // The queue is empty.
        let _ = frames.try_send(first);
        let mut client = AgentsClient::new(self.servers.channel());
        let dialed = timeout(DIAL_TIMEOUT, client.shell(ReceiverStream::new(queue)));
        let dialed = dialed.await;
        let inbound = dialed.map_err(|_| tonic::Status::deadline_exceeded("no answer"))??;
        let (wire, inbox, listening) = wire::new(frames, inbound.into_inner());
        let mut listening = std::pin::pin!(listening);
        let last = tokio::select! {
            last = self.work(allocation, wish, &wire, inbox) => last,
            // The asker has gone, or does not keep to the rules: nobody to say anything to.
            () = &mut listening => return Ok(()),
        };
        let last = last.unwrap_or_else(Frame::Problem);
        let say = async {
            // Fails only when nobody waits for it any more.
            let _ = wire.send(last).await;
            drop(wire);
            // Giving the stream up before the server has ended it would take back what is under way.
            listening.await;
        };
        let _ = timeout(LAST_WORDS, say).await;
        Ok(())
    }

    /// Does what is wanted. Dropped when the asker goes away.
    async fn work(
        &self,
        allocation: AllocationId,
        wish: Wish,
        wire: &Wire,
        inbox: Inbox,
    ) -> Result<Frame, Problem> {
        wish.check()?;
        let _place = self.room.try_acquire().map_err(|_| {
            let text = format!("{SHELLS_MAX} shells are open on this node already");
            Problem::new(Code::Busy, text).hint("close some, or try again later")
        })?;
        let runtime = &self.runtime;
        if let Wish::Volumes(order) = &wish {
            volumes::run((&self.shelf, runtime, &self.tasks), order.clone(), wire).await?;
            return Ok(Frame::Exit(0));
        }
        if let Wish::Push(order) = &wish {
            let taken = push::run(&self.stores, order, (wire, inbox));
            return self
                .until_stopped(async { taken.await.map(|()| Frame::Exit(0)) })
                .await;
        }
        let place = self.place(allocation).await?;
        let done = async {
            let code = match &wish {
                Wish::Exec(wanted) => {
                    let ender = end::Ender::new(runtime, &self.tasks, place.pid);
                    exec::run(runtime, (&place.container, wanted), ender, (wire, inbox)).await?
                }
                Wish::Attach => attach::run(runtime, &place.container, wire).await?,
                Wish::CopyOut { path } => {
                    copy::out(runtime, (&place.container, path), wire).await?;
                    0
                }
                Wish::CopyIn { path } => {
                    copy::into(runtime, (&place.container, path), wire, inbox).await?;
                    0
                }
                Wish::Forward { port } => {
                    forward::run((place.address, *port), wire, inbox).await?;
                    0
                }
                // Done above: it needs no container.
                Wish::Volumes(_) | Wish::Push(_) => 0,
            };
            Ok(Frame::Exit(code))
        };
        self.until_stopped(done).await
    }

    async fn until_stopped(
        &self,
        done: impl Future<Output = Result<Frame, Problem>>,
    ) -> Result<Frame, Problem> {
        tokio::select! {
            done = done => done,
            () = self.shutdown.cancelled() => {
                let problem = Problem::new(Code::Unavailable, "the node's agent is stopping");
                Err(problem.hint("the app runs on; ask again in a moment"))
            }
        }
    }

    /// The newest container of the allocation, where it runs.
    async fn place(&self, allocation: AllocationId) -> Result<Place, Problem> {
        let seen = self.runtime.list_of(allocation).await;
        let seen = seen.map_err(|error| refused("look for the container", &error))?;
        let running = seen.into_iter().rev().find_map(|seen| match seen.phase {
            Phase::Running { spot, pid, .. } => Some(Place {
                container: seen.id,
                pid,
                address: spot.and_then(|spot| spot.ip()),
            }),
            _ => None,
        });
        running.ok_or_else(|| {
            let text = format!(
                "no container of allocation {} runs just now",
                allocation.short()
            );
            Problem::new(Code::Conflict, text).hint("`skep ps` shows its state; try again")
        })
    }
}

/// It has begun; `name` as in [`Opened`]. Where and in what is known to the server.
async fn begun(wire: &Wire, name: Option<String>) -> Result<(), Problem> {
    let opened = Opened {
        allocation: AllocationId::from_u128(0),
        node: String::new(),
        name,
    };
    wire.send(Frame::Opened(opened))
        .await
        .map_err(Problem::from)
}

/// Docker did not do what it was asked.
fn refused(what: &str, error: &crate::runtime::Error) -> Problem {
    let code = match error.status() {
        Some(404) => Code::NotFound,
        Some(409) => Code::Conflict,
        Some(400) => Code::Invalid,
        _ => Code::Runtime,
    };
    Problem::new(code, format!("docker cannot {what}: {}", error.message()))
}
