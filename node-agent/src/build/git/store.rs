//! What people push: a bare repository for each service, in the agent's folder `pushed`. It is objects alone: where
//! references are is in the replicated state, and what builds is a commit. Nothing of a push is visible before all
//! of it is here, whole and on the disk; what broke off leaves nothing.

mod prune;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use skep_identity::{random, secret_file};
use skep_model::id::ServiceId;
use skep_model::problem::{Code, Problem};
use skep_model::pushed::{MAX_PACK_BYTES, NOT_HELD, Order};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::super::folder::{self, blocking, chain};
use super::super::program::Group;
use super::command::{Output, cannot_run, last_words, plain, read_some};

/// Pushes that a node takes in at a time: each is a git that unpacks.
const AT_A_TIME: usize = 4;
/// For all of a push: a large history over a slow line.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// Largest store of a service.
const STORE_MAX_BYTES: u64 = 8 << 30;
/// More packs are put together: each push brings one, and git looks into all of them.
const PACKS_MAX: usize = 40;
/// What an unfinished push is in.
const INCOMING: &str = "incoming-";
/// What git calls packs that it has not written to the end.
const HALF_WRITTEN: [&str; 2] = ["tmp_", ".tmp-"];
/// End of the name of a store.
const GIT: &str = ".git";

/// Settings of the git that takes in: it uses no more memory than this, and what it has written is on the disk.
const SETTINGS: [&str; 5] = [
    "core.fsync=all",
    "core.bigFileThreshold=32m",
    "core.deltaBaseCacheLimit=32m",
    "pack.windowMemory=64m",
    "pack.threads=1",
];

/// The stores of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stores {
    folder: PathBuf,
    room: Arc<Semaphore>,
    /// One push of a service at a time.
    turns: Arc<Mutex<BTreeMap<ServiceId, Turns>>>,
}

/// Who may change a store. Cheap to clone.
#[derive(Debug, Clone)]
struct Turns {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// How many wait: tidying makes room for them.
    waiting: watch::Sender<u32>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            lock: Arc::default(),
            waiting: watch::Sender::new(0),
        }
    }
}

impl Turns {
    async fn take(self) -> Turn {
        let _waits = Waits::of(&self.waiting);
        Turn {
            _held: self.lock.clone().lock_owned().await,
            waiting: self.waiting.subscribe(),
        }
    }
}

/// One that waits, until it has its turn or goes away.
struct Waits<'a>(&'a watch::Sender<u32>);

impl<'a> Waits<'a> {
    fn of(waiting: &'a watch::Sender<u32>) -> Self {
        waiting.send_modify(|count| *count += 1);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Held by whoever changes a store.
struct Turn {
    _held: OwnedMutexGuard<()>,
    waiting: watch::Receiver<u32>,
}

impl Turn {
    /// Returns when somebody else wants it.
    async fn is_wanted(&self) {
        let mut waiting = self.waiting.clone();
        if waiting.wait_for(|count| *count > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A push that is being taken in. Dropped, nothing of it stays.
pub(crate) struct Receiving {
    store: PathBuf,
    incoming: Incoming,
    wanted: Vec<String>,
    known: Vec<String>,
    /// What stays when the store is looked through; empty: everything.
    needed: Vec<String>,
    child: Child,
    pack: Option<ChildStdin>,
    said: [JoinHandle<std::io::Result<String>>; 2],
    until: Instant,
    _group: Group,
    turn: Turn,
    _room: OwnedSemaphorePermit,
}

/// Where objects are before they are the store's.
struct Incoming(PathBuf);

impl Drop for Incoming {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || folder::remove(&path))),
            Err(_) => folder::remove(&path),
        }
    }
}

impl Stores {
    /// Those in a folder, which need not be there.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            room: Arc::new(Semaphore::new(AT_A_TIME)),
            turns: Arc::default(),
        }
    }

    /// Removes what pushes left that were under way when the agent was killed. Blocks on the disk.
    pub(crate) fn clean(&self) {
        let stores = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let inside = stores.flat_map(|store| fs::read_dir(store.path()).into_iter().flatten());
        for entry in inside.flatten() {
            if entry.file_name().to_string_lossy().starts_with(INCOMING) {
                folder::remove(&entry.path());
            }
        }
        for store in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            remove_half_written(&store.path());
        }
    }

    /// The services that have one. Blocks on the disk.
    pub(crate) fn services(&self) -> Vec<ServiceId> {
        let all = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let service = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(GIT)?.parse().ok()
        };
        all.filter_map(service).collect()
    }

    /// Removes the store of a service that is no more.
    pub(crate) async fn remove(&self, service: ServiceId) {
        let _turn = self.turn(service).await;
        let path = self.path(service);
        // A panic while removing leaves files, which the next session finds.
        let _ = tokio::task::spawn_blocking(move || folder::remove(&path)).await;
        self.turns.lock().remove(&service);
    }

    /// Where the store of a service is, or would be.
    pub(super) fn path(&self, service: ServiceId) -> PathBuf {
        self.folder.join(format!("{service}{GIT}"))
    }

    async fn turn(&self, service: ServiceId) -> Turn {
        let turns = self.turns.lock().entry(service).or_default().clone();
        turns.take().await
    }

    /// Begins to take in a push.
    ///
    /// # Errors
    /// The node does not hold what it builds on ([`NOT_HELD`]), has no room or no git.
    pub(crate) async fn begin(&self, order: &Order) -> Result<Receiving, Problem> {
        let room = self.room.clone().try_acquire_owned().map_err(|_| {
            let text = format!("{AT_A_TIME} pushes are coming in on this node already");
            Problem::new(Code::Busy, text).hint("push again in a minute")
        })?;
        let turn = self.turn(order.service).await;
        let store = self.path(order.service);
        ensure_store(&store).await?;
        ensure_room(&store, &order.needed).await?;
        let incoming = prepare(&store).await?;
        check_known(&store, &order.known).await?;
        let mut command = inside(&store, &incoming.0);
        command
            .args([
                "index-pack",
                "--stdin",
                "--fix-thin",
                "--strict",
                "--threads=1",
            ])
            .arg(format!("--max-input-size={MAX_PACK_BYTES}"))
            .stdin(Stdio::piped());
        let mut child = command.spawn().map_err(|error| cannot_run(&error))?;
        let said = [
            tokio::spawn(read_some(child.stdout.take())),
            tokio::spawn(read_some(child.stderr.take())),
        ];
        Ok(Receiving {
            store,
            incoming,
            wanted: order.wanted.clone(),
            known: order.known.clone(),
            needed: order.needed.clone(),
            pack: child.stdin.take(),
            _group: Group::of(&child),
            child,
            said,
            until: Instant::now() + LIMIT,
            turn,
            _room: room,
        })
    }
}

