//! The file and its faults; a folder restored and opened as a server opens it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use prost::Message as _;
use skep_identity::ca::ClusterCa;
use skep_identity::seal::SealingKey;
use skep_identity::{digest, key_file};
use skep_model::id::{ClusterId, WorkspaceId};
use skep_model::server::Server;
use skep_model::tenancy::Workspace;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::consensus::{NoPeers, Options, Service};
use crate::local::{Local, Note};
use crate::machine::Machine;
use crate::secrets::Secrets;
use crate::server::{LOCAL, RAFT};

const CREATED_MS: u64 = 1_700_000_000_123;

/// A cluster's state, and the folder of its founder's key.
struct World {
    dir: tempfile::TempDir,
    state: State,
    /// By the key in the file `key-of-two`: that of the server that makes backups.
    wrapped: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let operator = key_file::load_or_create(&dir.path().join("key"), Path::new("/none"));
        let operator = operator.expect("made");
        let data_key = SealingKey::generate();
        let cluster = ClusterId::from_u128(7);
        let ca = ClusterCa::generate(cluster, SystemTime::now()).expect("ca");
        let workspace = Workspace {
            id: WorkspaceId::from_u128(1),
            name: "default".into(),
        };
        let server = Server {
            id: skep_model::id::ServerId::from_u128(3),
            member: 1,
            name: "one".into(),
            cluster_address: "10.0.0.1:7072".into(),
            api_address: "10.0.0.1:7070".into(),
            version: "1".into(),
            feature_level: skep_state::feature_level(),
            joined_ms: 0,
        };
        let found = Kind::InitCluster(v1::InitCluster {
            cluster: id_bytes(cluster.as_u128()),
            ca_cert_pem: ca.cert_pem().to_owned(),
            sealed_ca_key: Secrets::new(data_key.clone()).seal_ca_key(&ca.key_pem()),
            wrapped_data_key: key_file::wrap(&operator, &data_key),
            base_domain: "example.test".into(),
            workspace: Some((&workspace).into()),
            admin_token_hash: vec![4; 32],
            server: Some((&server).into()),
        });
        let mut state = State::default();
        let applied = state.apply(40, &skep_state::command(5_000, found));
        applied.outcome.expect("founded");
        let two = key_file::load_or_create(&dir.path().join("key-of-two"), Path::new("/none"));
        Self {
            dir,
            state,
            wrapped: key_file::wrap(&two.expect("made"), &data_key),
        }
    }

    fn backup(&self) -> Backup {
        let maker = Maker {
            server: "one",
            created_ms: CREATED_MS,
            wrapped_data_key: &self.wrapped,
        };
        Backup::make(&self.state, &maker).expect("made")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("backup.tar");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    /// Reads and verifies a file of these bytes.
    fn check(&self, bytes: &[u8]) -> Result<Backup, Error> {
        let backup = Backup::read(&self.write(bytes))?;
        backup.verify()?;
        Ok(backup)
    }
}

fn bytes(backup: &Backup) -> Vec<u8> {
    backup.pieces().concat()
}

/// An archive of these parts, with sums that are right.
fn archive(manifest: &[u8], state: &[u8]) -> Vec<u8> {
    let sum = |content: &[u8]| digest::sha256_hex(content);
    let sums = format!(
        "{}  manifest.json\n{}  state.bin\n",
        sum(manifest),
        sum(state)
    );
    let mut builder = tar::Builder::new(Vec::new());
    let parts = [
        ("manifest.json", manifest),
        ("state.bin", state),
        ("SHA256SUMS", sums.as_bytes()),
    ];
    for (name, content) in parts {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(CREATED_MS / 1_000);
        header.set_entry_type(tar::EntryType::Regular);
        builder
            .append_data(&mut header, name, content)
            .expect("in memory");
    }
    builder.into_inner().expect("in memory")
}

#[test]
fn a_backup_reads_back_as_it_was_made() {
    let world = World::new();
    let made = world.backup();
    let file = bytes(&made);
    assert_eq!(file.len() as u64, made.bytes());
    let read = world.check(&file).expect("sound");
    assert_eq!(read.manifest, made.manifest);
    assert_eq!(read.verify().expect("sound"), world.state);
    let Manifest {
        index,
        incarnation,
        counts,
        created_ms,
        ..
    } = read.manifest;
    assert_eq!((index, incarnation, created_ms), (40, 1, CREATED_MS));
    assert_eq!((counts.servers, counts.nodes), (1, 0));
    let json = serde_json::to_vec_pretty(&made.manifest).expect("plain");
    assert_eq!(
        archive(&json, &world.state.encode()),
        file,
        "a plain tar archive"
    );
}

#[test]
fn a_flipped_byte_or_a_cut_is_found_anywhere() {
    let world = World::new();
    let file = bytes(&world.backup());
    // Coprime to the size of a block: every place in one gets its turn.
    for at in (0..file.len()).step_by(5) {
        let mut flipped = file.clone();
        flipped[at] ^= 0x10;
        let found = world.check(&flipped).map(|_| ());
        assert!(found.is_err(), "byte {at} of {}", file.len());
    }
    for length in (0..file.len()).step_by(97).chain([file.len() - 1]) {
        assert!(world.check(&file[..length]).is_err(), "cut to {length}");
    }
    let longer = [&file[..], &[0]].concat();
    assert!(world.check(&longer).is_err());
}

