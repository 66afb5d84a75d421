//! `.dockerignore`: Docker's patterns, translated to the gitignore matcher of the `ignore` crate.
//!
//! Docker's rules differ from git's: every pattern is anchored at the root, a pattern for a folder
//! also stands for all in it, and an exception may bring back what is inside an excluded folder.
//! Source: moby/patternmatcher (`patternmatcher.go`, `ignorefile/ignorefile.go`); where that forgets
//! an exception for the parent of a file that a line before it left out, the documented rule holds:
//! the last line that matches decides.

use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use skep_model::problem::{Code, Problem};

/// The file's name.
pub(super) const FILE: &str = ".dockerignore";
/// Largest file that is read, in bytes.
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// A `**` in the middle of a name stands for two patterns; more of them in one line than this is
/// nothing that people write.
const MAX_INNER_STARS: usize = 4;

/// What makes Docker read a pattern as more than its text.
const WILDCARDS: [char; 4] = ['*', '?', '[', '\\'];

/// What is left out of a build's context.
#[derive(Debug)]
pub(super) struct Ignored {
    matcher: Gitignore,
    has_exceptions: bool,
}

impl Ignored {
    /// Nothing is left out.
    pub(super) fn nothing() -> Self {
        Self {
            matcher: Gitignore::empty(),
            has_exceptions: false,
        }
    }

    /// Reads the text of a `.dockerignore`.
    ///
    /// # Errors
    /// Names the line whose pattern cannot be read.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let mut builder = GitignoreBuilder::new("");
        // Docker refuses an unclosed bracket instead of taking it literally.
        builder.allow_unclosed_class(false);
        let mut has_exceptions = false;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let refuse = |why: &str| {
                let at = index + 1;
                Problem::new(Code::BuildFailed, format!("line {at}: `{line}` {why}")).at(FILE)
            };
            let Some((is_exception, patterns)) = translate(line).map_err(refuse)? else {
                continue;
            };
            has_exceptions |= is_exception;
            let sign = if is_exception { "!" } else { "" };
            for pattern in patterns {
                // The pattern itself, and everything below what it matches.
                for line in [format!("{sign}/{pattern}"), format!("{sign}/{pattern}/**")] {
                    builder
                        .add_line(None, &line)
                        .map_err(|_| refuse("is not a pattern"))?;
                }
            }
        }
        let matcher = builder.build().map_err(|error| {
            Problem::new(
                Code::BuildFailed,
                format!("the patterns do not work together: {error}"),
            )
            .at(FILE)
        })?;
        Ok(Self {
            matcher,
            has_exceptions,
        })
    }

    /// Whether `path`, relative to the root of the context, is left out.
    pub(super) fn is_ignored(&self, path: &Path, is_dir: bool) -> bool {
        matches!(self.matcher.matched(path, is_dir), Match::Ignore(_))
    }

    /// Whether something inside an ignored folder may still be wanted.
    pub(super) fn has_exceptions(&self) -> bool {
        self.has_exceptions
    }
}

/// A line as patterns for the matcher, without the leading `/`; none: the line says nothing.
fn translate(line: &str) -> Result<Option<(bool, Vec<String>)>, &'static str> {
    if line.starts_with('#') {
        return Ok(None);
    }
    let line = line.trim();
    let (is_exception, pattern) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    if is_exception && pattern.is_empty() {
        return Err("excepts nothing");
    }
    if pattern.ends_with('\\') && !pattern.ends_with("\\\\") {
        return Err("ends with a lone backslash");
    }
    let Some(clean) = clean(pattern) else {
        return Ok(None);
    };
    let escaped = clean.replace('{', "\\{").replace('}', "\\}");
    let mut patterns = Vec::new();
    match escaped.strip_prefix("**") {
        // Every path that ends so, also in the middle of a name: `**.log`.
        Some(end)
            if !end.is_empty() && !end.starts_with('/') && !clean[2..].contains(WILDCARDS) =>
        {
            patterns.push(format!("**/*{end}"));
        }
        _ => spread(&escaped, &mut patterns, MAX_INNER_STARS)?,
    }
    Ok(Some((is_exception, patterns)))
}

