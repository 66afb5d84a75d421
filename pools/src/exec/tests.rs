//! The decision as a table, the program's ways to go wrong one by one, and all of them together with a life of guests.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use skep_model::guest_pool::Size as PoolSize;
use skep_model::id::GuestId;
use skep_model::pool::Recipe;

use super::*;

const NOW: u64 = 1_000_000_000;

fn status(state: State) -> Status {
    Status {
        state,
        mac: Some("bc:24:11:00:00:01".to_owned()),
        uuid: None,
        address: None,
        why: None,
    }
}

fn guest(notes: &[Note]) -> Guest {
    let mut guest = Guest::planned(GuestId::from_u128(7));
    guest.take(Note::Asked {
        machine: None,
        address: None,
        now_ms: NOW,
    });
    for note in notes {
        guest.take(note.clone());
    }
    guest
}

fn known() -> Note {
    Note::Identified(status(State::Running).identity().expect("one"))
}

#[test]
fn what_is_done_follows_from_the_state_alone() {
    use State::{Absent, Busy, Running, Stopped};
    let made = |notes: &[Note]| guest(&[&[known()], notes].concat());
    let waits = |step: &Step| matches!(step, Step::Wait(_));
    let at = |guest: &Guest, state| next(guest, &status(state), NOW);

    let asked = guest(&[]);
    assert_eq!(at(&asked, Absent), Step::Ask(Ask::Clone));
    assert!(waits(&at(&asked, Busy)));
    assert_eq!(at(&asked, Running), Step::Record(known()));
    assert_eq!(at(&made(&[]), Stopped), Step::Ask(Ask::Clone));
    assert_eq!(at(&made(&[]), Running), Step::Record(Note::Started));
    let mut starting = made(&[Note::Started]);
    assert_eq!(at(&starting, Running), Step::Introduce);
    starting.take(Note::Introduced { now_ms: NOW });
    assert!(waits(&at(&starting, Running)));
    let address = "10.0.0.5".parse().ok();
    let found = Status {
        address,
        ..status(Running)
    };
    let note = Step::Record(Note::Found("10.0.0.5".parse().expect("one")));
    assert_eq!(next(&starting, &found, NOW), note);
    assert_eq!(
        next(&starting, &found, NOW + INTRODUCED_MS),
        Step::Introduce
    );
    assert_eq!(at(&made(&[Note::Joined]), Running), Step::Done);

    for gone in [made(&[]), made(&[Note::Joined]), made(&[Note::Leave])] {
        assert_eq!(at(&gone, Absent), Step::Record(Note::Gone));
    }
    assert_eq!(at(&made(&[Note::Leave]), Running), Step::Ask(Ask::Remove));
    assert_eq!(at(&guest(&[Note::Leave]), Running), Step::Record(known()));
    let never_seen = guest(&[Note::Leave]);
    assert!(waits(&at(&never_seen, Absent)));
    let late = next(&never_seen, &status(Absent), NOW + LOST_ANSWER_MS);
    assert_eq!(late, Step::Record(Note::Gone));
    // Another machine, or one that nothing proves, is not touched.
    for mac in [Some("bc:24:11:00:00:02".to_owned()), None] {
        for guest in [made(&[]), made(&[Note::Leave])] {
            let other = Status {
                mac: mac.clone(),
                ..status(Running)
            };
            assert!(waits(&next(&guest, &other, NOW)), "{mac:?}");
        }
    }
}

/// A program, where it is, and whose guests it gives.
struct Kept {
    program: Program,
    folder: PathBuf,
    pool: GuestPool,
}

impl Kept {
    fn exec(&self) -> Exec<'_> {
        Exec {
            program: &self.program,
            folder: Some(&self.folder),
            pool: &self.pool,
        }
    }
}

fn pool() -> GuestPool {
    GuestPool {
        name: "web".to_owned(),
        provider: "cloud".to_owned(),
        recipe: Recipe::sized(2, 4_096, 32),
        meta: BTreeMap::new(),
        size: PoolSize {
            min: 0,
            max: 3,
            wanted: 2,
            auto: None,
        },
        backups: None,
        fences: true,
        decided: None,
        seen: None,
        edition: 1,
        generation: 1,
        made_ms: 0,
    }
}

