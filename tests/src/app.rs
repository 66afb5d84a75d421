//! Folders that are apps: the test app's binary, a Dockerfile that says how it misbehaves, and what
//! else a test puts there.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::containers::TEST_LABEL;
use crate::place;

/// A shell that runs on an empty image.
const BUSYBOX: &str = "/bin/busybox";

/// A folder that can be built.
pub struct App {
    dir: PathBuf,
    run: String,
}

impl App {
    /// A folder with the test app that answers with this `VERSION`; its images carry the label of
    /// the run.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(dir: impl Into<PathBuf>, run: &str, version: &str) -> Result<Self> {
        let app = Self {
            dir: dir.into(),
            run: run.to_owned(),
        };
        std::fs::create_dir_all(&app.dir)?;
        let binary = app.dir.join("skep-test-app");
        std::fs::copy(place::test_app()?, &binary).context("copying the test app")?;
        app.set(version, &[])?;
        Ok(app)
    }

    /// Writes the Dockerfile anew: this version, and these variables of the test app.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, version: &str, settings: &[(&str, &str)]) -> Result<()> {
        let all = [("VERSION", version)]
            .into_iter()
            .chain(settings.iter().copied());
        let lines: String = all
            .map(|(name, value)| format!("ENV {name}=\"{value}\"\n"))
            .collect();
        self.write(
            "Dockerfile",
            &self.dockerfile(&format!("{lines}EXPOSE 8080\n")),
        )
    }

    /// Writes the Dockerfile anew with these lines instead of any EXPOSE.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_lines(&self, lines: &str) -> Result<()> {
        self.write("Dockerfile", &self.dockerfile(lines))
    }

    /// Writes the Dockerfile anew with a shell in which `lines` can RUN, and the test app at its end.
    ///
    /// # Errors
    /// There is no static busybox, or a file cannot be written.
    pub fn set_steps(&self, lines: &str) -> Result<()> {
        self.copy_shell()?;
        let text = format!(
            "FROM scratch\nLABEL {TEST_LABEL}={}\nCOPY busybox /bin/busybox\n\
             SHELL [\"/bin/busybox\", \"sh\", \"-c\"]\nCOPY skep-test-app /skep-test-app\n{lines}\n\
             EXPOSE 8080\nENTRYPOINT [\"/skep-test-app\"]\n",
            self.run
        );
        self.write("Dockerfile", &text)
    }

    /// Writes the Dockerfile anew: this version, with busybox, and a command where others have an entry
    /// point.
    ///
    /// # Errors
    /// There is no static busybox, or the file cannot be written.
    pub fn set_shell(&self, version: &str) -> Result<()> {
        self.copy_shell()?;
        let text = format!(
            "FROM scratch\nLABEL {TEST_LABEL}={}\nCOPY busybox /bin/busybox\n\
             COPY skep-test-app /skep-test-app\nENV VERSION=\"{version}\"\nEXPOSE 8080\n\
             CMD [\"/skep-test-app\"]\n",
            self.run
        );
        self.write("Dockerfile", &text)
    }

    fn copy_shell(&self) -> Result<()> {
        let shell = self.dir.join("busybox");
        if !shell.exists() {
            std::fs::copy(BUSYBOX, shell)
                .context("a static busybox is needed: apt install busybox-static")?;
        }
        Ok(())
    }

    /// The label comes first: no layer is shared with other runs, so that removing this run's
    /// images takes nothing from a build of another that goes on meanwhile.
    fn dockerfile(&self, lines: &str) -> String {
        format!(
            "FROM scratch\nLABEL {TEST_LABEL}={}\nCOPY skep-test-app /skep-test-app\n{lines}\
             ENTRYPOINT [\"/skep-test-app\"]\n",
            self.run
        )
    }

    /// Writes a file of the folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder as an argument.
    ///
    /// # Errors
    /// Its path is no text.
    pub fn path(&self) -> Result<&str> {
        self.dir.to_str().context("the folder's path is no text")
    }
}
