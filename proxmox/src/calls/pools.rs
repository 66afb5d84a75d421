//! Pools of resources: the fence around what a token may touch.

use serde::Deserialize;
use serde_json::Value;

use crate::ids::Vmid;
use crate::lenient;
use crate::request::{Call, Method, Request};
use crate::rows::Rows;

/// Something in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// `qemu/101`, `storage/pve/local`.
    pub id: String,
    /// `qemu`, `lxc`, `storage`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The number of a guest.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub vmid: Option<u64>,
    /// Where it is.
    #[serde(default)]
    pub node: Option<String>,
}

/// `GET /pools?poolid=`: what is in a pool. `Pool.Audit` of it.
pub fn members(pool: &str) -> Call<Rows<Member>> {
    let request = Request::new(Method::Get, &["pools"]).with("poolid", pool);
    Call::reading(request, |value| {
        // Of one pool it is a list of one.
        let first = match value {
            Value::Array(all) => all.into_iter().next().unwrap_or_default(),
            other => other,
        };
        Rows::read(first.get("members").cloned().unwrap_or_default())
    })
}

/// `PUT /pools?poolid=`: puts guests into a pool. `Pool.Allocate` of it, and `Permissions.Modify` of each guest.
pub fn add(pool: &str, vmids: &[Vmid]) -> Call<()> {
    let vmids: Vec<String> = vmids.iter().map(Vmid::to_string).collect();
    let request = Request::new(Method::Put, &["pools"])
        .with("poolid", pool)
        .with("vms", vmids.join(","));
    Call::reading(request, |_| Ok(()))
}
