//! The operator key: a file that an operator keeps outside the data directory (so that a copy of
//! the data is not a copy of the secrets), and the data keys wrapped by it.

use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::seal::{self, SealingKey};
use crate::secret_file;

/// First word of the file; the number is the version of its format.
const PREFIX: &str = "skep-operator-key.1.";
const WRAP_CONTEXT: &str = "skep data key";

/// The operator key or a data key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A backup of the data would carry its own key.
    #[error(
        "the operator key {} must not lie inside the data directory {}: choose a path outside it",
        path.display(), data_dir.display()
    )]
    InsideDataDir {
        /// Where the key was to be.
        path: PathBuf,
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The path cannot be made absolute.
    #[error("cannot resolve {}", path.display())]
    Resolve {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Reading or writing failed.
    #[error("the operator key file")]
    File(#[from] secret_file::Error),
    /// The file holds something else.
    #[error("{} is not an operator key: `{PREFIX}` and 44 characters are expected", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The wrapped key belongs to another operator key, or was altered.
    #[error("the data key does not unwrap: is this the operator key of this cluster?")]
    Unwrap(#[from] seal::Error),
}

/// Reads the operator key at `path`, or makes it on first use (mode 0600, folder 0700 if it has to
/// be made). Two processes that race get the same key. Refuses a path inside `data_dir`, also by
/// way of symbolic links. Blocks on the disk.
pub fn load_or_create(path: &Path, data_dir: &Path) -> Result<SealingKey, Error> {
    refuse_inside(path, data_dir)?;
    match load(path) {
        Err(Error::File(error)) if error.is_not_found() => {}
        result => return result,
    }
    if let Some(folder) = path
        .parent()
        .filter(|f| !f.as_os_str().is_empty() && !f.exists())
    {
        secret_file::ensure_private_dir(folder)?;
    }
    let key = SealingKey::generate();
    let text = Zeroizing::new(format!("{PREFIX}{}\n", STANDARD.encode(key.expose())));
    if secret_file::create_private(path, text.as_bytes())? {
        return Ok(key);
    }
    load(path)
}

/// Reads the operator key at `path`. Blocks on the disk.
pub fn load(path: &Path) -> Result<SealingKey, Error> {
    let malformed = || Error::Malformed {
        path: path.to_owned(),
    };
    let bytes = secret_file::read_private(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
    let encoded = text.trim_end().strip_prefix(PREFIX).ok_or_else(malformed)?;
    let key = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| malformed())?);
    SealingKey::from_bytes(&key).map_err(|_| malformed())
}

/// `data_key` sealed under the operator key: fit for the replicated state.
pub fn wrap(operator: &SealingKey, data_key: &SealingKey) -> Vec<u8> {
    operator.seal(WRAP_CONTEXT, data_key.expose())
}

/// The data key that [`wrap`] wrapped with the same operator key.
pub fn unwrap(operator: &SealingKey, wrapped: &[u8]) -> Result<SealingKey, Error> {
    let bytes = operator.open(WRAP_CONTEXT, wrapped)?;
    Ok(SealingKey::from_bytes(&bytes)?)
}

fn refuse_inside(path: &Path, data_dir: &Path) -> Result<(), Error> {
    if resolve(path)?.starts_with(resolve(data_dir)?) {
        return Err(Error::InsideDataDir {
            path: path.to_owned(),
            data_dir: data_dir.to_owned(),
        });
    }
    Ok(())
}

/// The real path of something that need not exist yet: links are followed as far as it does.
fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let failed = |source| Error::Resolve {
        path: path.to_owned(),
        source,
    };
    let absolute = std::path::absolute(path).map_err(failed)?;
    for ancestor in absolute.ancestors() {
        let Ok(real) = ancestor.canonicalize() else {
            continue;
        };
        let rest = absolute.strip_prefix(ancestor).unwrap_or(Path::new(""));
        if rest.components().any(|part| part == Component::ParentDir) {
            break;
        }
        // Joining an empty rest would append a slash.
        return Ok(if rest.as_os_str().is_empty() {
            real
        } else {
            real.join(rest)
        });
    }
    let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "`..` beyond what exists");
    Err(failed(source))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_once_private_and_then_read_back() {
        let dir = tempfile::tempdir().expect("folder");
        let (path, data) = (
            dir.path().join("keys/operator.key"),
            dir.path().join("data"),
        );
        let key = load_or_create(&path, &data).expect("create");
        let again = load_or_create(&path, &data).expect("load");
        assert_eq!(key.expose(), again.expose());
        assert_eq!(
            fs::metadata(&path).expect("metadata").permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_path_inside_the_data_directory_is_refused_also_through_links() {
        let dir = tempfile::tempdir().expect("folder");
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("data");
        std::os::unix::fs::symlink(&data, dir.path().join("link")).expect("link");
        fs::create_dir(dir.path().join("keys")).expect("keys");
        for inside in [
            "data/k",
            "data/new/k",
            "link/k",
            "link/new/k",
            "keys/../data/k",
        ] {
            let result = load_or_create(&dir.path().join(inside), &data);
            assert!(
                matches!(result, Err(Error::InsideDataDir { .. })),
                "{inside}: {result:?}"
            );
        }
        assert!(load_or_create(&dir.path().join("none/../data/k"), &data).is_err());
        assert_eq!(
            fs::read_dir(&data).expect("list").count(),
            0,
            "nothing was made inside"
        );
        load_or_create(&dir.path().join("data2-key"), &data).expect("a sibling is fine");
    }

    #[test]
    fn a_damaged_or_exposed_file_is_refused_and_not_replaced() {
        let dir = tempfile::tempdir().expect("folder");
        let (path, data) = (dir.path().join("k"), dir.path().join("data"));
        secret_file::write_private(&path, b"rubbish").expect("write");
        assert!(matches!(
            load_or_create(&path, &data),
            Err(Error::Malformed { .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(load_or_create(&path, &data), Err(Error::File(_))));
        assert_eq!(fs::read(&path).expect("read"), b"rubbish");
    }

    #[test]
    fn a_data_key_unwraps_under_its_operator_key_only() {
        let (operator, data) = (SealingKey::generate(), SealingKey::generate());
        let wrapped = wrap(&operator, &data);
        assert_eq!(
            unwrap(&operator, &wrapped).expect("unwrap").expose(),
            data.expose()
        );
        assert!(matches!(
            unwrap(&SealingKey::generate(), &wrapped),
            Err(Error::Unwrap(_))
        ));
        let sealed_value = operator.seal("variable", data.expose());
        assert!(
            unwrap(&operator, &sealed_value).is_err(),
            "only wrapped keys unwrap"
        );
    }
}
