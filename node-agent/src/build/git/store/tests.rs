//! Against real repositories: packs as git makes them for a push.

use std::process::Command as Program;

use super::super::tests::Repository;
use super::super::{Commit, from_store};
use super::*;
use skep_model::id::DeploymentId;
use tokio::sync::mpsc;

use super::super::super::folder::WorkFolder;

const SERVICE: ServiceId = ServiceId::from_u128(7);

struct World {
    repository: Repository,
    dir: tempfile::TempDir,
    stores: Stores,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        Self {
            repository: Repository::new(),
            stores: Stores::new(dir.path().join("pushed")),
            dir,
        }
    }

    /// What git sends for these commits where the other side has those.
    fn pack(&self, wanted: &[&str], known: &[&str]) -> Vec<u8> {
        let mut words: Vec<String> = wanted.iter().map(|it| format!("{it}\n")).collect();
        words.extend(known.iter().map(|it| format!("^{it}\n")));
        let list = self.dir.path().join("list");
        std::fs::write(&list, words.concat()).expect("written");
        let output = Program::new("git")
            .current_dir(self.repository.path("work"))
            .args([
                "pack-objects",
                "--revs",
                "--stdout",
                "--thin",
                "--delta-base-offset",
                "-q",
            ])
            .stdin(File::open(&list).expect("there"))
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    async fn take(&self, wanted: &[&str], known: &[&str], pack: &[u8]) -> Result<(), Problem> {
        let all = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        let order = Order {
            service: SERVICE,
            known: all(known),
            wanted: all(wanted),
            needed: Vec::new(),
        };
        let mut receiving = self.stores.begin(&order).await?;
        for part in pack.chunks(1_000) {
            if !receiving.write(&Bytes::copy_from_slice(part)).await? {
                break;
            }
        }
        receiving.finish().await
    }

    async fn built(&self, commit: &str, directory: &str) -> Result<Vec<String>, Problem> {
        let work = WorkFolder::create(self.dir.path(), DeploymentId::from_u128(1)).await?;
        let (lines, _told) = mpsc::channel(64);
        let wanted = Commit {
            service: SERVICE,
            branch: "main",
            commit,
            directory,
        };
        let fetched = from_store((&self.stores, &wanted), &work, &lines).await?;
        let names = std::fs::read_dir(&fetched.folder)
            .expect("folder")
            .flatten();
        let mut names: Vec<String> = names
            .map(|it| it.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Names of what is in the store beside git's own, and how many packs it has.
    fn left(&self) -> (Vec<String>, usize) {
        let store = self.stores.path(SERVICE);
        let all = std::fs::read_dir(&store).into_iter().flatten().flatten();
        let names = all.map(|it| it.file_name().to_string_lossy().into_owned());
        let incoming = names.filter(|it| it.starts_with(INCOMING)).collect();
        let is_pack = |it: &fs::DirEntry| it.path().extension().is_some_and(|it| it == "pack");
        let packs = files_of(&store.join("objects/pack"))
            .filter(is_pack)
            .count();
        (incoming, packs)
    }
}

#[tokio::test]
async fn what_is_pushed_is_built_and_a_change_sends_only_what_is_new() {
    let world = World::new();
    let first = world.repository.git("work", &["rev-parse", "main"]);
    let whole = world.pack(&[&first], &[]);
    world.take(&[&first], &[], &whole).await.expect("taken");
    assert_eq!(
        world.built(&first, "").await.expect("built"),
        ["second", "web"]
    );
    assert_eq!(
        world.built(&first, "web").await.expect("built"),
        ["Dockerfile"]
    );
    world
        .repository
        .git("work", &["checkout", "--quiet", "main"]);
    world.repository.commit("four", "web/Dockerfile");
    let second = world.repository.git("work", &["rev-parse", "main"]);
    let thin = world.pack(&[&second], &[&first]);
    assert!(thin.len() < whole.len(), "{} {}", thin.len(), whole.len());
    world
        .take(&[&second], &[&first], &thin)
        .await
        .expect("taken");
    assert_eq!(
        world.built(&second, "").await.expect("built"),
        ["second", "web"]
    );
    // A branch at a commit that is there: git sends a pack of nothing.
    let nothing = world.pack(&[&first], &[&first]);
    world
        .take(&[&first], &[&second], &nothing)
        .await
        .expect("taken");
    assert_eq!(world.left().0, [""; 0]);
    let no_folder = world.built(&second, "api").await.expect_err("none");
    assert_eq!(no_folder.field.as_deref(), Some("directory"));
}

#[tokio::test]
async fn what_is_not_whole_leaves_nothing() {
    let world = World::new();
    let main = world.repository.git("work", &["rev-parse", "main"]);
    let dev = world.repository.git("work", &["rev-parse", "dev"]);
    let whole = world.pack(&[&main], &[]);
    let thin = world.pack(&[&dev], &[&main]);
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    for (what, wanted, pack) in [
        ("cut", &main, &whole[..whole.len() - 30]),
        ("nothing", &main, &[]),
        ("damaged", &main, &damaged),
        ("no pack", &main, b"GET / HTTP/1.1".as_slice()),
        // Whole, and built on what nobody has.
        ("thin", &dev, &thin),
        // Whole, and something else.
        ("another", &dev, &whole),
    ] {
        let refused = world.take(&[wanted], &[], pack).await.expect_err(what);
        assert_eq!(refused.code, Code::SourceFailed, "{what}: {refused}");
        assert_eq!(world.left().1, 0, "{what}");
        let problem = world.built(wanted, "").await.expect_err(what);
        assert_eq!(problem.field.as_deref(), Some(NOT_HELD), "{what}");
    }
}

#[tokio::test]
async fn a_push_on_what_is_not_here_is_refused_before_anything_is_sent() {
    let world = World::new();
    let main = world.repository.git("work", &["rev-parse", "main"]);
    let order = Order {
        service: SERVICE,
        known: vec![main.clone()],
        wanted: vec![main],
        needed: Vec::new(),
    };
    let problem = world.stores.begin(&order).await.err().expect("refused");
    assert_eq!(problem.field.as_deref(), Some(NOT_HELD));
    assert!(problem.hint.expect("advice").contains("push again"));
}

#[tokio::test]
async fn what_was_under_way_when_the_agent_died_is_cleared_and_a_store_goes_with_its_service() {
    let world = World::new();
    let main = world.repository.git("work", &["rev-parse", "main"]);
    let whole = world.pack(&[&main], &[]);
    world.take(&[&main], &[], &whole).await.expect("taken");
    let left = world.stores.path(SERVICE).join("incoming-1");
    std::fs::create_dir_all(left.join("pack")).expect("made");
    let half = world.stores.path(SERVICE).join("objects/pack/tmp_pack_x");
    std::fs::write(&half, "PACK").expect("written");
    world.stores.clean();
    assert!(!left.exists() && !half.exists());
    assert_eq!(world.stores.services(), [SERVICE]);
    world.built(&main, "").await.expect("still there");
    world.stores.remove(SERVICE).await;
    assert_eq!(world.stores.services(), []);
}

#[tokio::test]
async fn many_packs_are_put_together_and_all_of_them_stays() {
    let world = World::new();
    world
        .repository
        .git("work", &["checkout", "--quiet", "main"]);
    let mut before: Option<String> = None;
    let mut all = Vec::new();
    for number in 0..PACKS_MAX + 2 {
        world
            .repository
            .commit(&format!("change {number}"), "second");
        let commit = world.repository.git("work", &["rev-parse", "main"]);
        let known: Vec<&str> = before.iter().map(String::as_str).collect();
        let pack = world.pack(&[&commit], &known);
        world.take(&[&commit], &known, &pack).await.expect("taken");
        all.push(commit.clone());
        before = Some(commit);
    }
    // As whoever has time: a push would not wait for it.
    let turns = world.stores.turns.lock()[&SERVICE].clone();
    drop(turns.lock.lock().await);
    assert!(world.left().1 < PACKS_MAX / 2, "{:?}", world.left());
    for commit in [&all[0], &all[20], &all[PACKS_MAX + 1]] {
        world.built(commit, "").await.expect("all objects stay");
    }
}

#[tokio::test]
async fn what_was_pushed_over_goes_and_what_is_needed_stays() {
    let world = World::new();
    let first = world.repository.git("work", &["rev-parse", "main"]);
    let whole = world.pack(&[&first], &[]);
    world.take(&[&first], &[], &whole).await.expect("taken");
    let mut tips = Vec::new();
    for branch in ["left", "right"] {
        let made = ["checkout", "--quiet", "-b", branch, "main"];
        world.repository.git("work", &made);
        world.repository.commit(branch, branch);
        let tip = world.repository.git("work", &["rev-parse", branch]);
        let pack = world.pack(&[&tip], &[&first]);
        world.take(&[&tip], &[&first], &pack).await.expect("taken");
        tips.push(tip);
    }
    let store = world.stores.path(SERVICE);
    let absent = "0123456789".repeat(4);
    // Twice, of which the second knows what the first did not.
    for needed in [&tips, &tips[..1].to_vec()] {
        let needed = [needed.as_slice(), std::slice::from_ref(&absent)].concat();
        let done = prune::prune(&store, &needed, std::future::pending()).await;
        done.expect("pruned");
        assert_eq!(world.left().1, 1, "one pack");
        for tip in &tips {
            let built = world.built(tip, "").await;
            assert_eq!(built.is_ok(), needed.contains(tip), "{tip} {built:?}");
        }
    }
    // What is left is a store as before: pushes build on it.
    world
        .repository
        .git("work", &["checkout", "--quiet", "left"]);
    world.repository.commit("more", "left");
    let next = world.repository.git("work", &["rev-parse", "left"]);
    let pack = world.pack(&[&next], &[&tips[0]]);
    world
        .take(&[&next], &[&tips[0]], &pack)
        .await
        .expect("taken");
    world.built(&next, "").await.expect("built");
}

#[tokio::test]
async fn submodules_of_other_stores_are_out_of_reach() {
    let world = World::new();
    world
        .repository
        .git("work", &["checkout", "--quiet", "main"]);
    for address in ["../other.git", "/var/lib/other.git"] {
        let text = format!("[submodule \"x\"]\n\tpath = x\n\turl = {address}\n");
        std::fs::write(world.repository.path("work").join(".gitmodules"), text).expect("written");
        let tip = world.repository.git("work", &["rev-parse", "HEAD"]);
        let link = format!("160000,{tip},x");
        world
            .repository
            .git("work", &["update-index", "--add", "--cacheinfo", &link]);
        world.repository.git("work", &["add", ".gitmodules"]);
        world
            .repository
            .git("work", &["commit", "--quiet", "-m", "submodule"]);
        let commit = world.repository.git("work", &["rev-parse", "HEAD"]);
        let pack = world.pack(&[&commit], &[]);
        world.take(&[&commit], &[], &pack).await.expect("taken");
        let work = WorkFolder::create(world.dir.path(), DeploymentId::from_u128(1));
        let work = work.await.expect("folder");
        let (lines, _told) = mpsc::channel(64);
        let wanted = Commit {
            service: SERVICE,
            branch: "main",
            commit: &commit,
            directory: "",
        };
        let fetched = from_store((&world.stores, &wanted), &work, &lines).await;
        let wished = skep_model::build::Fetch {
            submodules: true,
            ..Default::default()
        };
        let refused = fetched.expect("there").complete(&wished, &lines).await;
        let refused = refused.expect_err(address);
        assert!(refused.message.contains(address), "{refused}");
    }
}

/// A push that came while packs were put together was refused after 15 s.
#[tokio::test]
async fn tidying_makes_room_for_the_next_push_and_leaves_nothing_half_written() {
    let world = World::new();
    let first = world.repository.git("work", &["rev-parse", "main"]);
    let whole = world.pack(&[&first], &[]);
    world.take(&[&first], &[], &whole).await.expect("taken");
    let turn = world.stores.turn(SERVICE).await;
    let soon = Duration::from_millis(20);
    let none = tokio::time::timeout(soon, turn.is_wanted()).await;
    assert!(none.is_err(), "nobody waits");
    let gone = tokio::time::timeout(soon, world.stores.turn(SERVICE)).await;
    assert!(gone.is_err(), "it is held");
    let none = tokio::time::timeout(soon, turn.is_wanted()).await;
    assert!(none.is_err(), "whoever waited went away");

    let stores = world.stores.clone();
    let next = tokio::spawn(async move { stores.turn(SERVICE).await });
    let store = world.stores.path(SERVICE);
    turn.is_wanted().await;
    let half = store.join("objects/pack/.tmp-1-pack-x.pack");
    std::fs::write(&half, "PACK").expect("written");
    let done = repack(&store, &["--geometric=2"], turn.is_wanted()).await;
    assert!(done.expect("ended").is_none(), "it was done all the same");
    assert!(!half.exists());
    drop(turn);
    let turn = next.await.expect("runs");
    let done = repack(&store, &["--geometric=2"], turn.is_wanted()).await;
    assert!(done.expect("ended").is_some_and(|it| it.is_success));
    drop(turn);
    assert!(world.built(&first, "").await.is_ok());
    assert_eq!(world.left(), (Vec::new(), 1));
}
