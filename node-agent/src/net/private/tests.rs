//! Names and connections of private networks.

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use super::dns::{Verdict, judge};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const GATEWAY: u32 = 0x0ACA_0001;
const API: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 1);

fn example() -> Network {
    let message = v1::PrivateNetwork {
        environment: skep_proto::convert::id_bytes(7),
        gateway: GATEWAY,
        subnet: GATEWAY - 1,
        subnet_bits: 24,
        services: vec![v1::PrivateService {
            name: "api".into(),
            virtual_address: u32::from(API),
            backends: vec![v1::PrivateTarget {
                allocation: skep_proto::convert::id_bytes(1),
                ip: "10.202.0.9".into(),
                node: Vec::new(),
                files: String::new(),
            }],
        }],
    };
    network(&message, &Opened::new()).expect("a network")
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message.to_vec().expect("bytes")
}

/// The code and the first address of an answer.
fn answered(verdict: Verdict) -> Option<(ResponseCode, Option<Ipv4Addr>)> {
    let Verdict::Answer(bytes, _) = verdict else {
        return None;
    };
    let answer = Message::from_vec(&bytes).expect("an answer");
    let address = answer
        .answers
        .first()
        .and_then(|record| match &record.data {
            RData::A(address) => Some(address.0),
            _ => None,
        });
    Some((answer.metadata.response_code, address))
}

#[test]
fn names_are_answered_to_their_environment_alone() {
    let network = example();
    let [inside, outside] = [[10, 202, 0, 7], [10, 202, 1, 7]].map(IpAddr::from);
    let gateway = IpAddr::from([10, 202, 0, 1]);
    let ask = |peer, name: &str, kind| judge(Some(&network), peer, &question(name, kind));
    let found = Some((ResponseCode::NoError, Some(API)));
    for name in ["api.", "api.internal.", "API.Internal."] {
        assert_eq!(answered(ask(inside, name, RecordType::A)), found, "{name}");
        for peer in [outside, gateway] {
            let refused = Some((ResponseCode::Refused, None));
            assert_eq!(answered(ask(peer, name, RecordType::A)), refused, "{name}");
        }
    }
    let nothing = Some((ResponseCode::NoError, None));
    for (name, kind) in [
        ("api.internal.", RecordType::AAAA),
        ("api.", RecordType::AAAA),
        ("internal.", RecordType::A),
    ] {
        assert_eq!(answered(ask(inside, name, kind)), nothing, "{name}");
    }
    let unknown = Some((ResponseCode::NXDomain, None));
    for name in ["web.", "web.internal.", "a.api.internal."] {
        assert_eq!(
            answered(ask(inside, name, RecordType::A)),
            unknown,
            "{name}"
        );
    }
    assert_eq!(ask(inside, "example.com.", RecordType::A), Verdict::Forward);
    let refused = Some((ResponseCode::Refused, None));
    assert_eq!(
        answered(ask(outside, "example.com.", RecordType::A)),
        refused
    );
}

#[test]
fn what_is_no_question_is_not_answered_as_one() {
    let network = example();
    let inside = IpAddr::from([10, 202, 0, 7]);
    assert_eq!(judge(Some(&network), inside, b"nonsense"), Verdict::Drop);
    let response = Message::response(7, OpCode::Query).to_vec().expect("bytes");
    assert_eq!(judge(Some(&network), inside, &response), Verdict::Drop);
    let update = Message::new(7, hickory_proto::op::MessageType::Query, OpCode::Update);
    let update = judge(Some(&network), inside, &update.to_vec().expect("bytes"));
    assert_eq!(answered(update), Some((ResponseCode::NotImp, None)));
    let gone = judge(None, inside, &question("api.", RecordType::A));
    assert_eq!(answered(gone), Some((ResponseCode::Refused, None)));
}

#[derive(Debug)]
struct Nowhere;

impl Reach for Nowhere {
    fn reach(&self, _: skep_ingress::Far) -> skep_ingress::Reaching {
        Box::pin(async { Err(io::ErrorKind::NotConnected.into()) })
    }
}

fn closed() -> Arc<Private> {
    let closed = CancellationToken::new();
    closed.cancel();
    Private::new(Arc::new(Nowhere), closed)
}

#[tokio::test]
async fn files_of_this_node_answer_on_the_connection_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    crate::testing::unpack(folder.path(), &[("index.html", "hello")]);
    let name = folder.path().display().to_string();
    let target = |files: &str| v1::PrivateTarget {
        allocation: skep_proto::convert::id_bytes(1),
        files: files.into(),
        ..v1::PrivateTarget::default()
    };
    let bundle = skep_ingress::files::Bundles::default().open(folder.path());
    let opened = [(name.clone(), bundle.expect("a bundle"))].into();
    assert_eq!(backend(&target("/gone"), &opened), Ok(None));
    let files = backend(&target(&name), &opened)
        .expect("read")
        .expect("one");
    let mut stream = proxy::reach(&closed(), &files, 80).await.expect("reached");
    let ask = b"GET / HTTP/1.1\r\nhost: site\r\nconnection: close\r\n\r\n";
    stream.write_all(ask).await.expect("sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("to its end");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_is_counted_of_an_environment_goes_on_with_the_next_table() {
    let private = closed();
    private.publish(1, vec![example()]);
    let network = private.network(Ipv4Addr::from(GATEWAY)).expect("it");
    network.counters.answered(ResponseCode::NoError);
    network.counters.answered(ResponseCode::Refused);
    let carried = counters::Carried::begin(&network.counters);
    private.publish(2, vec![example()]);
    let id = EnvironmentId::from_u128(7);
    let counts = |line: &str| {
        let text = private.metrics();
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    };
    counts(&format!(
        "skep_private_connections{{environment=\"{id}\"}} 1"
    ));
    counts(&format!(
        "skep_private_names_total{{environment=\"{id}\",outcome=\"refused\"}} 1"
    ));
    drop(carried);
    counts(&format!(
        "skep_private_connections{{environment=\"{id}\"}} 0"
    ));
    counts(&format!(
        "skep_private_connections_total{{environment=\"{id}\",outcome=\"carried\"}} 1"
    ));
    // Whose bridge is gone is not counted any more: the list does not grow for ever.
    private.publish(3, Vec::new());
    assert!(!private.metrics().contains("environment="));
}
