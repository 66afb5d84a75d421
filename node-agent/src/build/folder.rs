//! The folder of one build, and safe looks into folders that other people filled. Never follows a
//! link out of such a folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_identity::random;
use skep_model::id::DeploymentId;
use skep_model::problem::{Code, Problem};

/// Prefix of the names of builds' folders: nothing else in the work folder is ever removed.
const PREFIX: &str = "build-";

/// Runs `work` where it may block.
///
/// # Errors
/// What `work` says; a panic in it is a fault of ours.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(Problem::new(Code::Internal, "a step of the build panicked")),
    }
}

/// A fresh private folder. Removed when the last user of it is done: the threads that still write
/// into it when a build is canceled hold it too.
#[derive(Debug)]
pub(super) struct WorkFolder {
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
}

/// Keeps the folder while a thread works in it.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    _inner: Arc<Inner>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

impl WorkFolder {
    /// Makes the folder of a build. Each try has its own: threads of a canceled try may still be
    /// removing theirs.
    pub(super) async fn create(work_dir: &Path, build: DeploymentId) -> Result<Self, Problem> {
        let path = work_dir.join(format!("{PREFIX}{build}-{:032x}", random::new_id()));
        blocking(move || {
            skep_identity::secret_file::ensure_private_dir(&path).map_err(|error| {
                Problem::new(Code::Internal, "the node has no folder to build in")
                    .hint(chain(&error))
            })?;
            Ok(Self {
                inner: Some(Arc::new(Inner { path })),
            })
        })
        .await
    }

    pub(super) fn path(&self) -> &Path {
        &self.held().path
    }

    pub(super) fn hold(&self) -> Hold {
        Hold {
            _inner: Arc::clone(self.held()),
        }
    }

    fn held(&self) -> &Arc<Inner> {
        self.inner.as_ref().expect("taken only by remove and drop")
    }

    /// Removes the folder with all that is in it.
    pub(super) async fn remove(mut self) {
        let inner = self.inner.take();
        // A panic while removing leaves files, which `clean` takes.
        let _ = tokio::task::spawn_blocking(move || drop(inner)).await;
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            // A canceled build: its folder may be large, and this is an async worker.
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || drop(inner))),
                Err(_) => drop(inner),
            }
        }
    }
}

/// See [`super::clean`].
pub(super) fn clean(work_dir: &Path) {
    let Ok(entries) = fs::read_dir(work_dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            remove(&entry.path());
        }
    }
}

/// Removes a folder; what cannot be is said in the agent's log.
pub(super) fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a folder of builds");
        }
        _ => {}
    }
}

/// Makes room at a path in a folder that other people filled, be it a link.
pub(super) fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

/// An error with everything that caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The real path of `path` inside `folder`, links followed; none where it does not exist or leads
/// out of the folder.
pub(super) fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let root = folder.canonicalize().ok()?;
    let real = root.join(path).canonicalize().ok()?;
    real.starts_with(&root).then_some(real)
}

/// Whether `path` is a plain file inside `folder`.
pub(super) fn has_file(folder: &Path, path: &str) -> bool {
    inside(folder, path).is_some_and(|real| real.is_file())
}

/// Opens a plain file inside `folder`.
pub(super) fn open(folder: &Path, path: &str) -> Option<io::Result<File>> {
    let real = inside(folder, path)?;
    real.is_file().then(|| File::open(real))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_only_inside() {
        let dir = tempfile::tempdir().expect("folder");
        let app = dir.path().join("app");
        fs::create_dir(&app).expect("app");
        fs::write(dir.path().join("secret"), "x").expect("secret");
        fs::write(app.join("Dockerfile"), "FROM scratch").expect("file");
        symlink("Dockerfile", app.join("good")).expect("link");
        symlink("../secret", app.join("bad")).expect("link");
        assert!(has_file(&app, "Dockerfile") && has_file(&app, "good"));
        for path in ["bad", "../secret", "missing", ".", ""] {
            assert!(!has_file(&app, path), "{path}");
        }
    }

    #[tokio::test]
    async fn the_folder_lives_as_long_as_somebody_works_in_it() {
        let dir = tempfile::tempdir().expect("folder");
        fs::create_dir(dir.path().join("other")).expect("other");
        let id = DeploymentId::from_u128(5);
        let work = WorkFolder::create(dir.path(), id).await.expect("made");
        let path = work.path().to_owned();
        fs::write(path.join("x"), "left over").expect("write");
        let hold = work.hold();
        work.remove().await;
        assert!(path.exists(), "a thread still holds it");
        let again = WorkFolder::create(dir.path(), id).await.expect("made");
        assert_eq!(fs::read_dir(again.path()).expect("list").count(), 0);
        drop(hold);
        assert!(!path.exists() && again.path().exists());

        let path = again.path().to_owned();
        fs::write(path.join("x"), "as left by a killed agent").expect("write");
        std::mem::forget(again);
        clean(dir.path());
        assert!(!path.exists() && dir.path().join("other").exists());
    }
}
