//! Where a repository's branches and tags are, and what came since the last look. Files are never fetched where the
//! other side can leave them out, and nothing is checked out.

use std::collections::BTreeMap;

use skep_model::polling::{
    Ask, Came, Found, History, MAX_COMMITS, MAX_FILES, MAX_MESSAGE, Seen, Tip, Wanted,
};
use skep_model::problem::Problem;
use skep_model::pushes::Pushes;

use super::super::folder::WorkFolder;
use super::command::Git;
use super::login::Login;
use super::read::read;
use super::remote::Remote;
use super::{WANTED_REF, check_branch, check_commit};

/// Before each commit of the list: no path and no message has it.
const COMMIT_MARK: char = '\u{1}';
/// Between a commit's message and its files.
const FILES_MARK: char = '\u{2}';

/// Asks a repository.
pub(in crate::build) async fn look(ask: &Ask, work: &WorkFolder) -> Found {
    for want in &ask.wants {
        if let Wanted::Branch(name) = &want.of {
            check_branch(name)?;
        }
        check_commit(want.since.as_deref())?;
    }
    let login = Login::of(&ask.fetch, &ask.variables)?;
    let remote = Remote::parse(&ask.repository)?;
    let git = Git::prepare((remote, &login), work).await?;
    let names = References::parse(&git.references().await?);
    let mut tips = Vec::with_capacity(ask.wants.len());
    for want in &ask.wants {
        let mut tip = names.find(&want.of);
        if let (Some(tip), Some(since)) = (&mut tip, &want.since) {
            tip.history = history(&git, since, &tip.commit).await?;
        }
        tips.push(tip);
    }
    if let (Some(read), Some(Some(tip))) = (&ask.read, tips.first_mut())
        && read.unless.as_ref() != Some(&tip.commit)
    {
        tip.files = files(&git, &tip.commit, &read.paths).await?;
    }
    Ok(tips)
}

/// What is at these paths of a commit. Only files that are read are fetched, where the other side can do that.
async fn files(git: &Git, commit: &str, paths: &[String]) -> Result<Vec<Seen>, Problem> {
    let refspec = format!("+{commit}:{WANTED_REF}");
    let how = ["--depth=1", "--filter=blob:none"];
    git.fetch(&refspec, &how).await??;
    read(git, paths).await
}

/// What came from one commit to another, where both can still be had: else all that is known is that one is not
/// what came before the other.
async fn history(git: &Git, since: &str, tip: &str) -> Result<History, Problem> {
    if since == tip {
        return Ok(History {
            lists_all: true,
            ..History::default()
        });
    }
    let refspec = format!("+{tip}:{WANTED_REF}");
    if git.fetch(&refspec, &["--filter=blob:none"]).await?.is_err() {
        return Ok(History::default());
    }
    if !git.is_before(since, WANTED_REF).await? {
        return Ok(History {
            is_forced: true,
            ..History::default()
        });
    }
    Ok(listed(
        &git.came(since, WANTED_REF, (COMMIT_MARK, FILES_MARK))
            .await?,
    ))
}

/// The commits of a log.
fn listed(text: &str) -> History {
    let mut history = History {
        lists_all: true,
        ..History::default()
    };
    let mut files_left = MAX_FILES;
    for one in text.split(COMMIT_MARK).skip(1) {
        let parsed = one
            .split_once('\n')
            .and_then(|(id, rest)| Some((id, rest.split_once(FILES_MARK)?)));
        let Some((id, (message, files))) = parsed else {
            // Cut off: git said more than is kept.
            history.lists_all = false;
            break;
        };
        // With `-z` each file ends so; the commit's own line has an end before them.
        let files: Vec<&str> = files
            .split('\0')
            .map(|it| it.trim_start_matches('\n'))
            .filter(|it| !it.is_empty())
            .collect();
        if history.commits.len() == MAX_COMMITS || files.len() > files_left {
            history.lists_all = false;
            break;
        }
        files_left -= files.len();
        let end = message.floor_char_boundary(MAX_MESSAGE);
        history.commits.push(Came {
            id: id.to_owned(),
            message: message[..end].to_owned(),
            files: files.into_iter().map(str::to_owned).collect(),
        });
    }
    history
}

