//! Against real repositories in temporary folders.

use std::path::Path;
use std::process::Command;

use skep_model::id::DeploymentId;

use super::*;

mod copies;

pub(super) struct Repository {
    dir: tempfile::TempDir,
}

impl Repository {
    /// A bare repository with two commits on `main` and one on `dev`.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let this = Self { dir };
        this.git("work", &["init", "--quiet", "-b", "main", "."]);
        this.commit("one", "web/Dockerfile");
        this.commit("two", "second");
        this.git("work", &["checkout", "--quiet", "-b", "dev"]);
        this.commit("three", "third");
        this.git(".", &["clone", "--quiet", "--bare", "work", "bare.git"]);
        this
    }

    pub(super) fn path(&self, folder: &str) -> std::path::PathBuf {
        self.dir.path().join(folder)
    }

    pub(super) fn git(&self, folder: &str, arguments: &[&str]) -> String {
        let folder = self.dir.path().join(folder);
        std::fs::create_dir_all(&folder).expect("folder");
        let output = Command::new("git")
            .current_dir(folder)
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(super) fn commit(&self, message: &str, path: &str) {
        let full = self.dir.path().join("work").join(path);
        std::fs::create_dir_all(full.parent().expect("parent")).expect("folder");
        std::fs::write(full, message).expect("file");
        self.git("work", &["add", "."]);
        self.git("work", &["commit", "--quiet", "-m", message]);
    }

    fn address(&self) -> String {
        self.dir
            .path()
            .join("bare.git")
            .to_string_lossy()
            .into_owned()
    }

    fn head(&self, name: &str) -> String {
        self.git("bare.git", &["rev-parse", name])
    }
}

struct Got {
    result: Result<Fetched, Problem>,
    lines: Vec<String>,
    _work: (WorkFolder, tempfile::TempDir),
}

impl Got {
    fn fetched(&self) -> &Fetched {
        self.result.as_ref().expect("fetched")
    }
}

async fn get(repository: &str, branch: &str, commit: Option<&str>, directory: &str) -> Got {
    let dir = tempfile::tempdir().expect("folder");
    let copies = Copies::new(dir.path().join("copies"));
    get_beside(&copies, dir, (repository, branch, commit, directory)).await
}

/// The same with copies that stay.
async fn get_beside(
    copies: &Copies,
    dir: tempfile::TempDir,
    (repository, branch, commit, directory): (&str, &str, Option<&str>, &str),
) -> Got {
    let work = WorkFolder::create(dir.path(), DeploymentId::from_u128(1))
        .await
        .expect("work");
    let (sender, mut receiver) = mpsc::channel(64);
    let wanted = Wanted {
        repository,
        branch,
        commit,
        directory,
        login: Login::default(),
        kept: (copies, ServiceId::from_u128(7)),
    };
    let result = fetch(&wanted, &work, &sender).await;
    drop(sender);
    let mut lines = Vec::new();
    while let Some(line) = receiver.recv().await {
        lines.push(line);
    }
    Got {
        result,
        lines,
        _work: (work, dir),
    }
}

async fn refusal(repository: &str, branch: &str, commit: Option<&str>, directory: &str) -> Problem {
    get(repository, branch, commit, directory)
        .await
        .result
        .expect_err("refused")
}

fn has(folder: &Path, names: &[&str]) -> bool {
    names.iter().all(|name| folder.join(name).exists())
}

#[tokio::test]
async fn the_newest_commit_of_a_branch() {
    let repository = Repository::new();
    let got = get(&repository.address(), "main", None, "").await;
    let fetched = got.fetched();
    assert_eq!(fetched.commit, repository.head("main"));
    assert!(has(&fetched.folder, &["web/Dockerfile", "second"]));
    assert!(!has(&fetched.folder, &["third"]) && !has(&fetched.folder, &[".git"]));
    assert!(
        got.lines.iter().any(|line| line.contains(&fetched.commit)),
        "{:?}",
        got.lines
    );
}

