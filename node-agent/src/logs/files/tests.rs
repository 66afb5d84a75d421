//! Docker's side played by a writer that turns its files over as the `json-file` driver does.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use skep_proto::v1::{LogLine, LogLost};
use tempfile::TempDir;

use super::record::{Joiner, parse};
use super::{Position, Spool, Step, Tail};

const FILES: usize = 3;

struct Docker {
    folder: TempDir,
    file: File,
    size_max: u64,
    next: u64,
}

impl Docker {
    fn new(size_max: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = create(&folder.path().join("c-json.log"));
        Self {
            folder,
            file,
            size_max,
            next: 1,
        }
    }

    fn spool(&self) -> Spool {
        let path = self.folder.path().join("c-json.log");
        Spool::new(path, (FILES, self.size_max))
    }

    fn file(&self, age: usize) -> PathBuf {
        self.spool().file(age)
    }

    /// One record; the files are turned over before it, where the newest is full.
    fn record(&mut self, text: &str, stream: &str) {
        if self.file.metadata().expect("there").len() >= self.size_max {
            let _ = std::fs::remove_file(self.file(FILES - 1));
            for age in (1..FILES - 1).rev() {
                let _ = std::fs::rename(self.file(age), self.file(age + 1));
            }
            std::fs::rename(self.file(0), self.file(1)).expect("renamed");
            self.file = create(&self.file(0));
        }
        let (seconds, nanos) = (self.next / 1_000, self.next % 1_000);
        self.next += 1;
        let record = serde_json::json!({
            "log": text,
            "stream": stream,
            "time": format!("2026-01-02T03:{:02}:{:02}.{nanos:03}Z", seconds / 60, seconds % 60),
        });
        writeln!(self.file, "{record}").expect("written");
    }

    fn lines(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.record(&format!("line {number}\n"), "stdout");
        }
    }
}

fn create(path: &std::path::Path) -> File {
    let mut options = OpenOptions::new();
    options.create(true).append(true).open(path).expect("made")
}

fn drain(tail: &mut Tail, turns: u64, budget: u64) -> Vec<LogLine> {
    let mut lines = Vec::new();
    while tail
        .read(turns, budget, &mut |line| lines.push(line))
        .expect("read")
        == Step::More
    {}
    lines
}

