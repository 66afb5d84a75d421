//! One push, watched from outside: a repository with its webhook, the deployment's stream of events, and a client that
//! asks all the time.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use http::Request;
use http::header::HOST;
use http_body_util::Full;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::git::{Repository, git};
use skep_tests::process::Process;
use skep_tests::{Cluster, http as client, place, wait};
use tokio::net::TcpStream;

use super::ms;
use super::phases;

/// Between two requests of the client: short against what is measured, and no load of its own.
const PAUSE: Duration = Duration::from_millis(5);
/// A push is over long before.
const SEEN: Duration = Duration::from_secs(60);
/// Where the hook leaves what it was answered, in the bare repository.
const ANSWER: &str = "skep-answer.json";

/// A service that comes from a repository, whose pushes are told.
pub(super) struct Stage {
    /// What is pushed to.
    pub(super) repository: Repository,
    name: Name,
    answer: PathBuf,
    _daemon: Process,
}

/// How long one push took.
pub(super) struct Pushed {
    /// Until the deployment was live, as the API's stream says.
    pub(super) live_ms: f64,
    /// Until the new release answered its first request.
    pub(super) answered_ms: f64,
    /// By phase.
    pub(super) phases_ms: Vec<f64>,
}

impl Stage {
    /// A bare repository behind git's daemon, the service, the webhook, and the hook that calls it.
    ///
    /// # Errors
    /// One of them is not to be had.
    pub(super) async fn set(cluster: &Cluster) -> Result<Self> {
        let root = cluster.path("git");
        let repository = Repository::create(&root.join("team"), &cluster.run, "1")?;
        let bare = PathBuf::from(repository.url()?);
        let address = place::free_address()?;
        let daemon = serve(&root, address, cluster.path("git-daemon.log")).await?;
        let url = format!("git://{address}/team/app.git");
        let name = Name::of("pushed");
        let source = json!({ "type": "git", "repository": url, "branch": "main" });
        let spec = json!({ "source": source, "health": { "path": "/healthz" } });
        cluster.api.put_service(&name, spec).await?;
        let asked = json!({ "repository": url });
        let hook = cluster.api.post("/v1/repository-webhooks", &asked).await?;
        let text = |field: &str| hook[field].as_str().with_context(|| hook.to_string());
        let called = format!("http://{}{}", cluster.api.address(), text("path")?);
        let script = bare.join("hooks/post-receive");
        std::fs::write(&script, post_receive(&called, text("secret")?))?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700))?;
        Ok(Self {
            answer: bare.join(ANSWER),
            repository,
            name,
            _daemon: daemon,
        })
    }

    /// Commits what is there, pushes it, and waits until it is live and answers; then until nothing of it is
    /// left to do.
    ///
    /// # Errors
    /// It does not become live, or a request fails meanwhile.
    pub(super) async fn push(&self, cluster: &Cluster) -> Result<Pushed> {
        let clone = self.repository.app.dir();
        git(clone, &["add", "--all"])?;
        git(
            clone,
            &["commit", "--quiet", "--allow-empty", "--message", "a push"],
        )?;
        let host = cluster.host(&self.name);
        let before = client::get(cluster.ingress, &host, "/").await?.text();
        let asking = tokio::spawn(other_answer(cluster.ingress, host, before));
        let (begun, begun_ms) = (Instant::now(), now_ms()?);
        let from = clone.to_owned();
        let arguments = ["push", "--quiet", "origin", "HEAD:refs/heads/main"];
        tokio::task::spawn_blocking(move || git(&from, &arguments)).await??;
        let reply: Value = serde_json::from_slice(&std::fs::read(&self.answer)?)?;
        let id = reply["deployment"]
            .as_str()
            .with_context(|| format!("the webhook made no deployment: {reply}"))?;
        let events = follow(cluster, id).await?;
        let live_ms = ms(begun.elapsed());
        let answered_ms = ms(asking.await??.duration_since(begun));
        let seen = phases::Seen {
            begun_ms,
            answered_ms: begun_ms + answered_ms,
            live_ms: begun_ms + live_ms,
            deployment: cluster.api.get(&format!("/v1/deployments/{id}")).await?,
            events,
        };
        let phases_ms = seen.phases(cluster).await?;
        cluster.converged(&[(&self.name, 1)]).await?;
        Ok(Pushed {
            live_ms,
            answered_ms,
            phases_ms,
        })
    }
}

/// git's own daemon: a fetch goes over a socket, as from a forge.
async fn serve(root: &std::path::Path, address: SocketAddr, log: PathBuf) -> Result<Process> {
    // The program itself: `git daemon` is its parent, and would leave it behind.
    let folder = git(root, &["--exec-path"])?;
    let program = PathBuf::from(folder).join("git-daemon");
    let daemon = Process::new("git-daemon", &program, log).args([
        "--export-all".to_owned(),
        "--reuseaddr".to_owned(),
        format!("--listen={}", address.ip()),
        format!("--port={}", address.port()),
        format!("--base-path={}", root.display()),
        root.display().to_string(),
    ]);
    daemon.start().await?;
    wait::until_ok("git's daemon to listen", SEEN, async || {
        Ok(TcpStream::connect(address).await.map(drop)?)
    })
    .await?;
    Ok(daemon)
}

/// As docs/webhooks.md has it, "By hand".
fn post_receive(url: &str, secret: &str) -> String {
    format!(
        "#!/bin/sh\nset -eu\nwhile read -r _ commit ref; do\n\
         body=\"{{\\\"ref\\\": \\\"$ref\\\", \\\"commit\\\": \\\"$commit\\\"}}\"\n\
         curl --silent --show-error --fail --output {ANSWER} '{url}' -d \"$body\" -H \"X-Skep-Delivery: $commit\" \
         -H \"X-Skep-Signature: sha256=$(printf %s \"$body\" | openssl dgst -sha256 -hmac '{secret}' -r | cut -d' ' -f1)\"\n\
         done\n"
    )
}

/// All that is said of a deployment, until it is live.
async fn follow(cluster: &Cluster, id: &str) -> Result<Vec<Value>> {
    let path = format!("/v1/deployments/{id}/logs");
    let mut stream = cluster.api.events(&path, None).await?;
    let mut events = Vec::new();
    while let Some(event) = stream.next().await? {
        let data: Value = serde_json::from_str(&event.data)?;
        match event.kind.as_str() {
            "end" => {
                ensure!(data["status"] == "live", "{data}\n{events:#?}");
                return Ok(events);
            }
            "problem" => bail!("{data}"),
            _ => events.push(data),
        }
    }
    bail!("the stream ended before the deployment")
}

/// When somebody else than `before` answered for the first time. Every request is answered, by whomever.
async fn other_answer(ingress: SocketAddr, host: String, before: String) -> Result<Instant> {
    let mut sender = client::connect(ingress).await?;
    let is_first = !before.starts_with("version=");
    for _ in 0..SEEN.as_millis() / PAUSE.as_millis() {
        let request = Request::get("/")
            .header(HOST, &host)
            .body(Full::default())?;
        let answer = client::read(sender.send_request(request).await?).await?;
        let text = answer.text();
        if answer.status == 200 && text != before {
            return Ok(Instant::now());
        }
        ensure!(is_first || answer.status == 200, "{} {text}", answer.status);
        tokio::time::sleep(PAUSE).await;
    }
    bail!("the new release answered nothing within {SEEN:?}")
}

fn now_ms() -> Result<f64> {
    Ok(ms(SystemTime::now().duration_since(UNIX_EPOCH)?))
}