/// A program of these lines of shell, which finds its folder and what it is asked in `$1` and `$2`.
fn program(folder: &Path, lines: &str) -> Kept {
    let (path, scratch) = (folder.join("program"), folder.join("program.new"));
    let text = format!("#!/bin/sh\nset -- '{}' \"$@\"\n{lines}\n", folder.display());
    std::fs::write(&scratch, text).expect("written");
    std::fs::set_permissions(&scratch, std::fs::Permissions::from_mode(0o755)).expect("set");
    std::fs::rename(&scratch, &path).expect("moved");
    Kept {
        program: Program {
            file: "program".to_owned(),
            parameters: [("size".to_owned(), "s".to_owned())].into(),
            deadline_s: 1,
        },
        folder: folder.to_owned(),
        pool: pool(),
    }
}

#[tokio::test]
async fn each_way_to_go_wrong_is_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let asked = guest(&[]);
    for (lines, expected) in [
        ("echo '{\"state\":\"absent\"}'", Ok(State::Absent)),
        (
            "exit 75",
            Err("passing: `status` of the program asks for patience: it says not why"),
        ),
        (
            "echo no room >&2; exit 3",
            Err("refused: `status` of the program ended with 3: no room"),
        ),
        (
            "kill -9 $$",
            Err(
                "unknown: `status` of the program broke off (signal: 9 (SIGKILL)): it says not why",
            ),
        ),
        (
            "sleep 60",
            Err("unknown: `status` of the program took longer than 1 s, and was ended"),
        ),
        (
            "sleep 60 & echo '{}'",
            Err("unknown: `status` of the program took longer than 1 s, and was ended"),
        ),
        (
            "head -c 100000 /dev/zero",
            Err("refused: `status` of the program answered more than 65536 bytes"),
        ),
        (
            "echo running",
            Err(
                "refused: what the program says of the state cannot be read: expected value at line 1 column 1",
            ),
        ),
        (
            "echo '{\"state\":\"fine\"}'",
            Err(
                "refused: what the program says of the state cannot be read: unknown variant `fine`, expected one of `absent`, `busy`, `stopped`, `running` at line 1 column 15",
            ),
        ),
    ] {
        let kept = program(folder.path(), lines);
        let said = kept.exec().status(&asked).await;
        let said = said.map(|it| it.state).map_err(|trouble| match trouble {
            Trouble::Passing(text) => format!("passing: {text}"),
            Trouble::Refused(text) => format!("refused: {text}"),
            Trouble::Unknown(text) => format!("unknown: {text}"),
        });
        assert_eq!(said, expected.map_err(str::to_owned), "{lines}");
    }
    // It is looked at each time it is run.
    let mut kept = program(folder.path(), "echo '{\"state\":\"absent\"}'");
    kept.exec().status(&asked).await.expect("it is run");
    let path = folder.path().join("program");
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
    mode(0o777).expect("set");
    let text = kept.exec().status(&asked).await.expect_err("refused");
    assert!(matches!(&text, Trouble::Refused(_)), "{text:?}");
    assert!(
        text.to_string().contains("can be written by others"),
        "{text}"
    );
    mode(0o755).expect("set");
    kept.program.file = "../program".to_owned();
    let text = kept.exec().status(&asked).await.expect_err("refused");
    assert!(text.to_string().contains("is no name of a file"), "{text}");
    let nowhere = Exec {
        folder: None,
        ..kept.exec()
    };
    let text = nowhere.status(&asked).await.expect_err("refused");
    assert!(text.to_string().contains("--provider-programs"), "{text}");
}

/// What is cut off ends, and what it has started with it.
#[tokio::test]
async fn nobody_is_left_of_what_took_too_long() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = "sleep 61 & echo $! >\"$1/pid\"; wait";
    let kept = program(folder.path(), lines);
    let trouble = kept.exec().status(&guest(&[])).await;
    assert!(matches!(trouble, Err(Trouble::Unknown(_))), "{trouble:?}");
    let pid = std::fs::read_to_string(folder.path().join("pid")).expect("it began");
    let stat = format!("/proc/{}/stat", pid.trim());
    for _ in 0..100 {
        // It is gone, or waits to be buried.
        let state = std::fs::read_to_string(&stat).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{pid} goes on");
}