#[test]
fn what_is_wrong_is_said() {
    let world = World::new();
    let file = bytes(&world.backup());
    let place = |text: &str| {
        let found = file
            .windows(text.len())
            .position(|part| part == text.as_bytes());
        found.expect("there")
    };
    let told = |bytes: &[u8]| world.check(bytes).expect_err("refused").to_string();
    let flipped = |at: usize| {
        let mut flipped = file.clone();
        flipped[at] ^= 1;
        told(&flipped)
    };
    let cases = [
        (
            flipped(place("example.test") + 3),
            "manifest.json does not match its sum",
        ),
        (
            flipped(place("BEGIN CERTIFICATE") + 60),
            "state.bin does not match its sum",
        ),
        (flipped(file.len() - 3), "not as they were written"),
        (
            told(&file[..place("BEGIN CERTIFICATE")]),
            "ends within state.bin",
        ),
        (told(&file[..700]), "ends within manifest.json"),
        (told(b""), "is not a backup of Skep: it is empty"),
        (told(&[b'x'; 2_000]), "is not a backup of Skep"),
    ];
    for (told, wanted) in cases {
        assert!(told.contains(wanted), "{told:?}, wanted {wanted:?}");
    }
}

#[test]
fn newer_formats_and_false_manifests_are_refused() {
    let world = World::new();
    let mut manifest = world.backup().manifest;
    let mut with = |change: &dyn Fn(&mut Manifest)| {
        change(&mut manifest);
        let json = serde_json::to_vec_pretty(&manifest).expect("plain");
        let checked = world.check(&archive(&json, &world.state.encode()));
        checked.map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(with(&|_| {}), Ok(()));
    let newer = with(&|manifest| manifest.format = FORMAT + 1).expect_err("newer");
    assert!(newer.contains("use the newer version of skep"), "{newer}");
    let told = with(&|manifest| {
        manifest.format = FORMAT;
        manifest.counts.nodes = 9;
    });
    assert!(told.expect_err("false").contains("the counts"));
    let state = v1::Snapshot {
        version: skep_state::format() + 1,
        ..v1::Snapshot::default()
    };
    let state = state.encode_to_vec();
    manifest = world.backup().manifest;
    manifest.state_bytes = state.len() as u64;
    manifest.state_sha256 = digest::sha256_hex(&state);
    let json = serde_json::to_vec_pretty(&manifest).expect("plain");
    let error = world.check(&archive(&json, &state)).expect_err("newer");
    assert!(matches!(error, Error::State(_)), "{error}");
}

#[test]
fn only_an_empty_folder_and_the_right_key_will_do() {
    let world = World::new();
    let file = world.write(&bytes(&world.backup()));
    let (data, key) = (world.path("data"), world.path("key"));
    let wrong = world.path("other-key");
    key_file::load_or_create(&wrong, &data).expect("made");
    let refused = |data: &Path, key: &Path| restore(&file, data, key).expect_err("refused");
    assert!(matches!(refused(&data, &wrong), Error::WrongKey { .. }));
    assert!(matches!(
        refused(&data, &world.path("none")),
        Error::KeyFile(_)
    ));
    assert!(!world.path("none").exists(), "no key is made");
    std::fs::create_dir(&data).expect("made");
    std::fs::write(data.join("admin.token"), "x").expect("written");
    assert!(matches!(refused(&data, &key), Error::Occupied(_)));
    assert_eq!(std::fs::read_dir(&data).expect("listed").count(), 1);
}

#[tokio::test]
async fn a_restored_folder_opens_as_a_group_of_one_with_that_state() {
    let world = World::new();
    let file = world.write(&bytes(&world.backup()));
    let data = world.path("data");
    let restored = restore(&file, &data, &world.path("key")).expect("restored");
    assert_eq!(restored.member, 2, "never used before");
    {
        let local = Local::open(&data.join(LOCAL)).expect("opens");
        assert_eq!(local.member().expect("reads"), Some(2));
        assert!(local.has_begun().expect("reads"));
        assert!(local.has(Note::Restored).expect("reads"));
    }
    for _ in 0..2 {
        let mut options = Options::new(2, data.join(RAFT));
        options.create = false;
        let opened = Service::open(options, Machine::default(), Box::new(NoPeers));
        let (service, handle) = opened.expect("opens");
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(service.run(shutdown.clone()));
        assert_eq!(
            handle.read().await.expect("leads").encode(),
            world.state.encode()
        );
        shutdown.cancel();
        running.await.expect("no panic").expect("ends well");
    }
}

#[test]
fn the_makers_key_opens_a_backup_as_the_founders_does() {
    let world = World::new();
    let file = world.write(&bytes(&world.backup()));
    for (data, key) in [("by-founder", "key"), ("by-maker", "key-of-two")] {
        restore(&file, &world.path(data), &world.path(key)).expect("restored");
        let snapshots = std::fs::read_dir(world.path(data).join(RAFT).join("snapshots"));
        let snapshot = snapshots
            .expect("there")
            .next()
            .expect("one")
            .expect("read");
        let content = std::fs::read(snapshot.path()).expect("read");
        // The header has a fixed part and the membership of one before the state.
        let state = (0..128).find_map(|at| {
            State::decode(&content[at..])
                .ok()
                .filter(|s| s.index() == 40)
        });
        let cluster = state
            .expect("the state")
            .cluster()
            .cloned()
            .expect("cluster");
        let operator = key_file::load(&world.path(key)).expect("key");
        key_file::unwrap(&operator, &cluster.wrapped_data_key.0).expect("opens at the next start");
    }
}
