//! As whom a repository is fetched: a deploy key or a token out of the service's variables. They are in
//! files of the build's own folder and in the environment of git alone: never in arguments, which every user of
//! the machine can read, never in the copy, in an image or in a log.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skep_identity::secret_file;
use skep_model::assignment::BuildVariable;
use skep_model::build::Fetch;
use skep_model::problem::{Code, Problem};
use zeroize::Zeroizing;

use super::super::folder::chain;
use super::super::{no_variable, variable};
use super::remote::Remote;

/// The user of a token, where nobody names one: forges look at the token alone.
const USER: &str = "git";
/// What holds for every SSH connection.
const SSH: &str = "ssh -oBatchMode=yes -oConnectTimeout=15";

/// What is shown to the other side.
#[derive(Clone, Default)]
pub(in crate::build) struct Login {
    ssh_key: Option<Zeroizing<String>>,
    known_hosts: Option<String>,
    token: Option<(String, Zeroizing<String>)>,
}

impl Login {
    /// As the service says.
    ///
    /// # Errors
    /// It names a variable that there is none of.
    pub(in crate::build) fn of(
        fetch: &Fetch,
        variables: &[BuildVariable],
    ) -> Result<Self, Problem> {
        let value = |field: &str, name: &Option<String>| {
            let Some(name) = name else {
                return Ok::<_, Problem>(None);
            };
            let value = variable(variables, name).ok_or_else(|| no_variable(field, name))?;
            Ok(Some(Zeroizing::new(value.to_owned())))
        };
        let user = fetch.user.clone().unwrap_or_else(|| USER.to_owned());
        Ok(Self {
            ssh_key: value("fetch.ssh_key", &fetch.ssh_key)?,
            known_hosts: fetch.known_hosts.clone(),
            token: value("fetch.token", &fetch.token)?.map(|token| (user, token)),
        })
    }

    /// Writes what ssh reads into `folder`; gives git's environment. Blocks on the disk.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn environment(
        &self,
        remote: &Remote,
        folder: &Path,
    ) -> Result<Vec<(String, String)>, Problem> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            secret_file::write_private(&path, text.as_bytes())
                .map_err(|error| Problem::new(Code::Internal, chain(&error)))?;
            Ok::<_, Problem>(path.to_string_lossy().into_owned())
        };
        let mut ssh = SSH.to_owned();
        if let Some(key) = &self.ssh_key {
            // ssh takes no key without a line's end.
            let path = write("git.key", &format!("{}\n", key.trim_end()))?;
            ssh += &format!(
                " -oIdentitiesOnly=yes -oIdentityAgent=none -i {}",
                quoted(&path)
            );
        }
        if let Some(hosts) = &self.known_hosts {
            let path = quoted(&write(
                "git.known_hosts",
                &format!("{}\n", hosts.trim_end()),
            )?);
            ssh += &format!(
                " -oStrictHostKeyChecking=yes -oUserKnownHostsFile={path} -oGlobalKnownHostsFile=/dev/null"
            );
        }
        let mut all = vec![("GIT_SSH_COMMAND".to_owned(), ssh)];
        if let (Some((user, token)), Some(place)) = (&self.token, remote.place()) {
            let shown = STANDARD.encode(format!("{user}:{}", token.trim()));
            // For this host alone: a submodule may be anybody's.
            all.extend([
                ("GIT_CONFIG_COUNT".to_owned(), "1".to_owned()),
                (
                    "GIT_CONFIG_KEY_0".to_owned(),
                    format!("http.{place}.extraHeader"),
                ),
                (
                    "GIT_CONFIG_VALUE_0".to_owned(),
                    format!("Authorization: Basic {shown}"),
                ),
            ]);
        }
        Ok(all)
    }
}

/// For the shell by which git starts ssh.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_private_and_hosts_are_pinned() {
        let dir = tempfile::tempdir().expect("folder");
        let remote = |url: &str| Remote::parse(url).expect(url);
        let nobody = Login::default();
        let all = nobody
            .environment(&remote("git@h:p"), dir.path())
            .expect("written");
        assert_eq!(all, [("GIT_SSH_COMMAND".to_owned(), SSH.to_owned())]);
        let login = Login {
            ssh_key: Some(Zeroizing::new("KEY".to_owned())),
            known_hosts: Some("h ssh-ed25519 AAAA".into()),
            token: Some(("git".into(), Zeroizing::new("s3cret".to_owned()))),
        };
        let all = login
            .environment(&remote("git@h:p"), dir.path())
            .expect("written");
        let ssh = &all[0].1;
        for part in [
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "git.known_hosts",
        ] {
            assert!(ssh.contains(part), "{ssh}");
        }
        assert!(
            !ssh.contains("KEY") && all.len() == 1,
            "a token is for https"
        );
        let key = dir.path().join("git.key");
        let mode = std::fs::metadata(&key).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let all = login
            .environment(&remote("https://u@h:1/p"), dir.path())
            .expect("written");
        assert_eq!(all[2].1, "http.https://h:1/.extraHeader");
        assert!(
            !all.iter().any(|(_, value)| value.contains("s3cret")),
            "encoded"
        );
    }
}