#[tokio::test]
async fn a_secret_is_told_on_standard_input_and_repeated_by_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = r#"
case "$2" in
status) echo '{"state":"running","mac":"bc:24:11:00:00:01"}' ;;
introduce) echo "$@" >"$1/arguments"; env >"$1/environment"; tee "$1/told" >&2; exit 4 ;;
esac"#;
    let kept = program(folder.path(), lines);
    let exec = kept.exec();
    let known = guest(&[known(), Note::Started]);
    let trouble = exec.introduce(&known, "SKEP_JOIN_TOKEN=hush").await;
    let trouble = format!("{:?}", trouble.expect_err("it ended with 4"));
    assert!(
        trouble.contains("ended with 4") && !trouble.contains("hush"),
        "{trouble}"
    );
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("written");
    assert!(!read("arguments").contains("hush") && !read("environment").contains("hush"));
    // Of the server's environment it has nothing: a token, a key or a URL of a database may be there.
    let environment = read("environment");
    let names: BTreeSet<&str> = environment
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    // The rest is the shell's own.
    let expected = ["LANG", "OLDPWD", "PATH", "PWD", "SHLVL", "_"];
    let odd: Vec<&&str> = names.iter().filter(|it| !expected.contains(it)).collect();
    assert!(odd.is_empty(), "{odd:?}");
    let told: serde_json::Value = serde_json::from_str(&read("told")).expect("JSON");
    assert_eq!(told["file"]["content"], "SKEP_JOIN_TOKEN=hush");
    assert_eq!(told["file"]["path"], "/etc/skep/agent.env");
    assert_eq!(told["name"], known.name());
    assert_eq!(told["parameters"]["size"], "s");
    assert_eq!(told["pool"], "web");
    let size = serde_json::json!({"cores": 2, "memory_mib": 4_096, "disk_gib": 32});
    assert_eq!(told["machine"], size);
    // It is told once, to the machine that it is for.
    let other = guest(&[Note::Identified(Identity {
        mac: "BC:24:11:00:00:09".to_owned(),
        smbios: None,
    })]);
    let turn = exec.introduce(&other, "SKEP_JOIN_TOKEN=hush2").await;
    assert!(matches!(turn, Ok(Turn::Wait(_))), "{turn:?}");
    assert!(!read("told").contains("hush2"));
}

/// A program that keeps its machines as files, and does what the file `fate` says, once.
const MACHINES: &str = r#"
folder=$1; verb=$2
input=$(cat)
id=$(printf %s "$input" | sed 's/.*"id":"\([^"]*\)".*/\1/')
fate=$(cat "$folder/fate"); echo fine >"$folder/fate"
machine="$folder/machines/$id"
echo "$verb $id" >>"$folder/calls"
case "$fate" in
later) exit 75 ;;
refuses) echo no >&2; exit 1 ;;
dies) kill -9 $$ ;;
garbage) echo '{"state":'; exit 0 ;;
esac
case "$verb" in
status)
  if [ ! -e "$machine" ]; then echo '{"state":"absent"}'; exit 0; fi
  mac=$(cat "$machine")
  if [ "$fate" = lies ]; then mac=ff:ff:ff:ff:ff:ff; fi
  echo "{\"state\":\"running\",\"mac\":\"$mac\",\"address\":\"10.0.0.5\"}" ;;
create)
  if [ ! -e "$machine" ]; then
    number=$(($(cat "$folder/made") + 1)); echo $number >"$folder/made"
    printf 'bc:24:11:00:00:%02x\n' $number >"$machine.new"; mv "$machine.new" "$machine"
  fi ;;
introduce) printf %s "$input" >"$folder/told/$id" ;;
remove) rm -f "$machine" ;;
esac
case "$fate" in
dies_after) kill -9 $$ ;;
hangs_after) sleep 60 ;;
esac"#;

