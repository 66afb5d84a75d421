//! The cluster as a whole: which hosts there are, and which guest is where.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::config;
use crate::error::Error;
use crate::ids::{GuestKind, Vmid};
use crate::lenient;
use crate::request::{Call, Method, Request};
use crate::rows::Rows;

/// How a cluster stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Its name; none: a host of its own.
    pub name: Option<String>,
    /// Whether it has a majority, without which nothing can be changed. A host of its own has.
    pub is_quorate: bool,
    /// Its hosts.
    pub hosts: Vec<Member>,
}

/// A host as the cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub is_online: bool,
    /// Its address in the cluster's own network.
    pub address: Option<String>,
}

/// A row of `/cluster/resources`: a guest. A new one shows nothing but where it is, and what is measured lags some 10 s.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Guest {
    /// `qemu/9301`.
    pub id: String,
    /// The host that it is on now; while it moves, the one that it leaves.
    #[serde(default)]
    pub node: Option<String>,
    #[serde(default, deserialize_with = "lenient::integer")]
    vmid: Option<u64>,
    #[serde(default, rename = "type")]
    kind: String,
    /// `running`, `stopped`, `unknown`.
    #[serde(default)]
    pub status: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    tags: Option<String>,
    /// The pool that it is in.
    #[serde(default)]
    pub pool: Option<String>,
    #[serde(default, deserialize_with = "lenient::flag")]
    template: Option<bool>,
    /// What has locked it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub lock: Option<String>,
    /// What high availability does with it: `started`, `migrate`, `error`; none: nothing.
    #[serde(default, rename = "hastate", deserialize_with = "lenient::text")]
    pub ha_state: Option<String>,
    /// Used processors, as a part of `maxcpu`.
    #[serde(default, deserialize_with = "lenient::number")]
    pub cpu: Option<f64>,
    /// Processors.
    #[serde(default, deserialize_with = "lenient::number")]
    pub maxcpu: Option<f64>,
    /// Used memory, bytes.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub mem: Option<u64>,
    /// Memory, bytes.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub maxmem: Option<u64>,
    /// Seconds.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub uptime: Option<u64>,
    /// What else there is.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A row of `/cluster/resources`: a host.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Host {
    /// Its name.
    pub node: String,
    /// `online`, `offline`, `unknown`.
    #[serde(default)]
    pub status: Option<String>,
    /// Used processors, as a part of `maxcpu`.
    #[serde(default, deserialize_with = "lenient::number")]
    pub cpu: Option<f64>,
    /// Processors.
    #[serde(default, deserialize_with = "lenient::number")]
    pub maxcpu: Option<f64>,
    /// Used memory, bytes.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub mem: Option<u64>,
    /// Memory, bytes.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub maxmem: Option<u64>,
    /// What high availability thinks of it: `online`, `maintenance`.
    #[serde(default, rename = "hastate", deserialize_with = "lenient::text")]
    pub ha_state: Option<String>,
    /// Seconds.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub uptime: Option<u64>,
    /// What else there is.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A value of one thing at one time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Metric {
    /// `node/pve1`, `qemu/101`.
    pub id: String,
    /// `cpu_current`, `mem_used`.
    pub metric: String,
    /// Seconds since 1970.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub timestamp: Option<u64>,
    /// `gauge`, `counter`, `derive`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// The value.
    #[serde(default, deserialize_with = "lenient::number")]
    pub value: Option<f64>,
}

impl Guest {
    /// What it is.
    pub fn kind(&self) -> Option<GuestKind> {
        match self.kind.as_str() {
            "qemu" => Some(GuestKind::Qemu),
            "lxc" => Some(GuestKind::Lxc),
            _ => None,
        }
    }

    /// Its number.
    pub fn vmid(&self) -> Option<Vmid> {
        let number = self
            .vmid
            .or_else(|| self.id.split_once('/')?.1.parse().ok())?;
        Vmid::new(u32::try_from(number).ok()?).ok()
    }

    /// Its tags.
    pub fn tags(&self) -> Vec<&str> {
        config::tags(self.tags.as_deref().unwrap_or_default())
    }

    /// Whether it is one to be cloned, that never runs.
    pub fn is_template(&self) -> bool {
        self.template.unwrap_or(false)
    }
}

impl Host {
    /// Whether it is there.
    pub fn is_online(&self) -> bool {
        self.status.as_deref() == Some("online")
    }
}

/// `GET /cluster/status`: hosts, and whether they have a majority. `Sys.Audit` on `/`.
pub fn status() -> Call<Status> {
    let request = Request::new(Method::Get, &["cluster", "status"]);
    Call::reading(request, read_status)
}

/// `GET /cluster/resources?type=vm`: every guest that one may see, with its host. `VM.Audit` of each.
pub fn guests() -> Call<Rows<Guest>> {
    let request = Request::new(Method::Get, &["cluster", "resources"]).with("type", "vm");
    Call::reading(request, Rows::read)
}

/// `GET /cluster/resources?type=node`: every host and its load; one that is away is in it. `Sys.Audit` of each.
pub fn hosts() -> Call<Rows<Host>> {
    let request = Request::new(Method::Get, &["cluster", "resources"]).with("type", "node");
    Call::reading(request, Rows::read)
}

/// `GET /cluster/nextid`: a number that is free now. Nothing is reserved: whoever makes a guest first has it. Any user.
pub fn next_id() -> Call<Vmid> {
    let request = Request::new(Method::Get, &["cluster", "nextid"]);
    Call::reading(request, read_vmid)
}

/// `GET /cluster/nextid?vmid=`: whether a number is free: it is answered, or there is one already
/// ([`crate::Kind::Exists`]). Any user.
pub fn is_free(vmid: Vmid) -> Call<Vmid> {
    let request = Request::new(Method::Get, &["cluster", "nextid"]).with("vmid", vmid);
    Call::reading(request, read_vmid)
}

/// `GET /cluster/metrics/export`: what hosts and guests measure now, all of them in one answer. `Sys.Audit` on `/`. Since 8.3.
pub fn metrics() -> Call<Rows<Metric>> {
    let request = Request::new(Method::Get, &["cluster", "metrics", "export"]);
    Call::reading(request, |mut value| {
        Rows::read(value.get_mut("data").map(Value::take).unwrap_or_default())
    })
}

fn read_vmid(value: Value) -> Result<Vmid, String> {
    let number = lenient::integer(value).map_err(|error: serde_json::Error| error.to_string())?;
    let number = number.and_then(|number| u32::try_from(number).ok());
    let vmid = number.ok_or_else(|| "a number is expected".to_owned())?;
    Vmid::new(vmid).map_err(|error: Error| error.text)
}

fn read_status(value: Value) -> Result<Status, String> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(rename = "type")]
        kind: String,
        name: String,
        #[serde(default, deserialize_with = "lenient::flag")]
        quorate: Option<bool>,
        #[serde(default, deserialize_with = "lenient::flag")]
        online: Option<bool>,
        #[serde(default, deserialize_with = "lenient::text")]
        ip: Option<String>,
    }
    let rows: Rows<Row> = Rows::read(value)?;
    let mut status = Status {
        is_quorate: true,
        ..Status::default()
    };
    for row in rows.rows {
        match row.kind.as_str() {
            "cluster" => {
                status.name = Some(row.name);
                status.is_quorate = row.quorate.unwrap_or(false);
            }
            "node" => status.hosts.push(Member {
                name: row.name,
                is_online: row.online.unwrap_or(false),
                address: row.ip,
            }),
            _ => {}
        }
    }
    Ok(status)
}
