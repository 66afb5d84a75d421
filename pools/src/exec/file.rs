//! Where programs are: in one folder of the server's, which its operator names when it starts. Only what nobody but the operator
//! could have put there is run: else whoever may write a file on a server would run it as the server, which holds the
//! cluster's keys.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bits of a mode that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Bits of a mode that let somebody execute.
const EXECUTABLE: u32 = 0o111;
/// Root's.
const ROOT: u32 = 0;

/// Why a program is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// This server was not told where programs are.
    #[error(
        "this server runs no programs of providers: `skep server --provider-programs DIR` says where they are"
    )]
    NoFolder,
    /// It is no bare name.
    #[error("`{0}` is no name of a file: a path is never followed")]
    NoName(String),
    /// It cannot be looked at.
    #[error("the program {path} is not there, or cannot be looked at: {why}")]
    NotThere {
        /// Where it should be.
        path: String,
        /// What the system says.
        why: String,
    },
    /// It is a link, a folder, a device.
    #[error("{0} is no regular file")]
    NoFile(String),
    /// Somebody else could change it, or what is run in its place.
    #[error("{path} belongs to the user {owner}: chown it to root, or to the server's own user")]
    Foreign {
        /// Which file or folder.
        path: String,
        /// The number of its owner.
        owner: u32,
    },
    /// The same by its mode.
    #[error("{0} can be written by others than its owner: chmod go-w")]
    Writable(String),
    /// It cannot be run.
    #[error("{0} is not executable: chmod +x")]
    NotExecutable(String),
}

/// The program of this name.
///
/// # Errors
/// Why it is not run.
pub async fn find(folder: Option<&Path>, file: &str) -> Result<PathBuf, Misplaced> {
    let folder = folder.ok_or(Misplaced::NoFolder)?;
    let is_bare = !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\0']);
    if !is_bare {
        return Err(Misplaced::NoName(file.escape_debug().to_string()));
    }
    // Whoever may write there could put another program in its place.
    owned(folder, &look(folder, true).await?)?;
    let path = folder.join(file);
    let found = look(&path, false).await?;
    let shown = || path.display().to_string();
    if !found.is_file() {
        return Err(Misplaced::NoFile(shown()));
    }
    owned(&path, &found)?;
    match found.mode() & EXECUTABLE {
        0 => Err(Misplaced::NotExecutable(shown())),
        _ => Ok(path),
    }
}

async fn look(path: &Path, follows_links: bool) -> Result<Metadata, Misplaced> {
    let found = match follows_links {
        true => tokio::fs::metadata(path).await,
        false => tokio::fs::symlink_metadata(path).await,
    };
    found.map_err(|error| Misplaced::NotThere {
        path: path.display().to_string(),
        why: error.to_string(),
    })
}

fn owned(path: &Path, found: &Metadata) -> Result<(), Misplaced> {
    let shown = || path.display().to_string();
    let owner = found.uid();
    if owner != ROOT && owner != rustix::process::geteuid().as_raw() {
        return Err(Misplaced::Foreign {
            path: shown(),
            owner,
        });
    }
    match found.mode() & WRITABLE_BY_OTHERS {
        0 => Ok(()),
        _ => Err(Misplaced::Writable(shown())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn write(folder: &Path, name: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, "#!/bin/sh\n").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
        path
    }

    #[tokio::test]
    async fn only_what_its_operator_has_put_there_is_run() {
        let kept = tempfile::tempdir().expect("a folder");
        let folder = kept.path();
        let good = write(folder, "good", 0o755);
        assert_eq!(find(Some(folder), "good").await, Ok(good.clone()));
        assert_eq!(find(None, "good").await, Err(Misplaced::NoFolder));
        fs::create_dir(folder.join("folder")).expect("made");
        symlink("/bin/sh", folder.join("link")).expect("linked");
        write(folder, "group", 0o775);
        write(folder, "all", 0o757);
        write(folder, "data", 0o644);
        for (name, says) in [
            ("../good", "is no name"),
            ("/bin/sh", "is no name"),
            ("..", "is no name"),
            (".", "is no name"),
            ("", "is no name"),
            ("folder/good", "is no name"),
            ("nobody", "is not there"),
            ("folder", "no regular file"),
            ("link", "no regular file"),
            ("group", "can be written by others"),
            ("all", "can be written by others"),
            ("data", "not executable"),
        ] {
            let refused = find(Some(folder), name).await.expect_err(name);
            assert!(refused.to_string().contains(says), "{name}: {refused}");
        }
        // Whoever may write there could put another one in its place.
        fs::set_permissions(folder, Permissions::from_mode(0o777)).expect("set");
        let refused = find(Some(folder), "good").await.expect_err("refused");
        assert_eq!(refused, Misplaced::Writable(folder.display().to_string()));
        fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("set");
        // Nobody but root gives files away: where the tests run as another, this is not seen.
        if chown(&good, Some(12_345), None).is_ok() {
            let refused = find(Some(folder), "good").await.expect_err("refused");
            assert!(matches!(refused, Misplaced::Foreign { owner: 12_345, .. }));
        }
    }
}
