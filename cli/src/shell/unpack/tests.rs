use std::io::Cursor;

use tar::{Builder, Header};

use super::super::pack;
use super::*;

/// What an entry of a tar is.
enum Kind {
    File(&'static str),
    Folder,
    Link(&'static str),
    Other(&'static str),
    Fifo,
}

/// A tar with exactly these names: no library would write some of them.
fn tar(entries: &[(&str, Kind)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind) in entries {
        let mut header = Header::new_gnu();
        let (entry, content, target) = match kind {
            Kind::File(text) => (EntryType::Regular, *text, ""),
            Kind::Folder => (EntryType::Directory, "", ""),
            Kind::Link(target) => (EntryType::Symlink, "", *target),
            Kind::Other(target) => (EntryType::Link, "", *target),
            Kind::Fifo => (EntryType::Fifo, "", ""),
        };
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(entry);
        header.set_mode(0o6755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder
            .append(&header, content.as_bytes())
            .expect("written");
    }
    builder.into_inner().expect("a tar")
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("outside")).expect("made");
        fs::write(dir.path().join("outside/secret"), "mine").expect("written");
        Self { dir }
    }

    fn unpack(&self, entries: &[(&str, Kind)]) -> Result<Summary, Problem> {
        let base = self.dir.path().join("base");
        unpack(Cursor::new(tar(entries)), Some("d"), &base)
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.dir.path().join(path)).ok()
    }

    /// Nothing was made or changed beside the base.
    fn is_untouched(&self) {
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .expect("read")
            .map(|entry| {
                entry
                    .expect("read")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .filter(|name| name != "base")
            .collect();
        names.sort();
        assert_eq!(names, ["outside"]);
        let inside = fs::read_dir(self.dir.path().join("outside")).expect("read");
        assert_eq!(inside.count(), 1);
        assert_eq!(self.read("outside/secret").as_deref(), Some("mine"));
    }
}

#[test]
fn what_was_packed_is_unpacked_under_its_new_name() {
    let place = Place::new();
    let from = place.dir.path().join("outside");
    fs::create_dir(from.join("sub")).expect("made");
    let content = "skep ".repeat(40_000);
    fs::write(from.join("sub/big"), &content).expect("written");
    fs::set_permissions(from.join("sub/big"), Permissions::from_mode(0o750)).expect("set");
    symlink("sub/big", from.join("link")).expect("made");
    let (sender, mut chunks) = mpsc::channel(pack::CHUNKS);
    let packing = std::thread::spawn(move || pack::pack(&from, Path::new("d"), sender));
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.blocking_recv() {
        bytes.extend_from_slice(&chunk);
    }
    let packed = packing.join().expect("runs").expect("packed");
    let base = place.dir.path().join("base");
    let summary = unpack(Cursor::new(bytes), Some("d"), &base).expect("unpacked");
    assert_eq!(
        (summary.entries, summary.bytes),
        (packed.entries, packed.bytes)
    );
    assert_eq!(
        (summary.entries, summary.bytes),
        (5, 4 + content.len() as u64)
    );
    assert_eq!(place.read("base/sub/big").as_deref(), Some(&*content));
    assert_eq!(place.read("base/link").as_deref(), Some(&*content));
    let mode = fs::metadata(base.join("sub/big"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o750);
}

#[test]
fn what_leads_out_of_the_folder_is_refused() {
    use Kind::{File, Folder, Link, Other};
    for entries in [
        vec![("d/../../outside/x", File("no"))],
        vec![("../outside/x", File("no"))],
        vec![("/outside/x", File("no"))],
        vec![("e/x", File("no"))],
        vec![("d/l", Link("../outside")), ("d/l/x", File("no"))],
        vec![("d", Link("outside")), ("d/x", File("no"))],
        vec![("d/l", Link("../outside")), ("d/l/sub", Folder)],
        vec![("d/h", Other("../outside/secret"))],
        vec![("d/l", Link("../outside")), ("d/h", Other("d/l/secret"))],
        vec![("d/l", Link("../outside/secret")), ("d/h", Other("d/l"))],
    ] {
        let place = Place::new();
        let problem = place.unpack(&entries).expect_err("refused");
        assert_eq!(problem.code, Code::Forbidden, "{problem}");
        place.is_untouched();
    }
}

#[test]
fn links_are_made_replaced_and_never_written_through() {
    use Kind::{File, Folder, Link, Other};
    let place = Place::new();
    let entries = [
        ("d", Folder),
        ("d/l", Link("../outside/secret")),
        ("d/l", File("new")),
        ("d/same", Other("d/l")),
        ("d/gone", Link("/nowhere/at/all")),
    ];
    let summary = place.unpack(&entries).expect("unpacked");
    assert_eq!(summary.entries, 5);
    assert_eq!(place.read("base/l").as_deref(), Some("new"));
    assert_eq!(place.read("base/same").as_deref(), Some("new"));
    place.is_untouched();
    // Over what is there: again the same.
    place.unpack(&entries).expect("unpacked");
    assert_eq!(place.read("base/l").as_deref(), Some("new"));
    place.is_untouched();
}

#[test]
fn neither_devices_nor_anybody_elses_rights_are_made() {
    use Kind::{Fifo, File, Folder};
    let place = Place::new();
    let entries = [("d/", Folder), ("d/pipe", Fifo), ("./d/run", File("x"))];
    let summary = place.unpack(&entries).expect("unpacked");
    assert_eq!(summary.skipped, ["d/pipe"]);
    let run = place.dir.path().join("base/run");
    let mode = fs::metadata(run).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert!(!place.dir.path().join("base/pipe").exists());
}

#[test]
fn a_tar_that_breaks_off_is_no_whole_one() {
    let (sender, from) = mpsc::unbounded_channel();
    let (read, _released) = mpsc::unbounded_channel();
    let whole = tar(&[("d/a", Kind::File("a"))]);
    let part = Bytes::copy_from_slice(&whole[..512]);
    sender.send(Some(part)).expect("read");
    drop(sender);
    let chunks = Chunks {
        from,
        read,
        left: Bytes::new(),
    };
    let place = Place::new();
    let base = place.dir.path().join("base");
    assert!(unpack(chunks, Some("d"), &base).is_err());
}

#[test]
fn a_name_that_is_typed_is_a_folder_to_copy_into_or_a_new_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let new = dir.path().join("new");
    assert_eq!(place(dir.path(), Some("etc")), dir.path().join("etc"));
    assert_eq!(place(&new, Some("etc")), new);
    assert_eq!(place(dir.path(), None), dir.path());
}
