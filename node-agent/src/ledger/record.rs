//! The stored form of local facts and routes. Fields are only ever added.

use skep_model::allocation::Observed;
use skep_model::assignment::Generation;
use skep_proto::v1;

use super::{Error, Routes};
use crate::logs::files::{FileId, Position};
use crate::plan::Local;

/// Newest format that this build writes and reads.
/// 2: with quarantine, which an older agent would take for damage.
pub(super) const FORMAT: u32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LocalRecord {
    #[prost(uint32, tag = "1")]
    attempt: u32,
    #[prost(uint32, tag = "2")]
    restarts: u32,
    #[prost(uint64, repeated, tag = "3")]
    counted_ms: Vec<u64>,
    #[prost(bool, tag = "4")]
    healthy: bool,
    #[prost(message, optional, tag = "5")]
    verdict: Option<v1::Observed>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RoutesRecord {
    #[prost(uint64, tag = "1")]
    incarnation: u64,
    #[prost(message, optional, tag = "2")]
    table: Option<v1::RouteTable>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PositionRecord {
    #[prost(uint64, tag = "1")]
    inode: u64,
    #[prost(uint64, tag = "2")]
    begin_ns: u64,
    #[prost(uint64, tag = "3")]
    offset: u64,
    #[prost(uint64, tag = "4")]
    last_ns: u64,
}

impl From<&Position> for PositionRecord {
    fn from(at: &Position) -> Self {
        Self {
            inode: at.file.inode,
            begin_ns: at.file.begin_ns,
            offset: at.offset,
            last_ns: at.last_ns,
        }
    }
}

impl From<PositionRecord> for Position {
    fn from(record: PositionRecord) -> Self {
        Self {
            file: FileId {
                inode: record.inode,
                begin_ns: record.begin_ns,
            },
            offset: record.offset,
            last_ns: record.last_ns,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MetaRecord {
    #[prost(uint32, tag = "1")]
    pub(super) format: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) generation: Option<v1::Generation>,
}

impl From<Generation> for MetaRecord {
    fn from(generation: Generation) -> Self {
        Self {
            format: FORMAT,
            generation: Some(generation.into()),
        }
    }
}

impl From<&Local> for LocalRecord {
    fn from(local: &Local) -> Self {
        Self {
            attempt: local.attempt,
            restarts: local.restarts,
            counted_ms: local.counted_ms.clone(),
            healthy: local.healthy,
            verdict: local.verdict.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<LocalRecord> for Local {
    type Error = Error;

    fn try_from(record: LocalRecord) -> Result<Self, Error> {
        let verdict = record.verdict.map(Observed::try_from).transpose();
        Ok(Self {
            attempt: record.attempt,
            restarts: record.restarts,
            counted_ms: record.counted_ms,
            healthy: record.healthy,
            verdict: verdict.map_err(|_| malformed("verdict"))?,
        })
    }
}

impl From<&Routes> for RoutesRecord {
    fn from(routes: &Routes) -> Self {
        Self {
            incarnation: routes.incarnation,
            table: Some((&routes.table).into()),
        }
    }
}

impl TryFrom<RoutesRecord> for Routes {
    type Error = Error;

    fn try_from(record: RoutesRecord) -> Result<Self, Error> {
        let table = record.table.unwrap_or_default().try_into();
        Ok(Self {
            incarnation: record.incarnation,
            table: table.map_err(|_| malformed("routes"))?,
        })
    }
}

pub(super) fn malformed(entry: impl Into<String>) -> Error {
    Error::Malformed {
        entry: entry.into(),
    }
}
