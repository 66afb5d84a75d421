//! A build's log on its way out: secrets are masked, and so many lines are told that neither memory nor
//! the history's disk fills, whatever a step writes. Pure.

use std::collections::VecDeque;

use skep_model::assignment::BuildVariable;

/// In place of a secret.
const MASK: &str = "***";
/// Shorter secrets are not masked: they would take words out of every other line.
const MASK_MIN_BYTES: usize = 4;
/// Lines and bytes that are told from the beginning; the server keeps 100,000 lines.
const MAX_LINES: u64 = 50_000;
const MAX_BYTES: usize = 16 << 20;
/// And from the end.
const TAIL_LINES: usize = 200;
const TAIL_BYTES: usize = 256 << 10;

/// The values that nobody is shown.
#[derive(Clone, Default)]
pub(super) struct Masks(Vec<String>);

impl Masks {
    /// Each line of each secret: a log has no others.
    pub(super) fn of(variables: &[BuildVariable]) -> Self {
        let secrets = variables.iter().filter(|variable| variable.secret);
        let lines = secrets.flat_map(|variable| variable.value.lines().map(str::trim));
        let mut all: Vec<String> = lines
            .filter(|line| line.len() >= MASK_MIN_BYTES)
            .map(str::to_owned)
            .collect();
        // A secret that is a part of another one must not break that up.
        all.sort_by_key(|value| std::cmp::Reverse(value.len()));
        all.dedup();
        Self(all)
    }

    /// The text without them.
    pub(super) fn hide(&self, text: String) -> String {
        let hidden = self.0.iter().filter(|value| text.contains(value.as_str()));
        let mut hidden = hidden.peekable();
        match hidden.peek() {
            None => text.clone(),
            Some(_) => hidden.fold(text.clone(), |text, value| text.replace(value, MASK)),
        }
    }
}

/// How much has been told.
#[derive(Default)]
pub(super) struct Bounded {
    lines: u64,
    bytes: usize,
    left_out: (u64, usize),
    tail: VecDeque<String>,
    tail_bytes: usize,
}

impl Bounded {
    /// The line, where it is told now.
    pub(super) fn line(&mut self, line: String) -> Option<String> {
        if self.lines < MAX_LINES && self.bytes + line.len() <= MAX_BYTES {
            self.lines += 1;
            self.bytes += line.len();
            return Some(line);
        }
        // From now on only the end counts, however small the next line is.
        self.lines = MAX_LINES;
        self.tail_bytes += line.len();
        self.tail.push_back(line);
        while self.tail.len() > TAIL_LINES || self.tail_bytes > TAIL_BYTES {
            let Some(oldest) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes -= oldest.len();
            self.left_out.0 += 1;
            self.left_out.1 += oldest.len();
        }
        None
    }

    /// What is told at the end: how much was left out, and the last lines.
    pub(super) fn finish(self) -> Vec<String> {
        let (lines, bytes) = self.left_out;
        let left_out = (lines > 0).then(|| {
            format!(
                "... {lines} lines ({} MiB) of the build were left out: its first {} MiB are kept, and its \
                 last lines ...",
                bytes >> 20,
                MAX_BYTES >> 20
            )
        });
        left_out.into_iter().chain(self.tail).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(value: &str, secret: bool) -> BuildVariable {
        BuildVariable {
            name: "A".into(),
            value: value.into(),
            secret,
        }
    }

    #[test]
    fn secrets_are_masked_line_by_line() {
        let masks = Masks::of(&[
            variable("hunter22", true),
            variable("hunter22-long", true),
            variable("no", true),
            variable("plain-value", false),
            variable("-----BEGIN-----\nabcdef\n", true),
        ]);
        let cases = [
            ("token hunter22 hunter22", "token *** ***"),
            ("hunter22-long", "***"),
            ("no plain-value", "no plain-value"),
            ("x abcdef y", "x *** y"),
        ];
        for (line, shown) in cases {
            assert_eq!(masks.hide(line.to_owned()), shown);
        }
    }

    #[test]
    fn a_gigabyte_is_a_few_megabytes_and_says_so() {
        let mut log = Bounded::default();
        let (line, mut told) = ("x".repeat(1 << 10), 0);
        for _ in 0..(1 << 20) {
            told += log.line(line.clone()).map_or(0, |line| line.len());
            assert!(log.tail_bytes <= TAIL_BYTES && log.tail.len() <= TAIL_LINES);
        }
        log.line("the end".into());
        assert_eq!(told, MAX_BYTES);
        let rest = log.finish();
        assert!(
            rest[0].contains("1007 MiB") && rest[0].contains("left out"),
            "{}",
            rest[0]
        );
        assert_eq!(rest.last().map(String::as_str), Some("the end"));
        assert!(rest.len() <= TAIL_LINES + 1);
        let mut many = Bounded::default();
        let told = (0..MAX_LINES * 2)
            .filter_map(|_| many.line(String::new()))
            .count();
        assert_eq!(told as u64, MAX_LINES);
        assert!(Bounded::default().finish().is_empty());
    }
}