impl Receiving {
    /// The next part of the pack. False: git takes no more of it, and [`Receiving::finish`] says why.
    ///
    /// # Errors
    /// It takes too long.
    pub(crate) async fn write(&mut self, part: &Bytes) -> Result<bool, Problem> {
        let Some(pack) = &mut self.pack else {
            return Ok(false);
        };
        match timeout_at(self.until, pack.write_all(part)).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(_)) => {
                self.pack = None;
                Ok(false)
            }
            Err(_) => Err(too_slow()),
        }
    }

    /// All of the pack has come: it becomes the store's where everything that is wanted is there.
    ///
    /// # Errors
    /// The pack is broken, or something is missing: nothing of it stays.
    pub(crate) async fn finish(mut self) -> Result<(), Problem> {
        drop(self.pack.take());
        let until = self.until;
        let work = async {
            let status = self
                .child
                .wait()
                .await
                .map_err(|error| cannot_run(&error))?;
            let mut said = Vec::new();
            for words in &mut self.said {
                let words = words.await.ok().and_then(Result::ok);
                said.push(words.unwrap_or_default());
            }
            if !status.success() {
                return Err(refused(&last_words(&said[1])));
            }
            self.check_connected().await?;
            let (incoming, store) = (self.incoming.0.clone(), self.store.clone());
            blocking(move || {
                accept(&incoming, &store)?;
                folder::remove(&incoming);
                Ok(())
            })
            .await
        };
        timeout_at(until, work).await.map_err(|_| too_slow())??;
        let (store, turn) = (self.store.clone(), self.turn);
        let mut needed = self.needed;
        if !needed.is_empty() {
            needed.append(&mut self.wanted);
        }
        tokio::spawn(async move {
            tidy(&store, &needed, &turn).await;
            drop(turn);
        });
        Ok(())
    }

    /// Everything that is wanted is here, down to the last file.
    async fn check_connected(&self) -> Result<(), Problem> {
        let mut command = inside(&self.store, &self.incoming.0);
        command.args(["rev-list", "--objects", "--quiet", "--stdin"]);
        let known = self.known.iter().map(|commit| format!("^{commit}\n"));
        let wanted = self.wanted.iter().map(|commit| format!("{commit}\n"));
        let output = ask(command, known.chain(wanted).collect()).await?;
        match output.is_success {
            true => Ok(()),
            false => Err(refused(&last_words(&output.stderr))),
        }
    }
}

fn refused(why: &str) -> Problem {
    let text = format!("the push is not whole, or git finds fault with it: {why}");
    Problem::new(Code::SourceFailed, text)
        .hint("push again; `git fsck` looks at your own repository")
}

