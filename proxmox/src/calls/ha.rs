//! High availability, as far as it is looked at: Proxmox restarts and moves such guests by itself.

use serde::Deserialize;

use crate::lenient;
use crate::request::{Call, Method, Request};
use crate::rows::Rows;

/// A guest that high availability has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Resource {
    /// `vm:101`, `ct:102`.
    pub sid: String,
    /// What it is to be: `started`, `stopped`, `ignored`, `disabled`.
    #[serde(default)]
    pub state: Option<String>,
}

impl Resource {
    /// Whether it is about a guest, and has it: what is ignored is left to people.
    pub fn has(&self, vmid: u32) -> bool {
        let number = self
            .sid
            .strip_prefix("vm:")
            .or(self.sid.strip_prefix("ct:"));
        let is_about = number.is_some_and(|it| it.parse() == Ok(vmid));
        is_about && self.state.as_deref() != Some("ignored")
    }

    /// Whether it is to run. Where nothing is said it is.
    pub fn is_wanted(&self) -> bool {
        matches!(self.state.as_deref(), None | Some("started"))
    }
}

/// A row of the manager's view.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// `quorum`, `master:pve1`, `lrm:pve1`, `service:vm:101`.
    pub id: String,
    /// `quorum`, `master`, `lrm`, `service`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The host that it is about.
    #[serde(default)]
    pub node: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "lenient::text")]
    pub status: Option<String>,
    /// Of a guest: `started`, `fence`, `recovery`, `error`.
    #[serde(default, deserialize_with = "lenient::text")]
    pub state: Option<String>,
    /// When it was written, seconds since 1970.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub timestamp: Option<u64>,
}

/// `GET /cluster/ha/resources`. `Sys.Audit` on `/`.
pub fn resources() -> Call<Rows<Resource>> {
    let request = Request::new(Method::Get, &["cluster", "ha", "resources"]);
    Call::reading(request, Rows::read)
}

/// `GET /cluster/ha/status/current`: what the manager does now. `Sys.Audit` on `/`.
pub fn status() -> Call<Rows<Status>> {
    let request = Request::new(Method::Get, &["cluster", "ha", "status", "current"]);
    Call::reading(request, Rows::read)
}
