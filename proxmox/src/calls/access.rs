//! Who one is, and what one may.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::credentials::Secret;
use crate::error::Permission;
use crate::lenient;
use crate::request::{Call, Method, Request};

/// What of Proxmox answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// `9.2.4`; before 9 `8.4.1`.
    pub version: String,
    /// `9.2`.
    #[serde(default)]
    pub release: String,
}

impl Version {
    /// The first two numbers: (9, 2).
    pub fn numbers(&self) -> (u32, u32) {
        let mut parts = self.version.split(['.', '-']).map(str::parse);
        let mut next = || parts.next().and_then(Result::ok).unwrap_or(0);
        (next(), next())
    }
}

/// What a login has brought.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// As a cookie.
    pub ticket: Secret,
    /// Beside it in whatever changes something.
    pub csrf_token: Secret,
    /// The name of the cluster, where the host is in one.
    pub cluster: Option<String>,
}

/// What one may, by path of Proxmox's access control.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions {
    paths: BTreeMap<String, Vec<String>>,
}

impl Permissions {
    fn read(value: Value) -> Result<Self, String> {
        let Value::Object(all) = value else {
            return Err("an object of paths is expected".to_owned());
        };
        let is_set = |value: &Value| {
            let flag = lenient::flag(value);
            matches!(flag, Ok(Some(true)))
        };
        let privileges = |of: Value| match of {
            Value::Object(of) => of
                .into_iter()
                .filter(|(_, value)| is_set(value))
                .map(|(name, _)| name)
                .collect(),
            _ => Vec::new(),
        };
        let paths = all.into_iter();
        Ok(Self {
            paths: paths.map(|(path, of)| (path, privileges(of))).collect(),
        })
    }

    /// Whether a privilege is had at a path. What is had at `/pool` is had below it: Proxmox lists a path where something is
    /// set, and each privilege that is listed holds there and, where it propagates, further down.
    pub fn has(&self, path: &str, privilege: &str) -> bool {
        let mut at = Some(path);
        while let Some(here) = at {
            let listed = self.paths.get(if here.is_empty() { "/" } else { here });
            if let Some(listed) = listed {
                return listed.iter().any(|it| it == privilege);
            }
            at = match here {
                "" | "/" => None,
                _ => here.rsplit_once('/').map(|(above, _)| above),
            };
        }
        false
    }

    /// What is missing of these.
    pub fn missing(&self, needed: &[Permission]) -> Vec<Permission> {
        let lacks = |needed: &&Permission| {
            let mut any = needed.privileges.iter();
            !any.any(|privilege| self.has(&needed.path, privilege))
        };
        needed.iter().filter(lacks).cloned().collect()
    }
}

/// `GET /version`: what answers. Any user.
pub fn version() -> Call<Version> {
    Call::new(Request::new(Method::Get, &["version"]))
}

/// `GET /access/permissions`: what whoever asks may. Any user.
pub fn permissions() -> Call<Permissions> {
    let request = Request::new(Method::Get, &["access", "permissions"]);
    Call::reading(request, Permissions::read)
}

/// `POST /access/ticket`: a login; with a ticket in place of the password a renewal. No privilege; never with a token.
pub fn ticket(user: &str, password: &Secret) -> Call<Ticket> {
    let request = Request::new(Method::Post, &["access", "ticket"])
        .with("username", user)
        .with("password", password.expose());
    Call::reading(request, |value| {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Login {
            #[serde(rename = "ticket")]
            ticket: String,
            #[serde(rename = "CSRFPreventionToken")]
            csrf_token: String,
            #[serde(rename = "clustername", default)]
            cluster: Option<String>,
        }
        // The error of a login must not show what it could not read.
        let login = Login::deserialize(value);
        let login = login.map_err(|_| "it is no ticket: is a second factor wanted?".to_owned())?;
        Ok(Ticket {
            ticket: Secret::new(login.ticket),
            csrf_token: Secret::new(login.csrf_token),
            cluster: login.cluster,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_listed_deeper_stands_in_for_what_is_above() {
        let all = Permissions::read(json!({
            "/": {"Sys.Audit": 1},
            "/pool/skep": {"VM.Allocate": 1, "VM.Audit": "1", "VM.Clone": 0},
            "/storage": {"Datastore.Audit": 1},
        }))
        .expect("read");
        for (path, privilege, has) in [
            ("/", "Sys.Audit", true),
            ("/nodes/pve", "Sys.Audit", true),
            ("/pool/skep", "VM.Audit", true),
            ("/pool/skep", "VM.Clone", false),
            ("/pool/skep", "Sys.Audit", false),
            ("/pool/other", "VM.Audit", false),
            ("/storage/local", "Datastore.Audit", true),
        ] {
            assert_eq!(all.has(path, privilege), has, "{path} {privilege}");
        }
        let needed = |path: &str, privileges: &[&str]| Permission {
            path: path.to_owned(),
            privileges: privileges.iter().map(|it| (*it).to_owned()).collect(),
        };
        let missing = all.missing(&[
            needed("/pool/skep", &["VM.Allocate"]),
            needed("/pool/skep", &["VM.GuestAgent.Audit", "VM.Monitor"]),
        ]);
        assert_eq!(
            missing,
            [needed("/pool/skep", &["VM.GuestAgent.Audit", "VM.Monitor"])]
        );
    }

    #[test]
    fn versions_have_two_numbers() {
        for (text, numbers) in [
            ("9.2.4", (9, 2)),
            ("8.4-1", (8, 4)),
            ("9", (9, 0)),
            ("x", (0, 0)),
        ] {
            let version = Version {
                version: text.to_owned(),
                release: String::new(),
            };
            assert_eq!(version.numbers(), numbers);
        }
    }
}