fn too_slow() -> Problem {
    let text = format!("the push was not here within {} min", LIMIT.as_secs() / 60);
    Problem::new(Code::Timeout, text).hint("push a part of the history first: an older commit")
}

fn disk(what: &str, error: &dyn std::error::Error) -> Problem {
    Problem::new(
        Code::Runtime,
        format!("the node cannot {what}: {}", chain(error)),
    )
}

/// The store, made where it is not there.
async fn ensure_store(store: &Path) -> Result<(), Problem> {
    let path = store.to_owned();
    blocking(move || {
        secret_file::ensure_private_dir(&path)
            .map_err(|error| disk("make a folder for pushes", &error))
    })
    .await?;
    if store.join("HEAD").exists() {
        return Ok(());
    }
    let mut command = plain();
    command
        .args([
            "init",
            "--quiet",
            "--bare",
            "--template=",
            "--object-format=sha1",
            "--",
        ])
        .arg(store);
    let made = ask(command, String::new()).await?;
    match made.is_success {
        true => Ok(()),
        false => {
            let text = format!("git cannot make a repository: {}", last_words(&made.stderr));
            Err(Problem::new(Code::Runtime, text))
        }
    }
}

/// A store that is full is looked through before a push is refused.
async fn ensure_room(store: &Path, needed: &[String]) -> Result<(), Problem> {
    if held_bytes(store).await <= STORE_MAX_BYTES {
        return Ok(());
    }
    if !needed.is_empty() {
        prune::prune(store, needed, std::future::pending()).await?;
    }
    let held = held_bytes(store).await;
    if held <= STORE_MAX_BYTES {
        return Ok(());
    }
    let text = format!("what was pushed takes {held} bytes, and {STORE_MAX_BYTES} are the most");
    Err(Problem::new(Code::TooLarge, text).hint(
        "remove branches and tags that nobody needs (`git push skep --delete NAME`), keep large files elsewhere",
    ))
}

async fn held_bytes(store: &Path) -> u64 {
    let packs = store.join("objects/pack");
    let counted = tokio::task::spawn_blocking(move || bytes_of(&packs));
    counted.await.unwrap_or_default()
}

/// A place in a store for what comes.
async fn prepare(store: &Path) -> Result<Incoming, Problem> {
    let path = store.to_owned();
    blocking(move || {
        let incoming = Incoming(path.join(format!("{INCOMING}{:032x}", random::new_id())));
        let info = incoming.0.join("info");
        let lent = format!("{}\n", path.join("objects").display());
        let made = fs::create_dir_all(incoming.0.join("pack"))
            .and_then(|()| fs::create_dir_all(&info))
            .and_then(|()| fs::write(info.join("alternates"), lent));
        made.map_err(|error| disk("make a folder for a push", &error))?;
        Ok(incoming)
    })
    .await
}

/// Without them the client would have to send everything.
async fn check_known(store: &Path, known: &[String]) -> Result<(), Problem> {
    match missing(store, known).await? {
        Some(commit) => Err(not_held(&commit)),
        None => Ok(()),
    }
}

/// The first of these commits that the store has not.
pub(super) async fn missing(store: &Path, commits: &[String]) -> Result<Option<String>, Problem> {
    if commits.is_empty() {
        return Ok(None);
    }
    if !store.join("HEAD").exists() {
        return Ok(commits.first().cloned());
    }
    let mut command = plain();
    command
        .arg("--git-dir")
        .arg(store)
        .args(["cat-file", "--batch-check=%(objectname) %(objecttype)"]);
    let names = commits.iter().map(|commit| format!("{commit}\n"));
    let output = ask(command, names.collect()).await?;
    let is_missing = |line: &&str| line.ends_with(" missing");
    let found = output.stdout.lines().find(is_missing);
    Ok(match (output.is_success, found) {
        (true, None) => None,
        (_, Some(line)) => line.split(' ').next().map(str::to_owned),
        (false, None) => commits.first().cloned(),
    })
}

/// The node was thought to hold it.
pub(super) fn not_held(commit: &str) -> Problem {
    let text = format!("this node does not hold commit {commit} any more");
    Problem::new(Code::Runtime, text)
        .at(NOT_HELD)
        .hint("push again: `git push skep`, which sends what is missing")
}

/// Git in a store, writing beside its objects.
fn inside(store: &Path, incoming: &Path) -> Command {
    let mut command = settled(store);
    command.env("GIT_OBJECT_DIRECTORY", incoming);
    command
}

/// Git in a store, with [`SETTINGS`].
fn settled(store: &Path) -> Command {
    let mut command = plain();
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.arg("--git-dir").arg(store);
    command
}

