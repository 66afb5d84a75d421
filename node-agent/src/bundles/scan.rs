//! Secrets that a build has left in files which everybody can fetch.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use regex::bytes::RegexSet;
use skep_ingress::files::{Index, content_name};

/// A value that is shorter is found by chance.
const MIN_SECRET_BYTES: usize = 8;
/// How much of a value is looked for.
const MAX_SECRET_BYTES: usize = 1 << 10;
/// How much is looked at once; what is found over the end of it is shorter than the overlap.
const PIECE_BYTES: usize = 4 << 20;
const OVERLAP_BYTES: usize = 8 << 10;

/// What keys look like that are never meant for browsers, and whose they are.
const PATTERNS: [(&str, &str); 6] = [
    (r"(?-u)\bAKIA[0-9A-Z]{16}\b", "an access key of AWS"),
    (r"(?-u)\bgh[pousr]_[0-9A-Za-z]{36}\b", "a token of GitHub"),
    (r"(?-u)\bglpat-[0-9A-Za-z_-]{20}\b", "a token of GitLab"),
    (
        r"(?-u)\bsk_live_[0-9A-Za-z]{24,}\b",
        "a secret key of Stripe",
    ),
    (r"(?-u)\bxox[bp]-[0-9A-Za-z-]{20,}\b", "a token of Slack"),
    (
        r"(?-u)-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
        "a private key",
    ),
];

/// A secret in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    /// The file, as visitors would ask for it.
    pub(crate) path: String,
    /// What it is, and never its value.
    pub(crate) what: String,
}

/// The first secret in the files of an unpacked bundle: a line of one of these variables' values, or what looks
/// like a key. Blocks on the disk.
///
/// # Errors
/// The disk's.
pub(crate) fn scan(
    folder: &Path,
    index: &Index,
    secrets: &[(&str, &str)],
) -> io::Result<Option<Hit>> {
    let lines = secrets.iter().flat_map(|(name, value)| {
        let lines = value.lines().map(str::trim);
        let lines = lines.filter(|line| line.len() >= MIN_SECRET_BYTES);
        lines.map(move |line| (pattern(line), format!("the value of `{name}`")))
    });
    let known = PATTERNS.map(|(pattern, what)| (pattern.to_owned(), what.to_owned()));
    let (patterns, whats): (Vec<String>, Vec<String>) = lines.chain(known).unzip();
    let set = RegexSet::new(patterns).map_err(io::Error::other)?;
    let mut seen = std::collections::BTreeSet::new();
    for (path, file) in &index.files {
        if !seen.insert(file.content) {
            continue;
        }
        let found = first_in(&folder.join(content_name(file.content)), &set)?;
        if let Some(found) = found {
            return Ok(Some(Hit {
                path: path.clone(),
                what: whats[found].clone(),
            }));
        }
    }
    Ok(None)
}

fn pattern(line: &str) -> String {
    let mut end = line.len().min(MAX_SECRET_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    regex::escape(&line[..end])
}

fn first_in(path: &Path, set: &RegexSet) -> io::Result<Option<usize>> {
    let mut file = File::open(path)?;
    let mut window = Vec::new();
    loop {
        let read = (&mut file)
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut window)?;
        if let Some(found) = set.matches(&window).iter().next() {
            return Ok(Some(found));
        }
        if read < PIECE_BYTES {
            return Ok(None);
        }
        window.drain(..window.len().saturating_sub(OVERLAP_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::unpacked;
    use super::*;

    fn hit(files: &[(&str, &str)], secrets: &[(&str, &str)]) -> Option<String> {
        let (folder, index) = unpacked(files);
        let hit = scan(folder.path(), &index, secrets).expect("readable");
        hit.map(|hit| format!("{}: {}", hit.path, hit.what))
    }

    #[test]
    fn values_and_keys_are_found_and_not_told() {
        let secrets = [("STRIPE", "whsec_0123456789"), ("PIN", "1234567")];
        let key = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
        let far = format!("{}whsec_0123456789", "x".repeat(PIECE_BYTES - 5));
        let cases = [
            ("const a = 1234567", None),
            (
                "const a = 'whsec_0123456789'",
                Some("app.js: the value of `STRIPE`"),
            ),
            (key.as_str(), Some("app.js: an access key of AWS")),
            ("-----BEGIN PUBLIC KEY-----", None),
            (
                "-----BEGIN RSA PRIVATE KEY-----",
                Some("app.js: a private key"),
            ),
            (far.as_str(), Some("app.js: the value of `STRIPE`")),
        ];
        for (text, expected) in cases {
            let found = hit(&[("index.html", "<p>"), ("app.js", text)], &secrets);
            assert_eq!(
                found.as_deref(),
                expected,
                "{}",
                &text[..text.len().min(60)]
            );
        }
    }

    #[test]
    fn each_line_of_a_value_is_one() {
        let secrets = [("KEY", "first-line-of-it\nsecond-line-of-it")];
        let found = hit(&[("a.txt", "x second-line-of-it y")], &secrets);
        assert_eq!(found.as_deref(), Some("a.txt: the value of `KEY`"));
    }
}
