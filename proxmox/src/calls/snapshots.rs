//! Moments of a guest that can be gone back to.

use serde::Deserialize;

use crate::ids::{At, GuestKind};
use crate::lenient;
use crate::request::{Call, Method, Request};
use crate::rows::Rows;
use crate::upid::Upid;

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Snapshot {
    /// Its name; `current` is the guest as it is.
    pub name: String,
    /// Text for people.
    #[serde(default, deserialize_with = "lenient::text")]
    pub description: Option<String>,
    /// When it was made, seconds since 1970; none: `current`.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub snaptime: Option<u64>,
    /// The one that it builds on.
    #[serde(default, deserialize_with = "lenient::text")]
    pub parent: Option<String>,
}

/// `GET .../snapshot`. `VM.Audit`.
pub fn list(at: At<'_>) -> Call<Rows<Snapshot>> {
    let request = Request::of_guest(Method::Get, at, &["snapshot"]);
    Call::reading(request, Rows::read)
}

/// `POST .../snapshot`: makes one; `with_memory` of a VM that runs goes on there when it is gone back to. `VM.Snapshot`.
pub fn create(at: At<'_>, name: &str, description: &str, with_memory: bool) -> Call<Upid> {
    let request = Request::of_guest(Method::Post, at, &["snapshot"])
        .with("snapname", name)
        .with("description", description)
        .with_flag("vmstate", with_memory && at.kind == GuestKind::Qemu);
    Call::new(request)
}

/// `POST .../snapshot/{snapname}/rollback`: the guest is what it was; what came after is lost. `VM.Snapshot.Rollback`.
pub fn roll_back(at: At<'_>, name: &str) -> Call<Upid> {
    let parts = ["snapshot", name, "rollback"];
    Call::new(Request::of_guest(Method::Post, at, &parts))
}

/// `DELETE .../snapshot/{snapname}`. `VM.Snapshot`.
pub fn remove(at: At<'_>, name: &str) -> Call<Upid> {
    Call::new(Request::of_guest(Method::Delete, at, &["snapshot", name]))
}
