//! Git's smart HTTP for `receive-pack`, as far as a push needs it: what is advertised, the commands before the pack,
//! and the report. Bytes in and out, nothing else. Sources: gitprotocol-http(5), gitprotocol-pack(5).

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use gix_packetline::blocking_io::encode::{band_to_write, flush_to_write, text_to_write};
use gix_packetline::decode::{Stream, streaming};
use gix_packetline::{Channel, PacketLineRef};
use skep_model::problem::{Code, Problem};
use skep_model::pushed::{MAX_UPDATES, Update, check_commit, check_reference};

/// What git asks for, and what it posts.
pub(crate) const SERVICE: &str = "git-receive-pack";
/// What stands for a reference that is not there.
const NOTHING: &str = "0000000000000000000000000000000000000000";
/// What is understood. The agent's name is added.
const CAPABILITIES: &str =
    "report-status delete-refs ofs-delta side-band-64k quiet object-format=sha1";
/// Bytes of all commands of a push: names of their longest.
pub(crate) const MAX_COMMANDS_BYTES: usize = MAX_UPDATES * 512;
/// Data of one packet of a side band: less than its format allows.
const BAND_BYTES: usize = 60_000;

/// What comes before the pack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Commands {
    /// The references that are to move. None: git only looks whether it may come in.
    pub(crate) updates: Vec<Update>,
    /// Whether the report goes through a side band.
    pub(crate) has_band: bool,
}

impl Commands {
    /// Whether a pack comes.
    pub(crate) fn has_pack(&self) -> bool {
        self.updates.iter().any(|update| update.new.is_some())
    }
}

/// What there is: the answer to git's first question.
pub(crate) fn advertisement(references: &BTreeMap<&str, &str>) -> Vec<u8> {
    let mut out = Vec::new();
    let agent = concat!("agent=skep/", env!("CARGO_PKG_VERSION"));
    put(text_to_write(
        format!("# service={SERVICE}").as_bytes(),
        &mut out,
    ));
    put(flush_to_write(&mut out));
    let mut capabilities = format!("\0{CAPABILITIES} {agent}");
    let none = [("capabilities^{}", NOTHING)];
    let is_empty = references.is_empty();
    let all = references.iter().map(|(name, commit)| (*name, *commit));
    for (name, commit) in all.chain(none.into_iter().filter(|_| is_empty)) {
        let line = format!("{commit} {name}{}", std::mem::take(&mut capabilities));
        put(text_to_write(line.as_bytes(), &mut out));
    }
    put(flush_to_write(&mut out));
    out
}

/// The commands, once all of them have come; what is left of `read` is the pack's.
///
/// # Errors
/// They are not git's, or not accepted.
pub(crate) fn commands(read: &mut BytesMut) -> Result<Option<Commands>, Problem> {
    let mut commands = Commands::default();
    let mut at = 0;
    loop {
        let found = streaming(&read[at..]).map_err(|error| odd(error.to_string()))?;
        let Stream::Complete {
            line,
            bytes_consumed,
        } = found
        else {
            return match read.len() > MAX_COMMANDS_BYTES {
                true => Err(too_many()),
                false => Ok(None),
            };
        };
        at += bytes_consumed;
        match line {
            PacketLineRef::Flush => break,
            PacketLineRef::Data(data) => {
                let is_first = commands.updates.is_empty();
                let update = command(data, is_first.then_some(&mut commands.has_band))?;
                commands.updates.push(update);
                if commands.updates.len() > MAX_UPDATES {
                    return Err(too_many());
                }
            }
            _ => return Err(odd("a packet of another protocol".to_owned())),
        }
    }
    let _ = read.split_to(at);
    let mut names: Vec<&str> = commands.updates.iter().map(|it| it.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(odd(format!("`{}` is named twice", pair[0]))),
        None => Ok(Some(commands)),
    }
}

