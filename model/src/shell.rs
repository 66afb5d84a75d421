//! Shells: what people do inside a running allocation from afar (a command, its output, files, a
//! port). What may be asked for, and the frames that carry it from whoever asks to the node and back.
//!
//! ```text
//! CLI ─(WebSocket)─► server ─(gRPC)─► the server of the node's session ◄─(gRPC, dialed)─ agent
//! ```
//!
//! Either end sends data only as far as the other has granted ([`WINDOW_BYTES`] to begin with), and
//! takes in all that it granted. So no hop ever waits for a slow reader: what controls a shell (its
//! end above all) is seen at once, and nothing on the way has to hold more than a window.

use serde::{Deserialize, Serialize};

use crate::id::AllocationId;
use crate::problem::Problem;
use crate::pushed;
use crate::volume::Order;

/// Data that may be under way in one direction before the receiver grants more.
pub const WINDOW_BYTES: u32 = 256 << 10;
/// Receivers grant what they have taken in portions of at least this: less than a window without one
/// frame, so that senders never wait for a grant that does not come.
pub const GRANT_BYTES: u32 = 32 << 10;
/// Most data of one frame.
pub const DATA_MAX_BYTES: usize = 32 << 10;
/// Longest command, all words together, and most words.
pub const COMMAND_MAX_BYTES: usize = 16 << 10;
/// See [`COMMAND_MAX_BYTES`].
pub const COMMAND_MAX_WORDS: usize = 256;
/// Longest path in a container (Linux's own limit).
pub const PATH_MAX_BYTES: usize = 4_096;
/// Longest name of a kind of terminal.
const TERMINAL_NAME_MAX: usize = 64;
/// Characters of a command that an audit trail shows.
const SHOWN_MAX: usize = 2_000;

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

/// The terminal that a command is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// To begin with.
    pub size: Size,
    /// Its kind, as programs look for it in `TERM`; empty: not known.
    pub name: String,
}

/// A command in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Program and arguments; no shell reads them.
    pub command: Vec<String>,
    /// Whether it reads what the asker sends; else its input is empty.
    pub stdin: bool,
    /// Runs it on a terminal of its own; none: on pipes.
    pub terminal: Option<Terminal>,
}

/// What somebody wants of an allocation's running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Run a command in it.
    Exec(Exec),
    /// See what it writes from now on, until it ends.
    Attach,
    /// Read a file or folder, as a tar.
    CopyOut {
        /// Where it is, absolute.
        path: String,
    },
    /// Write what a tar holds.
    CopyIn {
        /// Where to, absolute.
        path: String,
    },
    /// One connection to a port that it listens on.
    Forward {
        /// The port.
        port: u16,
    },
    /// See to volumes of the node: in no container, whichever allocation is named.
    Volumes(Order),
    /// Take in what is pushed to a service: in no container, whichever allocation is named.
    Push(pushed::Order),
}

impl Wish {
    /// Refuses what no container could do, and what is beyond the limits.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), Problem> {
        match self {
            Self::Exec(exec) => exec.check(),
            Self::Attach => Ok(()),
            Self::CopyOut { path } | Self::CopyIn { path } => check_path(path),
            Self::Forward { port: 0 } => {
                Err(Problem::invalid("port", "0 is no port").hint("1 to 65535"))
            }
            Self::Forward { .. } => Ok(()),
            Self::Volumes(order) => order.check(),
            Self::Push(order) => order.check(),
        }
    }

    /// What was asked for, for the audit trail. Never holds what was sent or received.
    pub fn describe(&self) -> String {
        match self {
            Self::Exec(exec) => {
                let words = exec.command.iter().map(|word| format!("{word:?}"));
                let line = words.collect::<Vec<_>>().join(" ");
                let mut shown: String = line.chars().take(SHOWN_MAX).collect();
                if shown.len() < line.len() {
                    shown.push_str(" ... [cut]");
                }
                shown
            }
            Self::Attach => String::new(),
            Self::CopyOut { path } | Self::CopyIn { path } => format!("{path:?}"),
            Self::Forward { port } => format!("port {port}"),
            Self::Volumes(order) => order.describe(),
            Self::Push(order) => format!("push to service {}", order.service),
        }
    }
}

