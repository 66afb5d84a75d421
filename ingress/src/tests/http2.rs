//! What RFC 9113 wants of a server that is sent nonsense, frame by frame, and what a flood of sense costs. The
//! frames are written by hand: no client library sends them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{App, HOST, SOON, Served, serve_one};
use crate::Options;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WHOLE: u8 = END_STREAM | END_HEADERS;

const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field that no table has.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.push(u8::try_from(text.len()).expect("short"));
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// A request of `method` for `/`, with `more` after it.
fn fields(method: u8, more: &[u8]) -> Vec<u8> {
    let mut bytes = vec![method, 0x86, 0x84, 0x41];
    bytes.push(u8::try_from(HOST.len()).expect("short"));
    bytes.extend(HOST.as_bytes());
    bytes.extend(more);
    bytes
}

fn get(more: &[u8]) -> Vec<u8> {
    fields(0x82, more)
}

fn post(more: &[u8]) -> Vec<u8> {
    fields(0x83, more)
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(value.to_be_bytes());
    frame(SETTINGS, 0, 0, &bytes)
}

/// How the ingress takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// The connection ends, with this code.
    Goaway(u32),
    /// The first stream ends, with this code.
    Reset(u32),
    /// The first stream is answered.
    Answered,
    /// The connection ends without a word.
    Closed,
}

async fn connect(served: &Served) -> TcpStream {
    let mut stream = TcpStream::connect(served.address).await.expect("connects");
    let mut begin = PREFACE.to_vec();
    begin.extend(frame(SETTINGS, 0, 0, &[]));
    stream.write_all(&begin).await.expect("sent");
    stream
}

/// The first frame that says how it was taken.
async fn taken(stream: &mut TcpStream) -> Taken {
    let read = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return Taken::Closed;
            }
            let [high, mid, low, kind, _, first @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, high, mid, low]) as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                return Taken::Closed;
            }
            let word = |at: usize| {
                let bytes = payload.get(at..at + 4).expect("long enough");
                u32::from_be_bytes(bytes.try_into().expect("four"))
            };
            match kind {
                GOAWAY => return Taken::Goaway(word(4)),
                RST_STREAM => return Taken::Reset(word(0)),
                HEADERS if u32::from_be_bytes(first) == 1 => return Taken::Answered,
                _ => {}
            }
        }
    };
    tokio::time::timeout(SOON, read).await.expect("in time")
}

/// Each with what the standard says: of a stream error a connection error may be made (5.4.2), and a malformed
/// request may be answered first (8.1.1). That there is an error matters to everybody, which one to people: h2 says
/// PROTOCOL_ERROR where FRAME_SIZE_ERROR or COMPRESSION_ERROR would be closer.
fn nonsense() -> Vec<(&'static str, Vec<u8>, &'static [Taken])> {
    use Taken::{Answered, Goaway, Reset};
    const CONNECTION: &[Taken] = &[Goaway(PROTOCOL)];
    const LENGTH: &[Taken] = &[Goaway(SIZE), Goaway(PROTOCOL)];
    const MALFORMED: &[Taken] = &[Reset(PROTOCOL), Goaway(PROTOCOL), Answered];
    let whole = |more: &[u8]| frame(HEADERS, WHOLE, 1, &get(more));
    let counted = |said: &str, sent: &[u8]| {
        let more = field("content-length", said);
        let mut bytes = frame(HEADERS, END_HEADERS, 1, &post(&more));
        bytes.extend(frame(DATA, END_STREAM, 1, sent));
        bytes
    };
    let mut split = frame(HEADERS, END_STREAM, 1, &get(&[]));
    split.extend(frame(DATA, 0, 1, b"x"));
    let mut twice = frame(HEADERS, WHOLE, 3, &get(&[]));
    twice.extend(frame(HEADERS, WHOLE, 1, &get(&[])));
    let mut late = frame(HEADERS, END_HEADERS, 1, &post(&[]));
    late.extend(frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]));
    vec![
        ("data on 0", frame(DATA, 0, 0, b"x"), CONNECTION),
        ("data before headers", frame(DATA, 0, 1, b"x"), CONNECTION),
        (
            "headers on 0",
            frame(HEADERS, WHOLE, 0, &get(&[])),
            CONNECTION,
        ),
        (
            "headers on 2",
            frame(HEADERS, WHOLE, 2, &get(&[])),
            CONNECTION,
        ),
        ("a stream before one that was", twice, CONNECTION),
        ("data within headers", split, CONNECTION),
        (
            "continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &get(&[])),
            CONNECTION,
        ),
        ("priority on 0", frame(PRIORITY, 0, 0, &[0; 5]), CONNECTION),
        (
            "reset of what never was",
            frame(RST_STREAM, 0, 1, &[0; 4]),
            CONNECTION,
        ),
        ("reset on 0", frame(RST_STREAM, 0, 0, &[0; 4]), CONNECTION),
        ("settings on 1", frame(SETTINGS, 0, 1, &[]), CONNECTION),
        (
            "settings of five bytes",
            frame(SETTINGS, 0, 0, &[0; 5]),
            LENGTH,
        ),
        (
            "settings that agree and say more",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            LENGTH,
        ),
        ("push neither on nor off", setting(2, 2), CONNECTION),
        (
            "window beyond all",
            setting(4, 1 << 31),
            &[Goaway(FLOW), Goaway(PROTOCOL)],
        ),
        ("frames below the least", setting(5, 1), CONNECTION),
        ("frames beyond the most", setting(5, 1 << 24), CONNECTION),
        (
            "a push by a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 8]),
            CONNECTION,
        ),
        ("ping on 1", frame(PING, 0, 1, &[0; 8]), CONNECTION),
        ("ping of seven bytes", frame(PING, 0, 0, &[0; 7]), LENGTH),
        ("goaway on 1", frame(GOAWAY, 0, 1, &[0; 8]), CONNECTION),
        (
            "window update of nothing",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            CONNECTION,
        ),
        (
            "window update of three bytes",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            LENGTH,
        ),
        (
            "the connection's window beyond all",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            &[Goaway(FLOW)],
        ),
        (
            "a stream's window beyond all",
            late,
            &[Reset(FLOW), Goaway(FLOW)],
        ),
        (
            "a frame that is too long",
            frame(DATA, 0, 1, &[0; 16_385]),
            LENGTH,
        ),
        (
            "more padding than frame",
            frame(HEADERS, WHOLE | PADDED, 1, &[9, 0x82]),
            CONNECTION,
        ),
        (
            "fields of no table",
            frame(HEADERS, WHOLE, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            &[Goaway(COMPRESSION), Goaway(PROTOCOL)],
        ),
        ("a name in capitals", whole(&field("X-Y", "z")), MALFORMED),
        ("a name with a space", whole(&field("x y", "z")), MALFORMED),
        (
            "a value with a line end",
            whole(&field("x", "a\r\nb: c")),
            MALFORMED,
        ),
        (
            "a pseudo field after others",
            whole(&[field("x", "y"), vec![0x84]].concat()),
            MALFORMED,
        ),
        (
            "a pseudo field that nobody knows",
            whole(&field(":x", "y")),
            MALFORMED,
        ),
        (
            "a pseudo field of answers",
            whole(&field(":status", "200")),
            MALFORMED,
        ),
        ("two methods", whole(&[0x83]), MALFORMED),
        ("two paths", whole(&[0x85]), MALFORMED),
        (
            "no path",
            frame(HEADERS, WHOLE, 1, &[0x82, 0x86]),
            MALFORMED,
        ),
        (
            "no scheme and no method",
            frame(HEADERS, WHOLE, 1, &[0x84]),
            MALFORMED,
        ),
        (
            "an empty path",
            frame(
                HEADERS,
                WHOLE,
                1,
                &[&[0x82, 0x86][..], &field(":path", "")].concat(),
            ),
            MALFORMED,
        ),
        (
            "connection",
            whole(&field("connection", "close")),
            MALFORMED,
        ),
        (
            "transfer-encoding",
            whole(&field("transfer-encoding", "chunked")),
            MALFORMED,
        ),
        (
            "te that is not trailers",
            whole(&field("te", "gzip")),
            MALFORMED,
        ),
        (
            "two lengths",
            whole(&[field("content-length", "1"), field("content-length", "2")].concat()),
            MALFORMED,
        ),
        ("no length at all", counted("many", b"x"), MALFORMED),
        ("a body beyond its length", counted("1", b"xy"), MALFORMED),
        ("a body below its length", counted("3", b"xy"), MALFORMED),
    ]
}