/// `OLD NEW NAME`, in the first line with what the client understands behind a NUL.
fn command(data: &[u8], first: Option<&mut bool>) -> Result<Update, Problem> {
    let text = std::str::from_utf8(data).map_err(|error| odd(error.to_string()))?;
    let text = text.trim_end_matches('\n');
    let (text, capabilities) = text.split_once('\0').unwrap_or((text, ""));
    if let Some(has_band) = first {
        *has_band = capabilities.split(' ').any(|it| it == "side-band-64k");
    }
    if text.starts_with("shallow ") {
        let text = "a part of a history cannot be pushed here";
        return Err(Problem::new(Code::Invalid, text)
            .hint("`git fetch --unshallow` brings the rest of it, from where you cloned"));
    }
    let mut words = text.splitn(3, ' ');
    let (Some(old), Some(new), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err(odd("a command is not whole".to_owned()));
    };
    check_reference("ref", name)?;
    let commit = |text: &str| match text {
        NOTHING => Ok(None),
        text => check_commit("commit", text).map(|()| Some(text.to_owned())),
    };
    let (old, new) = (commit(old)?, commit(new)?);
    if old.is_none() && new.is_none() {
        return Err(odd(format!("`{name}` neither comes nor goes")));
    }
    Ok(Update {
        name: name.to_owned(),
        old,
        new,
    })
}

fn odd(why: String) -> Problem {
    Problem::new(Code::Invalid, format!("this is no push of git's: {why}"))
        .hint("use git 2.0 or newer")
}

fn too_many() -> Problem {
    let text = format!("more than {MAX_UPDATES} branches and tags in one push");
    Problem::new(Code::TooLarge, text).hint("push some of them at a time")
}

/// What came of a push, for git and for a person: all of it, or why nothing.
pub(crate) fn report(commands: &Commands, outcome: &Result<Vec<String>, Problem>) -> Bytes {
    let mut said = Vec::new();
    let unpacked = match outcome {
        // Git shows this word, and goes on to the reason beside each reference.
        Ok(_) => "unpack ok".to_owned(),
        Err(problem) => format!("unpack {}", one_line(&problem.message)),
    };
    put(text_to_write(unpacked.as_bytes(), &mut said));
    for update in &commands.updates {
        let line = match outcome {
            Ok(_) => format!("ok {}", update.name),
            Err(problem) => format!("ng {} {}", update.name, one_line(&problem.message)),
        };
        put(text_to_write(line.as_bytes(), &mut said));
    }
    put(flush_to_write(&mut said));
    if !commands.has_band {
        return said.into();
    }
    let mut out = Vec::new();
    let told: Vec<String> = match outcome {
        Ok(told) => told.clone(),
        Err(problem) => problem.hint.iter().cloned().collect(),
    };
    for line in told {
        let line = format!("{}\n", one_line(&line));
        put(band_to_write(Channel::Progress, line.as_bytes(), &mut out));
    }
    for part in said.chunks(BAND_BYTES) {
        put(band_to_write(Channel::Data, part, &mut out));
    }
    put(flush_to_write(&mut out));
    out.into()
}