#[tokio::test]
async fn one_exact_commit_and_by_its_short_name_with_the_branch() {
    let repository = Repository::new();
    let first = repository.head("main~1");
    let url = format!("file://{}", repository.address());
    // Servers give single commits out by whole names only: the short one takes the other way.
    for name in [&first[..], &first[..10]] {
        let got = get(&url, "main", Some(name), "").await;
        assert_eq!(got.fetched().commit, first);
        assert!(has(&got.fetched().folder, &["web/Dockerfile"]));
        assert!(!has(&got.fetched().folder, &["second"]));
    }
}

#[tokio::test]
async fn a_directory_is_the_apps_folder() {
    let repository = Repository::new();
    let got = get(&repository.address(), "main", None, "web").await;
    assert!(has(&got.fetched().folder, &["Dockerfile"]));
    let problem = refusal(&repository.address(), "main", None, "api").await;
    assert_eq!(problem.hint.as_deref(), Some("its folders are: web"));
    for directory in ["..", "../..", "/etc", "second"] {
        let problem = refusal(&repository.address(), "main", None, directory).await;
        assert_eq!(problem.field.as_deref(), Some("directory"), "{directory}");
    }
}

#[tokio::test]
async fn a_missing_branch_lists_those_that_exist() {
    let repository = Repository::new();
    let problem = refusal(&repository.address(), "nope", None, "").await;
    assert_eq!(problem.code, Code::SourceFailed);
    assert!(
        problem
            .message
            .starts_with("branch `nope` does not exist in "),
        "{problem}"
    );
    assert_eq!(problem.hint.as_deref(), Some("it has: dev, main"));
    let problem = refusal(
        &repository.address(),
        "nope",
        Some("0123456789012345678901234567890123456789"),
        "",
    )
    .await;
    assert_eq!(problem.field.as_deref(), Some("branch"));
}

#[tokio::test]
async fn a_repository_without_commits_says_so() {
    let repository = Repository::new();
    repository.git("empty.git", &["init", "--quiet", "--bare", "."]);
    let address = repository.dir.path().join("empty.git");
    let problem = refusal(&address.to_string_lossy(), "main", None, "").await;
    assert!(
        problem
            .hint
            .is_some_and(|hint| hint.contains("push a commit first"))
    );
}

#[tokio::test]
async fn a_missing_commit_is_named() {
    let repository = Repository::new();
    let missing = "0123456789012345678901234567890123456789";
    let problem = refusal(&repository.address(), "main", Some(missing), "").await;
    assert_eq!(problem.field.as_deref(), Some("commit"));
    assert!(problem.message.contains(missing), "{problem}");
}

#[tokio::test]
async fn what_is_no_repository_is_called_so() {
    let dir = tempfile::tempdir().expect("folder");
    for path in [dir.path().to_owned(), dir.path().join("missing")] {
        let problem = refusal(&path.to_string_lossy(), "main", None, "").await;
        assert!(
            problem.message.ends_with(" is not a git repository"),
            "{problem}"
        );
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::SourceFailed, Some("repository"))
        );
    }
    let problem = refusal("http://127.0.0.1:1/a.git", "main", None, "").await;
    assert!(problem.message.contains("cannot be fetched"), "{problem}");
}

#[tokio::test]
async fn arguments_cannot_be_smuggled_in() {
    let repository = Repository::new();
    for branch in [
        "--upload-pack=x",
        "a:refs/heads/b",
        "a b",
        "*",
        "",
        "a..b",
        "x\ny",
    ] {
        let problem = refusal(&repository.address(), branch, None, "").await;
        assert_eq!(problem.field.as_deref(), Some("branch"), "{branch}");
    }
    for commit in ["--all", "HEAD", "main", "0123", "g123456"] {
        let problem = refusal(&repository.address(), "main", Some(commit), "").await;
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::Invalid, Some("commit")),
            "{commit}"
        );
    }
}

#[tokio::test]
async fn submodules_are_left_alone() {
    let repository = Repository::new();
    let inner = repository.address();
    repository.git(
        "work",
        &[
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "--quiet",
            "add",
            &inner,
            "inner",
        ],
    );
    repository.git("work", &["commit", "--quiet", "-m", "submodule"]);
    let work = repository
        .dir
        .path()
        .join("work")
        .to_string_lossy()
        .into_owned();
    let got = get(&work, "dev", None, "").await;
    assert!(has(&got.fetched().folder, &["third", ".gitmodules"]));
    assert!(
        !has(&got.fetched().folder, &["inner/second"]),
        "the submodule is not fetched"
    );
}

