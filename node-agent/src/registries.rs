//! Does for servers what they ask at registries, each question in a task of its own: an image of this node's store is
//! pushed, or a tag's digest is found. Decides nothing about what comes of it.

use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use futures_util::future::BoxFuture;
use skep_model::problem::{Code, Problem};
use skep_model::registry::{Ask, Found, Wanted};
use skep_proto::convert::registry_out;
use skep_proto::v1;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::images::{Images, Remote, RemoteError};
use crate::session::Outbox;

/// Images on their way at a time: more share the same line.
const PUSHES: usize = 2;
/// Tags that are looked up at a time.
const LOOKS: usize = 8;
/// All of a push, waiting for the turn included: the server waits a little longer.
const PUSH_LIMIT: Duration = Duration::from_secs(20 * 60);
/// All of a look.
const LOOK_LIMIT: Duration = Duration::from_secs(90);

/// Does what is asked, in whatever time it takes.
pub(crate) type Work = Arc<dyn Fn(Ask) -> BoxFuture<'static, Found> + Send + Sync>;

/// Asks registries. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registries {
    inner: Arc<Inner>,
}

struct Inner {
    work: Work,
    outbox: Arc<Outbox>,
    pushes: Semaphore,
    looks: Semaphore,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Registries {
    /// Until `shutdown`, in tasks of `tasks`.
    pub(crate) fn new(
        work: Work,
        outbox: Arc<Outbox>,
        (tasks, shutdown): (TaskTracker, CancellationToken),
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                work,
                outbox,
                pushes: Semaphore::new(PUSHES),
                looks: Semaphore::new(LOOKS),
                tasks,
                shutdown,
            }),
        }
    }

    /// Begins. What goes up in a later session than it was asked in, no server waits for: it asks again.
    pub(crate) fn open(&self, request: u64, ask: Ask) {
        let inner = self.inner.clone();
        self.inner.tasks.spawn(async move {
            let answer = inner.shutdown.run_until_cancelled(inner.answer(ask)).await;
            if let Some(found) = answer {
                let found = v1::RegistryFound {
                    request,
                    ..registry_out(&found)
                };
                inner.outbox.registry_found(found);
            }
        });
    }
}

impl Inner {
    async fn answer(&self, ask: Ask) -> Found {
        let (turns, limit) = match ask.wanted {
            Wanted::Push { .. } => (&self.pushes, PUSH_LIMIT),
            Wanted::Digest { .. } => (&self.looks, LOOK_LIMIT),
        };
        let host = ask.host.clone();
        let work = async {
            let _turn = turns.acquire().await;
            (self.work)(ask).await
        };
        timeout(limit, work).await.unwrap_or_else(|_| {
            let text = format!(
                "registry {host}: it was not done within {} s",
                limit.as_secs()
            );
            Err(Problem::new(Code::Timeout, text)
                .hint("what is there already is not sent again; is the line to it slow?"))
        })
    }
}

/// With the images of this node.
pub(crate) fn with(images: Images, docker: Docker) -> Work {
    Arc::new(move |ask| {
        let (images, docker) = (images.clone(), docker.clone());
        Box::pin(async move { work((&images, &docker), ask).await })
    })
}

async fn work((images, docker): (&Images, &Docker), ask: Ask) -> Found {
    let host = &*ask.host;
    let explained = |error: RemoteError| error.explain(host);
    let place = (host, &*ask.repository);
    let remote = Remote::new(place, ask.access, docker).await;
    let remote = remote.map_err(explained)?;
    match &ask.wanted {
        Wanted::Push { digest, tag } => images.push_to(&remote, (digest, tag), host).await,
        Wanted::Digest { tag } => {
            let found = remote.digest_of(tag).await.map_err(explained)?;
            Ok(found.to_string())
        }
    }
}