/// What a terminal may be shown of it.
fn one_line(text: &str) -> String {
    let text: String = text.chars().take(1_000).collect();
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// What is written to memory.
fn put<T, E: std::fmt::Debug>(written: Result<T, E>) {
    written.expect("memory takes it, and no packet is longer than the format allows");
}

#[cfg(test)]
mod tests {
    use gix_packetline::blocking_io::encode::data_to_write;
    use proptest::prelude::*;

    use super::*;

    fn id(letter: char) -> String {
        letter.to_string().repeat(40)
    }

    fn line(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        data_to_write(text.as_bytes(), &mut out).expect("written");
        out
    }

    fn sent(lines: &[&str], pack: &[u8]) -> BytesMut {
        let mut all: Vec<u8> = lines.iter().flat_map(|text| line(text)).collect();
        all.extend_from_slice(b"0000");
        all.extend_from_slice(pack);
        BytesMut::from(&all[..])
    }

    #[test]
    fn what_is_advertised_is_what_git_reads() {
        let none = String::from_utf8(advertisement(&BTreeMap::new())).expect("text");
        let (head, rest) = none.split_at(35);
        assert_eq!(head, "001f# service=git-receive-pack\n0000");
        assert!(
            rest.contains(&format!("{NOTHING} capabilities^{{}}\0report-status")),
            "{rest:?}"
        );
        assert!(rest.ends_with("\n0000"));
        let (a, b) = (id('a'), id('b'));
        let two = BTreeMap::from([
            ("refs/heads/main", a.as_str()),
            ("refs/tags/v1", b.as_str()),
        ]);
        let told = String::from_utf8(advertisement(&two)).expect("text");
        assert!(
            told.contains(&format!("{a} refs/heads/main\0report-status")),
            "{told:?}"
        );
        assert!(
            told.contains(&format!("{b} refs/tags/v1\n0000")),
            "{told:?}"
        );
    }

    #[test]
    fn commands_are_read_up_to_the_pack() {
        let (a, b) = (id('a'), id('b'));
        let first =
            format!("{NOTHING} {a} refs/heads/main\0 report-status side-band-64k agent=git/2");
        let second = format!("{a} {NOTHING} refs/tags/v1\n");
        let third = format!("{a} {b} refs/heads/x");
        let mut read = sent(&[&first, &second, &third], b"PACK...");
        let found = commands(&mut read).expect("read").expect("whole");
        let update = |name: &str, old: Option<&String>, new: Option<&String>| Update {
            name: name.to_owned(),
            old: old.cloned(),
            new: new.cloned(),
        };
        let expected = [
            update("refs/heads/main", None, Some(&a)),
            update("refs/tags/v1", Some(&a), None),
            update("refs/heads/x", Some(&a), Some(&b)),
        ];
        assert_eq!(found.updates, expected);
        assert!(found.has_band && found.has_pack());
        assert_eq!(&read[..], b"PACK...");
        // Git looks whether it may come in before it sends much.
        let mut probe = BytesMut::from(&b"0000"[..]);
        assert_eq!(
            commands(&mut probe).expect("read"),
            Some(Commands::default())
        );
    }

    #[test]
    fn what_is_no_push_is_refused_with_the_reason() {
        let a = id('a');
        let good = format!("{NOTHING} {a} refs/heads/main");
        let many: Vec<String> = (0..=MAX_UPDATES)
            .map(|number| format!("{NOTHING} {a} refs/tags/{number}"))
            .collect();
        for (lines, part) in [
            (vec!["x".to_owned()], "not whole"),
            (vec![format!("{NOTHING} {a} HEAD")], "no branch and no tag"),
            (
                vec![format!("{NOTHING} {a} refs/heads/../x")],
                "no branch and no tag",
            ),
            (
                vec![format!("{NOTHING} {} refs/heads/x", &a[1..])],
                "not a commit",
            ),
            (vec![format!("{NOTHING} {NOTHING} refs/heads/x")], "neither"),
            (vec![good.clone(), good.clone()], "twice"),
            (
                vec![format!("shallow {a}"), good.clone()],
                "part of a history",
            ),
            (many, "more than 64"),
        ] {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let refused = commands(&mut sent(&lines, b"")).expect_err(part);
            assert!(refused.message.contains(part), "{refused}");
        }
        let mut endless = BytesMut::from(&line(&"x".repeat(60_000))[..60_000]);
        assert!(commands(&mut endless).is_err());
    }

    #[test]
    fn a_report_says_of_each_reference_what_became_of_it() {
        let commands = Commands {
            updates: vec![Update {
                name: "refs/heads/main".into(),
                old: None,
                new: Some(id('a')),
            }],
            has_band: true,
        };
        let told = report(
            &commands,
            &Ok(vec!["deployment X is queued\u{1b}[2J".into()]),
        );
        let told = String::from_utf8(told.to_vec()).expect("text");
        assert!(
            told.starts_with("0020\u{2}deployment X is queued [2J\n"),
            "{told:?}"
        );
        assert!(
            told.contains("\u{1}000eunpack ok\n0017ok refs/heads/main\n0000"),
            "{told:?}"
        );
        assert!(told.ends_with("00000000"), "{told:?}");
        let first = Problem::new(Code::Conflict, "another push was first").hint("push again");
        let told = report(&commands, &Err(first));
        let told = String::from_utf8(told.to_vec()).expect("text");
        assert!(
            told.contains("ng refs/heads/main another push was first\n"),
            "{told:?}"
        );
        assert!(told.contains("\u{2}push again\n"), "{told:?}");
    }

    proptest! {
        /// Whatever comes, in whatever parts: no panic, and the same as all at once.
        #[test]
        fn broken_bytes_break_nothing(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..400) {
            let whole = commands(&mut BytesMut::from(&bytes[..]));
            let mut read = BytesMut::from(&bytes[..cut.min(bytes.len())]);
            if let Ok(None) = commands(&mut read) {
                read.extend_from_slice(&bytes[cut.min(bytes.len())..]);
                prop_assert_eq!(commands(&mut read), whole);
            }
        }
    }
}