#[tokio::test]
async fn odd_but_honest_paths_work() {
    let repository = Repository::new();
    let odd = repository.dir.path().join("it's a \"repo\" \\ ünïcode.git");
    std::fs::rename(repository.dir.path().join("bare.git"), &odd).expect("rename");
    let got = get(&odd.to_string_lossy(), "main", None, "").await;
    assert!(has(&got.fetched().folder, &["second"]));
}

#[tokio::test]
async fn submodules_come_when_they_are_wanted_and_say_what_fails() {
    let (inner, outer) = (Repository::new(), Repository::new());
    let add = |address: &str| {
        let always = "protocol.file.allow=always";
        outer.git(
            "work",
            &[
                "-c",
                always,
                "submodule",
                "add",
                "--quiet",
                "--force",
                address,
                "part",
            ],
        );
        outer.git("work", &["commit", "--quiet", "-m", "with a part"]);
        outer.git(
            "work",
            &["push", "--quiet", "--force", "../bare.git", "dev"],
        );
    };
    add(&inner.address());
    let got = get(&outer.address(), "dev", None, "").await;
    let fetched = got.fetched();
    let part = fetched.folder.join("part/second");
    assert!(!part.exists(), "not wanted");
    let (sender, _told) = mpsc::channel(64);
    let wanted = Fetch {
        submodules: true,
        ..Fetch::default()
    };
    fetched.complete(&wanted, &sender).await.expect("fetched");
    assert_eq!(std::fs::read_to_string(&part).expect("there"), "two");

    // The part's repository is gone.
    std::fs::remove_dir_all(inner.address()).expect("removed");
    let got = get(&outer.address(), "dev", None, "").await;
    let problem = got.fetched().complete(&wanted, &sender).await;
    let problem = problem.expect_err("gone");
    assert_eq!(problem.field.as_deref(), Some("source.submodules"));
    assert!(problem.message.contains("bare.git"), "{problem}");
}

#[tokio::test]
async fn a_missing_lfs_is_told() {
    let repository = Repository::new();
    let got = get(&repository.address(), "main", None, "").await;
    let (sender, _told) = mpsc::channel(64);
    let wanted = Fetch {
        lfs: true,
        ..Fetch::default()
    };
    // A machine that has it finds nothing to fetch.
    if let Err(problem) = got.fetched().complete(&wanted, &sender).await {
        assert_eq!(problem.field.as_deref(), Some("source.lfs"));
        assert!(problem.hint.is_some_and(|hint| hint.contains("git-lfs")));
    }
}

#[tokio::test]
async fn what_came_since_is_listed_with_its_files() {
    use skep_model::polling::{Ask, Want, Wanted};
    let repository = Repository::new();
    let (one, two) = (repository.head("main~1"), repository.head("main"));
    repository.git("bare.git", &["tag", "v1", "main~1"]);
    repository.git("bare.git", &["tag", "-a", "-m", "t", "v2", "main"]);
    let want = |of: Wanted, since: Option<&str>| Want {
        of,
        since: since.map(str::to_owned),
    };
    let main = || Wanted::Branch("main".into());
    let tags = Wanted::Tags {
        pattern: "v*".into(),
        known: Some("v1".into()),
    };
    let mut ask = Ask {
        repository: repository.address(),
        fetch: Default::default(),
        variables: Vec::new(),
        wants: vec![
            want(main(), Some(&one)),
            want(main(), Some(&repository.head("dev"))),
            want(main(), None),
            want(Wanted::Branch("gone".into()), None),
            want(tags, None),
        ],
        read: None,
    };
    let dir = tempfile::tempdir().expect("folder");
    let found = crate::build::look(&ask, dir.path()).await.expect("asked");
    let [since, forced, first, gone, tag] = &found[..] else {
        panic!("{found:?}");
    };
    let came = &since.as_ref().expect("there").history;
    assert!(came.lists_all && !came.is_forced, "{came:?}");
    assert_eq!(came.commits.len(), 1, "{came:?}");
    assert_eq!(came.commits[0].id, two);
    assert_eq!(came.commits[0].message.trim(), "two");
    assert_eq!(came.commits[0].files, ["second"]);
    assert!(forced.as_ref().expect("there").history.is_forced);
    assert_eq!(first.as_ref().expect("there").commit, two);
    assert!(gone.is_none());
    let tag = tag.as_ref().expect("there");
    assert_eq!(
        (tag.name.as_str(), &tag.commit, tag.has_known),
        ("v2", &two, true)
    );
    let left = std::fs::read_dir(dir.path()).expect("folder").count();
    assert_eq!(left, 0, "nothing is left behind");

    ask.repository = format!("{}x", repository.address());
    let problem = crate::build::look(&ask, dir.path())
        .await
        .expect_err("none");
    assert!(
        problem.message.contains("not a git repository"),
        "{problem}"
    );
}

