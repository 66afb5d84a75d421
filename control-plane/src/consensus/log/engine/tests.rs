//! The log on a real disk: what is written comes back, what is lost is named.

use super::*;

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("log")
    }

    fn mark(&self) -> PathBuf {
        self.root.path().join("log.mark")
    }

    fn open(&self) -> Result<EngineLog, Error> {
        EngineLog::open(&self.dir(), &self.mark())
    }

    /// A log of entries 2 to 21 in one batch each.
    fn filled() -> Self {
        let place = Self::new();
        let log = place.open().unwrap();
        assert_eq!(log.load().unwrap(), None);
        log.compact(&origin(1), &hard_state(1)).unwrap();
        for index in 2..=21 {
            log.append(&[entry(index, 1)], &hard_state(index)).unwrap();
        }
        place
    }

    /// Changes the records behind the log's back.
    fn tamper(&self, key: &[u8], value: Option<Vec<u8>>) {
        let engine = Engine::open(config(&self.dir())).unwrap();
        let mut batch = LogBatch::default();
        match value {
            Some(value) => batch.put(GROUP, key.to_vec(), value).unwrap(),
            None => batch.delete(GROUP, key.to_vec()),
        }
        engine.write(&mut batch, true).unwrap();
    }
}

fn origin(index: u64) -> Origin {
    let members = ConfState {
        voters: vec![1],
        ..ConfState::default()
    };
    Origin {
        server: 1,
        position: Position { index, term: 1 },
        members,
    }
}

fn hard_state(commit: u64) -> HardState {
    HardState {
        term: 1,
        vote: 1,
        commit,
        ..HardState::default()
    }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: format!("command {index}").into_bytes().into(),
        ..Entry::default()
    }
}

#[test]
fn what_was_written_comes_back() {
    let place = Place::filled();
    let loaded = place.open().unwrap().load().unwrap().unwrap();
    assert_eq!(loaded.origin, origin(1));
    assert_eq!(loaded.hard_state, hard_state(21));
    assert_eq!(
        loaded.entries,
        (2..=21).map(|index| entry(index, 1)).collect::<Vec<_>>()
    );
}

#[test]
fn a_new_leader_overwrites_the_end() {
    let place = Place::filled();
    let log = place.open().unwrap();
    log.append(&[entry(10, 2), entry(11, 2)], &hard_state(9))
        .unwrap();
    drop(log);
    let loaded = place.open().unwrap().load().unwrap().unwrap();
    assert_eq!(loaded.entries.len(), 10);
    assert_eq!(loaded.entries[8..], [entry(10, 2), entry(11, 2)]);
}

#[test]
fn compaction_forgets_up_to_the_origin_and_keeps_the_rest() {
    let place = Place::filled();
    let log = place.open().unwrap();
    log.compact(&origin(15), &hard_state(21)).unwrap();
    log.purge().unwrap();
    log.append(&[entry(22, 1)], &hard_state(22)).unwrap();
    drop(log);
    let loaded = place.open().unwrap().load().unwrap().unwrap();
    assert_eq!(loaded.origin, origin(15));
    assert_eq!(
        loaded.entries,
        (16..=22).map(|index| entry(index, 1)).collect::<Vec<_>>()
    );
}

/// A log up to `last` with a MiB in each entry.
fn bulky(last: u64) -> Place {
    let place = Place::new();
    let log = place.open().unwrap();
    log.compact(&origin(1), &hard_state(1)).unwrap();
    // Bytes that do not compress, or the files would never fill.
    let mut seed = 1_u64;
    let mut noise = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as u8
    };
    let bulk: Vec<u8> = (0..1 << 20).map(|_| noise()).collect();
    for index in 2..=last {
        let entry = Entry {
            data: bulk.clone().into(),
            ..entry(index, 1)
        };
        log.append(&[entry], &hard_state(index)).unwrap();
    }
    place
}

#[test]
fn a_damaged_older_file_is_named() {
    for at in [0, 40] {
        let place = bulky(20);
        let files = log_files(&place.dir());
        let oldest = files
            .iter()
            .find(|path| path.extension().unwrap() == "raftlog")
            .unwrap();
        let mut content = std::fs::read(oldest).unwrap();
        content[at] ^= 0xff;
        std::fs::write(oldest, content).unwrap();
        let error = place.open().err().expect("refused").to_string();
        assert!(error.contains(&*oldest.to_string_lossy()), "{error}");
        assert!(error.contains("damaged"), "{error}");
    }
}

#[test]
fn purging_gives_space_back_and_loses_nothing() {
    let used = |place: &Place| -> u64 {
        log_files(&place.dir())
            .iter()
            .map(|path| path.metadata().unwrap().len())
            .sum()
    };
    let last = 2 + (PURGE_BYTES + 2 * FILE_BYTES) / (1 << 20);
    let place = bulky(last);
    let log = place.open().unwrap();
    let before = used(&place);
    assert!(before > PURGE_BYTES, "{before}");
    log.compact(&origin(last - 3), &hard_state(last)).unwrap();
    log.purge().unwrap();
    let after = used(&place);
    assert!(after < PURGE_BYTES, "{before} -> {after}");
    drop(log);
    let loaded = place.open().unwrap().load().unwrap().unwrap();
    assert_eq!(loaded.origin, origin(last - 3));
    assert_eq!(loaded.entries.len(), 3);
}

