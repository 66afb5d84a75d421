//! What the cluster knows of this server, kept true: name, addresses, version, feature level. And the
//! end: a server that the cluster has removed stops by itself, once the group can do without it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use skep_model::problem::Problem;
use skep_model::server::Server;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Change, State};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{Error, standing};
use crate::local::Note;
use crate::store::{Store, now_ms};

/// First and longest pause after an announcement that nobody could take.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Longest sleep: the group's membership changes without the state.
const LOOK: Duration = Duration::from_secs(1);
/// A group of one elects itself by then.
const ALONE_DEADLINE: Duration = Duration::from_secs(30);
/// A removed server that hears of no leader for so long has been left alone by the others.
const LEFT_ALONE: Duration = Duration::from_secs(30);

/// Announces this server, and watches whether it is still one.
pub(super) struct Announcer {
    pub(super) store: Store,
    pub(super) own: Server,
    pub(super) data_dir: PathBuf,
}

/// What a look at the state says.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// The cluster knows what is true.
    Known,
    /// It does not.
    Differs,
    /// It has removed this server.
    Removed,
    /// It has given this server's place to another life of it.
    Rebuilt,
}

fn look(view: &State, own: &Server) -> Look {
    match view.server(own.id) {
        // A cluster that is older than the list of servers.
        None if view.servers().next().is_none() => Look::Differs,
        None => Look::Removed,
        Some(known) if known.member > own.member => Look::Rebuilt,
        Some(known) => {
            let joined = Server {
                joined_ms: known.joined_ms,
                ..own.clone()
            };
            if **known == joined {
                Look::Known
            } else {
                Look::Differs
            }
        }
    }
}

impl Announcer {
    /// Runs until `shutdown`, or until the cluster has done without this server.
    ///
    /// # Errors
    /// The server was removed, or its place was taken by another life of it: it must end.
    pub(super) async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut changes = self.store.consensus().changes();
        let mut pause = RETRY.0;
        loop {
            let sleep = match look(&self.store.view(), &self.own) {
                Look::Differs => match self.announce().await {
                    Ok(()) => {
                        pause = RETRY.0;
                        LOOK
                    }
                    Err(problem) => {
                        tracing::warn!(%problem, "this server could not be announced yet");
                        pause = (pause * 2).min(RETRY.1);
                        pause
                    }
                },
                Look::Removed | Look::Rebuilt => return self.leave(&shutdown).await,
                Look::Known => Duration::MAX,
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(sleep) => {}
                () = servers_changed(&mut changes) => {}
            }
        }
    }

    async fn announce(&self) -> Result<(), Problem> {
        let update = v1::UpdateServer {
            server: Some((&self.own).into()),
        };
        let announced = self.store.propose(Kind::UpdateServer(update)).await;
        announced.map(drop)
    }

    /// Waits until the group is without this server, then ends it for good.
    async fn leave(self, shutdown: &CancellationToken) -> Result<(), Error> {
        tracing::warn!("the cluster has removed this server: it ends once the group is without it");
        let mut group = self.store.consensus().group();
        let mut heard = Instant::now();
        loop {
            {
                let now = group.borrow_and_update();
                let members = &now.members;
                let all = [&members.voters, &members.learners, &members.voters_outgoing];
                let is_in = all.iter().any(|ids| ids.contains(&self.own.member));
                if now.leader.is_some() {
                    heard = Instant::now();
                }
                if !is_in || heard.elapsed() > LEFT_ALONE {
                    break;
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
                changed = group.changed() => if changed.is_err() { return Ok(()) },
            }
        }
        standing::note(&self.data_dir, Note::Removed, true).await?;
        Err(Error::Removed(self.data_dir))
    }
}

type Changes = tokio::sync::broadcast::Receiver<std::sync::Arc<crate::consensus::Batch<Change>>>;

/// Returns when the servers in the state may have changed; never, once the log has ended.
async fn servers_changed(changes: &mut Changes) {
    loop {
        match changes.recv().await {
            Ok(batch) => {
                let is_of_servers =
                    |change: &Change| matches!(change, Change::Server(_) | Change::Cluster);
                if batch.is_reset || batch.changes.iter().any(is_of_servers) {
                    return;
                }
            }
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The first word of a server that was made the whole group, or was restored: a new incarnation, in
/// which it is alone.
///
/// # Errors
/// It does not come to lead in time.
pub(super) async fn raise_incarnation(
    store: &Store,
    own: &Server,
    (data_dir, why): (&std::path::Path, Note),
) -> Result<(), Error> {
    let mut leadership = store.consensus().leadership();
    let leads = async { leadership.wait_for(|now| now.is_leader).await.is_ok() };
    if !tokio::time::timeout(ALONE_DEADLINE, leads)
        .await
        .unwrap_or(false)
    {
        return Err(Error::Part("the only server was not elected".to_owned()));
    }
    let view = store.view();
    let next = view.cluster().map_or(0, |cluster| cluster.incarnation) + 1;
    // By the clock: one backup may be restored twice, and agents must take the second for newer.
    let incarnation = next.max(now_ms() / 1_000);
    let command = v1::RaiseIncarnation {
        incarnation,
        server: Some(own.into()),
    };
    let raised = store.propose(Kind::RaiseIncarnation(command)).await;
    raised.map_err(|problem| Error::Part(problem.to_string()))?;
    standing::note(data_dir, why, false).await?;
    tracing::warn!(
        incarnation,
        ?why,
        "this server is the whole cluster now; the others must join anew"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use skep_model::id::ServerId;

    use super::*;

    fn server(member: u64) -> Server {
        Server {
            id: ServerId::from_u128(1),
            member,
            name: "s1".into(),
            cluster_address: "10.0.0.1:7072".into(),
            api_address: "10.0.0.1:7070".into(),
            version: "1".into(),
            feature_level: 2,
            joined_ms: 0,
        }
    }

    #[test]
    fn a_state_without_servers_is_an_older_cluster_not_a_removal() {
        assert_eq!(look(&State::default(), &server(1)), Look::Differs);
    }
}
