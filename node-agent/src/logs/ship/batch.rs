//! Lines that go together, and how receivers want them. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use skep_model::assignment::Names;
use skep_model::id::AllocationId;
use skep_proto::v1::LogLine;

use super::destination::Kind;

/// Bytes of text in one request; a receiver's own limit is rarely below four times as many.
const TEXT_MAX: usize = 1 << 20;
/// What a line costs besides its text.
const LINE_BYTES: usize = 64;

/// Who wrote lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Author {
    pub(super) allocation: AllocationId,
    pub(super) names: Names,
}

/// Lines by author.
#[derive(Debug)]
pub(super) struct Batch {
    node: String,
    lines: BTreeMap<AllocationId, (Names, Vec<LogLine>)>,
    bytes: usize,
    count: u64,
}

impl Batch {
    pub(super) fn new(node: String) -> Self {
        Self {
            node,
            lines: BTreeMap::new(),
            bytes: 0,
            count: 0,
        }
    }

    pub(super) fn push(&mut self, author: &Author, line: LogLine) {
        self.bytes += line.text.len() + LINE_BYTES;
        self.count += 1;
        let entry = self.lines.entry(author.allocation);
        let (_, lines) = entry.or_insert_with(|| (author.names.clone(), Vec::new()));
        lines.push(line);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= TEXT_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn lines(&self) -> u64 {
        self.count
    }

    /// The request's body.
    pub(super) fn encode(&self, kind: Kind) -> bytes::Bytes {
        let value = match kind {
            Kind::Loki => self.loki(),
            Kind::Otlp => self.otlp(),
        };
        value.to_string().into()
    }

    /// Loki's `POST /loki/api/v1/push`: one stream for each set of labels, times as text.
    fn loki(&self) -> Value {
        let mut streams = Vec::new();
        for (allocation, (names, lines)) in &self.lines {
            for stderr in [false, true] {
                let of = lines.iter().filter(|line| line.stderr == stderr);
                let values: Vec<Value> = of
                    .map(|line| json!([line.at_ns.to_string(), line.text]))
                    .collect();
                if values.is_empty() {
                    continue;
                }
                let labels = json!({
                    "project": names.project,
                    "environment": names.environment,
                    "service": names.service,
                    "allocation": allocation.to_string(),
                    "node": self.node,
                    "stream": stream(stderr),
                });
                streams.push(json!({ "stream": labels, "values": values }));
            }
        }
        json!({ "streams": streams })
    }

    /// OTLP's `POST /v1/logs`: protobuf's JSON, where 64-bit numbers are text. Attributes have the names
    /// of OpenTelemetry's conventions.
    fn otlp(&self) -> Value {
        let text =
            |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let resources = self.lines.iter().map(|(allocation, (names, lines))| {
            let records = lines.iter().map(|line| {
                let mut attributes = vec![text("log.iostream", stream(line.stderr))];
                if let Some(lost) = line.lost {
                    let bytes = json!({ "intValue": lost.bytes.to_string() });
                    attributes.push(json!({ "key": "skep.log.lost_bytes", "value": bytes }));
                }
                json!({
                    "timeUnixNano": line.at_ns.to_string(),
                    "observedTimeUnixNano": line.at_ns.to_string(),
                    "body": { "stringValue": line.text },
                    "attributes": attributes,
                })
            });
            json!({
                "resource": { "attributes": [
                    text("service.name", &names.service),
                    text("service.namespace", &names.project),
                    text("service.instance.id", &allocation.to_string()),
                    text("deployment.environment.name", &names.environment),
                    text("host.name", &self.node),
                ] },
                "scopeLogs": [{
                    "scope": { "name": "skep" },
                    "logRecords": records.collect::<Vec<_>>(),
                }],
            })
        });
        json!({ "resourceLogs": resources.collect::<Vec<_>>() })
    }
}

fn stream(stderr: bool) -> &'static str {
    if stderr { "stderr" } else { "stdout" }
}
