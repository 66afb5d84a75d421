use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;

use skep_model::id::{NodeId, ServiceId};
use skep_model::problem::Code;
use skep_model::storage::{FileMode, HostPath, SecretFile, Volume};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::{Shelf, host_paths, secrets, volumes};
use crate::testing::assignment;

fn volume(name: &str) -> Volume {
    Volume {
        name: name.into(),
        path: "/data".into(),
        owner: None,
        size_bytes: 0,
        read_only: false,
    }
}

#[test]
fn a_volume_is_made_once_and_told_whole() {
    let folder = TempDir::new().expect("a folder");
    let (service, other) = (ServiceId::from_u128(7), ServiceId::from_u128(8));
    assert_eq!(volumes::held(folder.path()), []);
    let (path, is_new) = volumes::ensure(folder.path(), service, &volume("data")).expect("made");
    assert!(is_new);
    fs::write(path.join("kept"), "x").expect("written");
    let again = volumes::ensure(folder.path(), service, &volume("data")).expect("found");
    assert_eq!(again, (path.clone(), false));
    assert!(again.0.join("kept").exists());
    volumes::ensure(folder.path(), other, &volume("data")).expect("made");
    // Half of one that was being made is not a volume, and does not keep it from being made.
    fs::create_dir(path.with_file_name(".new-more")).expect("made");
    let held = volumes::held(folder.path());
    let told: Vec<_> = held
        .iter()
        .map(|held| (held.service, &*held.name))
        .collect();
    assert_eq!(told, [(service, "data"), (other, "data")]);
    assert!(
        volumes::ensure(folder.path(), service, &volume("more"))
            .expect("made")
            .1
    );
    fs::write(path.with_file_name("file"), "").expect("written");
    let problem = volumes::ensure(folder.path(), service, &volume("file")).expect_err("a file");
    assert_eq!(problem.code, Code::Runtime);
}

#[test]
fn the_owner_of_a_volume_is_set_when_it_is_made() {
    let folder = TempDir::new().expect("a folder");
    let mut wanted = volume("data");
    // Whoever runs the tests may give a folder to himself.
    let own = fs::metadata(folder.path()).expect("there");
    let owner = format!("{}:{}", own.uid(), own.gid());
    wanted.owner = Some(owner.parse().expect("an owner"));
    let (path, _) = volumes::ensure(folder.path(), ServiceId::from_u128(7), &wanted).expect("made");
    let made = fs::metadata(path).expect("there");
    assert_eq!((made.uid(), made.mode() & 0o777), (own.uid(), 0o755));
}

#[test]
fn host_paths_are_only_what_is_offered_also_behind_links() {
    let folder = TempDir::new().expect("a folder");
    let root = fs::canonicalize(folder.path()).expect("a path");
    let (shared, secret) = (root.join("shared"), root.join("shared-not"));
    for path in [&shared, &secret, &shared.join("in")] {
        fs::create_dir(path).expect("made");
    }
    symlink(&secret, shared.join("out")).expect("a link");
    symlink(shared.join("in"), shared.join("link")).expect("a link");
    let offered = [shared.clone()];
    let ask = |path: &std::path::Path| host_paths::allowed(&path.display().to_string(), &offered);
    assert_eq!(ask(&shared), Ok(shared.clone()));
    assert_eq!(ask(&shared.join("link")), Ok(shared.join("in")));
    for bad in [
        &secret,
        &root,
        &shared.join("out"),
        &shared.join("../shared-not"),
    ] {
        let problem = ask(bad).expect_err("not offered");
        assert_eq!(problem.code, Code::Forbidden, "{}", bad.display());
        assert!(problem.hint.is_some());
    }
    let problem = ask(&shared.join("none")).expect_err("not there");
    assert_eq!(problem.code, Code::Runtime);
    assert!(host_paths::allowed(&shared.display().to_string(), &[]).is_err());
}

#[test]
fn files_of_secrets_have_their_mode_and_go_with_their_container() {
    let folder = TempDir::new().expect("a folder");
    let mut wanted = assignment(7);
    wanted.storage.secrets.push(SecretFile {
        variable: "A".into(),
        path: "/run/secrets/a".into(),
        mode: FileMode(0o440),
        owner: None,
    });
    let of = |attempt| secrets::folder(folder.path(), wanted.allocation, attempt);
    for attempt in [1, 2, 2] {
        let written = secrets::write(&of(attempt), &wanted).expect("written");
        assert_eq!(written.len(), 1);
        assert_eq!(fs::read_to_string(&written[0].0).expect("read"), "secret");
        let mode = fs::metadata(&written[0].0)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o440);
    }
    let all = folder.path().join(wanted.allocation.to_string());
    secrets::sweep(&all, &[2]).expect("swept");
    assert!(!of(1).exists() && of(2).exists());
    secrets::sweep(&all, &[]).expect("swept");
    assert!(!all.exists());
    let mut missing = wanted.clone();
    missing.environment.clear();
    let problem = secrets::write(&of(3), &missing).expect_err("not set");
    assert_eq!(problem.code, Code::Invalid);
    assert!(problem.message.contains("`A`"), "{problem:?}");
}

#[test]
fn memory_is_told_from_a_disk() {
    // The kernel's own filesystems are neither a disk nor for files of ours.
    assert!(!secrets::is_in_memory("/proc".as_ref()).expect("there"));
    assert!(secrets::is_in_memory("/dev/shm".as_ref()).expect("there"));
}

#[tokio::test]
async fn nothing_is_made_for_what_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let options = crate::Options {
        data_dir: folder.path().into(),
        ..crate::testing::options()
    };
    let shelf = Arc::new(Shelf::new(
        &options,
        NodeId::from_u128(1),
        Arc::new(Notify::new()),
    ));
    let mut wanted = assignment(7);
    wanted.storage.volumes.push(volume("data"));
    wanted.storage.host_paths.push(HostPath {
        host: "/etc".into(),
        path: "/config".into(),
        read_only: true,
    });
    let problem = shelf.prepare(&wanted, 1).await.expect_err("not offered");
    assert_eq!(problem.code, Code::Forbidden);
    assert_eq!(volumes::held(folder.path()), []);
    wanted.storage.host_paths.clear();
    let mounts = shelf.prepare(&wanted, 1).await.expect("made");
    assert_eq!(mounts.len(), 1);
    assert_eq!(mounts[0].target.as_deref(), Some("/data"));
    assert_eq!(volumes::held(folder.path()).len(), 1);
}
