//! Whole servers in one process, on loopback: joining, writing through a follower, losing the leader,
//! coming back, rebuilding, leaving, recovering.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

mod certificates;

/// A step that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// A server's life, and what is needed to give it another one.
struct Life {
    options: Options,
    ready: Ready,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
    /// Its own: what dies with a process dies with it.
    ground: Ground,
}

/// A runtime that can be dropped anywhere.
struct Ground(Option<Runtime>);

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Life {
    async fn begin(mut options: Options) -> Result<Self, Error> {
        let stop = CancellationToken::new();
        let (sender, receiver) = oneshot::channel();
        let ready = move |ready: Ready| drop(sender.send(ready));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut running = runtime.spawn(run(options.clone(), ready, stop.clone()));
        let ground = Ground(Some(runtime));
        let Ok(ready) = tokio::time::timeout(PATIENCE, receiver)
            .await
            .expect("ready in time")
        else {
            let ended = (&mut running).await.expect("no panic");
            return Err(ended.expect_err("not asked to end"));
        };
        // The next life has the same addresses.
        options.api_addr = ready.api;
        options.http_addr = ready.http;
        options.agent_addr = ready.cluster;
        if options.start == Start::Init {
            options.start = Start::Run;
        }
        Ok(Self {
            options,
            ready,
            stop,
            running,
            ground,
        })
    }

    /// Asks it to end, and waits.
    async fn end(self) -> Options {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.running).await;
        ended
            .expect("in time")
            .expect("no panic")
            .expect("ends well");
        self.options
    }

    /// Waits until it ends by itself.
    async fn ended(self) -> (Options, Error) {
        let ended = tokio::time::timeout(PATIENCE, self.running).await;
        let error = ended
            .expect("in time")
            .expect("no panic")
            .expect_err("not asked to end");
        (self.options, error)
    }

    /// Ends it without a word to anybody.
    async fn kill(self) -> Options {
        drop(self.ground);
        // The consensus thread goes on its own, and holds the lock until then.
        let lock = self.options.data_dir.join("raft/lock");
        let begun = Instant::now();
        while std::fs::File::open(&lock)
            .expect("there")
            .try_lock()
            .is_err()
        {
            assert!(begun.elapsed() < PATIENCE, "the log is still in use");
            tokio::time::sleep(LOOK).await;
        }
        self.options
    }

    async fn call(
        &self,
        token: &str,
        (method, path): (Method, &str),
        body: Value,
    ) -> (StatusCode, Value) {
        let address = self.ready.http.expect("served in plain");
        call(address, token, (method, path), body).await
    }
}

async fn call(
    address: SocketAddr,
    token: &str,
    (method, path): (Method, &str),
    body: Value,
) -> (StatusCode, Value) {
    let stream = TcpStream::connect(address).await.expect("connects");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("sound");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status();
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("whole")
        .to_bytes();
    (
        status,
        serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    )
}

fn options(dir: &Path, name: &str, start: Start) -> Options {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    Options {
        start,
        data_dir: dir.join(name),
        key_file: dir.join(format!("{name}.key")),
        name: name.to_owned(),
        advertise: None,
        api_addr: any,
        http_addr: Some(any),
        agent_addr: any,
        history: None,
        base_domain: "localhost".to_owned(),
        relaxed: false,
        bootstrap: None,
        names: Vec::new(),
        terms: crate::pki::Terms::default(),
        means: crate::acme::Means::default(),
        notify_allow: Vec::new(),
        provider_programs: None,
    }
}

fn admin_token(options: &Options) -> String {
    std::fs::read_to_string(options.data_dir.join("admin.token")).expect("written when founding")
}

async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !check().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// A cluster under test.
struct Cluster {
    dir: tempfile::TempDir,
    token: String,
    lives: Vec<Life>,
}