#[tokio::test]
async fn what_http2_does_not_allow_reaches_no_backend_and_harms_nobody() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let mut wrong = Vec::new();
    for (what, bytes, allowed) in nonsense() {
        let before = app.served();
        let mut stream = connect(&served).await;
        stream.write_all(&bytes).await.expect("sent");
        let taken = taken(&mut stream).await;
        // A body that does not keep its word is known too late: the backend has the head, and no whole body.
        let may_begin = what.starts_with("a body");
        if !allowed.contains(&taken) || (app.served() != before && !may_begin) {
            wrong.push((what, taken, app.served() - before));
        }
        assert_eq!(served.get(HOST, "/").await.status, 200, "after {what}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn whoever_does_not_begin_as_http2_begins_is_closed() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let mut stream = TcpStream::connect(served.address).await.expect("connects");
    let preface = b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n";
    stream.write_all(preface).await.expect("sent");
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    let _ = ended.expect("closed by the ingress");
    assert_eq!(app.served(), 0);
}

/// Requests that are taken back as soon as they are sent (CVE-2023-44487), heads that never end (CVE-2024-27316),
/// questions whose answers nobody reads (CVE-2019-9512, -9515): each ends its own connection.
#[tokio::test]
async fn a_flood_ends_its_connection_and_others_are_served() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let rapid = |at: u32| {
        let stream = 2 * at + 1;
        let mut bytes = frame(HEADERS, WHOLE, stream, &get(&[]));
        bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        bytes
    };
    let endless = |at: u32| match at {
        0 => frame(HEADERS, END_STREAM, 1, &get(&[])),
        _ => frame(CONTINUATION, 0, 1, &field("x-filler", &"x".repeat(100))),
    };
    type Flood<'a> = (&'a str, &'a dyn Fn(u32) -> Vec<u8>);
    let floods: [Flood<'_>; 2] = [("rapid reset", &rapid), ("continuation", &endless)];
    for (what, piece) in floods {
        let mut stream = connect(&served).await;
        let (mut reader, mut writer) = stream.split();
        let flood = async {
            for at in 0..100_000 {
                if writer.write_all(&piece(at)).await.is_err() {
                    return true;
                }
            }
            false
        };
        let drain = async {
            let mut sink = vec![0; 64 << 10];
            while !matches!(reader.read(&mut sink).await, Ok(0) | Err(_)) {}
        };
        let both = async {
            tokio::select! {
                ended = flood => ended,
                () = drain => true,
            }
        };
        let ended = tokio::time::timeout(SOON, both).await;
        assert_eq!(ended, Ok(true), "{what} goes on");
        assert_eq!(served.get(HOST, "/").await.status, 200, "after {what}");
    }
    assert!(app.served() < 10_000, "{} reached the app", app.served());
}
