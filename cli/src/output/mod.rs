//! What people and programs read. Owns stdout and stderr of the command line: results go to stdout
//! (as tables, or as the API's own JSON with `--json`), problems to stderr. Text for people passes
//! [`safe`]: apps and builds have written parts of it. Decides nothing.

pub(crate) mod node;
mod safe;
pub(crate) mod samples;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod view;

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::failure::Failure;

/// What a shell reports for a program whose reader went away.
const BROKEN_PIPE: i32 = 141;

/// Takes a terminal to its top left corner and empties it.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// A colour or weight of text on a terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    /// Went well.
    Good,
    /// Went wrong.
    Bad,
    /// Asks for attention.
    Warning,
    /// Matters most.
    Strong,
    /// Matters least.
    Faint,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Warning => "33",
            Self::Strong => "1",
            Self::Faint => "2",
        }
    }
}

/// Where and how to print. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    is_json: bool,
    is_quiet: bool,
    colours_out: bool,
    colours_err: bool,
}

impl Output {
    /// For this process: colours only on terminals, and never where `NO_COLOR` is set.
    pub(crate) fn new(is_json: bool) -> Self {
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            is_json,
            is_quiet: false,
            colours_out: allowed && !is_json && io::stdout().is_terminal(),
            colours_err: allowed && io::stderr().is_terminal(),
        }
    }

    /// The same without [`Output::progress`]: for what is a small step of something larger.
    #[must_use]
    pub(crate) fn quietly(self) -> Self {
        Self {
            is_quiet: true,
            ..self
        }
    }

    /// Whether a program reads stdout.
    pub(crate) fn is_json(self) -> bool {
        self.is_json
    }

    /// A result: `value` for programs, `text` for people.
    pub(crate) fn result<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) {
        if self.is_json {
            put(io::stdout(), &pretty(value));
        } else {
            self.out(text().trim_end());
        }
    }

    /// Text that a file or a program takes as it is; a terminal gets it as any other.
    pub(crate) fn document(self, text: &str) {
        match io::stdout().is_terminal() {
            true => self.out(text.trim_end()),
            false => put(io::stdout(), text.trim_end()),
        }
    }

    /// One item of a stream that may have no end: a line of JSON, or a line of text.
    pub(crate) fn item<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) {
        if self.is_json {
            let line = serde_json::to_string(value).expect("views are plain data with text keys");
            put(io::stdout(), &line);
        } else {
            self.out(&text());
        }
    }

    /// One item in the place of the one before, for people on a terminal; else as [`Output::item`].
    pub(crate) fn refreshed<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) {
        if !self.is_json && io::stdout().is_terminal() {
            // What ends up on the screen passes `safe` as ever.
            let _ = io::stdout()
                .write_all(CLEAR)
                .and_then(|()| io::stdout().flush());
        }
        self.item(value, text);
    }

    /// How it goes, for people: beside the result, which with `--json` alone is on stdout.
    pub(crate) fn progress(self, text: &str) {
        if self.is_quiet {
            return;
        }
        if self.is_json {
            self.err(text);
        } else {
            self.out(text);
        }
    }

    /// A line of somebody else's stderr.
    pub(crate) fn aside(self, text: &str) {
        self.err(text);
    }

    /// Something that is not wrong but should be known.
    pub(crate) fn warning(self, text: &str) {
        let warning = self.styled_err(Style::Warning, "warning:");
        self.err(&format!("{warning} {text}"));
    }

    /// Why the command failed, and what to do about it.
    pub(crate) fn failure(self, failure: &Failure) {
        for line in &failure.context {
            self.err(&format!("  {}", self.styled_err(Style::Faint, line)));
        }
        let problem = &failure.problem;
        let error = self.styled_err(Style::Bad, "error:");
        self.err(&format!("{error} {}", problem.message));
        if let Some(field) = &problem.field {
            self.err(&format!("field: {field}"));
        }
        if let Some(hint) = &problem.hint {
            self.err(&format!(
                "{} {hint}",
                self.styled_err(Style::Strong, "hint:")
            ));
        }
    }

    /// Text for [`Output::progress`] and [`Output::result`], styled where a person sees it.
    pub(crate) fn styled(self, style: Style, text: &str) -> String {
        paint(
            if self.is_json {
                self.colours_err
            } else {
                self.colours_out
            },
            style,
            text,
        )
    }

    fn out(self, text: &str) {
        put(io::stdout(), &safe::safe(text, self.colours_out));
    }

    fn err(self, text: &str) {
        put(io::stderr(), &safe::safe(text, self.colours_err));
    }

    fn styled_err(self, style: Style, text: &str) -> String {
        paint(self.colours_err, style, text)
    }
}

fn paint(is_on: bool, style: Style, text: &str) -> String {
    if is_on {
        format!("\x1b[{}m{text}\x1b[0m", style.code())
    } else {
        text.to_owned()
    }
}

fn pretty<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).expect("views are plain data with text keys")
}

/// Writes a line. A reader that went away (`| head`) ends the program as it would any other.
fn put(mut target: impl io::Write, text: &str) {
    let written = writeln!(target, "{text}").and_then(|()| target.flush());
    if let Err(error) = written
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        std::process::exit(BROKEN_PIPE);
    }
}

/// Asks on the terminal; without one the answer is no.
pub(crate) fn confirm(question: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    let mut stderr = io::stderr();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let _ = io::stdin().read_line(&mut answer);
    matches!(answer.trim(), "y" | "Y" | "yes")
}
