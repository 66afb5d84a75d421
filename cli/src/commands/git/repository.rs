//! The repository that a person works in: its remotes, and what its git is told of a server. Runs the `git` program
//! and nothing else.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::failure::Failure;

/// The repository of the folder at hand.
pub(super) struct Repository;

impl Repository {
    /// It.
    ///
    /// # Errors
    /// There is none, or no git.
    pub(super) async fn here() -> Result<Self, Failure> {
        let found = git(&["rev-parse", "--git-dir"]).await?;
        match found.status.success() {
            true => Ok(Self),
            false => Err(Failure::usage("this folder is in no git repository")
                .hint("`git init` makes one; or go to the folder of yours")),
        }
    }

    /// Whether a remote of that name may be made, or set again.
    ///
    /// # Errors
    /// It leads elsewhere.
    pub(super) async fn check_remote(&self, name: &str, base: &str) -> Result<(), Failure> {
        let checked = git(&["check-ref-format", &format!("refs/remotes/{name}/x")]).await?;
        if !checked.status.success() || name.starts_with('-') {
            let text = format!("`{}` is no name of a remote", name.escape_debug());
            return Err(Failure::usage(text).hint("for example skep"));
        }
        let known = git(&["config", "--get", &format!("remote.{name}.url")]).await?;
        let url = String::from_utf8_lossy(&known.stdout).trim().to_owned();
        if !known.status.success() || is_ours(&url, base) {
            return Ok(());
        }
        let text = format!("the remote `{name}` leads elsewhere: {url}");
        Err(Failure::usage(text).hint("give this one another name: --name"))
    }

    /// Makes the remote, or sets where it leads.
    ///
    /// # Errors
    /// What git says.
    pub(super) async fn set_remote(&self, name: &str, url: &str) -> Result<(), Failure> {
        let known = git(&["config", "--get", &format!("remote.{name}.url")]).await?;
        let verb = if known.status.success() {
            "set-url"
        } else {
            "add"
        };
        done(&["remote", verb, name, url]).await
    }

    /// Lets git ask us for the token of this server, and verify it by its cluster's CA.
    ///
    /// # Errors
    /// What git says.
    pub(super) async fn trust(&self, base: &str, ca: &Path) -> Result<(), Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("where skep is cannot be told: {error}")))?;
        let helper = format!("credential.{base}.helper");
        let ask = format!("!{} git credential", quoted(&program.to_string_lossy()));
        // None of those that others have set up are asked, or told.
        done(&["config", "--local", "--replace-all", &helper, ""]).await?;
        done(&["config", "--local", "--add", &helper, &ask]).await?;
        let verify = format!("http.{base}/.sslCAInfo");
        done(&["config", "--local", &verify, &ca.to_string_lossy()]).await?;
        // By HTTP/2 many versions of the library by which git speaks it lose parts of what they send, or hang
        // (curl/curl#11157, #11426, #14892).
        let version = format!("http.{base}/.version");
        done(&["config", "--local", &version, "HTTP/1.1"]).await
    }
}

/// One that an earlier run has made, at whichever server.
fn is_ours(url: &str, base: &str) -> bool {
    let path = url.strip_prefix(base).or_else(|| {
        let (_, rest) = url.strip_prefix("https://")?.split_once('/')?;
        Some(&url[url.len() - rest.len() - 1..])
    });
    path.is_some_and(|path| path.starts_with("/git/") && path.split('/').count() == 5)
}

/// For the shell by which git starts it.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''"))
}

async fn done(arguments: &[&str]) -> Result<(), Failure> {
    let output = git(arguments).await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::failed(format!(
        "git {}: {}",
        arguments[0],
        said.trim()
    )))
}

async fn git(arguments: &[&str]) -> Result<Output, Failure> {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command.output().await.map_err(|error| {
        Failure::failed(format!("git cannot be run: {error}")).hint("install it: apt install git")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_remotes_of_ours_are_set_again() {
        let base = "https://h:7643";
        for (url, expected) in [
            ("https://h:7643/git/shop/production/web", true),
            ("https://other:1/git/shop/production/web", true),
            ("https://github.com/git/git", false),
            ("https://github.com/acme/shop.git", false),
            ("git@github.com:acme/shop.git", false),
            ("/srv/git/a/b/c", false),
            ("", false),
        ] {
            assert_eq!(is_ours(url, base), expected, "{url}");
        }
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
