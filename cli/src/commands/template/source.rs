//! Where a template comes from: the program itself, a folder, or the network.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use skep_model::problem::{Code, Problem};
use skep_model::template::{FILE, MAX_BYTES, Template};

use super::{From, fetch, shipped};
use crate::failure::Failure;

/// What was named.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Shipped(&'static str),
    Path(PathBuf),
    Url(String),
}

/// Finds, checks and reads a template.
///
/// # Errors
/// There is none of that name, it cannot be had, is another than wanted, or not good.
pub(super) async fn read(from: &From) -> Result<Template, Failure> {
    let text = match kind(&from.template)? {
        Kind::Shipped(text) => text.to_owned(),
        Kind::Path(path) => {
            let read = tokio::task::spawn_blocking(move || read_blocking(&path));
            read.await.expect("reading a file does not panic")?
        }
        Kind::Url(url) => fetch::text(&url).await?,
    };
    if let Some(wanted) = &from.sha256 {
        check(&text, wanted)?;
    }
    Ok(Template::parse(&text)?)
}

fn kind(named: &str) -> Result<Kind, Problem> {
    if named.contains("://") {
        return Ok(Kind::Url(named.to_owned()));
    }
    if let Some(text) = shipped::text(named) {
        return Ok(Kind::Shipped(text));
    }
    let path = PathBuf::from(named);
    if named.contains('/') || path.exists() {
        return Ok(Kind::Path(path));
    }
    let names: Vec<&str> = shipped::names().collect();
    let told = format!("there is no template `{}`", named.escape_debug());
    Err(Problem::new(Code::NotFound, told)
        .at("NAME|FOLDER|URL")
        .hint(format!(
            "there are: {}; or a folder with a {FILE}, or a URL",
            names.join(", ")
        )))
}

fn read_blocking(path: &Path) -> Result<String, Problem> {
    let path = match path.is_dir() {
        true => path.join(FILE),
        false => path.to_owned(),
    };
    let unreadable = |error: std::io::Error| {
        let told = format!("cannot read {}: {error}", path.display());
        Problem::invalid("FOLDER", told).hint(format!("a folder with a {FILE}, or that file"))
    };
    let file = std::fs::File::open(&path).map_err(unreadable)?;
    let mut text = String::new();
    let mut file = file.take(MAX_BYTES + 1);
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Whether a text is the one that was wanted.
fn check(text: &str, wanted: &str) -> Result<(), Problem> {
    let found = skep_identity::digest::sha256_hex(text.as_bytes());
    if found.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let told = format!("the template is another one: its SHA-256 is {found}");
    Err(Problem::invalid("--sha256", told).hint("read what it says before you take this number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_a_path_and_a_url_are_told_apart() {
        let shipped = shipped::text("redis").expect("shipped");
        assert_eq!(kind("redis"), Ok(Kind::Shipped(shipped)));
        assert_eq!(kind("./redis"), Ok(Kind::Path("./redis".into())));
        let url = "https://example.com/t.toml";
        assert_eq!(kind(url), Ok(Kind::Url(url.into())));
        let problem = kind("redsi").expect_err("none");
        assert!(
            problem
                .hint
                .is_some_and(|it| it.contains("postgres, redis"))
        );
    }

    #[test]
    fn a_text_that_is_another_is_refused() {
        let hex = skep_identity::digest::sha256_hex(b"a");
        assert_eq!(check("a", &hex.to_uppercase()), Ok(()));
        let problem = check("b", &hex).expect_err("another");
        assert_eq!(problem.field.as_deref(), Some("--sha256"));
    }

    #[test]
    fn a_folder_without_a_template_says_what_was_looked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let problem = read_blocking(folder.path()).expect_err("none");
        assert!(problem.message.contains(FILE), "{problem}");
        std::fs::write(folder.path().join(FILE), "x").expect("written");
        assert_eq!(read_blocking(folder.path()).as_deref(), Ok("x"));
    }
}
