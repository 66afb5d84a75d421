//! Fetching one commit with the `git` program: shallow, submodules and LFS only where they are wanted,
//! without ever asking anybody for a password. The repository's address goes through a private configuration file: it
//! may hold a token, and arguments can be read by every user of the machine.

mod command;
mod kept;
mod login;
mod look;
mod read;
mod remote;
mod store;

use std::fmt;
use std::path::{Path, PathBuf};

use skep_model::build::Fetch;
use skep_model::id::ServiceId;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;

use super::folder::{self, WorkFolder, blocking};
use super::say;
use command::Git;
pub use kept::Copies;
use kept::Kept;
pub(super) use login::Login;
pub(super) use look::look;
use remote::Remote;
pub use store::Stores;

/// Where a fetched commit is named in our copy.
const WANTED_REF: &str = "refs/skep/wanted";
/// Digits of a commit's whole name, at least.
const WHOLE_NAME: usize = 40;
/// Names shown when something is missing.
const SHOWN_NAMES: usize = 12;

/// What to fetch.
pub(super) struct Wanted<'a> {
    /// URL, or a path on this node.
    pub(super) repository: &'a str,
    /// The branch.
    pub(super) branch: &'a str,
    /// The commit; none: the branch's newest.
    pub(super) commit: Option<&'a str>,
    /// Folder inside the repository; empty: its root.
    pub(super) directory: &'a str,
    /// As whom; nobody is asked.
    pub(super) login: Login,
    /// The copies that the node keeps, and whose it would be.
    pub(super) kept: (&'a Copies, ServiceId),
}

/// What was fetched.
pub(super) struct Fetched {
    /// The app's folder, without git's own files.
    pub(super) folder: PathBuf,
    /// The full name of the commit.
    pub(super) commit: String,
    git: Git,
    tree: PathBuf,
    /// What `git` reads beside its own.
    _kept: Option<Kept>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("commit", &self.commit)
            .finish_non_exhaustive()
    }
}

impl Fetched {
    /// Brings what the repository only points to, where that is wanted.
    ///
    /// # Errors
    /// [`Code::SourceFailed`] where it cannot be had.
    pub(super) async fn complete(
        &self,
        wanted: &Fetch,
        lines: &mpsc::Sender<String>,
    ) -> Result<(), Problem> {
        if wanted.submodules {
            say(lines, "source: submodules").await;
            if self.git.remote.is_pushed() {
                self.git.refuse_relative_submodules(&self.tree).await?;
            }
            self.git.submodules(&self.tree).await?;
        }
        if wanted.lfs {
            say(lines, "source: files of Git LFS").await;
            self.git.lfs(&self.tree).await?;
        }
        Ok(())
    }
}

/// Fetches into the build's folder.
///
/// # Errors
/// [`Code::SourceFailed`] where the repository, branch, commit or directory is at fault.
pub(super) async fn fetch(
    wanted: &Wanted<'_>,
    work: &WorkFolder,
    lines: &mpsc::Sender<String>,
) -> Result<Fetched, Problem> {
    check_branch(wanted.branch)?;
    check_commit(wanted.commit)?;
    let remote = Remote::parse(wanted.repository)?;
    say(
        lines,
        format!("source: {} (branch {})", remote.shown, wanted.branch),
    )
    .await;
    let git = Git::prepare((remote, &wanted.login), work).await?;
    let tree = work.path().join("src");
    let (commit, kept) = match from_kept(&git, wanted, &tree).await? {
        Some((commit, kept)) => (commit, Some(kept)),
        None => (anew(&git, wanted, &tree).await?, None),
    };
    say(lines, format!("source: commit {commit}")).await;
    let folder = directory_of(&git, (&tree, wanted.directory), &commit).await?;
    Ok(Fetched {
        folder,
        commit,
        git,
        tree,
        _kept: kept,
    })
}

