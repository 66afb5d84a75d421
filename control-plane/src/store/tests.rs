//! Writes from a server that does not lead, against a leader played by hand: one real follower, whose
//! Raft messages and forwarded commands come from here.

use std::collections::VecDeque;

use parking_lot::Mutex;
use protobuf::Message as _;
use raft::eraftpb::{Entry, Message, MessageType};
use skep_model::id::{ClusterId, EnvironmentId, ProjectId, TokenId, WorkspaceId};
use skep_model::server::{JoinToken, Role};
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_state::Change;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::consensus::{NoPeers, Options, Service, StateMachine as _};

const OWN: u64 = 1;
const LEADER: u64 = 2;
const OTHER: u64 = 3;
/// Well within any election timeout.
const HEARTBEAT: Duration = Duration::from_millis(100);
const WORKSPACE: WorkspaceId = WorkspaceId::from_u128(1);

/// What the leader does with the next forwarded command.
#[derive(Debug, Clone, Copy)]
enum Mood {
    /// Commits and answers.
    Answer,
    /// Commits, and the answer is lost.
    Swallow,
    /// Does not take it, and holds another for the leader.
    Send(Option<u64>),
    /// Never says anything.
    Hang,
}

struct Played {
    term: u64,
    /// Term and bytes of entries 2 and on.
    log: Vec<(u64, Vec<u8>)>,
    machine: Machine,
    moods: VecDeque<Mood>,
    asked: Vec<u64>,
}

/// The leader, and the follower's end of the line.
struct Line {
    handle: consensus::Handle<Machine>,
    played: Mutex<Played>,
}

impl Line {
    /// Says who leads.
    fn heartbeat(&self, from: u64, term: u64) {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgHeartbeat);
        message.from = from;
        message.to = OWN;
        message.term = term;
        self.handle
            .deliver(message.write_to_bytes().expect("encodes"))
            .expect("room");
    }

    /// Commits a command and sends it to the follower.
    fn commit(&self, command: Vec<u8>) -> (u64, Vec<u8>) {
        let mut played = self.played.lock();
        let index = played.log.len() as u64 + 2;
        let last_term = played.log.last().map_or(1, |(term, _)| *term);
        let term = played.term;
        let entry = Entry {
            index,
            term,
            data: command.clone().into(),
            ..Entry::default()
        };
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        message.from = LEADER;
        message.to = OWN;
        message.term = term;
        message.index = index - 1;
        message.log_term = last_term;
        message.commit = index;
        message.entries.push(entry);
        let (answer, _): (_, Vec<Change>) = played.machine.apply(index, &command);
        played.log.push((term, command));
        self.handle
            .deliver(message.write_to_bytes().expect("encodes"))
            .expect("room");
        (index, Machine::encode_outcome(&answer))
    }
}

impl Forward for Line {
    fn forward(&self, leader: u64, command: Vec<u8>) -> Forwarded<'_> {
        Box::pin(async move {
            let mood = {
                let mut played = self.played.lock();
                played.asked.push(leader);
                played.moods.pop_front().unwrap_or(Mood::Answer)
            };
            match mood {
                Mood::Answer => Ok(self.commit(command)),
                Mood::Swallow => {
                    self.commit(command);
                    Err(ForwardError::Unknown)
                }
                Mood::Send(leader) => Err(ForwardError::NotTaken { leader }),
                Mood::Hang => std::future::pending().await,
            }
        })
    }
}

struct World {
    store: Store,
    line: Arc<Line>,
    service: tokio::task::JoinHandle<Result<(), consensus::service::Error>>,
    _dir: TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    /// A follower that hears nobody yet.
    fn alone() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = Options::new(OWN, dir.path());
        options.founders = vec![OWN, LEADER, OTHER];
        let (service, handle) =
            Service::open(options, Machine::default(), Box::new(NoPeers)).expect("opens");
        let stop = CancellationToken::new();
        let service = tokio::spawn(service.run(stop.clone()));
        let played = Played {
            term: 5,
            log: Vec::new(),
            machine: Machine::default(),
            moods: VecDeque::new(),
            asked: Vec::new(),
        };
        let line = Arc::new(Line {
            handle: handle.clone(),
            played: Mutex::new(played),
        });
        Self {
            store: Store::new(handle).with_forward(line.clone()),
            line,
            service,
            _dir: dir,
            _stop: stop.drop_guard(),
        }
    }

    /// With a leader and a cluster of this build's level.
    async fn following() -> Self {
        let world = Self::alone();
        let line = Arc::downgrade(&world.line);
        tokio::spawn(async move {
            while let Some(line) = line.upgrade() {
                line.heartbeat(LEADER, 5);
                drop(line);
                tokio::time::sleep(HEARTBEAT).await;
            }
        });
        let workspace = Workspace {
            id: WORKSPACE,
            name: "default".into(),
        };
        let init = v1::InitCluster {
            cluster: id_bytes(ClusterId::from_u128(9).as_u128()),
            workspace: Some((&workspace).into()),
            ..v1::InitCluster::default()
        };
        let reply = world.store.propose(Kind::InitCluster(init)).await;
        assert_eq!(reply, Ok(Reply::Done));
        world.line.played.lock().asked.clear();
        world
    }

    fn moods(&self, moods: &[Mood]) {
        self.line.played.lock().moods = moods.iter().copied().collect();
    }

    fn asked(&self) -> Vec<u64> {
        std::mem::take(&mut self.line.played.lock().asked)
    }

    fn projects(&self) -> Vec<String> {
        let view = self.store.view();
        let mut names: Vec<_> = view.projects().map(|p| p.name.clone()).collect();
        names.sort();
        names
    }
}

