//! Builders beside `docker build` of a plain Dockerfile: Nixpacks, programs of the node, static sites; what
//! Dockerfiles are given; and how far a build may go.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::app::App;
use skep_tests::containers::TEST_LABEL;
use skep_tests::dockerd::Dockerd;
use skep_tests::git::Repository;
use skep_tests::{Cluster, chaos, place, with_cluster, with_cluster_on};

/// What a build writes in its log, in `make test` and in `make chaos`.
const LOG_MIB: (u32, u32) = (64, 1_024);
/// 16 MiB are told, and the last lines; each with what stands before it.
const LOG_KEPT_MAX: usize = 24 << 20;
/// What the agent may hold then: queues of lines, whatever is written.
const AGENT_RSS_MAX: u64 = 200 << 20;
const BUSYBOX: &str = "/bin/busybox";
/// What the Dockerfiles of this Nixpacks begin with.
const NIXPACKS_BASE: &str = "ghcr.io/railwayapp/nixpacks:ubuntu-1745885067";
/// Apps of a handful of lines in the languages that Nixpacks knows, and what it plans for them.
const APPS: &str = "tests/fixtures/apps";
const PLANS: &str = "tests/fixtures/apps/plans.txt";

/// A Dockerfile with a shell in which `lines` can RUN, and the test app at its end.
fn set(cluster: &Cluster, app: &App, lines: &str) -> Result<()> {
    std::fs::copy(BUSYBOX, app.dir().join("busybox"))
        .context("a static busybox is needed: apt install busybox-static")?;
    let text = format!(
        "FROM scratch AS base\nLABEL {TEST_LABEL}={}\nCOPY busybox /bin/busybox\n\
         SHELL [\"/bin/busybox\", \"sh\", \"-c\"]\nCOPY skep-test-app /skep-test-app\n{lines}\n\
         EXPOSE 8080\nENTRYPOINT [\"/skep-test-app\"]\n",
        cluster.run
    );
    app.write("Dockerfile", &text)
}

/// An image on this machine under a name that a registry would have it by.
fn stub(cluster: &Cluster, name: &str, files: &[(&str, &str)]) -> Result<()> {
    let dir = cluster.path("stub");
    std::fs::create_dir_all(&dir)?;
    std::fs::copy(BUSYBOX, dir.join("busybox"))?;
    let mut text = format!(
        "FROM scratch\nLABEL {TEST_LABEL}={}\nCOPY busybox /bin/busybox\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         RUN [\"/bin/busybox\", \"mkdir\", \"-p\", \"/root\"]\n",
        cluster.run
    );
    for (number, (path, content)) in files.iter().enumerate() {
        let file = dir.join(number.to_string());
        std::fs::write(&file, content)?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755))?;
        writeln!(text, "COPY {number} {path}")?;
    }
    std::fs::write(dir.join("Dockerfile"), text)?;
    let built = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "--quiet", "--tag", name])
        .arg(&dir)
        .output()?;
    ensure!(built.status.success(), "{built:?}");
    Ok(())
}

/// One line a phase, as the log of a build tells it.
fn planned(folder: &Path) -> Result<String> {
    let output = Command::new(place::nixpacks()?)
        .env_clear()
        .arg("plan")
        .arg(folder)
        .args(["--format", "json"])
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().find(|line| !line.trim().is_empty());
        return Ok(format!("  {}\n", first.unwrap_or("no word")));
    }
    let plan: Value = serde_json::from_slice(&output.stdout)?;
    let mut text = String::new();
    let phases = plan["phases"].as_object().context("phases")?;
    for (name, phase) in phases {
        let all = ["nixPkgs", "aptPkgs", "cmds"];
        let all = all
            .iter()
            .flat_map(|part| phase[part].as_array().into_iter().flatten());
        let all: Vec<&str> = all.filter_map(Value::as_str).collect();
        writeln!(text, "  {name}: {}", all.join(", "))?;
    }
    let start = plan["start"]["cmd"].as_str().unwrap_or("(none)");
    writeln!(text, "  start: {start}")?;
    Ok(text)
}