/// The branches and tags of a repository.
#[derive(Default)]
struct References {
    branches: BTreeMap<String, String>,
    /// The newest first, by version; with the commit, not the tag's own object.
    tags: Vec<(String, String)>,
}

impl References {
    /// What `git ls-remote` prints, sorted by version, the newest first.
    fn parse(text: &str) -> Self {
        let mut all = Self::default();
        let mut peeled = BTreeMap::new();
        for (commit, name) in text.lines().filter_map(|line| line.split_once('\t')) {
            if let Some(branch) = name.strip_prefix("refs/heads/") {
                all.branches.insert(branch.to_owned(), commit.to_owned());
            } else if let Some(tag) = name.strip_prefix("refs/tags/") {
                match tag.strip_suffix("^{}") {
                    Some(tag) => {
                        peeled.insert(tag.to_owned(), commit.to_owned());
                    }
                    None => all.tags.push((tag.to_owned(), commit.to_owned())),
                }
            }
        }
        for (name, commit) in &mut all.tags {
            if let Some(of) = peeled.remove(name) {
                *commit = of;
            }
        }
        all
    }

    fn find(&self, wanted: &Wanted) -> Option<Tip> {
        let tip = |name: &str, commit: &str, has_known| Tip {
            name: name.to_owned(),
            commit: commit.to_owned(),
            has_known,
            history: History::default(),
            files: Vec::new(),
        };
        match wanted {
            Wanted::Branch(name) => Some(tip(name, self.branches.get(name)?, true)),
            Wanted::Tags { pattern, known } => {
                let pushes = Pushes {
                    tags: Some(pattern.clone()),
                    ..Pushes::default()
                };
                let is_known = |known: &String| self.tags.iter().any(|(name, _)| name == known);
                let has_known = known.as_ref().is_none_or(is_known);
                let mut fitting = self
                    .tags
                    .iter()
                    .filter(|(name, _)| pushes.takes_tag(name) == Some(true));
                fitting
                    .next()
                    .map(|(name, commit)| tip(name, commit, has_known))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_by_branch_and_by_version() {
        let text = "c1\trefs/heads/main\nc2\trefs/heads/dev\no3\trefs/tags/v2\nc3\trefs/tags/v2^{}\nc4\trefs/tags/v1\nc5\trefs/tags/x\n";
        let all = References::parse(text);
        let tags = |pattern: &str, known: Option<&str>| Wanted::Tags {
            pattern: pattern.into(),
            known: known.map(str::to_owned),
        };
        let cases = [
            (Wanted::Branch("main".into()), Some(("main", "c1", true))),
            (Wanted::Branch("gone".into()), None),
            (tags("v*", None), Some(("v2", "c3", true))),
            (tags("v*", Some("v1")), Some(("v2", "c3", true))),
            (tags("v*", Some("v3")), Some(("v2", "c3", false))),
            (tags("w*", None), None),
        ];
        for (wanted, expected) in cases {
            let found = all.find(&wanted);
            let found = found
                .as_ref()
                .map(|tip| (tip.name.as_str(), tip.commit.as_str(), tip.has_known));
            assert_eq!(found, expected, "{wanted:?}");
        }
    }

    #[test]
    fn a_log_that_was_cut_lists_not_all() {
        let whole = "\u{1}c2\na change\n\u{2}\n\na/b\0c d\0\u{1}c1\n[skip ci]\n\u{2}";
        let history = listed(whole);
        assert!(history.lists_all);
        let files: Vec<_> = history
            .commits
            .iter()
            .map(|one| one.files.join(","))
            .collect();
        assert_eq!(files, ["a/b,c d", ""]);
        assert_eq!(history.commits[1].message, "[skip ci]\n");
        assert!(!listed("\u{1}c2\na chan").lists_all);
    }
}
