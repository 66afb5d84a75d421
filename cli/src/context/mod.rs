//! Contexts: which clusters this user knows, how to recognise them and what to say to them. Owns
//! `config.toml` in the configuration folder (0600: it holds tokens); never talks to a server.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skep_identity::fingerprint::Fingerprint;
use skep_identity::secret_file;
use skep_model::problem::{Code, Problem};

use crate::failure::{Exit, Failure, chain};

#[cfg(test)]
mod tests;

/// Version of the file's form.
const VERSION: u32 = 1;
const FILE: &str = "config.toml";

/// One cluster and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Base URL of the API: `https://host:port`.
    pub(crate) server: String,
    /// Fingerprint of the cluster's CA: 64 hex digits.
    pub(crate) fingerprint: String,
    /// Bearer token.
    pub(crate) token: String,
    /// Base URL at which webhooks reach the server, where it is not `server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hooks: Option<String>,
    /// Base URLs of all servers of the cluster, as they were last told: asked where `server` does not
    /// serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) servers: Vec<String>,
}

impl Context {
    /// Checks what a person may have typed.
    ///
    /// # Errors
    /// Names the field.
    pub(crate) fn check(&self) -> Result<Fingerprint, Problem> {
        let uri: Option<http::Uri> = self.server.parse().ok();
        let is_https = uri.as_ref().and_then(http::Uri::scheme_str) == Some("https");
        let has_host = uri.as_ref().and_then(http::Uri::host).is_some();
        if !is_https || !has_host {
            let shown = self.server.escape_debug();
            return Err(Problem::invalid(
                "server",
                format!("`{shown}` is not the URL of a server"),
            )
            .hint("https://HOST:PORT: the API speaks TLS only"));
        }
        if self.token.is_empty() || self.token.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(Problem::invalid("token", "the token is empty or broken"));
        }
        self.fingerprint
            .parse()
            .map_err(|error| Problem::invalid("fingerprint", format!("{error}")))
    }
}

/// Every context of this user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    version: u32,
    /// The one that is meant where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Reads the file; no file: no contexts.
    ///
    /// # Errors
    /// Others can read the file, or it is not one of ours.
    pub(crate) fn load() -> Result<Self, Failure> {
        Self::load_from(&file()?)
    }

    fn load_from(path: &std::path::Path) -> Result<Self, Failure> {
        let empty = Self {
            version: VERSION,
            ..Self::default()
        };
        let bytes = match secret_file::read_private(path) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(empty),
            Err(error) => return Err(Failure::usage(chain(&error))),
        };
        let odd = |why: String| {
            Failure::usage(format!(
                "{} is not a file of contexts: {why}",
                path.display()
            ))
            .hint("repair or remove it, then `skep login` again")
        };
        let text = str::from_utf8(&bytes).map_err(|error| odd(error.to_string()))?;
        // toml's own text quotes the line at fault, and that may hold a token.
        let contexts: Self =
            toml::from_str(text).map_err(|error| odd(error.message().to_owned()))?;
        if contexts.version != VERSION {
            return Err(odd(format!("version {} is not known", contexts.version)));
        }
        Ok(contexts)
    }

    /// Changes the file; other processes' changes are kept.
    ///
    /// # Errors
    /// What `change` says, or the file cannot be read or written.
    pub(crate) fn update<T>(
        change: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        Self::update_in(&file()?, change)
    }

    fn update_in<T>(
        path: &std::path::Path,
        change: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let broken = |error: &(dyn std::error::Error + 'static)| Failure::failed(chain(error));
        let folder = path.parent().expect("the file is in a folder");
        secret_file::ensure_private_dir(folder).map_err(|error| broken(&error))?;
        let lock = std::fs::File::create(folder.join("config.lock"))
            .and_then(|lock| lock.lock().map(|()| lock))
            .map_err(|error| broken(&error))?;
        let mut contexts = Self::load_from(path)?;
        let result = change(&mut contexts)?;
        let text = toml::to_string(&contexts).map_err(|error| broken(&error))?;
        secret_file::write_private(path, text.as_bytes()).map_err(|error| broken(&error))?;
        drop(lock);
        Ok(result)
    }

    /// Takes the servers of a cluster, where it is still the one that was asked.
    pub(crate) fn keep_servers(&mut self, asked: &Context, servers: Vec<String>) {
        let same = |known: &&mut Context| {
            known.server == asked.server && known.fingerprint == asked.fingerprint
        };
        for known in self.contexts.values_mut().filter(same) {
            known.servers.clone_from(&servers);
        }
    }

    /// Recognises a cluster by its new CA from now on, in every context that knew it by the old one.
    pub(crate) fn keep_fingerprint(&mut self, asked: &Context, fingerprint: &str) {
        let same = |known: &&mut Context| known.fingerprint == asked.fingerprint;
        for known in self.contexts.values_mut().filter(same) {
            fingerprint.clone_into(&mut known.fingerprint);
        }
    }

    /// The context with this name, else the current one.
    ///
    /// # Errors
    /// There is none; says what there is.
    pub(crate) fn pick(&self, name: Option<&str>) -> Result<&Context, Failure> {
        let Some(wanted) = name.or(self.current.as_deref()) else {
            let (message, hint) = if self.contexts.is_empty() {
                let hint = "`skep dev` starts one here; `skep login` names one elsewhere";
                ("no server is known", hint.to_owned())
            } else {
                let hint = format!("`skep context use`; there are: {}", self.names());
                ("no context is the current one", hint)
            };
            let problem = Problem::new(Code::Unauthenticated, message).hint(hint);
            return Err(Failure::with(Exit::Unreachable, problem));
        };
        self.contexts.get(wanted).ok_or_else(|| {
            let hint = if self.contexts.is_empty() {
                "there is none yet: `skep dev` or `skep login` makes one".to_owned()
            } else {
                format!("there are: {}", self.names())
            };
            let message = format!("there is no context `{}`", wanted.escape_debug());
            Failure::of(Problem::invalid("context", message).hint(hint))
        })
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.contexts.keys().map(String::as_str).collect();
        names.join(", ")
    }

    /// Forgets a context. Where one alone is left, that becomes the current one.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), Failure> {
        self.pick(Some(name))?;
        self.contexts.remove(name);
        self.current.take_if(|current| current == name);
        let mut left = self.contexts.keys();
        if let (None, Some(only), None) = (&self.current, left.next(), left.next()) {
            self.current = Some(only.clone());
        }
        Ok(())
    }

    /// Adds or replaces a context; the first one becomes the current one.
    pub(crate) fn put(&mut self, name: &str, context: Context) {
        self.contexts.insert(name.to_owned(), context);
        let is_current_known = |name: &String| self.contexts.contains_key(name);
        if !self.current.as_ref().is_some_and(is_current_known) {
            self.current = Some(name.to_owned());
        }
    }
}

fn file() -> Result<PathBuf, Failure> {
    Ok(folder()?.join(FILE))
}

/// `$SKEP_CONFIG_DIR`, else `skep` in the user's configuration folder.
///
/// # Errors
/// Nothing says where that is.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    if let Some(folder) = folder_from("SKEP_CONFIG_DIR") {
        return Ok(folder);
    }
    let base = folder_from("XDG_CONFIG_HOME")
        .or_else(|| folder_from("HOME").map(|home| home.join(".config")));
    base.map(|base| base.join("skep")).ok_or_else(|| {
        Failure::usage("neither HOME nor XDG_CONFIG_HOME is set")
            .hint("SKEP_CONFIG_DIR says where contexts are kept")
    })
}

/// A folder named by an environment variable, where it is set and not empty.
pub(crate) fn folder_from(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}
