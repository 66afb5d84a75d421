use std::path::Path;

use skep_identity::seal::SealingKey;
use skep_model::allocation::{Observed, State};
use skep_model::build::Build;
use skep_model::deployment::Origin;
use skep_model::id::{ServiceId, UploadId, WorkspaceId};
use skep_model::problem::{Code, Problem};
use skep_model::spec::Pull;

use super::*;
use crate::logs::files::FileId;
use crate::testing::assignment;

/// A child of another test of this process holds its lock, too, until it is a program of its own.
fn open(folder: &Path, key: &SealingKey) -> (SledLedger, Contents) {
    for _ in 0..1_000 {
        match SledLedger::open_or_rebuild(folder, key) {
            Err(Error::Sled(sled::Error::Io(error)))
                if error.to_string().contains("acquire lock") =>
            {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            opened => return opened.expect("opens"),
        }
    }
    panic!("the lock of {} stays taken", folder.display());
}

fn local() -> Local {
    Local {
        attempt: 3,
        restarts: 2,
        counted_ms: vec![5, 6],
        healthy: true,
        verdict: Some(Observed {
            state: State::Failed,
            restarts: 2,
            problem: Some(Problem::new(Code::Crashed, "exited")),
            log_tail: "boom".into(),
            exit_code: None,
            ports: Vec::new(),
        }),
    }
}

fn order(id: u128) -> BuildOrder {
    BuildOrder {
        deployment: DeploymentId::from_u128(id),
        service: ServiceId::from_u128(1),
        service_label: "web".into(),
        origin: Origin::Upload {
            upload: UploadId::from_u128(9),
        },
        builder: None,
        dockerfile: None,
        pull: Pull::Missing,
        timeout_ms: 1_000,
        arguments: Default::default(),
        build: Build {
            target: Some("web".into()),
            ..Build::default()
        },
        nixpacks: Default::default(),
        site: Default::default(),
        fetch: Default::default(),
        variables: Vec::new(),
        no_cache: true,
        workspace: Some(WorkspaceId::from_u128(9)),
        ask_registry: true,
    }
}

fn everything() -> (Vec<Change>, Contents) {
    let generation = Generation {
        incarnation: 1,
        number: 77,
    };
    let mut contents = Contents {
        generation: Some(generation),
        routes: Some(Routes {
            incarnation: 1,
            table: RouteTable {
                tcp: Vec::new(),
                peers: Vec::new(),
                names: Vec::new(),
                revision: 5,
                routes: Vec::new(),
            },
        }),
        ..Contents::default()
    };
    let wanted = assignment(4);
    let outcome = BuildOutcome::Failed(Problem::new(Code::BuildFailed, "no"));
    contents.locals.insert(wanted.allocation, local());
    contents
        .outcomes
        .insert(DeploymentId::from_u128(8), outcome.clone());
    contents.builds.insert(DeploymentId::from_u128(8), order(8));
    contents
        .assignments
        .insert(wanted.allocation, wanted.clone());
    let position = Position {
        file: FileId {
            inode: 7,
            begin_ns: 8,
        },
        offset: 9,
        last_ns: 10,
    };
    contents
        .shipped
        .insert("loki=http://h/ c1".into(), position);
    let kept = assignment(6);
    contents.quarantine.insert(kept.allocation, kept.clone());
    let changes = vec![
        Change::Local(wanted.allocation, local()),
        Change::Assign(Box::new(wanted)),
        Change::Quarantine(Box::new(kept)),
        Change::Order(Box::new(order(8))),
        Change::Outcome(DeploymentId::from_u128(8), Box::new(outcome)),
        Change::Routes(Box::new(contents.routes.clone().expect("routes"))),
        Change::Generation(generation),
        Change::Shipped("loki=http://h/ c1".into(), Some(position)),
    ];
    (changes, contents)
}

#[test]
fn everything_comes_back_and_secrets_are_nowhere() {
    let dir = tempfile::tempdir().expect("folder");
    let folder = dir.path().join("ledger");
    let key = load_or_create_key(&dir.path().join("node.key")).expect("key");
    let (changes, contents) = everything();
    let (mut ledger, empty) = open(&folder, &key);
    assert_eq!(empty, Contents::default());
    ledger.apply(&changes).expect("written");
    // No orderly end: the process is killed here as far as the files are concerned.
    let copied = dir.path().join("copied");
    copy(&folder, &copied);
    assert_eq!(open(&copied, &key).1, contents);
    drop(ledger);
    let again = load_or_create_key(&dir.path().join("node.key")).expect("the same key");
    let (mut ledger, loaded) = open(&folder, &again);
    assert_eq!(loaded, contents);
    let stored = std::fs::read(folder.join("db")).expect("file");
    assert!(
        !stored.windows(6).any(|bytes| bytes == b"secret"),
        "variables in plain text"
    );

    let allocation = AllocationId::from_u128(4);
    let deployment = DeploymentId::from_u128(8);
    let changes = [
        Change::Unassign(allocation),
        Change::Forget(allocation),
        Change::Unquarantine(AllocationId::from_u128(6)),
        Change::Unorder(deployment),
        Change::Shipped("loki=http://h/ c1".into(), None),
    ];
    ledger.apply(&changes).expect("removed");
    let left = ledger.load().expect("readable");
    assert!(left.assignments.is_empty() && left.locals.is_empty());
    assert!(left.builds.is_empty() && left.outcomes.is_empty());
    assert!(left.quarantine.is_empty() && left.shipped.is_empty());
    assert_eq!(left.generation, contents.generation);
}

#[test]
fn damage_and_a_wrong_key_lead_to_a_new_ledger_beside_the_old() {
    let dir = tempfile::tempdir().expect("folder");
    let folder = dir.path().join("ledger");
    let key = SealingKey::generate();
    let (changes, _) = everything();
    open(&folder, &key).0.apply(&changes).expect("written");

    let other = SealingKey::generate();
    let (mut ledger, contents) = open(&folder, &other);
    assert_eq!(contents, Contents::default());
    assert!(
        dir.path().join("ledger.damaged/db").exists(),
        "kept for whoever wants to look"
    );
    ledger.apply(&changes).expect("the new one works");
    let moved = Change::Assign(Box::new(assignment(5)));
    let key_of = |id: u128| format!("assignment/{}", AllocationId::from_u128(id));
    ledger.apply(&[moved]).expect("written");
    // A value in another's place is as bad as a flipped bit.
    let stolen = ledger.raw_get(&key_of(4));
    ledger.raw_put(&key_of(5), stolen);
    drop(ledger);
    assert_eq!(open(&folder, &other).1, Contents::default());
    assert_eq!(open(&folder, &other).1, Contents::default(), "for good");
}

#[test]
fn a_newer_format_is_no_damage() {
    let dir = tempfile::tempdir().expect("folder");
    let folder = dir.path().join("ledger");
    let key = SealingKey::generate();
    let (ledger, _) = open(&folder, &key);
    let newer = prost::Message::encode_to_vec(&record::MetaRecord {
        format: record::FORMAT + 1,
        generation: None,
    });
    ledger.raw_put("meta", key.seal("meta", &newer));
    drop(ledger);
    let error = SledLedger::open_or_rebuild(&folder, &key)
        .err()
        .expect("refused");
    assert!(matches!(error, Error::Format { .. }), "{error}");
    assert!(!dir.path().join("ledger.damaged").exists());
}

#[test]
fn one_agent_at_a_time() {
    let dir = tempfile::tempdir().expect("folder");
    let key = SealingKey::generate();
    let _held = open(dir.path().join("ledger").as_path(), &key);
    let second = SledLedger::open_or_rebuild(&dir.path().join("ledger"), &key);
    assert!(matches!(
        second.err(),
        Some(Error::Sled(sled::Error::Io(_)))
    ));
}

#[tokio::test]
async fn the_writer_answers_when_it_is_written() {
    let dir = tempfile::tempdir().expect("folder");
    let folder = dir.path().join("ledger");
    let key = SealingKey::generate();
    let (ledger, _) = open(&folder, &key);
    let (writer, thread) =
        Writer::start(ledger, crate::metrics::Metrics::default()).expect("thread");
    let (changes, contents) = everything();
    writer.write_soon(changes).await;
    writer
        .write(vec![Change::Forget(AllocationId::from_u128(1))])
        .await
        .expect("written");
    let copied = dir.path().join("copied");
    copy(&folder, &copied);
    assert_eq!(
        open(&copied, &key).1,
        contents,
        "what came before is there too"
    );
    drop(writer);
    thread.join().expect("ends with its handles");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("mode");
    for entry in std::fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}