struct Life {
    folder: tempfile::TempDir,
    kept: Kept,
    guests: BTreeMap<GuestId, Guest>,
    random: fastrand::Rng,
    now_ms: u64,
    seen: BTreeMap<&'static str, usize>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["machines", "told"] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
        }
        std::fs::write(folder.path().join("made"), "0").expect("written");
        Self {
            kept: program(folder.path(), MACHINES),
            folder,
            guests: BTreeMap::new(),
            random: fastrand::Rng::with_seed(seed),
            now_ms: NOW,
            seen: BTreeMap::new(),
        }
    }

    /// A lie about a machine that was never seen before is believed, and then nothing of it is touched any more: what proves
    /// it is what was said first. That is not what is looked at here.
    fn doom(&mut self, is_calm: bool, is_known: bool) {
        let fates = [
            "later",
            "refuses",
            "dies",
            "garbage",
            "lies",
            "dies_after",
            "dies_after",
            "hangs_after",
        ];
        let fate = match is_calm || self.random.bool() {
            true => "fine",
            false => fates[self.random.usize(..fates.len())],
        };
        let fate = if fate == "lies" && !is_known {
            "fine"
        } else {
            fate
        };
        *self.seen.entry(fate).or_insert(0) += 1;
        std::fs::write(self.folder.path().join("fate"), fate).expect("written");
    }

    async fn turn(&mut self, id: GuestId, is_calm: bool) {
        let is_known = self.guests[&id].identity.is_some();
        self.doom(is_calm, is_known);
        self.now_ms += 30_000;
        let guest = self.guests[&id].clone();
        let exec = self.kept.exec();
        let note = match exec.turn(&guest, &[], self.now_ms).await {
            Ok(Turn::Note(note)) => Some(note),
            Ok(Turn::Introduce) => {
                let now_ms = self.now_ms;
                // Killed after that is written down, once in a while.
                if is_calm || self.random.u32(..3) > 0 {
                    let text = format!("SKEP_NODE_NAME={}", guest.name());
                    let _ = exec.introduce(&guest, &text).await;
                }
                Some(Note::Introduced { now_ms })
            }
            Ok(_) | Err(_) => None,
        };
        // What was found out is lost, once in a while.
        let is_lost = !is_calm && self.random.u32(..5) == 0;
        if let (Some(note), false) = (note, is_lost) {
            self.guests.get_mut(&id).expect("known").take(note);
        }
        let told = self.folder.path().join("told").join(id.to_string());
        let guest = self.guests.get_mut(&id).expect("known");
        if guest.phase == Phase::Starting && told.exists() {
            let text = std::fs::read_to_string(told).expect("read");
            assert!(text.contains(&guest.name()), "told another's: {text}");
            guest.take(Note::Joined);
        }
    }

    fn machines(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("machines")).expect("there");
        let names = entries.map(|entry| entry.expect("one").file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }
}

#[tokio::test]
async fn guests_come_and_go_while_the_program_hangs_lies_and_dies() {
    let mut seen = BTreeMap::new();
    for seed in 0..3 {
        let mut life = Life::new(seed);
        for round in 0..60u128 {
            if round % 12 == 0 {
                let guest = Guest::planned(GuestId::from_u128(round + 1));
                life.guests.insert(guest.id, guest);
            }
            let ids: Vec<GuestId> = life.guests.keys().copied().collect();
            let id = ids[life.random.usize(..ids.len())];
            if life.random.u32(..15) == 0 {
                life.guests.get_mut(&id).expect("known").take(Note::Leave);
            }
            life.turn(id, false).await;
        }
        // Long enough for what was asked for and never seen.
        for _ in 0..40 {
            for id in life.guests.keys().copied().collect::<Vec<_>>() {
                // What is over asks nobody.
                if !matches!(life.guests[&id].phase, Phase::Ready | Phase::Gone) {
                    life.turn(id, true).await;
                }
            }
        }
        let there: Vec<String> = life.machines();
        for (id, guest) in &life.guests {
            let is_there = there.contains(&id.to_string());
            match guest.phase {
                Phase::Ready => assert!(is_there, "seed {seed}: {id} is not there"),
                Phase::Gone => assert!(!is_there, "seed {seed}: {id} was left"),
                phase => panic!("seed {seed}: {id} does not converge: {phase:?}"),
            }
        }
        for (fate, count) in life.seen {
            *seen.entry(fate).or_insert(0) += count;
        }
    }
    assert_eq!(seen.len(), 8, "not all went wrong: {seen:?}");
}
