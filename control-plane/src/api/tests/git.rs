//! `git push` as people run it: real git against the router over a socket, and nodes that keep packs with real git.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use skep_model::deployment::Origin;
use skep_model::pushed::{NOT_HELD, Order};
use skep_model::shell::{Frame, Opened, Wish};

use super::*;
use crate::agents::shells::Line;

/// The API where git reaches it, and a repository of somebody's.
struct World {
    server: Server,
    port: u16,
    dir: tempfile::TempDir,
}

/// How git ended, and what it showed.
struct Git {
    is_success: bool,
    said: String,
}

/// A node that keeps what is pushed.
#[derive(Clone)]
struct Keeper {
    node: NodeId,
    store: PathBuf,
    /// Sizes of the packs that came.
    packs: Arc<Mutex<Vec<usize>>>,
    /// What it was told last that it must not drop.
    needed: Arc<Mutex<Vec<String>>>,
}

impl World {
    async fn start() -> Self {
        let server = Server::start().await;
        let made = server.put(WEB, json!({})).await;
        assert!(made.status.is_success(), "{}", made.body);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let router = server.router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let world = Self {
            server,
            port,
            dir: tempfile::tempdir().expect("folder"),
        };
        world.git(&["init", "--quiet", "-b", "main", "."]).await;
        world.commit("one", "index.html").await;
        world
    }

    fn url(&self, token: &str) -> String {
        format!(
            "http://git:{token}@127.0.0.1:{}/git/shop/production/web.git",
            self.port
        )
    }

    async fn git(&self, arguments: &[&str]) -> Git {
        let mut command = Command::new("git");
        command
            .current_dir(self.dir.path())
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C");
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.expect("runs").expect("git is installed");
        Git {
            is_success: output.status.success(),
            said: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        }
    }

    async fn push(&self, references: &[&str]) -> Git {
        let url = self.url(TOKEN);
        let mut arguments = vec!["push", &url];
        arguments.extend(references);
        self.git(&arguments).await
    }

    async fn commit(&self, text: &str, path: &str) {
        std::fs::write(self.dir.path().join(path), text).expect("written");
        self.git(&["add", "."]).await;
        let done = self.git(&["commit", "--quiet", "-m", path]).await;
        assert!(done.is_success, "{}", done.said);
    }

    async fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
            .await
            .said
            .trim()
            .to_owned()
    }

    /// Where a reference is, and how many nodes hold it.
    fn at(&self, name: &str) -> Option<(String, usize)> {
        let view = self.server.context.store.view();
        let service = view.services().next().expect("one").id;
        let pushed = view.pushed(service)?.clone();
        let of = pushed.references.get(name)?;
        Some((of.commit.clone(), of.holders.len()))
    }

    /// What was deployed, oldest first: branch and commit.
    fn deployed(&self) -> Vec<(String, String)> {
        let view = self.server.context.store.view();
        let service = view.services().next().expect("one").id;
        let mut all: Vec<_> = view.deployments_of(service).cloned().collect();
        all.sort_by_key(|of| of.id);
        let origin = |of: Arc<skep_model::deployment::Deployment>| match &of.origin {
            Origin::Pushed { branch, commit, .. } => (branch.clone(), commit.clone()),
            other => panic!("{other:?}"),
        };
        all.into_iter().map(origin).collect()
    }

    async fn keeper(&self, name: &str) -> Keeper {
        let keeper = Keeper {
            node: self.server.join(name).await,
            store: self.dir.path().with_extension(name),
            packs: Arc::default(),
            needed: Arc::default(),
        };
        let made = Command::new("git")
            .args(["init", "--quiet", "--bare"])
            .arg(&keeper.store)
            .status();
        assert!(made.expect("git is installed").success());
        let relay = self.server.context.relay.clone();
        let (_, mut told) = relay.connect(keeper.node);
        let it = keeper.clone();
        tokio::spawn(async move {
            while let Some(kind) = told.recv().await {
                let v1::to_agent::Kind::OpenShell(open) = kind else {
                    continue;
                };
                let line = relay.dial(it.node, open.request).expect("somebody waits");
                let wish = Wish::try_from(open.wish.expect("a wish")).expect("known");
                let Wish::Push(order) = wish else {
                    panic!("{wish:?}")
                };
                tokio::spawn(it.clone().keep(order, line));
            }
        });
        keeper
    }
}