/// Go's `filepath.Clean`, without the leading `/`; none: the root itself, or above it.
fn clean(pattern: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                // Above the root there is nothing; an absolute path has no above.
                if parts.pop().is_none() && !pattern.starts_with('/') {
                    return None;
                }
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// In Docker `**` is "nothing, or anything up to a slash" wherever else it stands: `a**b` is `ab`
/// and `a.../b`. The matcher knows it only as a whole segment.
fn spread(pattern: &str, into: &mut Vec<String>, left: usize) -> Result<(), &'static str> {
    let inner = pattern.match_indices("**").find(|(at, _)| {
        let before = pattern[..*at].chars().next_back();
        let after = pattern[at + 2..].chars().next();
        before.is_some_and(|c| c != '/') || after.is_some_and(|c| c != '/')
    });
    let Some((at, _)) = inner else {
        into.push(pattern.to_owned());
        return Ok(());
    };
    let left = left.checked_sub(1).ok_or("has too many `**`")?;
    let (head, tail) = (&pattern[..at], pattern[at..].trim_start_matches('*'));
    let tail = tail.strip_prefix('/').unwrap_or(tail);
    let starts_segment = head.is_empty() || head.ends_with('/');
    if starts_segment {
        return spread(&format!("{head}**/{tail}"), into, left);
    }
    if tail.is_empty() {
        // `a**`: everything that begins so, and what is below it.
        return spread(&format!("{head}*"), into, left);
    }
    spread(&format!("{head}{tail}"), into, left)?;
    spread(&format!("{head}*/**/{tail}"), into, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(patterns: &str, path: &str) -> bool {
        Ignored::parse(patterns)
            .expect(patterns)
            .is_ignored(Path::new(path), false)
    }

    #[test]
    fn patterns_mean_what_docker_means() {
        // (patterns, left out, kept)
        let cases: [(&str, &[&str], &[&str]); 20] = [
            // Anchored at the root, unlike git's.
            (
                "target",
                &["target", "target/a/b"],
                &["src/target", "target2"],
            ),
            ("/target/", &["target", "target/a"], &["src/target"]),
            ("*.log", &["a.log"], &["src/a.log"]),
            ("*/*.log", &["src/a.log"], &["a.log", "a/b/c.log"]),
            ("**/*.log", &["a.log", "a/b/c.log"], &["a.logs"]),
            (
                "**/node_modules",
                &["node_modules/x", "a/node_modules/b/c"],
                &["a/node_modules2"],
            ),
            ("a/**", &["a/b", "a/b/c"], &["ab"]),
            ("a/**/b", &["a/b", "a/x/y/b", "a/x/b/c"], &["a/bc"]),
            ("**", &["a", "a/b"], &[]),
            // Exceptions reach into excluded folders; the last match wins.
            (
                "dir\n!dir/keep",
                &["dir/a", "dir"],
                &["dir/keep", "dir/keep/x"],
            ),
            ("!dir/keep\ndir", &["dir/keep"], &[]),
            (
                "*\n!src\nsrc/tmp",
                &["a", "src/tmp/x"],
                &["src/a", "src/b/c"],
            ),
            // Comments only at the very beginning of a line; space around is nothing.
            ("#a\n  b  \n\n", &["b"], &["#a", "a"]),
            (" #a", &["#a"], &["a"]),
            ("! a", &[], &["a"]),
            // Paths are cleaned as Go does.
            ("./a//b/../c", &["a/c"], &["a/b"]),
            (".\n/\n../x", &[], &["x", "a"]),
            // Only Go's wildcards.
            ("{a,b}?[c-e]", &["{a,b}xd"], &["axd", "{a,b}xf"]),
            ("\\#x\n\\!y\n\\*", &["#x", "!y", "*"], &["z"]),
            (
                "\u{feff}a**b\n**.x\n**?.y\nc**",
                &[
                    "ab", "axx/y/b", "cd/e", "c", "d/.x", "d/e.x", "e.x/f", "a.y", "d/a.y",
                ],
                &["axb", "b", "ab.y", "d/e.xx"],
            ),
        ];
        for (patterns, left_out, kept) in cases {
            for path in left_out {
                assert!(ignored(patterns, path), "{patterns:?} leaves {path} out");
            }
            for path in kept {
                assert!(!ignored(patterns, path), "{patterns:?} keeps {path}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_line() {
        for (text, line) in [("a\n[b", 2), ("!", 1), ("a\\", 1), ("a**b**c**d**e**f", 1)] {
            let problem = Ignored::parse(text).expect_err(text);
            assert_eq!(problem.field.as_deref(), Some(FILE));
            assert!(
                problem.message.starts_with(&format!("line {line}: ")),
                "{problem}"
            );
        }
    }

    #[test]
    fn exceptions_are_known() {
        assert!(Ignored::parse("a\n!b").expect("read").has_exceptions());
        assert!(!Ignored::parse("a\n\\!b").expect("read").has_exceptions());
        assert!(!Ignored::nothing().is_ignored(Path::new("a"), true));
    }
}
