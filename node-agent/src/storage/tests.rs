use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_model::id::{NodeId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::storage::{FileMode, HostPath, SecretFile, Volume};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::{Shelf, copies, host_paths, secrets, volumes};
use crate::testing::assignment;

fn volume(name: &str) -> Volume {
    Volume {
        name: name.into(),
        path: "/data".into(),
        owner: None,
        size_bytes: 0,
        read_only: false,
        storage: None,
    }
}

async fn ensure(
    data_dir: &Path,
    service: ServiceId,
    wanted: &Volume,
) -> Result<(PathBuf, bool), Problem> {
    volumes::ensure(data_dir, service, wanted, &*copies::of(None)).await
}

#[tokio::test]
async fn a_volume_is_made_once_and_told_whole() {
    let folder = TempDir::new().expect("a folder");
    let (service, other) = (ServiceId::from_u128(7), ServiceId::from_u128(8));
    assert_eq!(volumes::held(folder.path()), []);
    let (path, is_new) = ensure(folder.path(), service, &volume("data"))
        .await
        .expect("made");
    assert!(is_new);
    fs::write(path.join("kept"), "x").expect("written");
    let again = ensure(folder.path(), service, &volume("data"))
        .await
        .expect("found");
    assert_eq!(again, (path.clone(), false));
    assert!(again.0.join("kept").exists());
    ensure(folder.path(), other, &volume("data"))
        .await
        .expect("made");
    // Half of one that was being made is not a volume, and does not keep it from being made.
    fs::create_dir(path.with_file_name(".new-more")).expect("made");
    let held = volumes::held(folder.path());
    let told: Vec<_> = held
        .iter()
        .map(|held| (held.service, &*held.name))
        .collect();
    assert_eq!(told, [(service, "data"), (other, "data")]);
    assert!(
        ensure(folder.path(), service, &volume("more"))
            .await
            .expect("made")
            .1
    );
    fs::write(path.with_file_name("file"), "").expect("written");
    let problem = ensure(folder.path(), service, &volume("file"))
        .await
        .expect_err("a file");
    assert_eq!(problem.code, Code::Runtime);
}

#[tokio::test]
async fn the_owner_of_a_volume_is_set_when_it_is_made() {
    let folder = TempDir::new().expect("a folder");
    let mut wanted = volume("data");
    // Whoever runs the tests may give a folder to himself.
    let own = fs::metadata(folder.path()).expect("there");
    let owner = format!("{}:{}", own.uid(), own.gid());
    wanted.owner = Some(owner.parse().expect("an owner"));
    let (path, _) = ensure(folder.path(), ServiceId::from_u128(7), &wanted)
        .await
        .expect("made");
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

#[tokio::test]
async fn a_copy_keeps_modes_links_and_what_was_there() {
    let folder = TempDir::new().expect("a folder");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir_all(from.join("deep")).expect("made");
    fs::write(from.join("deep/file"), "words").expect("written");
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(from.join("deep/file"), mode).expect("set");
    symlink("deep/file", from.join("link")).expect("a link");
    let plain = copies::of(None);
    plain.copy((&from, &to), true).await.expect("copied");
    fs::write(from.join("deep/file"), "others").expect("written");
    let read = |name: &str| fs::read_to_string(to.join(name)).expect("there");
    assert_eq!((&*read("deep/file"), &*read("link")), ("words", "words"));
    let copied = fs::metadata(to.join("deep/file")).expect("there");
    assert_eq!(copied.mode() & 0o777, 0o640);
    let (bytes, is_all) = volumes::size(&to, Instant::now() + Duration::from_secs(60));
    assert!(is_all && bytes >= copied.blocks() * 512, "{bytes}");
    assert!(!volumes::size(&to, Instant::now()).1, "no time at all");
    plain.remove(&to).await.expect("removed");
    assert!(!to.exists());
    let problem = plain.copy((&from.join("none"), &to), true).await;
    let problem = problem.expect_err("nothing to copy");
    assert!(problem.message.contains("No such file"), "{problem:?}");
}

#[tokio::test]
async fn a_program_of_the_operator_does_all_of_it() {
    let folder = TempDir::new().expect("a folder");
    let (program, told) = (folder.path().join("program"), folder.path().join("told"));
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\ncase $1 in create) mkdir \"$2\" ;; \
         snapshot) echo no room >&2; exit 3 ;; esac\n",
        told.display()
    );
    fs::write(&program, script).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("set");
    let copier = copies::of(Some(&program));
    let mut wanted = volume("data");
    wanted.size_bytes = 5 << 20;
    let service = ServiceId::from_u128(7);
    let made = volumes::ensure(folder.path(), service, &wanted, &*copier).await;
    let (path, is_new) = made.expect("made");
    assert!(is_new);
    let again = volumes::ensure(folder.path(), service, &wanted, &*copier).await;
    assert_eq!(again, Ok((path.clone(), false)));
    let to = Path::new("/to");
    let problem = copier.copy((&path, to), true).await.expect_err("no room");
    assert!(
        problem.message.contains("snapshot` failed") && problem.message.contains("no room"),
        "{problem:?}"
    );
    copier.copy((&path, to), false).await.expect("done");
    copier.remove(&path).await.expect("done");
    let path = path.display();
    let told = fs::read_to_string(told).expect("told");
    let lines =
        format!("create {path} 5242880\nsnapshot {path} /to\nclone {path} /to\nremove {path}\n");
    assert_eq!(told, lines);
}

#[tokio::test]
async fn what_was_half_done_is_found_and_nothing_else() {
    let folder = TempDir::new().expect("a folder");
    let service = ServiceId::from_u128(7);
    let (path, _) = ensure(folder.path(), service, &volume("data"))
        .await
        .expect("made");
    let held = volumes::held(folder.path()).remove(0);
    let snapshot = volumes::snapshots_of(folder.path(), &held).join("monday");
    fs::create_dir_all(&snapshot).expect("made");
    assert_eq!(volumes::leftovers(folder.path()), Vec::<PathBuf>::new());
    let left = [
        volumes::going(&path),
        volumes::copying(&path),
        volumes::copying(&snapshot),
    ];
    for one in &left {
        fs::create_dir(one).expect("made");
    }
    let found: BTreeSet<PathBuf> = volumes::leftovers(folder.path()).into_iter().collect();
    assert_eq!(found, left.into());
    assert_eq!(volumes::snapshots(folder.path(), &held), ["monday"]);
    assert_eq!(volumes::held(folder.path()), [held]);
}