impl Exec {
    fn check(&self) -> Result<(), Problem> {
        let refused = |text: &str| Problem::invalid("command", text);
        if self.command.first().is_none_or(String::is_empty) {
            return Err(
                refused("there is no command").hint("program and arguments, as `[\"ls\",\"-l\"]`")
            );
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            return Err(refused("no word of a command can hold a NUL"));
        }
        let bytes: usize = self.command.iter().map(String::len).sum();
        if bytes > COMMAND_MAX_BYTES || self.command.len() > COMMAND_MAX_WORDS {
            let limits = format!("at most {COMMAND_MAX_BYTES} bytes in {COMMAND_MAX_WORDS} words");
            return Err(refused("the command is too long").hint(limits));
        }
        let Some(terminal) = &self.terminal else {
            return Ok(());
        };
        let is_sane = terminal.name.len() <= TERMINAL_NAME_MAX
            && terminal.name.bytes().all(|byte| byte.is_ascii_graphic());
        is_sane.then_some(()).ok_or_else(|| {
            Problem::invalid("term", "this is no kind of terminal").hint("as `xterm-256color`")
        })
    }
}

fn check_path(path: &str) -> Result<(), Problem> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Problem::invalid(
            "path",
            "a path in a container begins with /",
        ));
    }
    if path.len() > PATH_MAX_BYTES {
        let text = format!("the path is longer than {PATH_MAX_BYTES} bytes");
        return Err(Problem::invalid("path", text));
    }
    Ok(())
}

/// A shell is open: what was asked for has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// In which allocation.
    pub allocation: AllocationId,
    /// On which node, by name.
    pub node: String,
    /// Copying out: what the first name of all paths in the tar is; none: they have no name in common
    /// (the root folder). Copying in: what it is to be; none: it keeps its own.
    pub name: Option<String>,
}

/// What passes along a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To the node: input. From it: output. At most [`DATA_MAX_BYTES`].
    Data(Vec<u8>),
    /// From the node: what the command writes to stderr. Counts against the same window.
    Stderr(Vec<u8>),
    /// No more data will come from this side; the other may go on.
    Eof,
    /// To the node: the terminal has another size now.
    Resize(Size),
    /// The receiver has taken so many bytes: as many more may be sent.
    Grant(u32),
    /// From the node, first: it has begun.
    Opened(Opened),
    /// From the node, last: it has ended, and all was sent. The command's or the container's exit code;
    /// 0 of what has none.
    Exit(i32),
    /// From the node, last: it could not be done, or not to its end.
    Problem(Problem),
}

/// A receiver's account of what it was sent, what it has used, and what it has granted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Received and not yet used.
    held: u32,
    /// Used and not yet granted again.
    used: u32,
}

impl Taken {
    /// Of a shell that has just begun.
    pub const fn new() -> Self {
        Self { held: 0, used: 0 }
    }

    /// Data of this length has come. False: the sender has gone beyond what it was granted.
    #[must_use]
    pub fn receive(&mut self, bytes: usize) -> bool {
        let held = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| self.held.checked_add(bytes));
        match held {
            Some(held) if held + self.used <= WINDOW_BYTES => {
                self.held = held;
                true
            }
            _ => false,
        }
    }

    /// Data of this length, which was received, has been used. What is to be granted now, if anything.
    pub fn release(&mut self, bytes: usize) -> Option<u32> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.held);
        self.held -= bytes;
        self.used += bytes;
        (self.used >= GRANT_BYTES).then(|| std::mem::take(&mut self.used))
    }
}