/// Runs git with these words as its input.
async fn ask(mut command: Command, words: String) -> Result<Output, Problem> {
    command.stdin(Stdio::piped());
    let work = async {
        let mut child = command.spawn()?;
        let _group = Group::of(&child);
        let input = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let say = async {
            if let Some(mut input) = input {
                // A git that stops reading says why.
                let _ = input.write_all(words.as_bytes()).await;
            }
        };
        let ((), stdout, stderr, status) =
            tokio::join!(say, read_some(stdout), read_some(stderr), child.wait());
        Ok(Output {
            is_success: status?.success(),
            stdout: stdout?,
            stderr: stderr?,
        })
    };
    let done = tokio::time::timeout(LIMIT, work).await;
    done.map_err(|_| too_slow())?
        .map_err(|error| cannot_run(&error))
}

/// Moves what came into the store; it is on the disk when this returns. The index of a pack is what makes it
/// visible, and comes last.
fn accept(incoming: &Path, store: &Path) -> Result<(), Problem> {
    let packs = store.join("objects/pack");
    let moved = || {
        fs::create_dir_all(&packs)?;
        let mut files: Vec<PathBuf> = fs::read_dir(incoming.join("pack"))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        files.sort_by_key(|path| path.extension().is_some_and(|it| it == "idx"));
        for file in &files {
            File::open(file)?.sync_all()?;
        }
        for file in &files {
            let name = file.file_name().unwrap_or_default();
            fs::rename(file, packs.join(name))?;
        }
        for folder in [packs.as_path(), &store.join("objects"), store] {
            File::open(folder)?.sync_all()?;
        }
        // The name of the store itself.
        store
            .parent()
            .map_or(Ok(()), |it| File::open(it)?.sync_all())
    };
    moved().map_err(|error: std::io::Error| disk("keep the push", &error))
}

fn files_of(packs: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(packs).into_iter().flatten().flatten()
}

fn bytes_of(packs: &Path) -> u64 {
    let size = |file: fs::DirEntry| file.metadata().map_or(0, |it| it.len());
    files_of(packs).map(size).sum()
}

fn remove_half_written(store: &Path) {
    for file in files_of(&store.join("objects/pack")) {
        let name = file.file_name();
        let name = name.to_string_lossy();
        if HALF_WRITTEN.iter().any(|it| name.starts_with(it))
            && let Err(error) = folder::clear(&file.path())
        {
            tracing::warn!(path = %file.path().display(), %error, "what git has not written to the end stays");
        }
    }
}

/// Has git write packs anew, which may take minutes, until `wanted`: then it is ended, what it had not written to the end
/// goes, and the packs that there were stay. None: so it was.
async fn repack(
    store: &Path,
    options: &[&str],
    wanted: impl Future<Output = ()>,
) -> Result<Option<Output>, Problem> {
    let mut command = settled(store);
    command.args(["repack", "-d", "-q"]).args(options);
    tokio::select! {
        output = ask(command, String::new()) => return output.map(Some),
        () = wanted => {}
    }
    let store = store.to_owned();
    blocking(move || {
        remove_half_written(&store);
        Ok(None)
    })
    .await
}

/// After a push: a store stays as small as what it holds allows, and its packs few. The next push does not wait for that:
/// it is begun anew after it.
async fn tidy(store: &Path, needed: &[String], turn: &Turn) {
    let path = store.to_owned();
    let is_due = tokio::task::spawn_blocking(move || prune::is_due(&path));
    if needed.is_empty() || !is_due.await.unwrap_or_default() {
        return put_together(store, turn).await;
    }
    if let Err(problem) = prune::prune(store, needed, turn.is_wanted()).await {
        tracing::warn!(%problem, "a store keeps what nothing needs");
    }
}

/// Packs of about the same size become one: all objects stay, whether anything leads to them or not.
async fn put_together(store: &Path, turn: &Turn) {
    let packs = store.join("objects/pack");
    let counted = tokio::task::spawn_blocking(move || {
        let is_pack = |file: &fs::DirEntry| file.path().extension().is_some_and(|it| it == "pack");
        files_of(&packs).filter(is_pack).count()
    });
    if counted.await.unwrap_or_default() <= PACKS_MAX {
        return;
    }
    match repack(store, &["--geometric=2"], turn.is_wanted()).await {
        Ok(None) => {}
        Ok(Some(output)) if output.is_success => {}
        Ok(Some(output)) => tracing::warn!(why = last_words(&output.stderr), "packs stay many"),
        Err(problem) => tracing::warn!(%problem, "packs stay many"),
    }
}

#[cfg(test)]
mod tests;