fn numbers(lines: &[LogLine]) -> Vec<u64> {
    let number = |line: &LogLine| line.text.strip_prefix("line ")?.parse().ok();
    lines.iter().filter_map(number).collect()
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn every_line_once_over_turns_and_over_readers() {
    let mut docker = Docker::new(2_000);
    let mut got = Vec::new();
    let mut position = Position::default();
    let mut written = 0;
    for round in 0..60_u64 {
        // Never more between two looks than what is kept.
        let more = (round * 7) % 23;
        docker.lines(written + 1..written + more + 1);
        written += more;
        let mut tail = Tail::open(docker.spool(), 0).expect("opened");
        tail.resume(position);
        if round % 3 == 0 {
            // One that dies halfway: what it had not come to is read by the next.
            tail.read(0, 500, &mut |line| got.push(line)).expect("read");
        } else {
            got.extend(drain(&mut tail, 0, 300));
        }
        position = tail.position();
    }
    let mut tail = Tail::open(docker.spool(), 0).expect("opened");
    tail.resume(position);
    got.extend(drain(&mut tail, 0, 1 << 20));
    assert_eq!(numbers(&got), (1..=written).collect::<Vec<_>>());
    assert!(got.iter().all(|line| line.lost.is_none()));
    assert!(got.windows(2).all(|pair| pair[0].at_ns < pair[1].at_ns));
}

#[test]
fn a_reader_that_is_overtaken_says_how_much_is_missing() {
    let mut docker = Docker::new(1_000);
    let mut tail = Tail::open(docker.spool(), 0).expect("opened");
    docker.lines(1..4);
    assert_eq!(numbers(&drain(&mut tail, 0, 1 << 20)), [1, 2, 3]);
    // It holds the files from line 1 on; two more turns, and the oldest of them goes unread.
    docker.lines(4..20);
    tail.read(1, 0, &mut |_| ()).expect("read");
    docker.lines(20..60);
    let lines = drain(&mut tail, 4, 1 << 20);
    let at = lines
        .iter()
        .position(|line| line.lost.is_some())
        .expect("said");
    let lost = lines[at].lost.expect("said");
    assert!(lost.bytes >= 500, "{lost:?}");
    assert!(lines[at].text.contains("missing"), "{}", lines[at].text);
    let seen = numbers(&lines);
    assert_eq!(seen.last(), Some(&59));
    assert!(
        seen.windows(2)
            .filter(|pair| pair[0] + 1 != pair[1])
            .count()
            <= 1
    );
    // Nothing is missing behind it.
    assert_eq!(drain(&mut tail, 4, 1 << 20), vec![]);
}

#[test]
fn files_that_nobody_saw_are_counted_by_their_turns() {
    let mut docker = Docker::new(1_000);
    let mut tail = Tail::open(docker.spool(), 0).expect("opened");
    docker.lines(1..2);
    assert_eq!(drain(&mut tail, 0, 1 << 20).len(), 1);
    docker.lines(2..1_000);
    let lines = drain(&mut tail, 60, 1 << 20);
    let lost = lines[0].lost.expect("said first");
    assert!(lost.at_least && lost.bytes >= 50_000, "{lost:?}");
    assert_eq!(numbers(&lines).last(), Some(&999));
}

#[test]
fn a_position_in_a_file_that_is_gone_says_that_something_is_missing() {
    let mut docker = Docker::new(1_000);
    docker.lines(1..3);
    let mut tail = Tail::open(docker.spool(), 0).expect("opened");
    drain(&mut tail, 0, 1 << 20);
    let position = tail.position();
    drop(tail);
    docker.lines(3..200);
    let mut tail = Tail::open(docker.spool(), 0).expect("opened");
    tail.resume(position);
    let lines = drain(&mut tail, 0, 1 << 20);
    let unknown = LogLost {
        bytes: 0,
        at_least: true,
    };
    assert_eq!(lines[0].lost, Some(unknown));
    assert!(lines[0].at_ns > position.last_ns);
    assert_eq!(numbers(&lines).last(), Some(&199));
}

#[test]
fn parts_of_long_lines_are_joined_for_each_stream_and_never_cut_by_a_resumption() {
    let mut docker = Docker::new(1 << 20);
    docker.record("a1 ", "stdout");
    docker.record("b1 ", "stderr");
    docker.record("a2\r\n", "stdout");
    let mut tail = Tail::open(docker.spool(), 0).expect("opened");
    let first = drain(&mut tail, 0, 1 << 20);
    assert_eq!(texts(&first), ["a1 a2"]);
    // Of `b` only a part was there: whoever goes on from here reads it again.
    let mut other = Tail::open(docker.spool(), 0).expect("opened");
    other.resume(tail.position());
    docker.record("b2\n", "stderr");
    assert_eq!(texts(&drain(&mut tail, 0, 1 << 20)), ["b1 b2"]);
    assert_eq!(texts(&drain(&mut other, 0, 1 << 20)), ["a1 a2", "b1 b2"]);
    docker.record("no line break", "stdout");
    assert_eq!(drain(&mut tail, 0, 1 << 20), vec![]);
    let mut rest = Vec::new();
    tail.rest(&mut |line| rest.push(line));
    assert_eq!(texts(&rest), ["no line break"]);
}

#[test]
fn a_line_has_a_longest_length() {
    let mut joiner = Joiner::default();
    let part = "ä".repeat(8 << 10);
    for _ in 0..9 {
        let record =
            format!(r#"{{"log":"{part}","stream":"stdout","time":"2026-01-02T03:04:05Z"}}"#);
        assert_eq!(joiner.take(&parse(record.as_bytes()).expect("read")), None);
    }
    let end = br#"{"log":"end\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}"#;
    let line = joiner.take(&parse(end).expect("read")).expect("whole");
    assert_eq!(line.len(), 64 << 10);
}

#[test]
fn damage_is_counted_and_read_over() {
    let mut docker = Docker::new(1 << 20);
    docker.lines(1..2);
    docker.file.write_all(b"\0\0\0\0 torn\n").expect("written");
    docker.lines(2..3);
    let mut tail = Tail::open(docker.spool(), 0).expect("opened");
    let lines = drain(&mut tail, 0, 1 << 20);
    assert_eq!(numbers(&lines), [1, 2]);
    let torn = LogLost {
        bytes: 10,
        at_least: false,
    };
    assert_eq!(lines[1].lost, Some(torn));
}

#[test]
fn a_time_and_the_end_are_found_without_reading_all() {
    let mut docker = Docker::new(300_000);
    docker.lines(1..10_000);
    let mut whole = Tail::open(docker.spool(), 0).expect("opened");
    let all = drain(&mut whole, 0, 1 << 20);
    for at in [1, 700, 3_000, 5_000, all.len() - 2] {
        let mut tail = Tail::open(docker.spool(), 0).expect("opened");
        tail.seek_time(all[at].at_ns).expect("found");
        let mut rest = drain(&mut tail, 0, 1 << 20);
        rest.retain(|line| line.at_ns > all[at].at_ns);
        assert_eq!(rest.first(), all.get(at + 1), "{at}");
        assert_eq!(rest.len(), all.len() - at - 1);
    }
    let mut tail = Tail::open(docker.spool(), 0).expect("opened");
    assert!(tail.seek_end(10_000).expect("found"));
    let end = drain(&mut tail, 0, 1 << 20);
    assert!(end.len() > 50 && end.len() < 200, "{}", end.len());
    assert_eq!(end[..], all[all.len() - end.len()..]);
}

#[test]
fn what_is_held_is_read_to_its_end_when_the_folder_goes() {
    let mut docker = Docker::new(1_000);
    docker.lines(1..25);
    let mut tail = Tail::open(docker.spool(), 0).expect("opened");
    std::fs::remove_dir_all(docker.folder.path()).expect("removed");
    let mut lines = Vec::new();
    let step = tail.read(0, 1 << 20, &mut |line| lines.push(line));
    assert_eq!(step.expect("read"), Step::Gone);
    assert_eq!(numbers(&lines), (1..25).collect::<Vec<_>>());
}

#[test]
fn who_wants_all_is_told_where_the_oldest_may_have_gone_unseen() {
    let mut docker = Docker::new(1_000);
    docker.lines(1..2);
    let all_of = |docker: &Docker| {
        let mut tail = Tail::open(docker.spool(), 0).expect("opened");
        tail.want_all();
        drain(&mut tail, 0, 1 << 20)
    };
    assert_eq!(numbers(&all_of(&docker)), [1], "nothing was turned away");
    assert_eq!(all_of(&docker).len(), 1);
    docker.lines(2..200);
    let lines = all_of(&docker);
    let unknown = LogLost {
        bytes: 0,
        at_least: true,
    };
    assert_eq!(lines[0].lost, Some(unknown));
    assert!(lines[0].at_ns < lines[1].at_ns && lines[0].at_ns > 1_000_000_000);
    assert_eq!(numbers(&lines).last(), Some(&199));

    // Seen right while they are turned over: the oldest is away, and the newest is still full.
    while docker.file.metadata().expect("there").len() < docker.size_max {
        docker.record("line 0\n", "stdout");
    }
    let kept = std::fs::read(docker.file(FILES - 1)).expect("read");
    std::fs::remove_file(docker.file(FILES - 1)).expect("removed");
    assert_eq!(all_of(&docker)[0].lost, Some(unknown));
    std::fs::write(docker.file(FILES - 1), kept).expect("written");
    let lines = all_of(&docker);

    // The same after a time before all that is left; not after one within it.
    let (first_ns, later_ns) = (lines[1].at_ns, lines[9].at_ns);
    for (after_ns, is_said) in [(first_ns - 5, true), (first_ns, false), (later_ns, false)] {
        let mut tail = Tail::open(docker.spool(), 0).expect("opened");
        tail.seek_time(after_ns).expect("found");
        let mut rest = drain(&mut tail, 0, 1 << 20);
        rest.retain(|line| line.at_ns > after_ns);
        let marks = rest.iter().filter(|line| line.lost.is_some()).count();
        assert_eq!(marks, usize::from(is_said), "{after_ns}");
    }
}