#[test]
fn nixpacks_plans_what_it_did() {
    let apps = place::root().join(APPS);
    let mut names: Vec<String> = std::fs::read_dir(&apps)
        .expect("apps")
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut text = String::new();
    for name in names {
        let plan = planned(&apps.join(&name)).expect("asked");
        text += &format!("{name}\n{plan}");
    }
    let golden = place::root().join(PLANS);
    if std::env::var_os("SKEP_BLESS").is_some() {
        std::fs::write(&golden, &text).expect("written");
    }
    let before = std::fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(
        text, before,
        "SKEP_BLESS=1 writes {PLANS} anew; read the difference"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nixpacks_plans_and_docker_builds() {
    with_cluster("nixpacks", async |cluster| {
        let bash = "#!/bin/busybox sh\nshift 2\nexec /bin/busybox sh -c \"$1\"\n";
        let nothing = "#!/bin/busybox sh\nexit 0\n";
        let files = [
            ("/bin/bash", bash),
            ("/bin/nix-env", nothing),
            ("/bin/nix-collect-garbage", nothing),
        ];
        stub(cluster, NIXPACKS_BASE, &files)?;
        let app = cluster.app("app", "1")?;
        std::fs::remove_file(app.dir().join("Dockerfile"))?;
        app.write("package.json", "{\"name\":\"a\"}")?;
        // What would leave the plan's own files out.
        app.write(".dockerignore", ".*\n")?;
        app.write(
            "skep.toml",
            "port = 8080\n[build]\nargs = { VERSION = \"7\" }\n[nixpacks]\ninstall = \"echo installed\"\n\
             build = \"echo built $VERSION\"\nstart = \"/app/skep-test-app\"\n",
        )?;
        let up = ["up", app.path()?, "--project", "nix", "--service", "nix"];
        let told = cluster.skep.run(&up).await?.ok()?;
        told.says(&[
            "builder: Nixpacks (no ./Dockerfile)",
            "nixpacks: install: echo installed",
            "nixpacks: start: /app/skep-test-app",
            "built 7",
        ])?;
        cluster.answers(&Name::of("nix"), "7").await?;
        let removed = Command::new("docker").args(["rmi", "--force", NIXPACKS_BASE]).output()?;
        ensure!(removed.status.success(), "{removed:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_of_the_node_builds() {
    with_cluster("execbuild", async |cluster| {
        let app = cluster.app("app", "3")?;
        app.write("skep.toml", "builder = \"exec:script\"\n")?;
        let up = ["up", app.path()?, "--project", "own", "--service", "own"];
        app.write(
            "build.sh",
            "set -e\necho in $SKEP_SERVICE\ncd \"$SKEP_SOURCE\"\n\
             DOCKER_BUILDKIT=0 docker build --quiet --tag \"$SKEP_IMAGE-own\" . >&2\necho \"$SKEP_IMAGE-own\"\n",
        )?;
        let told = cluster.skep.run(&up).await?.ok()?;
        told.says(&["builder: script (as set)", "in own-production-own"])?;
        cluster.answers(&Name::of("own"), "3").await?;
        app.write("build.sh", "echo what is wrong >&2; exit 4\n")?;
        let failed = cluster.skep.run(&up).await?.code(1)?;
        failed.says(&["the builder `script` failed: what is wrong"])?;
        app.write("build.sh", "echo not an image\n")?;
        let failed = cluster.skep.run(&up).await?.code(1)?;
        failed.says(&["is not the name of an image: `not an image`"])?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_commit_is_built_once() {
    with_cluster("buildonce", async |cluster| {
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
        repository.push("main")?;
        let url = repository.url()?;
        let deploy = async |more: &[&str]| {
            let mut arguments = vec![
                "deploy",
                "--repo",
                url,
                "--project",
                "once",
                "--service",
                "once",
            ];
            arguments.extend(more);
            cluster.skep.run(&arguments).await?.ok()
        };
        let first = deploy(&[]).await?;
        ensure!(!first.stdout.contains("nothing to build"), "{first}");
        deploy(&[])
            .await?
            .says(&["nothing to build: image of deployment"])?;
        let again = deploy(&["--no-cache"]).await?;
        ensure!(!again.stdout.contains("nothing to build"), "{again}");
        cluster.answers(&Name::of("once"), "1").await?;
        repository.app.set("2", &[])?;
        repository.push("main")?;
        let next = deploy(&[]).await?;
        ensure!(!next.stdout.contains("nothing to build"), "{next}");
        cluster.answers(&Name::of("once"), "2").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dockerfile_gets_what_is_declared_and_no_secret_is_shown() {
    with_cluster("buildargs", async |cluster| {
        let name = Name::of("args");
        let app = cluster.app("app", "1")?;
        // Of this cluster alone: Docker's cache would leave the step out the next time.
        let lines = format!(
            "FROM base AS web\nARG GREETING=none\nENV VERSION=$GREETING\nENV CLUSTER={}\n\
             RUN --mount=type=secret,id=TOKEN busybox echo token $(busybox cat /run/secrets/TOKEN)\n\
             FROM base AS other\nRUN exit 9\nFROM other",
            cluster.id
        );
        set(cluster, &app, &lines)?;
        // The stage that is wanted, with an end of its own.
        let text = std::fs::read_to_string(app.dir().join("Dockerfile"))?;
        let text = text.replace(
            "FROM base AS other",
            "EXPOSE 8080\nENTRYPOINT [\"/skep-test-app\"]\nFROM base AS other",
        );
        app.write("Dockerfile", &text)?;
        app.write(
            "skep.toml",
            "[build]\ntarget = \"web\"\nargs = { GREETING = \"5\" }\nsecrets = [\"TOKEN\"]\n",
        )?;
        let up = ["up", app.path()?, "--project", "args", "--service", "args"];
        let refused = cluster.skep.run(&up).await?.code(1)?;
        refused.says(&["the service has no variable `TOKEN`", "skep env set"])?;
        let secret = "TOKEN=s3cret-of-the-test";
        let set_secret = ["env", "set", "--secret", secret, "--project", "args", "--service", "args"];
        cluster.skep.run(&set_secret).await?.ok()?;
        let told = cluster.skep.run(&up).await?.ok()?;
        let told = told.says(&["token ***"])?;
        ensure!(!told.stdout.contains("s3cret-of-the-test"), "{told}");
        cluster.answers(&name, "5").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_goes_no_further_than_it_may() {
    let config = json!({ "features": { "buildkit": false } });
    let daemon = Dockerd::start_with(&config)
        .await
        .expect("a daemon of the test's own");
    let outcome = with_cluster_on(daemon.socket(), "limits", async |cluster| {
        let app = cluster.app("app", "1")?;
        let up = ["up", app.path()?, "--project", "lim", "--service", "lim"];
        let fails = async |toml: &str, lines: &str, says: &[&str]| -> Result<()> {
            app.write("skep.toml", toml)?;
            set(cluster, &app, lines)?;
            cluster.skep.run(&up).await?.code(1)?.says(says).map(drop)
        };
        let hangs = "RUN busybox sleep 3600";
        fails(
            "[build]\ntimeout = \"3s\"",
            hangs,
            &["not finished within 3 s"],
        )
        .await?;
        let bomb = "RUN for i in $(busybox seq 500); do busybox sleep 20 & done; wait";
        fails(
            "[build]\ntimeout = \"2m\"\npids = 50",
            bomb,
            &["build.pids"],
        )
        .await?;
        let grows =
            "RUN busybox head -c 300000000 /dev/zero | busybox tail -c 290000000 > /dev/null";
        fails("[build]\nmemory = \"64MiB\"", grows, &["build.memory"]).await?;
        fails("", "FORM x", &["unknown instruction", "FORM"]).await?;
        // Far more than is kept of a log: its end is there, what lies between is counted, and it holds nobody up.
        let written = chaos::count(LOG_MIB.0, LOG_MIB.1);
        let line = "x".repeat(1_000);
        let talks = format!(
            "ENV VERSION=2\nRUN busybox yes {line} | busybox head -c {written}m; busybox echo the last word"
        );
        app.write("skep.toml", "")?;
        set(cluster, &app, &talks)?;
        let told = cluster.skep.run(&up).await?.ok()?;
        let told = told.says(&["lines were left out", "the last word"])?;
        ensure!(told.stdout.len() < LOG_KEPT_MAX, "{} bytes are told", told.stdout.len());
        cluster.answers(&Name::of("lim"), "2").await?;
        let held = cluster.agent.rss_bytes().await?;
        ensure!(held < AGENT_RSS_MAX, "the agent holds {held} bytes");
        let needs = "[build]\nsecrets = [\"T\"]";
        cluster
            .skep
            .run(&[
                "env",
                "set",
                "--secret",
                "T=some-secret",
                "--project",
                "lim",
                "--service",
                "lim",
            ])
            .await?
            .ok()?;
        fails(needs, "", &["`build.secrets` need BuildKit"]).await
    })
    .await;
    daemon.remove().await.expect("the daemon goes");
    outcome.expect("limits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_site_is_built_and_handed_out() {
    with_cluster("staticsite", async |cluster| {
        let app = cluster.app("app", "1")?;
        std::fs::remove_file(app.dir().join("Dockerfile"))?;
        std::fs::remove_file(app.dir().join("skep-test-app"))?;
        // A server with nginx's folders, that knows its files alone.
        let server = format!("skep-test-site-{}:1", cluster.run.to_lowercase());
        stub(cluster, &server, &[])?;
        app.write(
            "skep.toml",
            &format!(
                "builder = \"static\"\nport = 80\ncommand = [\"/bin/httpd\", \"-f\", \"-p\", \"80\", \"-h\", \
                 \"/usr/share/nginx/html\"]\n[health]\npath = \"/index.html\"\n[static]\nimage = \"{server}\"\n\
                 server = \"{server}\"\nbuild = \"mkdir www && echo made > www/index.html\"\noutput = \"www\"\n"
            ),
        )?;
        let up = ["up", app.path()?, "--project", "site", "--service", "site"];
        let told = cluster.skep.run(&up).await?.ok()?;
        told.says(&["builder: static (as set)", "static: plain files: mkdir www"])?;
        Ok(())
    })
    .await;
}
