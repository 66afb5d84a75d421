//! Docker's progress messages as lines for a person, and what is worth telling of them when a
//! build fails.

use std::collections::{BTreeMap, VecDeque};

/// A longer line is cut into several.
const MAX_LINE_BYTES: usize = 8 << 10;
/// Lines that a failure tells.
const TAIL_LINES: usize = 5;
/// Of each of these lines.
const TAIL_LINE_CHARS: usize = 200;
/// Layers whose status is remembered; more are told again and again, but told.
const MAX_LAYERS: usize = 1_024;

/// Puts pieces of output together to lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: String,
}

impl Lines {
    /// The lines that `piece` completes. Of what was written over by `\r` only the last is left.
    pub(super) fn text(&mut self, piece: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = piece;
        while let Some((line, after)) = rest.split_once('\n') {
            self.partial.push_str(line);
            lines.push(self.take());
            rest = after;
        }
        self.partial.push_str(rest);
        if self.partial.len() > MAX_LINE_BYTES {
            self.partial = overwritten(&self.partial).to_owned();
        }
        while self.partial.len() > MAX_LINE_BYTES {
            let cut = self.partial.floor_char_boundary(MAX_LINE_BYTES);
            let after = self.partial.split_off(cut);
            lines.push(self.take());
            self.partial = after;
        }
        lines
    }

    /// What is left at the end, without a line's end.
    pub(super) fn finish(&mut self) -> Option<String> {
        (!self.partial.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = overwritten(&self.partial).to_owned();
        self.partial.clear();
        line
    }
}

/// The last lines of a step, for whoever has to find out why it failed.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<String>);

impl Tail {
    /// One more line; colours and empty lines are not worth telling.
    pub(super) fn push(&mut self, line: &str) {
        let line = plain(line);
        if line.trim().is_empty() {
            return;
        }
        if self.0.len() == TAIL_LINES {
            self.0.pop_front();
        }
        self.0.push_back(cut(&line));
    }

    /// The lines, oldest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What each layer said last.
#[derive(Debug, Default)]
pub(super) struct Layers(BTreeMap<String, String>);

impl Layers {
    /// A line where a layer's status has changed; its bytes so far are no line.
    pub(super) fn status(&mut self, layer: Option<&str>, status: &str) -> Option<String> {
        let Some(layer) = layer.filter(|layer| !layer.is_empty()) else {
            return Some(status.to_owned());
        };
        if self.0.get(layer).is_some_and(|last| last == status) {
            return None;
        }
        if self.0.len() < MAX_LAYERS || self.0.contains_key(layer) {
            self.0.insert(layer.to_owned(), status.to_owned());
        }
        Some(format!("{layer}: {status}"))
    }
}

/// The output of the classic builder: one text in which it names its steps.
#[derive(Debug, Default)]
pub(super) struct Progress {
    lines: Lines,
    step: Option<String>,
    tail: Tail,
    layers: Layers,
}

impl Progress {
    /// The lines that `piece` completes.
    pub(super) fn text(&mut self, piece: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if is_dockers(piece) && !plain(&self.lines.partial).is_empty() {
            // The step's own last line had no end.
            lines.extend(self.lines.finish());
        }
        lines.extend(self.lines.text(piece));
        for line in &lines {
            self.note(line);
        }
        lines
    }

    /// What is left at the end, without a line's end.
    pub(super) fn finish(&mut self) -> Option<String> {
        let line = self.lines.finish()?;
        self.note(&line);
        Some(line)
    }

    /// A line where a layer's status has changed.
    pub(super) fn status(&mut self, layer: Option<&str>, status: &str) -> Option<String> {
        self.layers.status(layer, status)
    }

    /// The step that is (or was last) under way: `step 2/3 (RUN make)`, and its last lines.
    pub(super) fn failed(&self) -> (Option<&str>, &Tail) {
        (self.step.as_deref(), &self.tail)
    }