#[tokio::test]
async fn places_of_a_commit_are_read_and_nothing_outside_of_it() {
    use std::os::unix::fs::symlink;

    use skep_model::polling::{Ask, MAX_READ, Read, Seen, Want, Wanted};
    let repository = Repository::new();
    let work = repository.path("work");
    repository.git("work", &["checkout", "--quiet", "main"]);
    for (link, target) in [
        ("inside", "second"),
        ("outside", "../../../etc/passwd"),
        ("etc", "/etc"),
        ("folder", "web"),
        ("broken", "nowhere"),
    ] {
        symlink(target, work.join(link)).expect("linked");
    }
    std::fs::write(work.join("large"), "x".repeat(MAX_READ + 1)).expect("written");
    std::fs::write(work.join("binary"), [0xff, 0xfe]).expect("written");
    repository.commit("four", "a b/c.env");
    repository.git("work", &["push", "--quiet", "../bare.git", "main"]);
    let tree = |path: &str| repository.git("work", &["rev-parse", &format!("main:{path}")]);
    let file = |text: &str| Seen::File(text.to_owned());
    let refused = |why: &str| Seen::Refused(why.to_owned());
    let out = "it leads out of the repository";
    let wanted = [
        ("second", file("two")),
        ("a b/c.env", file("four")),
        ("inside", file("two")),
        ("web", Seen::Folder(tree("web"))),
        ("folder", Seen::Folder(tree("web"))),
        ("", Seen::Folder(tree(""))),
        ("third", Seen::Nothing),
        ("second/deeper", Seen::Nothing),
        ("broken", Seen::Nothing),
        ("outside", refused("the link leads out of the repository")),
        (
            "etc/passwd",
            refused("the link leads out of the repository"),
        ),
        ("../secret", refused(out)),
        ("/etc/passwd", refused(out)),
        ("web/../../x", refused(out)),
        ("a\nb", refused(out)),
        ("large", refused("it is larger than 1048576 bytes")),
        ("binary", refused("it is not text")),
    ];
    let mut ask = Ask {
        repository: repository.address(),
        fetch: Default::default(),
        variables: Vec::new(),
        wants: vec![Want {
            of: Wanted::Branch("main".into()),
            since: None,
        }],
        read: Some(Read {
            paths: wanted.iter().map(|(path, _)| (*path).to_owned()).collect(),
            unless: Some("a".repeat(40)),
        }),
    };
    // A server that leaves files out until they are asked for, and one that cannot.
    for filters in ["true", "false"] {
        let filter = ["config", "uploadpack.allowFilter", filters];
        repository.git("bare.git", &filter);
        let dir = tempfile::tempdir().expect("folder");
        let found = crate::build::look(&ask, dir.path()).await.expect("asked");
        let tip = found[0].as_ref().expect("a tip");
        assert_eq!(tip.files.len(), wanted.len());
        for ((path, wanted), found) in wanted.iter().zip(&tip.files) {
            assert_eq!(found, wanted, "{path:?}, filters: {filters}");
        }
    }
    // What is known is not read again.
    if let Some(read) = &mut ask.read {
        read.unless = Some(repository.head("main"));
    }
    let dir = tempfile::tempdir().expect("folder");
    let found = crate::build::look(&ask, dir.path()).await.expect("asked");
    assert_eq!(found[0].as_ref().expect("a tip").files, []);
}
