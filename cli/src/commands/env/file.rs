//! Variables as a file of lines, `NAME=VALUE`, as containers and frameworks read it. What is written is read back as
//! it was.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use skep_control_plane::api::types::VariableView;
use skep_model::problem::Problem;
use skep_model::variable::{self, VariableInput};

use crate::failure::Failure;

/// Largest file that is read: more than a service may have.
const MAX_FILE: u64 = 4 << 20;
/// What begins a reference of Skep's, and the same as plain text.
const REFERENCE: &str = "${{";
const ESCAPED: &str = "$${{";
/// Stand for these two while others read the file, who would take them for their own. No text has them: they are no
/// characters.
const STANDS_FOR_REFERENCE: &str = "\u{fdd0}";
const STANDS_FOR_ESCAPED: &str = "\u{fdd1}";

/// How variables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// NAME=VALUE, quoted where needed
    Dotenv,
    /// export NAME=VALUE, for a POSIX shell
    Shell,
}

/// Reads the variables of a file, or of stdin.
///
/// # Errors
/// It cannot be read, a line is none, or a name or value is not accepted.
pub(super) fn read(
    file: &Path,
    secret: &[String],
    all_secret: bool,
) -> Result<Vec<VariableInput>, Failure> {
    let text = match file == Path::new("-") {
        true => text_of(io::stdin().lock()),
        false => File::open(file).and_then(text_of),
    };
    let text = text
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
    let found = parse(&text)?;
    if let Some(name) = secret.iter().find(|name| !found.contains_key(*name)) {
        let text = format!("the file has no `{}`", name.escape_debug());
        return Err(Problem::invalid("secret", text)
            .hint("a name of the file")
            .into());
    }
    let set = found.into_iter().map(|(name, value)| VariableInput {
        secret: all_secret || secret.contains(&name),
        name,
        value,
    });
    let set: Vec<_> = set.collect();
    set.iter().try_for_each(variable::check)?;
    Ok(set)
}

fn text_of(reader: impl Read) -> io::Result<String> {
    let mut text = String::new();
    reader.take(MAX_FILE + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MAX_FILE {
        true => Err(io::Error::other(format!(
            "it is larger than {MAX_FILE} bytes"
        ))),
        false => Ok(text),
    }
}

/// By name; the last one counts. Problems name no value: it may be a secret.
fn parse(text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text
        .replace(ESCAPED, STANDS_FOR_ESCAPED)
        .replace(REFERENCE, STANDS_FOR_REFERENCE);
    let mut found = BTreeMap::new();
    let mut last = "the beginning".to_owned();
    for line in dotenvy::from_read_iter(text.as_bytes()) {
        let (name, value) = line.map_err(|_| {
            let text = format!("the file cannot be read behind {last}");
            Problem::invalid("file", text).hint(
                "a line is NAME=VALUE; values with spaces, `#`, quotes or line breaks are between quotes",
            )
        })?;
        let value = value
            .replace(STANDS_FOR_ESCAPED, ESCAPED)
            .replace(STANDS_FOR_REFERENCE, REFERENCE);
        last = format!("`{name}`");
        found.insert(name, value);
    }
    Ok(found)
}

/// The file that says these variables.
///
/// # Errors
/// A value cannot be written for a shell.
pub(super) fn written(variables: &[VariableView], format: Format) -> Result<String, Problem> {
    let mut text = String::new();
    for VariableView { name, value, .. } in variables {
        let line = match (value, format) {
            (None, _) => format!("# {name} is a secret: its value is in no file\n"),
            (Some(value), Format::Dotenv) => format!("{name}={}\n", quoted(value)),
            (Some(value), Format::Shell) => {
                let value = shlex::try_quote(value).map_err(|_| {
                    Problem::invalid(name.clone(), "no shell can have this value")
                        .hint("--format dotenv")
                })?;
                format!("export {name}={value}\n")
            }
        };
        text.push_str(&line);
    }
    Ok(text)
}

/// As little quoted as possible, so that other readers get the same.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if value.chars().all(is_plain) {
        return value.to_owned();
    }
    if !value.contains(['\'', '\\', '\n', '\r']) {
        return format!("'{value}'");
    }
    let escape = |text: &str| {
        let text = text.replace('\\', r"\\").replace('"', r#"\""#);
        text.replace('$', r"\$").replace('\n', r"\n")
    };
    // What begins a reference is not read by others: see `parse`.
    let parts = value.split(ESCAPED).map(|part| {
        let parts: Vec<String> = part.split(REFERENCE).map(escape).collect();
        parts.join(REFERENCE)
    });
    format!("\"{}\"", parts.collect::<Vec<_>>().join(ESCAPED))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn view(name: &str, value: Option<&str>) -> VariableView {
        VariableView {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            secret: value.is_none(),
        }
    }

    #[test]
    fn lines_of_other_peoples_files_are_understood() {
        let text = "\u{feff}# a comment\n\nA=1\nexport B=two # why\nC='a $HOME \"b\"'\nD=\"x\\ny\"\nA=3\n\
            E=\nF=\"line\nbreak\"\nG=${A}4\nH=postgres://${{db.USER}}@x\nI=$${{text}}\n";
        let found = parse(text).expect("read");
        let wanted = [
            ("A", "3"),
            ("B", "two"),
            ("C", "a $HOME \"b\""),
            ("D", "x\ny"),
            ("E", ""),
            ("F", "line\nbreak"),
            ("G", "34"),
            ("H", "postgres://${{db.USER}}@x"),
            ("I", "$${{text}}"),
        ];
        let found: Vec<_> = found
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_wrong_is_told_without_a_value() {
        for text in [
            "A=1\nB=s3cret s3cret\n",
            "A=1\nB=\"s3cret\n",
            "A=1\n1B=s3cret\n",
        ] {
            let problem = parse(text).expect_err(text);
            let shown = format!("{problem} {problem:?}");
            assert!(
                shown.contains("behind `A`") && !shown.contains("s3cret"),
                "{shown}"
            );
        }
    }

    #[test]
    fn secrets_are_named_and_not_written() {
        let all = [view("A", Some("b c")), view("KEY", None)];
        let dotenv = written(&all, Format::Dotenv).expect("written");
        assert_eq!(
            dotenv,
            "A='b c'\n# KEY is a secret: its value is in no file\n"
        );
        let shell = written(&all, Format::Shell).expect("written");
        assert!(shell.starts_with("export A='b c'\n"), "{shell}");
        assert!(parse(&dotenv).expect("read").len() == 1);
    }

    proptest! {
        /// Odd ones more often than chance has them.
        #[test]
        fn what_is_written_is_read_back(
            value in r#"([ -~]|[\n\r\t'"\\$#{}]|\$\{\{|\$\$\{\{|[äπ語])*"#, padding in 0..3_usize
        ) {
            let value = value + &"long \n".repeat(padding * 4_000);
            let text = written(&[view("NAME", Some(&value))], Format::Dotenv).expect("written");
            let found = parse(&text).expect("read");
            prop_assert_eq!(&found["NAME"], &value, "{}", text);
        }
    }
}
