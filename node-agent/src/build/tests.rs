//! Whole builds, as far as they go without a Docker daemon.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skep_model::assignment::BuildOrder;
use skep_model::build::Build;
use skep_model::deployment::{BuildOutcome, Origin};
use skep_model::id::{DeploymentId, ServiceId, UploadId};
use skep_model::problem::{Code, Problem};
use skep_model::spec::Pull;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::testing::{Gone, Ready, env, packed};
use super::{Env, run};

pub(super) fn order(origin: Origin) -> BuildOrder {
    BuildOrder {
        deployment: DeploymentId::from_u128(7),
        service: ServiceId::from_u128(8),
        service_label: "web-production-shop".to_owned(),
        origin,
        builder: None,
        dockerfile: None,
        pull: Pull::Missing,
        timeout_ms: 20_000,
        arguments: Default::default(),
        build: Build {
            timeout_ms: 20_000,
            ..Build::default()
        },
        nixpacks: Default::default(),
        site: Default::default(),
        fetch: Default::default(),
        variables: Vec::new(),
        no_cache: false,
        workspace: None,
        ask_registry: false,
    }
}

fn upload() -> BuildOrder {
    order(Origin::Upload {
        upload: UploadId::from_u128(9),
    })
}

async fn fails(order: BuildOrder, env: Env, cancel: CancellationToken) -> (Problem, Vec<String>) {
    let (sender, mut receiver) = mpsc::channel(64);
    let outcome = run(order, env, sender, cancel).await;
    let mut lines = Vec::new();
    while let Some(line) = receiver.recv().await {
        lines.push(line);
    }
    match outcome {
        BuildOutcome::Failed(problem) => (problem, lines),
        BuildOutcome::Built(built) => panic!("built {built:?}"),
    }
}

fn app(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("folder");
    for (path, text) in files {
        fs::write(dir.path().join(path), text).expect("file");
    }
    dir
}

fn is_clean(work: &Path) -> bool {
    let names = fs::read_dir(work)
        .expect("list")
        .flatten()
        .map(|entry| entry.file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("build-"))
        .count()
        == 0
}

#[tokio::test]
async fn the_choice_is_told_and_a_missing_daemon_is_a_runtime_problem() {
    let work = tempfile::tempdir().expect("folder");
    let app = app(&[("Dockerfile", "FROM scratch"), ("skep.toml", "port = 3000")]);
    let env = env(work.path(), Arc::new(Ready(packed(app.path()))));
    let (problem, lines) = fails(upload(), env, CancellationToken::new()).await;
    assert_eq!(problem.code, Code::Runtime, "{problem}");
    assert!(
        lines.contains(&"builder: Dockerfile (found ./Dockerfile)".to_owned()),
        "{lines:?}"
    );
    assert!(is_clean(work.path()));
}

#[tokio::test]
async fn what_the_app_says_wrongly_is_named() {
    let cases = [
        (
            &[("skep.toml", "prot = 1"), ("Dockerfile", "")][..],
            "skep.toml",
        ),
        (
            &[("skep.toml", "dockerfile = \"web.df\""), ("Dockerfile", "")],
            "dockerfile",
        ),
        (&[("main.py", "")], "builder"),
    ];
    for (files, field) in cases {
        let work = tempfile::tempdir().expect("folder");
        let env = env(work.path(), Arc::new(Ready(packed(app(files).path()))));
        let (problem, _) = fails(upload(), env, CancellationToken::new()).await;
        assert_eq!(problem.field.as_deref(), Some(field), "{problem}");
        assert!(is_clean(work.path()));
    }
}

#[tokio::test]
async fn an_upload_that_ends_too_early_says_so() {
    let work = tempfile::tempdir().expect("folder");
    let app = app(&[("Dockerfile", "FROM scratch")]);
    let whole = packed(app.path());

    let (problem, _) = fails(
        upload(),
        env(work.path(), Arc::new(Gone)),
        CancellationToken::new(),
    )
    .await;
    assert!(problem.message.contains("upload again"), "{problem}");

    let mut broken = whole.clone();
    broken.truncate(1);
    broken.push(Err(Problem::new(Code::Unavailable, "the client went away")));
    let broken = env(work.path(), Arc::new(Ready(broken)));
    let (problem, _) = fails(upload(), broken, CancellationToken::new()).await;
    assert_eq!(problem.message, "the client went away");

    for len in [0, 30] {
        let bytes: Vec<u8> = whole
            .iter()
            .flatten()
            .flatten()
            .copied()
            .take(len)
            .collect();
        let short = env(work.path(), Arc::new(Ready(vec![Ok(Bytes::from(bytes))])));
        let (problem, _) = fails(upload(), short, CancellationToken::new()).await;
        assert!(
            problem.message.contains("cannot be unpacked"),
            "{len}: {problem}"
        );
    }
    assert!(is_clean(work.path()));
}

#[tokio::test]
async fn cancel_and_deadline_end_a_build_and_leave_nothing() {
    /// Never sends anything.
    struct Silent;
    impl super::Uploads for Silent {
        fn fetch(
            &self,
            _: UploadId,
        ) -> futures_util::future::BoxFuture<'static, Result<super::UploadStream, Problem>>
        {
            Box::pin(async {
                let silence: super::UploadStream = Box::pin(futures_util::stream::pending());
                Ok(silence)
            })
        }
    }
    let work = tempfile::tempdir().expect("folder");
    let cancel = CancellationToken::new();
    let canceled = {
        let (env, cancel) = (env(work.path(), Arc::new(Silent)), cancel.clone());
        tokio::spawn(fails(upload(), env, cancel))
    };
    while is_clean(work.path()) {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    assert_eq!(canceled.await.expect("ran").0.code, Code::Canceled);

    let mut short = upload();
    short.timeout_ms = 50;
    let env = env(work.path(), Arc::new(Silent));
    let (problem, _) = fails(short, env, CancellationToken::new()).await;
    assert_eq!(problem.code, Code::Timeout);
    // Removed by a thread of its own.
    let gone = async {
        while !is_clean(work.path()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone)
        .await
        .expect("removed");
}

#[tokio::test]
async fn a_release_is_never_built() {
    let work = tempfile::tempdir().expect("folder");
    let env = env(work.path(), Arc::new(Gone));
    let (problem, _) = fails(
        order(Origin::Release { number: 3 }),
        env,
        CancellationToken::new(),
    )
    .await;
    assert_eq!(problem.code, Code::Internal);
}

#[tokio::test]
async fn an_image_that_is_none_is_refused_before_docker_sees_it() {
    let work = tempfile::tempdir().expect("folder");
    for reference in ["../containers/json", "a b", "-x", "a/../../b"] {
        let env = env(work.path(), Arc::new(Gone));
        let origin = Origin::Image {
            reference: reference.to_owned(),
        };
        let (problem, _) = fails(order(origin), env, CancellationToken::new()).await;
        assert_eq!(problem.code, Code::Invalid, "{reference}");
        let _ = fs::remove_file(work.path().join("no-docker.sock"));
    }
}