/// Cuts the last file at the end of the record at which `keep` more bytes of it are left.
fn cut(place: &Place, bytes: usize) {
    let path = last_file(&place.dir());
    let mut content = std::fs::read(&path).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    content.truncate(end - bytes);
    std::fs::write(&path, content).unwrap();
}

#[test]
fn an_acknowledged_end_that_is_missing_is_reported_every_time() {
    let place = Place::filled();
    cut(&place, 5);
    for _ in 0..2 {
        let error = place.open().err().expect("refused").to_string();
        assert!(error.contains("raftlog"), "{error}");
        assert!(error.contains("log index 21"), "{error}");
        assert!(error.contains("skep server rebuild"), "{error}");
    }
}

#[test]
fn an_unacknowledged_end_that_is_torn_is_cut() {
    let place = Place::filled();
    let mark = std::fs::read(place.mark()).unwrap();
    place
        .open()
        .unwrap()
        .append(&[entry(22, 1)], &hard_state(22))
        .unwrap();
    std::fs::write(place.mark(), mark).unwrap();
    cut(&place, 5);
    let loaded = place.open().unwrap().load().unwrap().unwrap();
    assert_eq!(loaded.entries.last(), Some(&entry(21, 1)));
    assert_eq!(loaded.hard_state, hard_state(21));
}

#[test]
fn a_flipped_byte_in_the_middle_is_reported() {
    let place = Place::filled();
    let path = last_file(&place.dir());
    let mut content = std::fs::read(&path).unwrap();
    let at = content
        .windows(10)
        .position(|bytes| bytes == b"command 12")
        .unwrap();
    content[at] ^= 0x20;
    std::fs::write(&path, content).unwrap();
    let error = match place.open() {
        Ok(log) => log.load().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("entry 12"), "{error}");
    assert!(error.contains("damaged"), "{error}");
}

#[test]
fn records_of_a_newer_release_and_missing_records_are_refused() {
    type Case = (&'static [u8], Option<Vec<u8>>, &'static str);
    let cases: [Case; 5] = [
        (STATE_KEY, Some(vec![FORMAT_VERSION + 1, 0]), "has format 2"),
        (
            ORIGIN_KEY,
            Some(vec![FORMAT_VERSION + 1, 0]),
            "has format 2",
        ),
        (ORIGIN_KEY, Some(vec![FORMAT_VERSION, 0]), "too short"),
        (ORIGIN_KEY, None, "origin record is missing"),
        (STATE_KEY, None, "acknowledged"),
    ];
    for (key, value, expected) in cases {
        let place = Place::filled();
        place.tamper(key, value);
        let error = match place.open() {
            Ok(log) => log.load().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_emptied_directory_is_a_loss_and_not_a_new_log() {
    let place = Place::filled();
    std::fs::remove_dir_all(place.dir()).unwrap();
    let error = place.open().err().expect("refused").to_string();
    assert!(error.contains("acknowledged"), "{error}");
}

#[test]
fn a_reset_forgets_everything_before_and_behind_its_origin() {
    // Behind the old end, in the middle, and before the old beginning.
    for at in [50, 15, 3] {
        let place = Place::filled();
        let log = place.open().unwrap();
        log.compact(&origin(9), &hard_state(21)).unwrap();
        log.reset(&origin(at), &hard_state(at)).unwrap();
        let empty = log.load().unwrap().unwrap();
        assert_eq!((empty.origin, empty.entries), (origin(at), Vec::new()));
        drop(log);
        let log = place.open().unwrap();
        assert_eq!(
            log.load().unwrap().unwrap().entries,
            Vec::new(),
            "reset to {at}"
        );
        log.append(&[entry(at + 1, 2), entry(at + 2, 2)], &hard_state(at + 1))
            .unwrap();
        drop(log);
        let log = place.open().unwrap();
        log.compact(&origin(at + 1), &hard_state(at + 2)).unwrap();
        log.reset(&origin(at + 9), &hard_state(at + 9)).unwrap();
        log.append(&[entry(at + 10, 3)], &hard_state(at + 10))
            .unwrap();
        log.purge().unwrap();
        drop(log);
        let loaded = place.open().unwrap().load().unwrap().unwrap();
        assert_eq!(loaded.origin, origin(at + 9));
        assert_eq!(loaded.entries, [entry(at + 10, 3)]);
    }
}

#[test]
fn a_reset_of_a_long_log_survives_its_purge() {
    let place = bulky(90);
    let log = place.open().unwrap();
    log.reset(&origin(200), &hard_state(200)).unwrap();
    for index in 201..=260 {
        log.append(&[entry(index, 2)], &hard_state(index)).unwrap();
    }
    log.purge().unwrap();
    log.purge().unwrap();
    drop(log);
    let loaded = place.open().unwrap().load().unwrap().unwrap();
    assert_eq!(loaded.origin, origin(200));
    let expected: Vec<Entry> = (201..=260).map(|index| entry(index, 2)).collect();
    assert_eq!(loaded.entries, expected);
}
