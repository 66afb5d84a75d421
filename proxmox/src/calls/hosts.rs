//! One host: how much of it is used.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::lenient;
use crate::request::{Call, Method, Request};
use crate::rows::Rows;

/// Bytes of something.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Amount {
    /// All there is.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub total: Option<u64>,
    /// Used.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub used: Option<u64>,
    /// Free.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub free: Option<u64>,
}

/// How a host stands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Status {
    /// Used processors, as a part of all.
    #[serde(default, deserialize_with = "lenient::number")]
    pub cpu: Option<f64>,
    /// Waiting for disks, as a part of all.
    #[serde(default, deserialize_with = "lenient::number")]
    pub wait: Option<f64>,
    /// Averages over 1, 5 and 15 minutes, which Proxmox writes as text.
    #[serde(default)]
    pub loadavg: Vec<Value>,
    /// Memory.
    #[serde(default)]
    pub memory: Amount,
    /// The disk of the system.
    #[serde(default)]
    pub rootfs: Amount,
    /// `pve-manager/9.2.4/...`.
    #[serde(default)]
    pub pveversion: Option<String>,
    /// Seconds.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub uptime: Option<u64>,
    /// What else there is.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A sample of the past: values by name. What was not measured is not there.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Seconds since 1970.
    pub time_s: u64,
    /// `cpu`, `memused`, and since 9 `pressurecpusome`, `pressurememoryfull` and their like.
    pub values: BTreeMap<String, f64>,
}

/// How far the past goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeframe {
    /// In steps of a minute.
    Hour,
    /// In steps of half an hour (a minute since 9).
    Day,
    /// A week.
    Week,
}

impl Timeframe {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }
}

/// `GET /nodes/{node}/status`: one host, now. `Sys.Audit` of it.
pub fn status(host: &str) -> Call<Status> {
    Call::new(Request::new(Method::Get, &["nodes", host, "status"]))
}

/// `GET /nodes/{node}/rrddata`: what a host has measured, oldest first. `Sys.Audit` of it.
pub fn history(host: &str, timeframe: Timeframe) -> Call<Vec<Sample>> {
    let request = Request::new(Method::Get, &["nodes", host, "rrddata"])
        .with("timeframe", timeframe.as_str())
        .with("cf", "AVERAGE");
    Call::reading(request, read_samples)
}

/// Rows of numbers. One that has no time, or a value that is none, is left out.
pub(crate) fn read_samples(value: Value) -> Result<Vec<Sample>, String> {
    let rows: Rows<BTreeMap<String, Value>> = Rows::read(value)?;
    let number = |value: &Value| lenient::number(value).ok().flatten();
    let sample = |row: BTreeMap<String, Value>| {
        let time = number(row.get("time")?)?;
        let values = row.iter().filter(|(name, _)| *name != "time");
        Some(Sample {
            time_s: time as u64,
            values: values
                .filter_map(|(name, value)| Some((name.clone(), number(value)?)))
                .collect(),
        })
    };
    Ok(rows.rows.into_iter().filter_map(sample).collect())
}