impl Default for Taken {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exec(command: &[&str]) -> Wish {
        Wish::Exec(Exec {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            stdin: false,
            terminal: None,
        })
    }

    #[test]
    fn what_no_container_could_do_is_refused_by_field() {
        let path = |path: &str| Wish::CopyOut { path: path.into() };
        let long = "x".repeat(COMMAND_MAX_BYTES);
        let many = vec!["x"; COMMAND_MAX_WORDS + 1];
        let terminal = |name: &str| {
            Wish::Exec(Exec {
                command: vec!["sh".into()],
                stdin: true,
                terminal: Some(Terminal {
                    size: Size {
                        columns: 80,
                        rows: 24,
                    },
                    name: name.into(),
                }),
            })
        };
        for (wish, field) in [
            (exec(&[]), Some("command")),
            (exec(&["", "x"]), Some("command")),
            (exec(&["a\0b"]), Some("command")),
            (exec(&["x", &long]), Some("command")),
            (exec(&many), Some("command")),
            (exec(&["ls", ""]), None),
            (terminal("xterm-256color"), None),
            (terminal(""), None),
            (terminal("x\u{1b}"), Some("term")),
            (path("etc"), Some("path")),
            (path("/a\0"), Some("path")),
            (path(&format!("/{long}")), Some("path")),
            (path("/"), None),
            (Wish::Forward { port: 0 }, Some("port")),
            (Wish::Forward { port: 80 }, None),
            (Wish::Attach, None),
        ] {
            let field = field.map(str::to_owned);
            let found = wish
                .check()
                .err()
                .map(|problem| problem.field.expect("named"));
            assert_eq!(found, field, "{wish:?}");
        }
    }

    #[test]
    fn an_audit_trail_gets_one_line_of_bounded_length() {
        let shown = exec(&["sh", "-c", "echo a\nb"]).describe();
        assert_eq!(shown, r#""sh" "-c" "echo a\nb""#);
        let long = "é".repeat(COMMAND_MAX_BYTES / 2);
        let shown = exec(&[&long]).describe();
        assert!(shown.ends_with("[cut]") && shown.chars().count() < SHOWN_MAX + 20);
    }

    proptest! {
        /// An honest sender is never refused and never stuck, however it cuts its data and however
        /// late the receiver uses it; and no more than a window is ever held.
        #[test]
        fn windows_neither_overflow_nor_close_for_good(
            chunks in prop::collection::vec(1..=DATA_MAX_BYTES, 1..200),
            lazy in any::<u64>(),
        ) {
            let (mut taken, mut credit) = (Taken::new(), WINDOW_BYTES);
            let mut queue = std::collections::VecDeque::new();
            for (at, bytes) in chunks.into_iter().enumerate() {
                // A sender without credit waits: the receiver then uses what it has.
                while (credit as usize) < bytes || (lazy >> (at % 64)) & 1 == 0 {
                    let Some(used) = queue.pop_front() else { break };
                    credit += taken.release(used).unwrap_or(0);
                }
                prop_assert!(credit as usize >= bytes, "stuck with {credit}");
                credit -= u32::try_from(bytes).expect("small");
                prop_assert!(taken.receive(bytes));
                queue.push_back(bytes);
                prop_assert!(queue.iter().sum::<usize>() <= WINDOW_BYTES as usize);
            }
        }
    }

    #[test]
    fn a_sender_beyond_its_window_is_found_out() {
        let mut taken = Taken::new();
        assert!(taken.receive(WINDOW_BYTES as usize));
        assert!(!taken.receive(1));
        assert_eq!(taken.release(GRANT_BYTES as usize - 1), None);
        // Used, but not granted yet.
        assert!(!taken.receive(1));
        assert_eq!(taken.release(1), Some(GRANT_BYTES));
        assert!(taken.receive(GRANT_BYTES as usize));
        assert!(!taken.receive(usize::MAX));
    }
}
