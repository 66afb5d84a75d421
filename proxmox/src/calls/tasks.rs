//! Work that goes on after its call was answered.

use serde::Deserialize;

use crate::ids::Vmid;
use crate::lenient;
use crate::request::{Call, Method, Request};
use crate::rows::Rows;
use crate::upid::Upid;

/// How a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Status {
    /// `running` or `stopped`.
    pub status: String,
    /// Of one that has stopped: `OK`, `WARNINGS: 2`, or what went wrong.
    #[serde(default)]
    pub exitstatus: Option<String>,
    /// `qmclone`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// What it is about.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
}

/// A line of a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Line {
    /// Its number, from 1.
    #[serde(default, rename = "n", deserialize_with = "lenient::integer")]
    pub number: Option<u64>,
    /// Its text; `no content` while there is none.
    #[serde(default, rename = "t")]
    pub text: String,
}

/// A task in a host's list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// Its name.
    pub upid: Upid,
    /// How it ended; none: it runs.
    #[serde(default)]
    pub status: Option<String>,
    /// When it ended, seconds since 1970; none: it runs.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub endtime: Option<u64>,
}

impl Listed {
    /// It has ended, and done what it was to do.
    pub fn has_succeeded(&self) -> bool {
        let status = self.status.as_deref().unwrap_or_default();
        status == "OK" || status.starts_with("WARNINGS: ")
    }
}

/// `GET /nodes/{node}/tasks/{upid}/status`. One's own tasks, or `Sys.Audit` of the host.
pub fn status(upid: &Upid) -> Call<Status> {
    Call::new(of(Method::Get, upid, &["status"]))
}

/// `GET /nodes/{node}/tasks/{upid}/log`: so many lines from one on. As [`status`].
pub fn log(upid: &Upid, start: u64, limit: u64) -> Call<Rows<Line>> {
    let request = of(Method::Get, upid, &["log"])
        .with("start", start)
        .with("limit", limit);
    Call::reading(request, Rows::read)
}

/// `DELETE /nodes/{node}/tasks/{upid}`: ends it. One's own, or `Sys.Modify` of the host.
pub fn stop(upid: &Upid) -> Call<()> {
    Call::reading(of(Method::Delete, upid, &[]), |_| Ok(()))
}

/// `GET /nodes/{node}/tasks?vmid=`: tasks of a host about a guest, running ones among them, newest first. It is where the
/// task of a call is found whose answer was lost. One's own tasks; with `Sys.Audit` all.
pub fn about(host: &str, vmid: Vmid, since_s: u64) -> Call<Rows<Listed>> {
    let request = Request::new(Method::Get, &["nodes", host, "tasks"])
        .with("vmid", vmid)
        .with("since", since_s)
        .with("source", "all");
    Call::reading(request, Rows::read)
}

fn of(method: Method, upid: &Upid, parts: &[&str]) -> Request {
    let task = ["nodes", upid.host(), "tasks", upid.as_str()];
    Request::new(method, &[&task, parts].concat())
}
