use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, DynamicMessage, Value as ReflectValue};
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

/// OTLP's own definitions, and protobuf's own rules for JSON: what a receiver would not understand is refused.
fn as_a_receiver(body: &[u8]) -> Result<DynamicMessage, serde_json::Error> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/otlp");
    let service = "opentelemetry/proto/collector/logs/v1/logs_service.proto";
    let files = protox::compile([service], [folder]).expect("OTLP's definitions");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("they are whole");
    let name = "opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest";
    let request = pool.get_message_by_name(name).expect("it is there");
    DynamicMessage::deserialize(request, &mut serde_json::Deserializer::from_slice(body))
}

fn field(message: &DynamicMessage, name: &str) -> ReflectValue {
    message.get_field_by_name(name).expect(name).into_owned()
}

fn messages(message: &DynamicMessage, name: &str) -> Vec<DynamicMessage> {
    let value = field(message, name);
    let list = value.as_list().expect(name).iter();
    list.map(|one| one.as_message().expect(name).clone())
        .collect()
}

/// Keys and values, whatever type each value has.
fn attributes(message: &DynamicMessage) -> BTreeMap<String, ReflectValue> {
    let each = messages(message, "attributes").into_iter();
    each.map(|pair| {
        let key = field(&pair, "key").as_str().expect("a key").to_owned();
        let value = field(&pair, "value");
        let fields: Vec<_> = value.as_message().expect("any").fields().collect();
        assert_eq!(fields.len(), 1, "{key}");
        (key, fields[0].1.clone())
    })
    .collect()
}

#[test]
fn otlp_is_understood_by_its_own_definitions() {
    let request = as_a_receiver(&batch().encode(Kind::Otlp)).expect("OTLP");
    let resources = messages(&request, "resource_logs");
    assert_eq!(resources.len(), 1, "one allocation");
    let resource = field(&resources[0], "resource");
    let text = |value: &str| ReflectValue::String(value.to_owned());
    let expected = [
        ("deployment.environment.name", text("production")),
        ("host.name", text("n1")),
        (
            "service.instance.id",
            text(&AllocationId::from_u128(7).to_string()),
        ),
        ("service.name", text("web")),
        ("service.namespace", text("shop")),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(key, value)| (key.to_owned(), value)).into();
    assert_eq!(attributes(resource.as_message().expect("there")), expected);

    let scopes = messages(&resources[0], "scope_logs");
    let records = messages(&scopes[0], "log_records");
    let times: Vec<_> = records
        .iter()
        .map(|it| field(it, "time_unix_nano").as_u64())
        .collect();
    assert_eq!(times, [Some(5), Some(6), Some(7)]);
    let body = field(&records[0], "body");
    let body = field(body.as_message().expect("any"), "string_value");
    assert_eq!(body, text("line \"5\""));
    let streams: Vec<_> = records
        .iter()
        .map(|it| attributes(it)["log.iostream"].clone())
        .collect();
    assert_eq!(streams, [text("stdout"), text("stderr"), text("stdout")]);
    assert_eq!(
        attributes(&records[2])["skep.log.lost_bytes"],
        ReflectValue::I64(99)
    );
}

#[test]
fn what_otlp_does_not_define_is_refused_by_the_same_judge() {
    let good = String::from_utf8(batch().encode(Kind::Otlp).to_vec()).expect("text");
    for (was, wrong) in [
        ("timeUnixNano", "timeNano"),
        ("stringValue", "text"),
        ("\"99\"", "\"many\""),
    ] {
        assert!(good.contains(was), "{was}");
        let bad = good.replace(was, wrong);
        assert!(as_a_receiver(bad.as_bytes()).is_err(), "{wrong}");
    }
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