    fn note(&mut self, line: &str) {
        let line = plain(line);
        let step = line.strip_prefix("Step ");
        if let Some((number, command)) = step.and_then(|rest| rest.split_once(" : ")) {
            self.step = Some(format!("step {number} ({})", cut(command)));
            self.tail = Tail::default();
        } else if !is_dockers(&line) {
            self.tail.push(&line);
        }
    }
}

/// Docker's own remarks between the output of steps.
fn is_dockers(text: &str) -> bool {
    text.starts_with(" ---> ") || text.starts_with("Removing intermediate container")
}

/// Without the sequences that colour a terminal: a failure is read in other places too.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, sequence)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        // Parameters, then one letter.
        let end = sequence.find(|c: char| ('@'..='~').contains(&c));
        rest = end.map_or("", |at| &sequence[at + 1..]);
    }
    plain.push_str(rest);
    plain
}

fn overwritten(line: &str) -> &str {
    let line = line.trim_end_matches('\r');
    line.rsplit_once('\r').map_or(line, |(_, last)| last)
}

/// As much of a line as a failure tells.
pub(super) fn cut(text: &str) -> String {
    text.trim_end().chars().take(TAIL_LINE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let mut progress = Progress::default();
        assert_eq!(progress.text("Step 1/2 : FROM"), [""; 0]);
        assert_eq!(
            progress.text(" scratch\n ---> x\n\nhalf"),
            ["Step 1/2 : FROM scratch", " ---> x", ""]
        );
        assert_eq!(progress.text("\r\n"), ["half"]);
        assert_eq!(progress.text("10%\r50%\r100%\nx\r"), ["100%"]);
        assert_eq!(progress.finish().as_deref(), Some("x"));
        assert_eq!(progress.finish(), None);
    }

    #[test]
    fn long_lines_are_cut_and_progress_bars_do_not_pile_up() {
        let mut progress = Progress::default();
        let lines = progress.text(&"ä".repeat(MAX_LINE_BYTES));
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE_BYTES));
        assert_eq!(
            lines.concat().len() + progress.lines.partial.len(),
            2 * MAX_LINE_BYTES
        );
        progress.finish();
        for percent in 0..100_000 {
            assert!(progress.text(&format!("{percent}\r")).is_empty());
            assert!(progress.lines.partial.len() <= 2 * MAX_LINE_BYTES);
        }
        assert_eq!(progress.finish().as_deref(), Some("99999"));
    }

    #[test]
    fn a_failure_knows_its_step_and_its_last_words() {
        let mut progress = Progress::default();
        progress.text("Step 1/2 : FROM x\nof the first\nStep 2/2 : RUN make\n ---> Running in 1\n");
        for n in 0..9 {
            progress.text(&format!("line {n}\n"));
        }
        progress.text("Removing intermediate container 1\n");
        let (step, tail) = progress.failed();
        assert_eq!(step, Some("step 2/2 (RUN make)"));
        let tail: Vec<&str> = tail.lines().collect();
        assert_eq!(tail, ["line 4", "line 5", "line 6", "line 7", "line 8"]);
    }

    #[test]
    fn colours_and_missing_line_ends_do_not_hide_what_was_said() {
        let mut progress = Progress::default();
        assert_eq!(progress.text("no end"), [""; 0]);
        let lines = progress.text("Removing intermediate container 1\n");
        assert_eq!(lines, ["no end", "Removing intermediate container 1"]);
        // As Docker colours what a step writes to its standard error.
        progress.text("\u{1b}[91mred\n");
        let lines = progress.text("\u{1b}[0mRemoving intermediate container 1\n");
        assert_eq!(lines, ["\u{1b}[0mRemoving intermediate container 1"]);
        let (_, tail) = progress.failed();
        assert_eq!(tail.lines().collect::<Vec<_>>(), ["no end", "red"]);
        assert_eq!(plain("a\u{1b}[1;31mb\u{1b}["), "ab");
    }

    #[test]
    fn a_layer_speaks_when_its_status_changes() {
        let mut progress = Progress::default();
        assert_eq!(
            progress.status(Some("a"), "Downloading").as_deref(),
            Some("a: Downloading")
        );
        assert_eq!(progress.status(Some("a"), "Downloading"), None);
        assert_eq!(
            progress.status(Some("a"), "Done").as_deref(),
            Some("a: Done")
        );
        assert_eq!(
            progress.status(None, "Digest: x").as_deref(),
            Some("Digest: x")
        );
    }
}
