use super::*;

fn volume(name: &str, path: &str) -> Volume {
    Volume {
        name: name.into(),
        path: path.into(),
        owner: None,
        size_bytes: 0,
        read_only: false,
        storage: None,
    }
}

fn with(storage: Storage) -> ServiceSpec {
    ServiceSpec {
        storage,
        ..ServiceSpec::default()
    }
}

fn bound() -> ServiceSpec {
    with(Storage {
        volumes: vec![volume("data", "/data")],
        ..Storage::default()
    })
}

fn field_of(spec: &ServiceSpec) -> String {
    let problem = spec.check_given().expect_err("refused");
    assert!(problem.hint.is_some(), "{problem:?}");
    problem.field.unwrap_or_default()
}

#[test]
fn paths_are_absolute_plain_and_beside_each_other() {
    for good in ["/data", "/var/lib/my app", "/devices", "/..data"] {
        let storage = Storage {
            volumes: vec![volume("data", good)],
            ..Storage::default()
        };
        assert_eq!(storage.check(), Ok(()), "{good}");
    }
    let long = format!("/{}", "a".repeat(MAX_PATH));
    for bad in [
        "", "/", "data", "/a/../b", "/a/./b", "/a//b", "/a/", "/a\nb", "/proc", "/sys/fs",
        "/dev/shm", &long,
    ] {
        let storage = Storage {
            volumes: vec![volume("data", bad)],
            ..Storage::default()
        };
        let problem = storage.check().expect_err(bad);
        assert_eq!(problem.field.as_deref(), Some("volumes[0].path"), "{bad}");
    }
    let mut storage = Storage {
        volumes: vec![volume("a", "/data")],
        secrets: vec![SecretFile {
            variable: "KEY".into(),
            path: "/data/key".into(),
            mode: FileMode::default(),
            owner: None,
        }],
        ..Storage::default()
    };
    let problem = storage.check().expect_err("within each other");
    assert_eq!(problem.field.as_deref(), Some("secrets[0].path"));
    storage.secrets[0].path = "/database/key".into();
    assert_eq!(storage.check(), Ok(()));
    storage.secrets[0].variable = "not a name".into();
    let problem = storage.check().expect_err("a variable's name");
    assert_eq!(problem.field.as_deref(), Some("secrets[0].variable"));
    storage.secrets.clear();
    storage.volumes.push(volume("a", "/other"));
    let problem = storage.check().expect_err("two of one name");
    assert_eq!(problem.field.as_deref(), Some("volumes[1].name"));
}

#[test]
fn a_volume_has_one_writer() {
    assert_eq!(bound().check_given(), Ok(()));
    let mut spec = bound();
    spec.replicas = 2;
    assert_eq!(field_of(&spec), "replicas");
    let mut spec = bound();
    spec.rollout.strategy = Strategy::Canary;
    spec.rollout.steps = vec![crate::rollout::CanaryStep {
        percent: 50,
        pause_ms: None,
    }];
    assert_eq!(field_of(&spec), "rollout.strategy");
    let mut spec = bound();
    spec.run.mode = Mode::System;
    assert_eq!(field_of(&spec), "run.mode");
    let mut spec = bound();
    spec.run.mode = Mode::Batch;
    spec.run.overlap = Overlap::Allow;
    assert_eq!(field_of(&spec), "run.overlap");
    spec.run.overlap = Overlap::Forbid;
    assert_eq!(spec.check_given(), Ok(()));
    assert_eq!((bound().surge(), ServiceSpec::default().surge()), (0, 1));
}

#[test]
fn owners_and_modes_are_text() {
    let owner: Owner = "1000:999".parse().expect("an owner");
    assert_eq!(
        (owner.uid, owner.gid, &*owner.to_string()),
        (1000, 999, "1000:999")
    );
    for bad in ["", "1000", "app:app", "-1:0", "4294967295:0", "1:2:3"] {
        assert!(bad.parse::<Owner>().is_err(), "{bad}");
    }
    let mode: FileMode = "0440".parse().expect("a mode");
    assert_eq!((mode.0, &*mode.to_string()), (0o440, "0440"));
    for bad in ["", "rw", "9", "1777", "0", "0222"] {
        assert!(bad.parse::<FileMode>().is_err(), "{bad}");
    }
}

#[test]
fn volumes_of_a_service_are_all_on_shared_storage_or_none() {
    let on = |name: &str, storage: Option<&str>| Volume {
        storage: storage.map(str::to_owned),
        ..volume(name, &format!("/{name}"))
    };
    let of = |volumes: Vec<Volume>| Storage {
        volumes,
        ..Storage::default()
    };
    let here = of(vec![on("a", None), on("b", None)]);
    assert!(here.check().is_ok() && here.is_pinned() && !here.is_shared() && here.is_bound());
    let there = of(vec![
        on("a", Some("nfs")),
        on("b", Some("ceph")),
        on("c", Some("nfs")),
    ]);
    assert!(there.check().is_ok() && !there.is_pinned() && there.is_shared() && there.is_bound());
    assert_eq!(
        there.shared().into_iter().collect::<Vec<_>>(),
        ["ceph", "nfs"]
    );
    let field = |storage: &Storage| storage.check().expect_err("refused").field;
    let mixed = of(vec![on("a", None), on("b", Some("ceph"))]);
    assert_eq!(field(&mixed).as_deref(), Some("volumes[1].storage"));
    let odd = of(vec![on("a", Some("no name"))]);
    assert_eq!(field(&odd).as_deref(), Some("volumes[0].storage"));
}
