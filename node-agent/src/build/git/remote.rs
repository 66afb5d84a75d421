//! The address of a repository: which kinds are taken, how it is shown, and what git's words
//! about it mean.

use std::path::PathBuf;

use skep_model::problem::{Code, Problem};

const SCHEMES: [&str; 5] = ["https://", "http://", "ssh://", "git://", "file://"];

/// In place of an address; no program of git's is called so.
const PUSHED: &str = "pushed://skep/repository";

/// A checked address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// What git gets.
    pub(super) url: String,
    /// The same without a password.
    pub(super) shown: String,
    /// The path, where it is on this node.
    pub(super) local: Option<PathBuf>,
}

impl Remote {
    /// Checks an address: a URL that git itself can fetch from, `user@host:path`, or an absolute
    /// path. Never an option, never a remote helper (those run programs that the URL names).
    pub(super) fn parse(repository: &str) -> Result<Self, Problem> {
        let odd = repository.is_empty()
            || repository.starts_with('-')
            || repository.contains("::")
            || repository.chars().any(char::is_control);
        let local = repository
            .strip_prefix("file://")
            .or_else(|| repository.starts_with('/').then_some(repository))
            .map(PathBuf::from);
        let known = local.is_some()
            || SCHEMES.iter().any(|scheme| repository.starts_with(scheme))
            || is_scp_like(repository);
        let shown = redact(repository);
        if odd || !known {
            return Err(Problem::invalid(
                "repository",
                format!("`{}` is not an address of a git repository", shown.escape_debug()),
            )
            .hint("https://host/path, ssh://user@host/path, user@host:path, or an absolute path on the node"));
        }
        Ok(Self {
            url: repository.to_owned(),
            shown,
            local,
        })
    }

    /// What is pushed to the cluster: it has no address that anything could be fetched from, so that nothing else of
    /// this node is within its reach either.
    pub(super) fn pushed() -> Self {
        Self {
            url: PUSHED.to_owned(),
            shown: "the pushed repository".to_owned(),
            local: None,
        }
    }

    /// See [`Remote::pushed`].
    pub(super) fn is_pushed(&self) -> bool {
        self.url == PUSHED
    }

    /// The scheme and host of an address that is asked over HTTP: `https://host/`.
    pub(super) fn place(&self) -> Option<String> {
        let (scheme, rest) = self.url.split_once("://")?;
        let authority = rest.split(['/', '?']).next()?;
        let host = authority.rsplit('@').next()?;
        scheme
            .starts_with("http")
            .then(|| format!("{scheme}://{host}/"))
    }

    /// What git's last words mean for a person.
    pub(super) fn explain(&self, stderr: &str) -> Problem {
        let said = stderr.replace(&self.url, &self.shown);
        let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
        let shown = &self.shown;
        let failed = |message: String| Problem::new(Code::SourceFailed, message).at("repository");
        if has(&[
            "not appear to be a git repo",
            "not a git repo",
            "is this a git repo",
        ]) {
            return failed(format!("{shown} is not a git repository"))
                .hint("check the address, and that this node can see it");
        }
        if has(&[
            "could not read Username",
            "could not read Password",
            "Authentication failed",
            "Permission denied",
            "error: 403",
            "error: 401",
        ]) {
            return failed(format!("{shown} needs a login"))
                .hint("name a variable with a token (`fetch.token`) or with a deploy key (`fetch.ssh_key`) on the service, or give the node's key access");
        }
        if has(&["Host key verification failed"]) {
            return failed(format!("the host of {shown} is not known to this node"))
                .hint("say its key in `fetch.known_hosts` of the service, or in the agent's ~/.ssh/known_hosts");
        }
        if has(&["not found", "does not exist"]) {
            return failed(format!("{shown} does not exist, or needs a login"))
                .hint("check the address, and that this node may read it");
        }
        let last = said
            .lines()
            .find(|line| line.starts_with("ssh: "))
            .or_else(|| {
                let mut lines = said.lines().rev().map(str::trim);
                lines.find(|line| line.starts_with("fatal: ") || line.starts_with("error: "))
            })
            .or_else(|| said.lines().map(str::trim).rfind(|line| !line.is_empty()))
            .unwrap_or("git says nothing");
        let last = last
            .trim_start_matches("fatal: ")
            .trim_start_matches("error: ");
        failed(format!("{shown} cannot be fetched: {last}"))
            .hint("check the address, and that this node can reach it")
    }
}