impl Cluster {
    async fn found() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let first = Life::begin(options(dir.path(), "s1", Start::Init))
            .await
            .expect("founds");
        Self {
            token: admin_token(&first.options),
            lives: vec![first],
            dir,
        }
    }

    async fn of_three() -> Self {
        let mut cluster = Self::found().await;
        for name in ["s2", "s3"] {
            cluster.join(name).await;
        }
        cluster
            .until_roles("three voters", &["leader", "voter", "voter"])
            .await;
        cluster
    }

    async fn join_token(&self) -> Join {
        let request = json!({"role": "server"});
        let made = self.lives[0]
            .call(&self.token, (Method::POST, "/v1/tokens"), request)
            .await;
        assert_eq!(made.0, StatusCode::CREATED, "{}", made.1);
        Join {
            token: made.1["token"].as_str().expect("text").to_owned(),
            server: self.lives[0].ready.cluster.to_string(),
        }
    }

    async fn join(&mut self, name: &str) {
        let start = Start::Join(self.join_token().await);
        let life = Life::begin(options(self.dir.path(), name, start))
            .await
            .expect("joins");
        self.lives.push(life);
    }

    async fn servers(&self, asked: usize) -> Value {
        let found = self.lives[asked].call(&self.token, (Method::GET, "/v1/servers"), Value::Null);
        let (status, body) = found.await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// Waits until the first life sees these roles, in any order, all of them well.
    async fn until_roles(&self, what: &str, roles: &[&str]) {
        let begun = Instant::now();
        loop {
            let body = self.servers(0).await;
            let servers = body["servers"].as_array().expect("a list");
            let mut seen: Vec<_> = servers
                .iter()
                .filter_map(|it| it["role"].as_str())
                .collect();
            seen.sort_unstable();
            if seen == roles && servers.iter().all(|it| it["healthy"] == true) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "never: {what}; {body:#}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The place of the leader among the lives.
    async fn leader(&self) -> usize {
        let mut found = None;
        until("a leader among those that live", async || {
            let body = self.servers(0).await;
            found = self
                .lives
                .iter()
                .position(|life| body["leader"] == json!(life.ready.server));
            found.is_some()
        })
        .await;
        found.expect("found")
    }

    /// Writes through one server and reads it through all.
    async fn write(&self, through: usize, name: &str) {
        let path = format!("/v1/projects/p/environments/production/services/{name}");
        let spec = json!({"spec": {"port": 80}});
        let put = self.lives[through].call(&self.token, (Method::PUT, &path), spec);
        let (status, body) = put.await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        for life in &self.lives {
            let got = life
                .call(&self.token, (Method::GET, &path), Value::Null)
                .await;
            assert_eq!(
                got.0,
                StatusCode::OK,
                "{name} through {}",
                life.options.name
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_servers_survive_the_loss_of_any_one() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.write((leader + 1) % 3, "through-a-follower").await;

    let lost = cluster.lives.remove(leader);
    let lost = lost.kill().await;
    let begun = Instant::now();
    let path = "/v1/projects/p/environments/production/services/after-the-loss";
    until("a write without the old leader", async || {
        let put = cluster.lives[0].call(&cluster.token, (Method::PUT, path), json!({}));
        put.await.0.is_success()
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );

    // Joined or founded: what is in the folder decides.
    let back = Life::begin(Options {
        start: Start::Run,
        ..lost
    })
    .await
    .expect("comes back");
    cluster.lives.push(back);
    cluster
        .until_roles("all back", &["leader", "voter", "voter"])
        .await;
    cluster.write(2, "through-the-one-that-came-back").await;

    // A graceful end hands leadership on.
    let leader = cluster.leader().await;
    let ended = cluster.lives.remove(leader).end().await;
    cluster.write(0, "after-a-graceful-end").await;
    let back = Life::begin(ended).await.expect("comes back");
    cluster.lives.push(back);
    cluster
        .until_roles("all back again", &["leader", "voter", "voter"])
        .await;
    for life in cluster.lives.drain(..) {
        life.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_whole_cluster_comes_back_and_a_lost_log_is_rebuilt() {
    let mut cluster = Cluster::of_three().await;
    cluster.write(0, "before").await;
    let mut ended = Vec::new();
    for life in cluster.lives.drain(..) {
        ended.push(life.end().await);
    }
    let again = ended
        .into_iter()
        .map(|options| tokio::spawn(Life::begin(options)));
    for life in again.collect::<Vec<_>>() {
        cluster
            .lives
            .push(life.await.expect("no panic").expect("comes back"));
    }
    cluster
        .until_roles("all back", &["leader", "voter", "voter"])
        .await;
    cluster.write(1, "after").await;

    let member = cluster.lives[2].ready.member;
    let damaged = cluster.lives.pop().expect("three").end().await;
    std::fs::remove_dir_all(damaged.data_dir.join("raft")).expect("lost");
    let refused = Life::begin(damaged.clone())
        .await
        .map(drop)
        .expect_err("never guesses");
    assert!(refused.to_string().contains("rebuild"), "{refused}");
    let start = Start::Rebuild(cluster.join_token().await);
    let rebuilt = Life::begin(Options { start, ..damaged })
        .await
        .expect("rebuilds");
    assert!(
        rebuilt.ready.member > member,
        "a member id is never used twice"
    );
    cluster.lives.push(rebuilt);
    cluster
        .until_roles("rebuilt", &["leader", "voter", "voter"])
        .await;
    cluster.write(2, "through-the-rebuilt-one").await;
    for life in cluster.lives.drain(..) {
        life.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_leaves_ends_and_stays_out() {
    let mut cluster = Cluster::of_three().await;
    // The leader itself leaves: it hands leadership on first.
    let leader = cluster.leader().await;
    let leaving = cluster.lives.remove(leader);
    let path = format!("/v1/servers/{}", leaving.options.name);
    let left = cluster.lives[0].call(&cluster.token, (Method::DELETE, &path), Value::Null);
    let (status, body) = left.await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
    let (options, error) = leaving.ended().await;
    assert!(matches!(error, Error::Removed(_)), "{error}");
    let again = Life::begin(options).await.map(drop);
    assert!(matches!(again, Err(Error::Removed(_))));
    cluster
        .until_roles("two are left", &["leader", "learner"])
        .await;
    cluster.write(1, "with-two").await;

    let moved = cluster.leader().await;
    let other = &cluster.lives[1 - moved].options.name;
    let path = format!("/v1/servers/{other}/leader");
    let refused = cluster.lives[1].call(&cluster.token, (Method::POST, &path), Value::Null);
    let (status, body) = refused.await;
    assert_eq!(
        status,
        StatusCode::CONFLICT,
        "a learner cannot lead: {body}"
    );
    for life in cluster.lives.drain(..) {
        life.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_survivor_becomes_the_cluster_when_that_is_accepted() {
    let mut cluster = Cluster::of_three().await;
    cluster.write(0, "before").await;
    for life in cluster.lives.drain(1..) {
        life.kill().await;
    }
    let alone = cluster.lives.pop().expect("one");
    let path = "/v1/projects/p/environments/production/services/before";
    let get = |path: &str| {
        let (address, token) = (alone.ready.http.expect("plain"), cluster.token.clone());
        let path = path.to_owned();
        async move { call(address, &token, (Method::GET, &path), Value::Null).await }
    };
    until("no quorum is noticed", async || {
        get(path).await.0 == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(get(&format!("{path}?stale=true")).await.0, StatusCode::OK);
    assert_eq!(
        get("/v1/servers").await.0,
        StatusCode::OK,
        "diagnosis needs no leader"
    );

    let options = alone.end().await;
    let dir = options.data_dir.clone();
    tokio::task::spawn_blocking(move || {
        let found = recover::inspect(&dir).expect("sound");
        assert_eq!(found.voters.len(), 3);
        recover::make_sole_member(&dir).expect("made");
    })
    .await
    .expect("no panic");
    let back = Life::begin(options).await.expect("alone");
    cluster.lives.push(back);
    cluster.until_roles("alone", &["leader"]).await;
    cluster.write(0, "alone").await;
    cluster.join("s4").await;
    cluster
        .until_roles("not alone", &["leader", "learner"])
        .await;
    for life in cluster.lives.drain(..) {
        life.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_are_not_mixed_up() {
    let cluster = Cluster::found().await;
    let join = cluster.join_token().await;
    let start = |name: &str, start: Start| Life::begin(options(cluster.dir.path(), name, start));
    let refused = |result: Result<Life, Error>| result.map(drop).expect_err("refused");
    let nothing = refused(start("s9", Start::Rebuild(join.clone())).await);
    assert!(matches!(nothing, Error::NothingToRebuild(_)), "{nothing}");
    let wrong = Join {
        token: join.token.replace("skep-join", "skep-john"),
        ..join.clone()
    };
    let wrong = refused(start("s8", Start::Join(wrong)).await);
    assert!(
        matches!(wrong, Error::Join(joining::Error::Token(_))),
        "{wrong}"
    );
    // A token for nodes lets no server in.
    let made = cluster.lives[0].call(&cluster.token, (Method::POST, "/v1/tokens"), json!({}));
    let made = made.await.1;
    let node = Join {
        token: made["token"].as_str().expect("text").to_owned(),
        ..join.clone()
    };
    let node = refused(start("s7", Start::Join(node)).await);
    assert!(
        matches!(node, Error::Join(joining::Error::Refused(_))),
        "{node}"
    );
    // Another cluster answers there.
    let other = Cluster::found().await;
    let elsewhere = Join {
        server: other.lives[0].ready.cluster.to_string(),
        ..join.clone()
    };
    let elsewhere = refused(start("s6", Start::Join(elsewhere)).await);
    assert!(
        matches!(elsewhere, Error::Join(joining::Error::Refused(_))),
        "{elsewhere}"
    );
    let mut founded = cluster.lives;
    let founded = founded.pop().expect("one").end().await;
    for start in [Start::Init, Start::Join(join)] {
        let occupied = Options {
            start,
            ..founded.clone()
        };
        let occupied = refused(Life::begin(occupied).await);
        assert!(matches!(occupied, Error::Occupied(_)), "{occupied}");
    }
}
