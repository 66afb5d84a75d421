//! Answers servers that ask where a repository's branches and tags are, each question in a task of its own. Decides
//! nothing about what is found.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skep_model::polling::{Ask, Found};
use skep_model::problem::{Code, Problem};
use skep_proto::convert::found_out;
use skep_proto::v1;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build;
use crate::session::Outbox;

/// Questions at a time: each is a few programs that mostly wait.
const AT_A_TIME: usize = 4;
/// All of it, waiting for the turn included: the server waits a little longer.
const LIMIT: Duration = Duration::from_secs(90);

/// Asks repositories. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sources {
    inner: Arc<Inner>,
}

struct Inner {
    work_dir: PathBuf,
    outbox: Arc<Outbox>,
    room: Semaphore,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Sources {
    /// With folders in `work_dir`; until `shutdown`, in tasks of `tasks`.
    pub(crate) fn new(
        work_dir: PathBuf,
        outbox: Arc<Outbox>,
        (tasks, shutdown): (TaskTracker, CancellationToken),
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                work_dir,
                outbox,
                room: Semaphore::new(AT_A_TIME),
                tasks,
                shutdown,
            }),
        }
    }

    /// Begins to answer. What goes up in a later session than it was asked in, no server waits for.
    pub(crate) fn open(&self, request: u64, ask: Ask) {
        let inner = self.inner.clone();
        self.inner.tasks.spawn(async move {
            let answer = inner.shutdown.run_until_cancelled(inner.answer(&ask)).await;
            if let Some(found) = answer {
                let found = v1::SourceFound {
                    request,
                    ..found_out(&found)
                };
                inner.outbox.source_found(found);
            }
        });
    }
}

impl Inner {
    async fn answer(&self, ask: &Ask) -> Found {
        let work = async {
            let _turn = self.room.acquire().await;
            build::look(ask, &self.work_dir).await
        };
        timeout(LIMIT, work).await.unwrap_or_else(|_| {
            let text = format!("the repository did not answer within {} s", LIMIT.as_secs());
            Err(Problem::new(Code::Timeout, text).hint("can this node reach it?"))
        })
    }
}