fn is_scp_like(text: &str) -> bool {
    let Some((host, path)) = text.split_once(':') else {
        return false;
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._@".contains(c);
    host.contains('@') && host.chars().all(is_host) && !path.is_empty() && !path.starts_with("//")
}

/// Without what stands before the `@` of a URL, where that may be a secret.
fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) if rest[..at].contains(':') || scheme.starts_with("http") => {
            format!("{scheme}://***@{}", &rest[at + 1..])
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_taken() {
        for good in [
            "https://example.com/a.git",
            "ssh://git@example.com/a",
            "git@example.com:a/b.git",
            "/srv/a",
            "file:///srv/a",
        ] {
            Remote::parse(good).expect(good);
        }
        for bad in [
            "",
            "--upload-pack=touch x",
            "ext::sh -c x",
            "a",
            "../a",
            "C:\\a",
            "@x",
            "data:x",
            "https://a\nb",
            "-oProxyCommand=x@h:p",
        ] {
            assert_eq!(
                Remote::parse(bad).expect_err(bad).field.as_deref(),
                Some("repository"),
                "{bad}"
            );
        }
    }

    #[test]
    fn passwords_are_never_shown() {
        let cases = [
            ("https://u:secret@h/p", "https://***@h/p"),
            ("https://secret@h/p", "https://***@h/p"),
            ("ssh://git@h/p", "ssh://git@h/p"),
            ("ssh://git:secret@h/p", "ssh://***@h/p"),
            ("https://h/p@1", "https://h/p@1"),
        ];
        for (url, shown) in cases {
            assert_eq!(Remote::parse(url).expect(url).shown, shown);
        }
        let remote = Remote::parse("https://u:secret@h/p").expect("address");
        for words in [
            "fatal: unable to access 'https://u:secret@h/p/': Could not resolve host: h",
            "fatal: Authentication failed for 'https://u:secret@h/p/'",
        ] {
            assert!(
                !remote.explain(words).to_string().contains("secret"),
                "{words}"
            );
        }
    }

    #[test]
    fn gits_words_are_understood() {
        let remote = Remote::parse("/srv/a").expect("address");
        let cases = [
            (
                "fatal: '/srv/a' does not appear to be a git repository\nfatal: Could not read from",
                "/srv/a is not a git repository",
            ),
            (
                "fatal: could not read Username for 'https://h': terminal prompts disabled",
                "/srv/a needs a login",
            ),
            (
                "git@h: Permission denied (publickey).\nfatal: Could not read",
                "/srv/a needs a login",
            ),
            (
                "remote: Not Found\nfatal: repository 'https://h/' not found",
                "/srv/a does not exist, or needs a login",
            ),
            (
                "x\nfatal: unable to access: Could not resolve host: h\n",
                "/srv/a cannot be fetched: unable to access: Could not resolve host: h",
            ),
            (
                "ssh: connect to host h port 22: Connection refused\nfatal: Could not read from remote repository.",
                "/srv/a cannot be fetched: ssh: connect to host h port 22: Connection refused",
            ),
            ("", "/srv/a cannot be fetched: git says nothing"),
        ];
        for (words, message) in cases {
            let problem = remote.explain(words);
            assert_eq!(
                (problem.code, problem.message.as_str()),
                (Code::SourceFailed, message)
            );
        }
    }
}
