//! The folder of a Compose file: what the file names in it is read, and nothing outside of it, also not by way of
//! a link. Decides nothing on what is read.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;
use skep_compose::{Beside, MAX_BYTES};
use skep_model::problem::{Code, Problem};

/// Names that Compose looks for, in its order.
const FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// A Compose file in its folder.
#[derive(Debug)]
pub(super) struct Folder {
    /// Absolute, links resolved.
    pub(super) dir: PathBuf,
    /// The Compose file's name.
    pub(super) file: String,
    /// What it says.
    pub(super) text: String,
    handle: OwnedFd,
}

impl Folder {
    /// Reads a Compose file; without one, the first of the usual names.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(super) fn open(file: Option<&Path>) -> Result<Self, Problem> {
        let path = match file {
            Some(path) if path.is_dir() => usual(path)?,
            Some(path) => path.to_owned(),
            None => usual(Path::new("."))?,
        };
        let unreadable = |why: String| {
            Problem::invalid("file", format!("cannot read {}: {why}", path.display()))
        };
        let text = std::fs::File::open(&path).map_err(|error| unreadable(error.to_string()));
        let text = read(text?).map_err(unreadable)?;
        let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
        let dir = parent.unwrap_or(Path::new(".")).canonicalize();
        let dir = dir.map_err(|error| unreadable(error.to_string()))?;
        let handle = open(&dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            file: name.into_owned(),
            text,
            handle: handle.map_err(|error| unreadable(error.to_string()))?,
            dir,
        })
    }

    /// What is at a path below the folder.
    ///
    /// # Errors
    /// It leads out of the folder, or is nothing that is read, as a sentence.
    pub(super) fn look(&self, path: &str) -> Result<Beside, String> {
        let shown = path.escape_debug();
        // A pipe must not hold us up.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = match self.beneath(path, flags) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Beside::Nothing),
            Err(error) => return Err(explain(path, error)),
        };
        let is = fstat(&opened).map(|stat| FileType::from_raw_mode(stat.st_mode));
        match is {
            Ok(FileType::Directory) => Ok(Beside::Folder),
            Ok(FileType::RegularFile) => match read(opened.into()) {
                Ok(text) => Ok(Beside::File(text)),
                Err(why) => Err(format!("`{shown}` cannot be read: {why}")),
            },
            _ => Err(format!("`{shown}` is neither a file nor a folder")),
        }
    }

    /// A folder below it, links resolved.
    ///
    /// # Errors
    /// There is none, or it leads out.
    pub(super) fn below(&self, path: &str) -> Result<PathBuf, Problem> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let refused =
            |why: String| Problem::invalid("build", why).hint("a folder below the file's");
        if let Err(error) = self.beneath(path, flags) {
            return Err(refused(explain(path, error)));
        }
        let resolved = self.dir.join(path).canonicalize();
        resolved.map_err(|error| refused(format!("`{}`: {error}", path.escape_debug())))
    }

    fn beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.handle, path, flags, Mode::empty(), within)
    }
}

/// The file that Compose would take.
fn usual(dir: &Path) -> Result<PathBuf, Problem> {
    let found = FILES
        .iter()
        .map(|name| dir.join(name))
        .find(|it| it.is_file());
    found.ok_or_else(|| {
        let text = format!("no Compose file in {}", dir.display());
        let hint = format!(
            "name it: skep import FILE; looked for are {}",
            FILES.join(", ")
        );
        Problem::new(Code::Invalid, text).at("file").hint(hint)
    })
}

fn explain(path: &str, error: Errno) -> String {
    let shown = path.escape_debug();
    match error {
        Errno::XDEV => format!("`{shown}` leads out of the file's folder"),
        Errno::NOSYS => "reading within a folder alone needs Linux 5.6".to_owned(),
        error => format!("`{shown}`: {error}"),
    }
}