impl Keeper {
    async fn keep(self, order: Order, mut line: Line) {
        if order.known.iter().any(|commit| !has(&self.store, commit)) {
            let problem = Problem::new(Code::Runtime, "it is not here").at(NOT_HELD);
            let _ = line.up.send(Frame::Problem(problem)).await;
            return;
        }
        self.needed.lock().expect("sound").clone_from(&order.needed);
        let opened = Opened {
            allocation: skep_model::id::AllocationId::from_u128(0),
            node: String::new(),
            name: None,
        };
        let _ = line.up.send(Frame::Opened(opened)).await;
        let mut pack = Vec::new();
        while let Some(frame) = line.down.recv().await {
            match frame {
                Frame::Data(data) => {
                    let taken = Frame::Grant(u32::try_from(data.len()).expect("small"));
                    pack.extend(data);
                    let _ = line.up.send(taken).await;
                }
                Frame::Eof => {
                    let last = self.index(&order, pack);
                    let _ = line.up.send(last).await;
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn index(&self, order: &Order, pack: Vec<u8>) -> Frame {
        self.packs.lock().expect("sound").push(pack.len());
        // Two may come at once: each has its own.
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), pack).expect("written");
        let done = Command::new("git")
            .current_dir(&self.store)
            .args(["index-pack", "--stdin", "--fix-thin"])
            .stdin(file.reopen().expect("there"))
            .output()
            .expect("git is installed");
        let is_whole = order.wanted.iter().all(|commit| has(&self.store, commit));
        match done.status.success() && is_whole {
            true => Frame::Exit(0),
            false => Frame::Problem(Problem::new(Code::SourceFailed, "git finds fault")),
        }
    }

    fn packs(&self) -> Vec<usize> {
        self.packs.lock().expect("sound").clone()
    }
}

fn has(store: &Path, commit: &str) -> bool {
    let found = Command::new("git")
        .current_dir(store)
        .args(["cat-file", "-e", commit])
        .output();
    found.expect("git is installed").status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_kept_by_two_nodes_and_deployed_and_the_next_sends_what_is_new() {
    let world = World::start().await;
    let (a, b) = (world.keeper("a").await, world.keeper("b").await);
    let noise: String = (0..20_000u32)
        .map(|n| format!("{:x} ", n.wrapping_mul(2_654_435_761)))
        .collect();
    world.commit(&noise, "noise").await;
    let first = world.head().await;
    let done = world.push(&["main"]).await;
    assert!(done.is_success, "{}", done.said);
    assert_eq!(world.at("refs/heads/main"), Some((first.clone(), 2)));
    assert_eq!(world.deployed(), [("main".to_owned(), first.clone())]);
    for part in [
        "remote: kept on the nodes a and b",
        "remote: deployment ",
        " is queued",
        "skep deployments web",
    ] {
        assert!(done.said.contains(part), "{part}: {}", done.said);
    }
    world.commit("two", "index.html").await;
    let second = world.head().await;
    let done = world.push(&["main"]).await;
    assert!(done.is_success, "{}", done.said);
    assert_eq!(world.at("refs/heads/main"), Some((second.clone(), 2)));
    assert_eq!(world.deployed().last().expect("one").1, second);
    for keeper in [&a, &b] {
        let packs = keeper.packs();
        assert!(packs.len() == 2 && packs[1] * 20 < packs[0], "{packs:?}");
    }
    let nothing = world.push(&["main"]).await;
    assert!(
        nothing.said.contains("Everything up-to-date"),
        "{}",
        nothing.said
    );
    let entries = world.server.get("/v1/audit").await;
    let trail = entries.body.to_string();
    assert!(
        trail.contains(&format!("refs/heads/main {second}; deployment")),
        "{trail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_branches_forced_pushes_tags_and_removals() {
    let world = World::start().await;
    let keeper = world.keeper("a").await;
    assert!(world.push(&["main"]).await.is_success);
    let main = world.head().await;
    let done = world.push(&["main:dev", "main:refs/tags/v1"]).await;
    assert!(
        done.is_success
            && done
                .said
                .contains("dev is stored: the service deploys `main`"),
        "{}",
        done.said
    );
    assert_eq!(world.at("refs/heads/dev"), Some((main.clone(), 1)));
    assert_eq!(world.deployed().len(), 1);
    let amended = world
        .git(&["commit", "--quiet", "--amend", "-m", "another"])
        .await;
    assert!(amended.is_success, "{}", amended.said);
    let refused = world.push(&["main"]).await;
    assert!(
        !refused.is_success && refused.said.contains("rejected"),
        "{}",
        refused.said
    );
    let forced = world.push(&["+main"]).await;
    assert!(forced.is_success, "{}", forced.said);
    assert_eq!(world.at("refs/heads/main"), Some((world.head().await, 1)));
    assert_eq!(world.deployed().len(), 2);
    let removed = world.push(&["--delete", "main"]).await;
    assert!(
        removed.is_success && removed.said.contains("what runs goes on running"),
        "{}",
        removed.said
    );
    assert_eq!(world.at("refs/heads/main"), None);
    assert_eq!(world.deployed().len(), 2);
    // No reference leads to the second any more; it was deployed, and can be again.
    let deployed = world.head().await;
    assert!(world.push(&["main:refs/heads/later"]).await.is_success);
    let mut needed = [main, deployed];
    needed.sort();
    assert_eq!(*keeper.needed.lock().expect("sound"), needed);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_and_what_is_not_there_is_said_in_words() {
    let world = World::start().await;
    let nobody = world.push(&["main"]).await;
    assert!(
        nobody.said.contains("no node that builds is ready"),
        "{}",
        nobody.said
    );
    world.keeper("a").await;
    let url = world.url("wrong-token");
    let wrong = world.git(&["push", &url, "main"]).await;
    assert!(
        !wrong.is_success && wrong.said.contains("the token is not one of this cluster"),
        "{}",
        wrong.said
    );
    let url = world.url(TOKEN).replace("web.git", "api");
    let absent = world.git(&["push", &url, "main"]).await;
    assert!(
        absent.said.contains("skep git remote add"),
        "{}",
        absent.said
    );
    let url = world.url(TOKEN);
    let cloned = world.git(&["clone", &url, "elsewhere"]).await;
    assert!(
        !cloned.is_success && cloned.said.contains("takes pushes only"),
        "{}",
        cloned.said
    );
    assert!(world.deployed().is_empty() && world.at("refs/heads/main").is_none());
    let other = world.push(&["main:refs/notes/x"]).await;
    assert!(
        !other.is_success && other.said.contains("no branch and no tag"),
        "{}",
        other.said
    );
    // A browser sends a password by itself: nowhere but here is it taken.
    let basic = Request::get(WEB).header(
        "authorization",
        "Basic Z2l0OnRoZS1hZG1pbmlzdHJhdG9ycy10b2tlbg==",
    );
    let answer = world
        .server
        .send(basic.body(Body::empty()).expect("sound"))
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_is_found_out_and_the_next_push_sends_everything() {
    let world = World::start().await;
    let a = world.keeper("a").await;
    assert!(world.push(&["main"]).await.is_success);
    std::fs::remove_dir_all(a.store.join("objects/pack")).expect("there");
    std::fs::create_dir(a.store.join("objects/pack")).expect("made");
    world.commit("two", "index.html").await;
    let refused = world.push(&["main"]).await;
    assert!(
        !refused.is_success && refused.said.contains("node a: it is not here"),
        "{}",
        refused.said
    );
    let mut applied = world.server.context.store.consensus().applied();
    while world
        .at("refs/heads/main")
        .is_some_and(|(_, holders)| holders > 0)
    {
        applied.changed().await.expect("open");
    }
    let again = world.push(&["main"]).await;
    assert!(again.is_success, "{}", again.said);
    assert_eq!(world.at("refs/heads/main"), Some((world.head().await, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_pushes_at_once_one_is_first_and_a_fresh_node_gets_everything() {
    let world = World::start().await;
    let a = world.keeper("a").await;
    assert!(world.push(&["main"]).await.is_success);
    world.commit("mine", "index.html").await;
    let mine = world.head().await;
    world
        .git(&["checkout", "--quiet", "-b", "theirs", "HEAD~1"])
        .await;
    world.commit("theirs", "index.html").await;
    let theirs = world.head().await;
    let (left, right) = tokio::join!(world.push(&["main"]), world.push(&["theirs:main"]));
    assert!(
        left.is_success != right.is_success,
        "{} {}",
        left.said,
        right.said
    );
    let late = if left.is_success { &right } else { &left };
    let is_said = ["another push", "fetch first", "rejected"]
        .iter()
        .any(|it| late.said.contains(it));
    assert!(is_said, "{}", late.said);
    let first = if left.is_success { mine } else { theirs };
    assert_eq!(world.at("refs/heads/main"), Some((first, 1)));
    // With another node, what one alone holds is not told: git sends all of it to both.
    let b = world.keeper("b").await;
    world.commit("next", "index.html").await;
    let done = world.push(&["+theirs:main"]).await;
    assert!(done.is_success, "{}", done.said);
    assert_eq!(world.at("refs/heads/main"), Some((world.head().await, 2)));
    assert_eq!(a.packs().last(), b.packs().last());
}
