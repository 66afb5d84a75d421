//! Hostile and broken uploads.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// An entry with any name, as no honest tar would write it.
fn entry(kind: EntryType, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn gzip(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&parts.concat()).expect("memory");
    gzip.write_all(&[0; 1024]).expect("memory");
    gzip.finish().expect("memory")
}

fn file(name: &str) -> Vec<u8> {
    entry(EntryType::Regular, name, "", b"content")
}

fn link(name: &str, target: &str) -> Vec<u8> {
    entry(EntryType::Symlink, name, target, b"")
}

#[test]
fn an_honest_upload_is_unpacked() {
    let dir = tempfile::tempdir().expect("folder");
    let parts = [
        entry(EntryType::Directory, "./", "", b""),
        file("./a/b"),
        link("a/c", "b"),
        link("a/d", "../a/b"),
        entry(EntryType::Link, "e", "a/b", b""),
        entry(EntryType::XGlobalHeader, "pax", "", b"16 comment=abcd\n"),
    ];
    unpack(&*gzip(&parts), dir.path()).expect("unpacked");
    for name in ["a/b", "a/c", "a/d", "e"] {
        assert_eq!(fs::read(dir.path().join(name)).expect(name), b"content");
    }
    assert!(!dir.path().join("pax").exists());
}

#[test]
fn nothing_is_written_outside() {
    let cases = [
        vec![file("../evil")],
        vec![file("/evil")],
        vec![file("a/../../evil")],
        vec![link("a", "../evil")],
        vec![link("a", "/evil")],
        vec![link("b/a", "../../evil")],
        // A link that leads out only by way of another.
        vec![
            file("x/y/f"),
            link("x/y/up", ".."),
            link("out", "x/y/up/../../.."),
            file("out/evil"),
        ],
        vec![link("l", "x/.."), link("x", "."), file("l/../evil")],
        vec![entry(EntryType::Link, "a", "../secret", b"")],
        vec![entry(EntryType::Link, "a", "/etc/passwd", b"")],
        vec![entry(EntryType::Char, "a", "", b"")],
        vec![entry(EntryType::Fifo, "a", "", b"")],
        vec![entry(EntryType::GNUSparse, "a", "", b"")],
    ];
    for parts in cases {
        let outer = tempfile::tempdir().expect("folder");
        fs::write(outer.path().join("secret"), "secret").expect("file");
        let inner = outer.path().join("in");
        fs::create_dir(&inner).expect("folder");
        let problem = unpack(&*gzip(&parts), &inner).expect_err("refused");
        assert_eq!(problem.code, Code::SourceFailed, "{problem}");
        let mut names: Vec<_> = fs::read_dir(outer.path())
            .expect("list")
            .flatten()
            .map(|e| e.file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["in", "secret"], "{problem}");
    }
}

#[test]
fn a_link_chain_out_of_the_folder_carries_no_file_out() {
    // Each link is harmless by its text; together they lead out.
    let outer = tempfile::tempdir().expect("folder");
    let inner = outer.path().join("in");
    fs::create_dir(&inner).expect("folder");
    let parts = [
        file("sub/keep"),
        link("sub/up", ".."),
        link("out", "sub/up/.."),
        file("out/evil"),
    ];
    let problem = unpack(&*gzip(&parts), &inner).expect_err("refused");
    assert_eq!(problem.code, Code::SourceFailed);
    assert!(!outer.path().join("evil").exists());
}

#[test]
fn special_modes_are_dropped() {
    let dir = tempfile::tempdir().expect("folder");
    let mut part = file("tool");
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&part[..512]);
    header.set_mode(0o4755);
    header.set_cksum();
    part[..512].copy_from_slice(header.as_bytes());
    unpack(&*gzip(&[part]), dir.path()).expect("unpacked");
    let mode = fs::metadata(dir.path().join("tool"))
        .expect("file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn damage_is_found_wherever_it_is() {
    let whole = gzip(&[file("a"), file("b")]);
    let dir = || tempfile::tempdir().expect("folder");
    unpack(&*whole, dir().path()).expect("whole");
    for cut in [0, 5, whole.len() / 2, whole.len() - 1] {
        let problem = unpack(&whole[..cut], dir().path()).expect_err("cut");
        assert!(
            problem.message.contains("cannot be unpacked"),
            "{cut}: {problem}"
        );
    }
    let mut flipped = whole.clone();
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    unpack(&*flipped, dir().path()).expect_err("the checksum tells");
    unpack(&b"PK\x03\x04 not a gzip"[..], dir().path()).expect_err("a zip");
}

#[test]
fn bombs_are_stopped_by_the_limits() {
    let dir = tempfile::tempdir().expect("folder");
    let three = gzip(&["a", "b", "c"].map(file));
    unpack_at_most(3, &*three, dir.path()).expect("as many as allowed");
    let problem = unpack_at_most(2, &*three, dir.path()).expect_err("too many");
    assert_eq!(problem.code, Code::TooLarge);
    let mut limited = Limited {
        inner: std::io::repeat(0),
        left: 10_000,
    };
    let error = std::io::copy(&mut limited, &mut std::io::sink()).expect_err("too large");
    assert_eq!(damaged(error).code, Code::TooLarge);
}
