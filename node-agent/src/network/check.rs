//! Whether this node reaches the data planes of others: it dials them as its own data plane would, from the
//! same machine under the same certificate, when a server asks. Concludes nothing from it and keeps nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use skep_identity::grpc;
use skep_identity::name::Subject;
use skep_identity::tls::{self, Expected, Reloadable};
use skep_model::network_check::{Ask, Dialed, Door, Found};
use skep_proto::v1;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Networks;
use crate::net::MESH_ALPN;
use crate::session::Outbox;

/// Questions under way; what comes beyond is answered with "not tried".
const QUESTIONS_MAX: usize = 2;
/// Doors that are tried at a time.
const AT_A_TIME: usize = 128;
/// For a connection: the kernel's second try comes after one second, its third after three.
const CONNECT_LIMIT: Duration = Duration::from_millis(3_500);
/// For the other side to show who it is.
const IDENTIFY_LIMIT: Duration = Duration::from_secs(3);
/// All of it: the server waits a little longer.
const LIMIT: Duration = Duration::from_secs(14);

/// Answers servers, each question in a task of its own. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Checks {
    inner: Arc<Inner>,
}

struct Inner {
    credentials: Arc<Reloadable>,
    networks: Networks,
    outbox: Arc<Outbox>,
    room: Semaphore,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Checks {
    /// With the node's own certificate; until `shutdown`, in tasks of `tasks`.
    pub(crate) fn new(
        credentials: Arc<Reloadable>,
        networks: Networks,
        outbox: Arc<Outbox>,
        (tasks, shutdown): (TaskTracker, CancellationToken),
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                credentials,
                networks,
                outbox,
                room: Semaphore::new(QUESTIONS_MAX),
                tasks,
                shutdown,
            }),
        }
    }

    /// Begins to answer. What goes up in a later session than it was asked in, no server waits for.
    pub(crate) fn open(&self, request: u64, ask: Ask) {
        let checks = self.clone();
        self.inner.tasks.spawn(async move {
            let inner = &checks.inner;
            let answer = inner.shutdown.run_until_cancelled(inner.answer(&ask)).await;
            if let Some(found) = answer {
                let message = (&found).into();
                let found = v1::NetworkFound { request, ..message };
                inner.outbox.checked(found);
            }
        });
    }
}

impl Inner {
    async fn answer(&self, ask: &Ask) -> Found {
        let until = Instant::now() + LIMIT;
        let dialed = match self.room.try_acquire() {
            Ok(_permit) => {
                let doors = ask.doors.iter().map(|door| self.try_door(door, until));
                // Made before: the compiler wants to see that each lives as long as the next.
                let doors: Vec<_> = doors.collect();
                stream::iter(doors).buffered(AT_A_TIME).collect().await
            }
            Err(_) => vec![Dialed::Untried; ask.doors.len()],
        };
        let own = self.networks.report(ask.pool).await;
        Found { dialed, own }
    }

    async fn try_door(&self, door: &Door, until: Instant) -> Dialed {
        let tried = timeout_at(until, self.dial(door)).await;
        tried.unwrap_or(Dialed::Untried)
    }

    async fn dial(&self, door: &Door) -> Dialed {
        let found = match timeout(CONNECT_LIMIT, lookup_host(&door.address)).await {
            Ok(Ok(found)) => found.collect::<Vec<_>>(),
            Ok(Err(_)) | Err(_) => return Dialed::NoName,
        };
        if found.is_empty() {
            return Dialed::NoName;
        }
        let stream = match timeout(CONNECT_LIMIT, TcpStream::connect(&*found)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return told(&error),
            Err(_) => return Dialed::TimedOut,
        };
        let expected = Expected::Exactly(Subject::Node(door.node));
        let config = tls::client_config(&self.credentials, expected, MESH_ALPN);
        match timeout(IDENTIFY_LIMIT, grpc::secure(stream, config)).await {
            Ok(Ok(_)) => Dialed::Reached,
            Ok(Err(_)) => Dialed::Stranger,
            Err(_) => Dialed::Mute,
        }
    }
}

/// What an error says of the way there.
fn told(error: &io::Error) -> Dialed {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused | Kind::ConnectionReset | Kind::ConnectionAborted => {
            Dialed::Refused
        }
        Kind::TimedOut => Dialed::TimedOut,
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => Dialed::NoRoute,
        _ => Dialed::Untried,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_is_in_the_way() {
        use io::ErrorKind as Kind;
        for (kind, dialed) in [
            (Kind::ConnectionRefused, Dialed::Refused),
            (Kind::TimedOut, Dialed::TimedOut),
            (Kind::HostUnreachable, Dialed::NoRoute),
            (Kind::NetworkUnreachable, Dialed::NoRoute),
            // This node's own: no files left.
            (Kind::Other, Dialed::Untried),
        ] {
            assert_eq!(told(&kind.into()), dialed, "{kind}");
        }
    }
}
