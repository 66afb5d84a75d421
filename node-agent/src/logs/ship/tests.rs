use serde_json::Value;
use skep_model::assignment::Names;
use skep_model::id::AllocationId;
use skep_proto::v1::{LogLine, LogLost};

use super::Destination;
use super::batch::{Author, Batch};
use super::destination::Kind;

fn batch() -> Batch {
    let mut batch = Batch::new("n1".into());
    let author = Author {
        allocation: AllocationId::from_u128(7),
        names: Names {
            project: "shop".into(),
            environment: "production".into(),
            service: "web".into(),
        },
    };
    for (at_ns, stderr) in [(5, false), (6, true), (7, false)] {
        let line = LogLine {
            at_ns,
            stderr,
            text: format!("line \"{at_ns}\""),
            lost: (at_ns == 7).then_some(LogLost {
                bytes: 99,
                at_least: false,
            }),
        };
        batch.push(&author, line);
    }
    batch
}

#[test]
fn loki_gets_a_stream_for_each_set_of_labels() {
    let body: Value = serde_json::from_slice(&batch().encode(Kind::Loki)).expect("JSON");
    let streams = body["streams"].as_array().expect("streams");
    assert_eq!(streams.len(), 2);
    let labels = &streams[0]["stream"];
    let allocation = AllocationId::from_u128(7).to_string();
    for (label, value) in [
        ("project", "shop"),
        ("environment", "production"),
        ("service", "web"),
        ("allocation", &allocation),
        ("node", "n1"),
        ("stream", "stdout"),
    ] {
        assert_eq!(labels[label], value, "{label}");
    }
    assert_eq!(streams[0]["values"][0][0], "5");
    assert_eq!(streams[0]["values"][1][1], "line \"7\"");
    assert_eq!(streams[1]["stream"]["stream"], "stderr");
}

#[test]
fn otlp_gets_a_resource_for_each_allocation() {
    let body: Value = serde_json::from_slice(&batch().encode(Kind::Otlp)).expect("JSON");
    let resource = &body["resourceLogs"][0];
    let attributes = resource["resource"]["attributes"].as_array().expect("list");
    let service = attributes.iter().find(|one| one["key"] == "service.name");
    assert_eq!(service.expect("there")["value"]["stringValue"], "web");
    let records = resource["scopeLogs"][0]["logRecords"].as_array();
    let records = records.expect("records");
    assert_eq!(records.len(), 3);
    assert_eq!(records[1]["timeUnixNano"], "6");
    assert_eq!(
        records[1]["attributes"][0]["value"]["stringValue"],
        "stderr"
    );
    assert_eq!(records[2]["attributes"][1]["value"]["intValue"], "99");
}

#[test]
fn destinations_are_typed_and_never_show_their_password() {
    let parse = |text: &str| text.parse::<Destination>();
    let loki = parse("loki=http://me:secret@10.0.0.1:3100").expect("a destination");
    assert_eq!(
        loki.to_string(),
        "loki=http://10.0.0.1:3100/loki/api/v1/push"
    );
    assert_eq!(loki.credentials(), Some("me:secret"));
    assert!(!format!("{loki:?}").contains("secret"));
    let otlp = parse("otlp=https://collector/custom/path").expect("a destination");
    assert_eq!(otlp.to_string(), "otlp=https://collector/custom/path");
    for wrong in [
        "loki",
        "loki=10.0.0.1",
        "splunk=http://h",
        "otlp=ftp://h",
        "otlp=http://",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
