//! What people do inside running containers: commands, their output, files, ports; and that all of it
//! ends when either side goes away, and is in the audit trail.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::containers::TEST_LABEL;
use skep_tests::{Cluster, place, wait, with_cluster};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

/// For what has begun to be seen, and what has ended to be gone.
const SEEN: Duration = Duration::from_secs(60);
const BUSYBOX: &str = "/bin/busybox";
/// Larger than every window on the way together.
const LARGE: usize = 20 << 20;

/// Bytes that are told apart wherever they are.
fn large() -> Vec<u8> {
    let numbers = (0..LARGE as u64 / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    numbers.flat_map(u64::to_le_bytes).collect()
}

/// The test app, beside the tools of a shell.
async fn deploy(cluster: &Cluster, name: &str, settings: &[(&str, &str)]) -> Result<Name> {
    let app = cluster.app(name, "1")?;
    std::fs::copy(BUSYBOX, app.dir().join("busybox"))
        .context("a static busybox is needed: apt install busybox-static")?;
    let set = settings
        .iter()
        .map(|(name, value)| format!("ENV {name}=\"{value}\"\n"));
    app.write(
        "Dockerfile",
        &format!(
            "FROM scratch\nLABEL {TEST_LABEL}={}\nCOPY busybox /bin/busybox\n\
             RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
             COPY skep-test-app /skep-test-app\nENV VERSION=1\n{}EXPOSE 8080\n\
             ENTRYPOINT [\"/skep-test-app\"]\n",
            cluster.run,
            set.collect::<String>()
        ),
    )?;
    let image = cluster.image_of(&app, name).await?;
    let name = Name::of(name);
    cluster.api.put_service(&name, json!({})).await?;
    let wanted = json!({ "type": "image", "reference": image });
    cluster.api.live(&name, &wanted).await?;
    Ok(name)
}

/// Whether a process with this in its command line runs, other than this command line's own.
fn runs(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .any(|line| line.contains(mark) && !line.contains("skep"))
}

async fn until(mark: &str, is_running: bool) -> Result<()> {
    wait::until_ok("a command to begin or end", SEEN, async || {
        ensure!(runs(mark) == is_running, "`{mark}`: {}", !is_running);
        Ok(())
    })
    .await
}

async fn audited(cluster: &Cluster, action: &str) -> Result<Vec<(String, String, String)>> {
    let all = cluster.api.get("/v1/audit?limit=500").await?;
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let entries = all["entries"].as_array().context("entries")?;
    let found = entries.iter().filter(|entry| entry["action"] == action);
    Ok(found
        .map(|entry| {
            (
                text(entry, "principal"),
                text(entry, "resource"),
                text(entry, "outcome"),
            )
        })
        .collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_have_their_input_output_and_exit_code_and_are_audited() {
    with_cluster("exec", async |cluster| {
        let name = deploy(cluster, "box", &[]).await?;
        let skep = &cluster.skep;
        let mixed = "echo out; echo err >&2; exit 7";
        let ended = skep
            .run(&["exec", "box", "--", "sh", "-c", mixed])
            .await?
            .code(7)?;
        assert_eq!(ended.stdout, "out\n");
        assert!(
            ended.stderr.contains("err\n") && ended.stderr.contains("allocation "),
            "{ended}"
        );
        assert!(!ended.stderr.contains("error:"), "{ended}");
        // Without input there is none, and what is no program says so.
        assert_eq!(skep.run(&["exec", "box", "cat"]).await?.ok()?.stdout, "");
        let ended = skep.run(&["exec", "box", "nonesuch"]).await?;
        assert!(matches!(ended.code, Some(126 | 127)), "{ended}");
        ended.says(&["nonesuch", "not found"])?;

        let sent = large();
        let (ended, got) = skep.feed(&["exec", "-i", "box", "cat"], &sent).await?;
        ended.ok()?;
        assert!(
            got == sent,
            "{} of {} bytes came back",
            got.len(),
            sent.len()
        );
        // A command that reads nothing more ends all the same.
        let (ended, got) = skep.feed(&["exec", "-i", "box", "true"], &sent).await?;
        assert_eq!((ended.ok()?.code, got.len()), (Some(0), 0));

        // What the trail has: who, where, what, and how it ended; never what was sent.
        let trail = wait::until_ok("the audit trail", SEEN, async || {
            let trail = audited(cluster, "exec").await?;
            ensure!(
                trail
                    .iter()
                    .filter(|(.., outcome)| outcome.contains("exit 0"))
                    .count()
                    >= 3
            );
            Ok(trail)
        })
        .await?;
        let (who, what, outcome) = trail
            .iter()
            .find(|(.., outcome)| outcome.contains("exit 7"))
            .context("its end")?;
        assert!(
            who == "admin" && outcome.starts_with("exit 7, after"),
            "{outcome}"
        );
        assert!(
            what.contains(r#""sh" "-c" "echo out"#) && what.contains(" on "),
            "{what}"
        );
        let begun = |entry: &&(String, String, String)| entry.1 == *what && entry.2 == "101";
        assert_eq!(trail.iter().filter(begun).count(), 1, "{trail:#?}");

        // Nobody without a token, and who tried is known.
        let stranger = Api::new(cluster.api.address(), "wrong");
        let path = name.path("/exec?command=%5B%22id%22%5D");
        let answer = stranger.call(Method::GET, &path, None).await?;
        assert_eq!(answer.status, 401);
        wait::until_ok("the refusal", SEEN, async || {
            let refused = audited(cluster, "exec").await?;
            ensure!(
                refused
                    .iter()
                    .any(|(who, _, outcome)| who == "nobody" && outcome == "401")
            );
            Ok(())
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_ends_with_whoever_asked_and_says_what_became_of_it() {
    with_cluster("gone", async |cluster| {
        deploy(cluster, "gone", &[]).await?;
        let arguments = |mark: &'static str| ["exec", "gone", "--", "sleep", mark];
        // The asker vanishes.
        let mut asker = cluster.skep.spawn(&arguments("47111"))?;
        until("sleep 47111", true).await?;
        asker.kill().await?;
        until("sleep 47111", false).await?;

        // The agent vanishes: the asker hears of it, and the app runs on.
        let asker = cluster.skep.spawn(&arguments("47112"))?;
        until("sleep 47112", true).await?;
        cluster.agent.kill().await?;
        let ended = timeout(SEEN, asker.wait_with_output()).await??;
        let told = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(3), "{told}");
        assert!(
            told.contains("the node") && told.contains("hint:"),
            "{told}"
        );
        cluster.agent.start().await?;
        wait::until_ok("a session of the agent", SEEN, async || {
            cluster
                .skep
                .run(&["exec", "gone", "true"])
                .await?
                .ok()
                .map(drop)
        })
        .await?;

        // The container ends, and everything in it.
        let asker = cluster.skep.spawn(&arguments("47113"))?;
        until("sleep 47113", true).await?;
        let containers = cluster.containers.of_cluster(&cluster.id).await?;
        let running = containers.iter().find(|one| one.runs).context("one runs")?;
        cluster.containers.kill(&running.id).await?;
        let ended = timeout(SEEN, asker.wait_with_output()).await??;
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(
            matches!(ended.status.code(), Some(137 | 1)),
            "{:?} {told}",
            ended.status
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_its_size_and_follows_it() {
    with_cluster("tty", async |cluster| {
        deploy(cluster, "tty", &[]).await?;
        // `script` gives the command line a terminal; its size changes while the command looks.
        let there = "i=0; first=; while [ $i -lt 300 ]; do i=$((i+1)); size=$(stty size 2>&1); \
                     [ \"$size\" = '40 100' ] && first=seen; \
                     [ \"$first $size\" = 'seen 22 77' ] && echo changed && exit 5; sleep 0.1; done";
        let here = format!(
            "stty cols 100 rows 40; (sleep 2; stty cols 77 rows 22 < /dev/tty) & \
             {} exec -it tty -- sh -c \"$THERE\"; code=$?; stty -a; exit $code",
            place::skep_binary()?.display()
        );
        let mut script = Command::new("script");
        script
            .args(["-qec", &here, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("THERE", there)
            .env("SKEP_CONFIG_DIR", cluster.path("config"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true);
        let mut child = script.spawn()?;
        let stdin = child.stdin.take();
        let ended = timeout(SEEN, child.wait_with_output()).await??;
        drop(stdin);
        let text = String::from_utf8_lossy(&ended.stdout);
        assert!(text.contains("changed"), "{text}");
        assert_eq!(ended.status.code(), Some(5), "{text}");
        // Given back as it was: lines and echo.
        assert!(text.contains(" icanon") && text.contains(" echo "), "{text}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_in_and_out_as_they_are() {
    with_cluster("cp", async |cluster| {
        deploy(cluster, "files", &[]).await?;
        let skep = &cluster.skep;
        let (from, to) = (cluster.path("tree"), cluster.path("back"));
        std::fs::create_dir_all(from.join("sub"))?;
        std::fs::create_dir(&to)?;
        let sent = large();
        std::fs::write(from.join("sub/large"), &sent)?;
        std::fs::write(from.join("run.sh"), "#!/bin/sh\necho ran\n")?;
        Command::new("chmod")
            .args(["750", &text(&from.join("run.sh"))?])
            .status()
            .await?;
        std::os::unix::fs::symlink("sub/large", from.join("link"))?;

        skep.run(&["cp", &text(&from)?, "files:/none/tmp"])
            .await?
            .code(1)?
            .says(&["no folder"])?;
        skep.run(&["exec", "files", "mkdir", "/tmp"]).await?.ok()?;
        skep.run(&["cp", &text(&from)?, "files:/tmp"]).await?.ok()?;
        let ran = skep
            .run(&["exec", "files", "sh", "/tmp/tree/run.sh"])
            .await?
            .ok()?;
        assert_eq!(ran.stdout, "ran\n");
        skep.run(&["cp", "files:/tmp/tree", &text(&to)?])
            .await?
            .ok()?;
        let back = to.join("tree");
        assert!(std::fs::read(back.join("sub/large"))? == sent);
        assert_eq!(
            std::fs::read_link(back.join("link"))?.to_str(),
            Some("sub/large")
        );
        let names: BTreeSet<_> = std::fs::read_dir(&back)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        assert_eq!(names.len(), 3, "{names:?}");
        // One file under another name, and as a tar from one to the other.
        let renamed = text(&to.join("renamed"))?;
        skep.run(&["cp", "files:/tmp/tree/run.sh", &renamed])
            .await?
            .ok()?;
        assert_eq!(std::fs::read_to_string(&renamed)?, "#!/bin/sh\necho ran\n");
        let (ended, tar) = skep.feed(&["cp", "files:/tmp/tree", "-"], &[]).await?;
        ended.ok()?;
        skep.run(&["exec", "files", "mkdir", "/two"]).await?.ok()?;
        skep.feed(&["cp", "-", "files:/two"], &tar).await?.0.ok()?;
        let sum = [
            "exec",
            "files",
            "cmp",
            "/tmp/tree/sub/large",
            "/two/tree/sub/large",
        ];
        skep.run(&sum).await?.ok()?;

        // What the container makes up stays where it belongs.
        let outside = text(&cluster.path("outside"))?;
        std::fs::create_dir(&outside)?;
        let evil = format!(
            "mkdir -p /evil && cd /evil && ln -s {outside} a && mkdir /evil2 && mkdir /evil2/a \
             && echo x > /evil2/a/stolen"
        );
        skep.run(&["exec", "files", "sh", "-c", &evil])
            .await?
            .ok()?;
        let target = text(&to.join("evil"))?;
        skep.run(&["cp", "files:/evil", &target]).await?.ok()?;
        // The same place again, now with something below what is a link here.
        let refused = skep.run(&["cp", "files:/evil2", &target]).await?;
        // `evil` exists: it goes into it, beside the link.
        refused.ok()?;
        skep.run(&["cp", "files:/evil2/a", &text(&to.join("evil"))?])
            .await?
            .code(1)?
            .says(&["is no folder here"])?;
        assert_eq!(std::fs::read_dir(&outside)?.count(), 0);

        skep.run(&["cp", "files:/nowhere", &target])
            .await?
            .code(1)?
            .says(&["no `/nowhere`"])?;
        Ok(())
    })
    .await;
}

fn text(path: &std::path::Path) -> Result<String> {
    Ok(path.to_str().context("the path is no text")?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_and_output_are_there_while_they_are_wanted() {
    with_cluster("ports", async |cluster| {
        deploy(cluster, "web", &[("LOG_LINES_PER_S", "20")]).await?;
        let mut forwarding = cluster
            .skep
            .spawn(&["port-forward", "web", "0:8080", "0:9"])?;
        let mut lines = BufReader::new(forwarding.stdout.take().context("a pipe")?).lines();
        let mut told = Vec::new();
        for _ in 0..2 {
            let line = timeout(SEEN, lines.next_line())
                .await??
                .context("it ended")?;
            told.push(line.split(' ').next().context("an address")?.to_owned());
        }
        // Many at once, each with its own answer.
        let asked = (0..40).map(|_| ask(&told[0]));
        for answer in futures_util::future::join_all(asked).await {
            let answer = answer?;
            ensure!(
                answer.contains("200 OK") && answer.contains("version=1 "),
                "{answer}"
            );
        }
        // Nobody listens there: the connection ends, the others do not.
        assert_eq!(ask(&told[1]).await?, "");
        assert!(ask(&told[0]).await?.contains("200 OK"));
        forwarding.kill().await?;
        ensure!(TcpStream::connect(&told[0]).await.is_err());

        let mut attached = cluster.skep.spawn(&["attach", "web"])?;
        let mut lines = BufReader::new(attached.stdout.take().context("a pipe")?).lines();
        let mut numbers = Vec::new();
        while numbers.len() < 10 {
            let line = timeout(SEEN, lines.next_line())
                .await??
                .context("it ended")?;
            if let Some(number) = line.strip_prefix("line ") {
                numbers.push(number.parse::<u64>()?);
            }
        }
        let first = numbers[0];
        assert_eq!(numbers, (first..first + 10).collect::<Vec<_>>());
        // It ends with the container.
        let containers = cluster.containers.of_cluster(&cluster.id).await?;
        let running = containers.iter().find(|one| one.runs).context("one runs")?;
        cluster.containers.kill(&running.id).await?;
        let ended = timeout(SEEN, async {
            while lines.next_line().await?.is_some() {}
            attached.wait().await
        });
        assert_eq!(ended.await??.code(), Some(137));
        Ok(())
    })
    .await;
}

/// One GET on a connection of its own, read to its end.
async fn ask(address: &str) -> Result<String> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer).await {
            Ok(_) => {}
            // One that is reset before a byte came is as good as one that is closed.
            Err(_) if answer.is_empty() => {}
            Err(error) => bail!("{error}"),
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(SEEN, talk).await.context("no answer")?
}
