//! Snapshot files, sound and damaged.

use super::*;
use skep_raft_core::{ConfState, Position};

fn sample(index: u64) -> Taken {
    let members = ConfState {
        voters: vec![1],
        learners: vec![7],
        ..ConfState::default()
    };
    Taken {
        position: Position { index, term: 3 },
        members,
    }
}

fn with(indexes: &[u64]) -> (tempfile::TempDir, Snapshots) {
    let root = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(&root.path().join("snapshots")).unwrap();
    for &index in indexes {
        snapshots
            .write(&sample(index), format!("state {index}").as_bytes())
            .unwrap();
    }
    (root, snapshots)
}

#[test]
fn the_newest_two_are_kept_and_the_newest_is_loaded() {
    let (_root, snapshots) = with(&[9, 10, 111]);
    assert_eq!(
        snapshots.list("snap").unwrap(),
        [snapshots.path(10), snapshots.path(111)]
    );
    let found = snapshots.load().unwrap();
    assert_eq!(
        found.newest.map(|it| (it.taken, it.state)),
        Some((sample(111), b"state 111".to_vec()))
    );
    assert_eq!(found.older, Some(sample(10)));
    assert!(found.damaged.is_empty());
}

#[test]
fn damage_of_every_kind_is_named_and_passed_over() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage, &str); 7] = [
        (
            "state flipped",
            |bytes| *bytes.last_mut().unwrap() ^= 1,
            "checksum",
        ),
        ("index flipped", |bytes| bytes[12] ^= 1, "checksum"),
        (
            "state cut",
            |bytes| bytes.truncate(bytes.len() - 1),
            "bytes",
        ),
        ("state grown", |bytes| bytes.push(0), "bytes"),
        (
            "header cut",
            |bytes| bytes.truncate(20),
            "ends inside its header",
        ),
        ("no magic", |bytes| bytes[0] = b'X', "does not begin"),
        ("empty", Vec::clear, "ends inside its header"),
    ];
    for (name, damage, expected) in cases {
        let (_root, snapshots) = with(&[5, 8]);
        let path = snapshots.path(8);
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let found = snapshots.load().unwrap();
        assert_eq!(found.newest.map(|it| it.taken), Some(sample(5)), "{name}");
        let error = found.damaged[0].to_string();
        assert!(
            error.contains(expected) && error.contains("8.snap"),
            "{name}: {error}"
        );
        snapshots.set_aside(&path).unwrap();
        assert!(snapshots.load().unwrap().damaged.is_empty());
    }
}

#[test]
fn a_newer_format_is_refused_even_with_an_older_file_beside() {
    let (_root, snapshots) = with(&[5, 8]);
    let path = snapshots.path(8);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = FORMAT_VERSION as u8 + 1;
    std::fs::write(&path, bytes).unwrap();
    let error = snapshots.load().unwrap_err().to_string();
    assert!(
        error.contains("has format 2") && error.contains("newer release"),
        "{error}"
    );
}

#[test]
fn an_interrupted_write_leaves_nothing() {
    let (root, snapshots) = with(&[5]);
    let half = snapshots.path(8).with_extension("tmp");
    std::fs::write(&half, b"SKEPSNAP").unwrap();
    let snapshots = Snapshots::open(&root.path().join("snapshots")).unwrap();
    assert!(!half.exists());
    assert_eq!(snapshots.load().unwrap().newest.unwrap().taken, sample(5));
}
