//! What a packed context holds.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::*;

/// Name -> mode and kind and content or target.
fn unpacked(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(bytes);
    let mut entries = BTreeMap::new();
    for entry in archive.entries().expect("tar") {
        let mut entry = entry.expect("entry");
        let name = entry.path().expect("name").to_string_lossy().into_owned();
        let mode = entry.header().mode().expect("mode");
        let link = entry
            .link_name()
            .expect("link")
            .map(|target| target.to_string_lossy().into_owned());
        let mut content = String::new();
        entry.read_to_string(&mut content).expect("content");
        let what = match link {
            Some(target) => format!("-> {target}"),
            None => format!("{mode:o} {content}"),
        };
        entries.insert(name, what.trim_end().to_owned());
    }
    entries
}

fn names(dir: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    pack(dir, &mut bytes).expect("packed");
    unpacked(&bytes).into_keys().collect()
}

fn write(dir: &Path, path: &str, text: &str) {
    let full = dir.join(path);
    fs::create_dir_all(full.parent().expect("parent")).expect("folders");
    fs::write(full, text).expect("file");
}

fn app() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("folder");
    for path in [
        "Dockerfile",
        "skep.toml",
        "src/a.rs",
        "src/deep/b.rs",
        "target/x",
        "z",
    ] {
        write(dir.path(), path, "");
    }
    dir
}

#[test]
fn files_links_and_modes_come_through_and_nothing_else() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path();
    write(path, "run.sh", "#!/bin/sh");
    fs::set_permissions(path.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("chmod");
    write(path, "a/file", "text");
    fs::set_permissions(path.join("a/file"), fs::Permissions::from_mode(0o640)).expect("chmod");
    fs::set_permissions(path.join("a"), fs::Permissions::from_mode(0o750)).expect("chmod");
    fs::create_dir(path.join("empty")).expect("folder");
    fs::set_permissions(path.join("empty"), fs::Permissions::from_mode(0o755)).expect("chmod");
    symlink("/etc/passwd", path.join("outside")).expect("link");
    symlink("a", path.join("inside")).expect("link");
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(120));
    write(path, &long, "long");
    let _socket = UnixListener::bind(path.join("socket")).expect("socket");

    let mut bytes = Vec::new();
    let summary = pack(path, &mut bytes).expect("packed");
    let entries = unpacked(&bytes);
    let expected = [
        ("a/", "750"),
        ("a/file", "640 text"),
        ("empty/", "755"),
        ("inside", "-> a"),
        ("outside", "-> /etc/passwd"),
        ("run.sh", "755 #!/bin/sh"),
    ];
    for (name, what) in expected {
        assert_eq!(
            entries.get(name).map(String::as_str),
            Some(what),
            "{name}: {entries:?}"
        );
    }
    assert!(entries[&long].ends_with("long"));
    assert!(!entries.contains_key("socket") && !entries.contains_key("inside/file"));
    assert_eq!(
        summary,
        Summary {
            files: 5,
            bytes: 4 + 9 + 4
        }
    );
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    let dir = app();
    let mut packs = [Vec::new(), Vec::new()];
    for bytes in &mut packs {
        pack(dir.path(), bytes).expect("packed");
    }
    assert_eq!(packs[0], packs[1]);
}

#[test]
fn ignored_files_stay_and_build_files_always_go() {
    let dir = app();
    fs::create_dir(dir.path().join("empty")).expect("folder");
    write(dir.path(), ".dockerignore", "*\n!src\nsrc/deep\n");
    assert_eq!(
        names(dir.path()),
        [
            ".dockerignore",
            "Dockerfile",
            "skep.toml",
            "src/",
            "src/a.rs"
        ]
    );
}

#[test]
fn exceptions_reach_into_ignored_folders_and_bring_their_parents() {
    let dir = app();
    write(
        dir.path(),
        ".dockerignore",
        "src\nz\ntarget\n!src/deep/b.rs\n",
    );
    assert_eq!(
        names(dir.path()),
        [
            ".dockerignore",
            "Dockerfile",
            "skep.toml",
            "src/",
            "src/deep/",
            "src/deep/b.rs"
        ]
    );
}

#[test]
fn the_named_dockerfile_is_sent_from_an_ignored_folder() {
    let dir = app();
    write(dir.path(), "ops/web.df", "FROM scratch");
    write(dir.path(), "ops/other", "");
    write(dir.path(), "skep.toml", "dockerfile = \"ops/web.df\"");
    write(dir.path(), ".dockerignore", "*");
    assert_eq!(
        names(dir.path()),
        [
            ".dockerignore",
            "Dockerfile",
            "ops/",
            "ops/web.df",
            "skep.toml"
        ]
    );
}

#[test]
fn what_cannot_be_packed_is_named() {
    let dir = app();
    let missing = pack(&dir.path().join("none"), Vec::new()).expect_err("missing");
    assert_eq!(missing.code, Code::SourceFailed);
    write(dir.path(), ".dockerignore", "[a");
    let bad = pack(dir.path(), Vec::new()).expect_err("bad pattern");
    assert_eq!(bad.field.as_deref(), Some(dockerignore::FILE));
}

#[test]
fn a_reader_that_goes_away_ends_the_packing() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let problem = pack(app().path(), Closed).expect_err("closed");
    assert_eq!(problem.code, Code::Unavailable);
}

#[test]
fn a_dockerignore_that_leads_outside_is_not_read() {
    let dir = app();
    let outside = tempfile::tempdir().expect("folder");
    write(outside.path(), "patterns", "*");
    symlink(
        outside.path().join("patterns"),
        dir.path().join(".dockerignore"),
    )
    .expect("link");
    assert!(names(dir.path()).contains(&"z".to_owned()));
}