fn read(file: std::fs::File) -> Result<String, String> {
    let mut text = Vec::new();
    let most = file.take(MAX_BYTES + 1).read_to_end(&mut text);
    match most {
        Err(error) => Err(error.to_string()),
        Ok(read) if read as u64 > MAX_BYTES => Err(format!("larger than {MAX_BYTES} bytes")),
        Ok(_) => String::from_utf8(text).map_err(|_| "not text".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().expect("a folder");
        let dir = root.path().join("app");
        fs::create_dir_all(dir.join("web")).expect("made");
        fs::write(dir.join("compose.yaml"), "services: {}\n").expect("written");
        fs::write(dir.join("a.env"), "A=1\n").expect("written");
        fs::write(dir.join("binary"), [0xff, 0xfe]).expect("written");
        fs::write(root.path().join("secret"), "nobody's").expect("written");
        symlink("a.env", dir.join("inside")).expect("linked");
        symlink("../secret", dir.join("outside")).expect("linked");
        symlink("..", dir.join("up")).expect("linked");
        symlink("/etc", dir.join("etc")).expect("linked");
        let opened = Folder::open(Some(&dir)).expect("opened");
        (root, opened)
    }

    #[test]
    fn nothing_outside_of_the_folder_is_read() {
        let (_root, folder) = folder();
        let file = |text: &str| Ok(Beside::File(text.to_owned()));
        for (path, wanted) in [
            ("a.env", file("A=1\n")),
            ("./a.env", file("A=1\n")),
            ("web/../a.env", file("A=1\n")),
            ("inside", file("A=1\n")),
            ("web", Ok(Beside::Folder)),
            ("none", Ok(Beside::Nothing)),
            ("a.env/none", Ok(Beside::Nothing)),
            ("outside", Err("leads out")),
            ("../secret", Err("leads out")),
            ("up/secret", Err("leads out")),
            ("etc/passwd", Err("leads out")),
            ("/etc/passwd", Err("leads out")),
            ("web/../../secret", Err("leads out")),
            ("binary", Err("not text")),
            ("a\0b", Err("")),
        ] {
            match (folder.look(path), wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{path}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{path}: {why}"),
                (found, wanted) => panic!("{path}: {found:?}, not {wanted:?}"),
            }
        }
        assert!(folder.below("web").expect("a folder").ends_with("app/web"));
        for path in ["up", "etc", "../app", "a.env", "none"] {
            let problem = folder.below(path).expect_err(path);
            assert!(problem.hint.is_some(), "{path}");
        }
    }

    #[test]
    fn a_pipe_holds_nobody_up_and_large_files_are_refused() {
        let (_root, folder) = folder();
        let status = std::process::Command::new("mkfifo")
            .arg(folder.dir.join("pipe"))
            .status();
        assert!(status.expect("mkfifo").success());
        assert!(folder.look("pipe").expect_err("a pipe").contains("neither"));
        let large = usize::try_from(MAX_BYTES).expect("small") + 1;
        fs::write(folder.dir.join("large"), "x".repeat(large)).expect("written");
        assert!(folder.look("large").expect_err("large").contains("larger"));
    }

    #[test]
    fn the_file_is_the_one_that_compose_would_take() {
        let (_root, folder) = folder();
        assert_eq!(
            (&*folder.file, &*folder.text),
            ("compose.yaml", "services: {}\n")
        );
        let dir = folder.dir.clone();
        fs::rename(dir.join("compose.yaml"), dir.join("docker-compose.yml")).expect("renamed");
        let found = Folder::open(Some(&dir)).expect("another name");
        assert_eq!(found.file, "docker-compose.yml");
        let problem = Folder::open(Some(&dir.join("web"))).expect_err("none");
        assert!(
            problem
                .hint
                .is_some_and(|hint| hint.contains("compose.yml"))
        );
        Folder::open(Some(&dir.join("none.yaml"))).expect_err("no such file");
    }
}
