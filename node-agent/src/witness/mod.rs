//! What this node says of others when a server asks: it knocks at their doors and tells what it heard.
//! Concludes nothing from it, keeps nothing, and knocks only when it is asked.

mod knock;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use skep_identity::grpc;
use skep_identity::name::Subject;
use skep_identity::tls::{self, Expected, Reloadable};
use skep_model::id::NodeId;
use skep_model::probe::{MAX_TARGETS, Reach, Target};
use skep_proto::{convert, v1};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::images::PEER_ALPN;
use crate::servers::Servers;
use crate::session::Outbox;

/// Requests under way; a server has one or two of them. What comes beyond is answered with "unknown".
const REQUESTS_MAX: usize = 8;
/// For another node to show who it is.
const IDENTIFY: Duration = Duration::from_millis(1_500);

/// Knocks at other nodes for the servers, each request in a task of its own. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Witness {
    inner: Arc<Inner>,
}

struct Inner {
    credentials: Arc<Reloadable>,
    servers: Servers,
    outbox: Arc<Outbox>,
    room: Semaphore,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    /// Ends what was asked for in the session of the moment.
    session: Mutex<CancellationToken>,
}

impl Witness {
    /// With the node's own certificate; until `shutdown`, in tasks of `tasks`.
    pub(crate) fn new(
        credentials: Arc<Reloadable>,
        servers: Servers,
        outbox: Arc<Outbox>,
        (tasks, shutdown): (TaskTracker, CancellationToken),
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                credentials,
                servers,
                outbox,
                room: Semaphore::new(REQUESTS_MAX),
                tasks,
                session: Mutex::new(shutdown.child_token()),
                shutdown,
            }),
        }
    }

    /// Begins to answer a request; the answer goes up in this session or not at all.
    pub(crate) fn open(&self, request: v1::Probe) {
        let (witness, session) = (self.clone(), self.inner.session.lock().clone());
        self.inner.tasks.spawn(async move {
            let answer = session.run_until_cancelled(witness.answer(request)).await;
            if let Some(answer) = answer {
                witness.inner.outbox.probed(answer);
            }
        });
    }

    /// The session is over: nobody waits for what it asked.
    pub(crate) fn cancel_all(&self) {
        let next = self.inner.shutdown.child_token();
        std::mem::replace(&mut *self.inner.session.lock(), next).cancel();
    }

    async fn answer(&self, message: v1::Probe) -> v1::Probed {
        let found = match self.inner.room.try_acquire() {
            Ok(_permit) => {
                let targets = message.targets.iter().take(MAX_TARGETS);
                join_all(targets.map(|target| self.look(target))).await
            }
            Err(_) => vec![Reach::Unknown; message.targets.len().min(MAX_TARGETS)],
        };
        v1::Probed {
            request: message.request,
            found: convert::reaches(&found),
        }
    }

    async fn look(&self, message: &v1::ProbeTarget) -> Reach {
        match Target::try_from(message.clone()) {
            Ok(target) if target.is_sane() => match target.node {
                None => knock::at(&self.inner.servers.address(), None).await,
                Some(node) if target.identify => self.identify(node, &target.address).await,
                Some(_) => knock::at(&target.address, target.also_port).await,
            },
            _ => Reach::Unknown,
        }
    }

    async fn identify(&self, node: NodeId, address: &str) -> Reach {
        let expected = Expected::Exactly(Subject::Node(node));
        let config = tls::client_config(&self.inner.credentials, expected, PEER_ALPN);
        match timeout(IDENTIFY, grpc::dial(address, config)).await {
            Ok(Ok(_)) => Reach::Itself,
            // That somebody else is there, or nobody, is no matter of life and death.
            Ok(Err(_)) | Err(_) => Reach::Unknown,
        }
    }
}
