//! `.env` and what `env_file` names: `KEY=value` by line, as Compose reads it. Values have variables in them, so
//! this is no reader of any `.env`: those of the shell, then what stands further up in the same file.

use std::collections::BTreeMap;

use crate::interpolate::Variables;

/// What a file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EnvFile {
    /// Values by name; the last one counts.
    pub(crate) values: BTreeMap<String, String>,
    /// Variables within the values that nobody knows.
    pub(crate) unset: Vec<String>,
}

/// Reads a file.
///
/// # Errors
/// The first line that is none, as a sentence.
pub(crate) fn read(text: &str, shell: &dyn Fn(&str) -> Option<String>) -> Result<EnvFile, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.replace("\r\n", "\n");
    let mut file = EnvFile {
        values: BTreeMap::new(),
        unset: Vec::new(),
    };
    let mut rest = &*text;
    while !rest.is_empty() {
        let line = rest.split('\n').next().unwrap_or_default();
        let number = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let bad = |why: String| format!("line {number}: {why}");
        let end = entry(rest, line, shell, &mut file).map_err(bad)?;
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    Ok(file)
}

/// Takes what begins in this line; where it ends, in `rest`.
fn entry(
    rest: &str,
    line: &str,
    shell: &dyn Fn(&str) -> Option<String>,
    file: &mut EnvFile,
) -> Result<usize, String> {
    let said = line.trim();
    if said.is_empty() || said.starts_with('#') {
        return Ok(line.len());
    }
    let Some(equals) = line.find('=') else {
        // A name alone stands for what the shell has.
        let name = checked_name(said)?;
        if let Some(value) = shell(name) {
            file.values.insert(name.to_owned(), value);
        }
        return Ok(line.len());
    };
    let name = checked_name(&line[..equals])?;
    let value = &line[equals + 1..];
    let begin = line.len() - value.trim_start().len();
    let (raw, end) = match line[begin..].chars().next() {
        Some(quote @ ('\'' | '"')) => quoted(rest, begin + 1, quote)?,
        _ => (bare(&line[begin..]), line.len()),
    };
    let value = match raw {
        Raw::Literal(text) => text,
        Raw::Filled(text) => {
            let known = &file.values;
            let lookup = |name: &str| shell(name).or_else(|| known.get(name).cloned());
            let mut variables = Variables {
                lookup: &lookup,
                unset: Vec::new(),
            };
            let value = variables.fill(&text)?;
            file.unset.append(&mut variables.unset);
            value
        }
    };
    file.values.insert(name.to_owned(), value);
    Ok(end)
}

/// A value before variables are filled in.
enum Raw {
    /// It has none.
    Literal(String),
    /// It may have some.
    Filled(String),
}

fn checked_name(text: &str) -> Result<&str, String> {
    let text = text.trim();
    let name = text.strip_prefix("export ").map_or(text, str::trim_start);
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "\"'`${}:".contains(c);
    if name.is_empty() || name.contains(is_odd) {
        let shown: String = name.chars().take(40).collect();
        return Err(format!(
            "`{}` names no variable; KEY=value",
            shown.escape_debug()
        ));
    }
    Ok(name)
}

/// Without quotes: to the end of the line, or to a `#` behind a space.
fn bare(text: &str) -> Raw {
    let is_comment =
        |at: &(usize, char)| at.1 == '#' && (at.0 == 0 || text[..at.0].ends_with([' ', '\t']));
    let end = text.char_indices().find(is_comment);
    let text = end.map_or(text, |(at, _)| &text[..at]);
    Raw::Filled(text.trim_end().to_owned())
}

/// The value whose text begins at `begin`, over as many lines as it has; where its last line ends.
fn quoted(rest: &str, begin: usize, quote: char) -> Result<(Raw, usize), String> {
    let body = &rest[begin..];
    let mut is_escaped = false;
    let closing = body.char_indices().find(|(_, c)| {
        let is_end = *c == quote && !is_escaped;
        is_escaped = quote == '"' && *c == '\\' && !is_escaped;
        is_end
    });
    let (close, _) = closing.ok_or("a quote is not closed")?;
    let tail = &body[close + 1..];
    let behind = tail.split('\n').next().unwrap_or_default();
    if !(behind.trim().is_empty() || behind.trim().starts_with('#')) {
        return Err("there is text behind the closing quote".to_owned());
    }
    let text = &body[..close];
    let raw = match quote {
        '"' => Raw::Filled(unescape(text)),
        _ => Raw::Literal(text.to_owned()),
    };
    Ok((raw, begin + close + 1 + behind.len()))
}

/// What backslashes stand for within double quotes; `\$` becomes what stands for a dollar sign.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (c, false) => out.push(c),
            _ => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('$') => out.push_str("$$"),
                Some(c @ ('"' | '\\')) => out.push(c),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shell(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    #[test]
    fn lines_read_as_compose_has_them() {
        let text = "\u{feff}# comment\r\nA=1\r\n\nexport B = two words # comment\nC='$A # \"'\n\
            D=\"a\\\"b\\n$A\\$\" # x\nE=\nF=\"two\nlines\"\nG=${F:-x}y#z\nHOME\nNOBODY\nA=2\nH=$NO\n";
        let file = read(text, &shell).expect("read");
        let wanted = [
            ("A", "2"),
            ("B", "two words"),
            ("C", "$A # \""),
            ("D", "a\"b\n1$"),
            ("E", ""),
            ("F", "two\nlines"),
            ("G", "two\nlinesy#z"),
            ("H", ""),
            ("HOME", "/root"),
        ];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(file.values, wanted.into());
        assert_eq!(file.unset, ["NO"]);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for (text, told) in [
            ("A=1\nB C=2", "line 2: `B C`"),
            ("=x", "line 1: ``"),
            ("A: 1", "line 1: `A: 1`"),
            ("A='x\ny", "line 1: a quote"),
            ("A=\"x\ny\"\nB='x' y", "line 3: there is text"),
            ("A=$(date)", "line 1: a `$`"),
        ] {
            let error = read(text, &shell).expect_err(text);
            assert!(error.starts_with(told), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[A-C=\"'#$\\\\ \n\rä{}]{0,60}") {
            let _ = read(&text, &shell);
        }
    }
}