/// A commit that was pushed to the cluster itself.
pub(super) struct Commit<'a> {
    /// Whose.
    pub(super) service: ServiceId,
    /// The branch that it was pushed to.
    pub(super) branch: &'a str,
    /// Its whole name.
    pub(super) commit: &'a str,
    /// Folder inside the repository; empty: its root.
    pub(super) directory: &'a str,
}

/// Checks out of what the node holds of people's pushes: nothing is fetched, and nobody is asked.
///
/// # Errors
/// The node does not hold the commit (any more), or the directory is at fault.
pub(super) async fn from_store(
    (stores, wanted): (&Stores, &Commit<'_>),
    work: &WorkFolder,
    lines: &mpsc::Sender<String>,
) -> Result<Fetched, Problem> {
    let remote = Remote::pushed();
    say(lines, format!("source: pushed (branch {})", wanted.branch)).await;
    let git = Git::prepare((remote, &Login::default()), work).await?;
    let (store, tree) = (stores.path(wanted.service), work.path().join("src"));
    let commit = wanted.commit.to_owned();
    if store::missing(&store, std::slice::from_ref(&commit))
        .await?
        .is_some()
    {
        return Err(store::not_held(&commit));
    }
    git.borrow(&store).await?;
    git.check_out(&commit, &tree).await?;
    say(lines, format!("source: commit {commit}")).await;
    let folder = directory_of(&git, (&tree, wanted.directory), &commit).await?;
    Ok(Fetched {
        folder,
        commit,
        git,
        tree,
        _kept: None,
    })
}

async fn directory_of(
    git: &Git,
    (tree, directory): (&Path, &str),
    commit: &str,
) -> Result<PathBuf, Problem> {
    let (directory, shown, short) = (
        directory.to_owned(),
        git.remote.shown.clone(),
        commit[..12].to_owned(),
    );
    let top = tree.to_owned();
    blocking(move || find_directory(&top, &directory, &shown, &short)).await
}

/// Fetches what is new into the copy that the node keeps, and checks out of it; none: there is no such copy, or
/// something was wrong, and fetching anew tells what.
async fn from_kept(
    git: &Git,
    wanted: &Wanted<'_>,
    tree: &Path,
) -> Result<Option<(String, Kept)>, Problem> {
    let refspec = match wanted.commit {
        Some(commit) if commit.len() >= WHOLE_NAME => format!("+{commit}:{WANTED_REF}"),
        // Only a branch's history knows what a short name means.
        Some(_) => return Ok(None),
        None => format!("+refs/heads/{}:{WANTED_REF}", wanted.branch),
    };
    let (copies, service) = wanted.kept;
    let Some(kept) = copies.take(service, &git.remote.url).await else {
        return Ok(None);
    };
    let tried = async {
        let copy = git.with_copy(&kept.path()).await?;
        copy.fetch(&refspec, &["--depth=1", "--no-write-fetch-head"])
            .await??;
        let commit = copy.commit_of(WANTED_REF).await?;
        let commit = commit.ok_or_else(|| no_commit(git, WANTED_REF))?;
        git.borrow(&kept.path()).await?;
        git.check_out(&commit, tree).await?;
        Ok::<_, Problem>(commit)
    };
    match tried.await {
        Ok(commit) => Ok(Some((commit, kept))),
        Err(problem) => {
            tracing::debug!(%problem, "the kept copy of a repository goes");
            kept.discard();
            git.give_back().await?;
            let tree = tree.to_owned();
            blocking(move || {
                folder::remove(&tree);
                Ok(None)
            })
            .await
        }
    }
}

/// The commit and its files, with nothing to begin from.
async fn anew(git: &Git, wanted: &Wanted<'_>, tree: &Path) -> Result<String, Problem> {
    let commit = match wanted.commit {
        Some(commit) => fetch_commit(git, wanted.branch, commit).await?,
        None => {
            fetch_branch(git, wanted.branch, &["--depth=1"]).await?;
            git.commit_of(WANTED_REF)
                .await?
                .ok_or_else(|| no_commit(git, WANTED_REF))?
        }
    };
    git.check_out(&commit, tree).await?;
    Ok(commit)
}

/// The one commit where the server gives single commits out (and the name is whole), else the
/// branch with its history.
async fn fetch_commit(git: &Git, branch: &str, commit: &str) -> Result<String, Problem> {
    if commit.len() >= WHOLE_NAME {
        let refspec = format!("+{commit}:{WANTED_REF}");
        if git.fetch(&refspec, &["--depth=1"]).await?.is_ok() {
            let found = git.commit_of(WANTED_REF).await?;
            return found.ok_or_else(|| no_commit(git, commit));
        }
    }
    fetch_branch(git, branch, &[]).await?;
    let found = git.commit_of(commit).await?;
    found.ok_or_else(|| {
        let problem = no_commit(git, commit);
        problem.hint(format!(
            "branch `{branch}` may have been pushed over since: push or deploy again"
        ))
    })
}

async fn fetch_branch(git: &Git, branch: &str, how: &[&str]) -> Result<(), Problem> {
    let refspec = format!("+refs/heads/{branch}:{WANTED_REF}");
    let Err(failed) = git.fetch(&refspec, how).await? else {
        return Ok(());
    };
    // The fetch failed. Whether the branch or the whole repository is missing, listing tells.
    let branches = git.branches().await?;
    if branches.iter().any(|name| name == branch) {
        return Err(failed);
    }
    let problem = Problem::new(
        Code::SourceFailed,
        format!("branch `{branch}` does not exist in {}", git.remote.shown),
    )
    .at("branch");
    Err(if branches.is_empty() {
        problem.hint("it has no branches yet: push a commit first")
    } else {
        problem.hint(format!("it has: {}", some_of(branches)))
    })
}

fn no_commit(git: &Git, commit: &str) -> Problem {
    Problem::new(
        Code::SourceFailed,
        format!("commit {commit} does not exist in {}", git.remote.shown),
    )
    .at("commit")
}

fn some_of(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(SHOWN_NAMES);
    names.truncate(SHOWN_NAMES);
    let listed = names.join(", ");
    if more == 0 {
        listed
    } else {
        format!("{listed} and {more} more")
    }
}

/// Git's own rules for names of branches, where they matter here: nothing that means something
/// else within a refspec. Source: git-check-ref-format(1).
fn check_branch(branch: &str) -> Result<(), Problem> {
    let is_odd = branch.is_empty()
        || branch.starts_with(['-', '/'])
        || branch.ends_with(['/', '.'])
        || branch.contains("..")
        || branch.contains("//")
        || branch.contains("@{")
        || branch
            .chars()
            .any(|c| c.is_control() || " ~^:?*[\\".contains(c));
    if is_odd {
        return Err(Problem::invalid(
            "branch",
            format!("`{}` is not a name of a branch", branch.escape_debug()),
        )
        .hint("for example main"));
    }
    Ok(())
}

fn check_commit(commit: Option<&str>) -> Result<(), Problem> {
    let is_name = |text: &str| {
        (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    match commit {
        Some(text) if !is_name(text) => Err(Problem::invalid(
            "commit",
            format!("`{}` is not a commit", text.escape_debug()),
        )
        .hint("7 to 64 hexadecimal digits, as `git rev-parse HEAD` prints them")),
        _ => Ok(()),
    }
}

fn find_directory(
    tree: &Path,
    directory: &str,
    repository: &str,
    commit: &str,
) -> Result<PathBuf, Problem> {
    if let Some(found) = folder::inside(tree, directory).filter(|path| path.is_dir()) {
        return Ok(found);
    }
    let problem = Problem::new(
        Code::SourceFailed,
        format!(
            "there is no folder `{}` in {repository} at commit {commit}",
            directory.escape_debug()
        ),
    )
    .at("directory");
    let mut folders: Vec<String> = std::fs::read_dir(tree)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    Err(if folders.is_empty() {
        problem.hint("it has no folders: leave the directory empty for its root")
    } else {
        problem.hint(format!("its folders are: {}", some_of(folders)))
    })
}

#[cfg(test)]
mod tests;