/// Not idempotent by itself: every one makes a token more of the name.
fn token(id: u128) -> Kind {
    let token = JoinToken {
        id: TokenId::from_u128(id),
        secret_hash: vec![1],
        expires_ms: u64::MAX,
        uses_left: 1,
        role: Role::Node,
        note: String::new(),
        created_ms: 0,
    };
    Kind::PutToken(v1::PutToken {
        token: Some((&token).into()),
    })
}

fn project(id: u128, name: &str) -> Kind {
    let project = Project {
        id: ProjectId::from_u128(id),
        workspace: WORKSPACE,
        name: name.into(),
    };
    let environment = Environment {
        id: EnvironmentId::from_u128(id),
        project: project.id,
        name: "production".into(),
    };
    Kind::EnsureEnvironment(v1::EnsureEnvironment {
        workspace: id_bytes(WORKSPACE.as_u128()),
        project: Some((&project).into()),
        environment: Some((&environment).into()),
    })
}

#[tokio::test]
async fn a_follower_writes_through_the_leader_and_sees_it_at_once() {
    let world = World::following().await;
    let written = world
        .store
        .write(project(7, "shop"))
        .await
        .expect("written");
    assert_eq!(
        (world.asked(), world.projects()),
        (vec![LEADER], vec!["shop".to_owned()])
    );
    assert_eq!((written.index, written.is_replayed), (3, false));
    let refused = world.store.propose(project(8, "Bad Name")).await;
    assert_eq!(refused.expect_err("refused").code, Code::Invalid);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_the_write_done_once() {
    let world = World::following().await;
    world.moods(&[Mood::Swallow, Mood::Swallow]);
    let written = world
        .store
        .write(project(7, "shop"))
        .await
        .expect("written");
    assert!(written.is_replayed, "the first one did it");
    assert_eq!(world.asked(), vec![LEADER; 3]);
    let log = world.line.played.lock().log.len();
    assert_eq!(log, 4, "founding, and three tries");
    assert_eq!(world.store.view().projects().count(), 1);
}

#[tokio::test]
async fn whoever_is_named_as_the_leader_is_asked_next() {
    let world = World::following().await;
    world.moods(&[Mood::Send(Some(OTHER)), Mood::Send(None)]);
    world.store.propose(token(1)).await.expect("written");
    assert_eq!(world.asked(), [LEADER, OTHER, LEADER]);
}

#[tokio::test]
async fn a_write_waits_for_a_leader_and_wakes_when_there_is_one() {
    let world = World::alone();
    let store = world.store.clone();
    let write = tokio::spawn(async move { store.propose(token(1)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!write.is_finished() && world.asked().is_empty());
    world.line.heartbeat(LEADER, 5);
    let done = tokio::time::timeout(Duration::from_secs(2), write).await;
    assert_eq!(done.expect("woken").expect("ran"), Ok(Reply::Done));
}

#[tokio::test]
async fn what_cannot_be_done_in_time_says_what_is_known() {
    let mut world = World::alone();
    world.store.deadline = Duration::from_millis(300);
    let problem = world
        .store
        .propose(token(1))
        .await
        .expect_err("nobody leads");
    assert!(problem.message.contains("no server leads"), "{problem}");
    let mut world = World::following().await;
    world.store.deadline = Duration::from_millis(300);
    world.moods(&[Mood::Hang]);
    let problem = world.store.propose(token(1)).await.expect_err("silent");
    assert!(problem.message.contains("may or may not"), "{problem}");
}

#[tokio::test]
async fn a_request_that_comes_again_is_done_once() {
    let world = World::following().await;
    let request = || world.store.with_request(b"key", b"POST /v1/x");
    let first = request();
    first.propose(project(7, "shop")).await.expect("written");
    first.propose(token(1)).await.expect("written");
    let again = request();
    let written = again.write(token(2)).await.expect("written");
    assert!(written.is_replayed);
    assert_eq!(world.store.view().tokens().count(), 1);
    let next = again.write(token(3)).await.expect("written");
    assert!(!next.is_replayed, "the second of this kind");
    let other = world.store.with_request(b"key", b"POST /v1/y");
    let problem = other.propose(token(4)).await.expect_err("another request");
    assert_eq!(problem.code, Code::Conflict);
}

#[tokio::test]
async fn a_change_goes_on_from_what_others_did_meanwhile() {
    let world = World::following().await;
    let conflict = || {
        Kind::RotateCa(v1::RotateCa {
            step: Some(v1::rotate_ca::Step::Activate(true)),
        })
    };
    let mut tries = 0;
    let make = |_: &State| {
        tries += 1;
        if tries > 1 {
            return Ok(token(1));
        }
        // Somebody else is faster.
        world.line.commit(command(1, project(7, "shop")));
        Ok(conflict())
    };
    assert_eq!(world.store.change(make).await, Ok(Reply::Done));
    assert_eq!(tries, 2);
    let mut tries = 0;
    let make = |_: &State| {
        tries += 1;
        Ok(conflict())
    };
    let problem = world.store.change(make).await.expect_err("a conflict");
    assert_eq!((problem.code, tries), (Code::Conflict, 1));
}

#[tokio::test]
async fn a_command_of_a_newer_version_stops_the_server_before_it_shows_anything() {
    let world = World::following().await;
    let seen = world.store.view().index();
    let newer = v1::Command {
        version: skep_state::format() + 1,
        ..v1::Command::default()
    };
    world.line.commit(prost::Message::encode_to_vec(&newer));
    let ended = tokio::time::timeout(Duration::from_secs(5), world.service).await;
    let error = ended
        .expect("stops")
        .expect("no panic")
        .expect_err("halted");
    let text = error.to_string();
    assert!(text.contains("start the newer version"), "{text}");
    assert_eq!(world.store.view().index(), seen);
}
