//! Names: `NAME` and `NAME.internal` are answered from the table, all others by this machine's own resolvers,
//! which get the question as it came.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use socket2::Type;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::counters::Counters;
use super::{Network, Private, bind};

/// All names end in it.
const ZONE: &str = "internal";
/// How long an answer may be kept, in seconds: addresses stay for as long as their service.
const TTL_S: u32 = 5;
/// Questions at a time on one gateway.
const QUESTIONS_MAX: usize = 256;
/// The largest message over UDP that is taken or given.
const UDP_BYTES: usize = 4_096;
/// One resolver's answer.
const RESOLVER_LIMIT: Duration = Duration::from_secs(2);
/// Resolvers that are asked, one after the other.
const RESOLVERS_MAX: usize = 3;
/// A caller over TCP says what it wants in this time, each time.
const CALLER_LIMIT: Duration = Duration::from_secs(10);
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What becomes of a question.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// This is the answer, and its code.
    Answer(Vec<u8>, ResponseCode),
    /// Others know.
    Forward,
    /// It is none.
    Drop,
}

/// A question from `peer` to a network. Pure.
pub(super) fn judge(network: Option<&Network>, peer: IpAddr, question: &[u8]) -> Verdict {
    let Ok(message) = Message::from_vec(question) else {
        return Verdict::Drop;
    };
    if message.metadata.message_type != MessageType::Query {
        return Verdict::Drop;
    }
    let respond = |code: ResponseCode, address: Option<Ipv4Addr>| {
        let metadata = &message.metadata;
        let mut answer = Message::response(metadata.id, metadata.op_code);
        answer.metadata.response_code = code;
        answer.metadata.authoritative = address.is_some();
        answer.metadata.recursion_desired = metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_queries(message.queries.iter().cloned());
        if let (Some(address), Some(query)) = (address, message.queries.first()) {
            let data = RData::A(A(address));
            answer.add_answer(Record::from_rdata(query.name().clone(), TTL_S, data));
        }
        answer
            .to_vec()
            .map_or(Verdict::Drop, |bytes| Verdict::Answer(bytes, code))
    };
    let Some(network) = network.filter(|network| network.has(peer)) else {
        return respond(ResponseCode::Refused, None);
    };
    if message.metadata.op_code != OpCode::Query {
        return respond(ResponseCode::NotImp, None);
    }
    let [query] = message.queries.as_slice() else {
        return respond(ResponseCode::FormErr, None);
    };
    let name = query.name().to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let own = match name.rsplit_once('.') {
        None if name.is_empty() => return Verdict::Forward,
        None => name,
        Some((own, ZONE)) => own,
        Some(_) => return Verdict::Forward,
    };
    let is_a = query.query_type() == RecordType::A && query.query_class() == DNSClass::IN;
    match network.names.get(own) {
        Some(address) => respond(ResponseCode::NoError, is_a.then_some(*address)),
        // The zone itself is there.
        None if own == ZONE => respond(ResponseCode::NoError, None),
        None => respond(ResponseCode::NXDomain, None),
    }
}

/// Of a network that is gone nothing is counted.
fn count(network: Option<&Network>, what: impl FnOnce(&Counters)) {
    if let Some(network) = network {
        what(&network.counters);
    }
}

/// Questions over UDP, on a gateway.
pub(super) async fn udp(private: Arc<Private>, gateway: Ipv4Addr) -> io::Result<()> {
    let socket = bind(gateway, private.ports.dns, Type::DGRAM)?;
    let socket = Arc::new(UdpSocket::from_std(socket.into())?);
    let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut buffer = vec![0; UDP_BYTES];
    loop {
        let (size, peer) = socket.recv_from(&mut buffer).await?;
        let question = buffer[..size].to_vec();
        let network = private.network(gateway);
        match judge(network.as_deref(), peer.ip(), &question) {
            // A caller that is gone needs none.
            Verdict::Answer(answer, code) => {
                count(network.as_deref(), |it| it.answered(code));
                _ = socket.send_to(&answer, peer).await;
            }
            Verdict::Drop => {}
            Verdict::Forward => {
                // Who floods waits for its own timeout.
                let permit = room.clone().try_acquire_owned();
                count(network.as_deref(), |it| it.forwarded(permit.is_ok()));
                let Ok(permit) = permit else { continue };
                let socket = socket.clone();
                tokio::spawn(async move {
                    let answer = forward(&question, ask_udp).await;
                    let _ = socket.send_to(&answer, peer).await;
                    drop(permit);
                });
            }
        }
    }
}

/// Questions over TCP, on a gateway.
pub(super) async fn tcp(private: Arc<Private>, gateway: Ipv4Addr) -> io::Result<()> {
    let socket = bind(gateway, private.ports.dns, Type::STREAM)?;
    let listener = TcpListener::from_std(socket.into())?;
    let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
    loop {
        let (stream, peer) = listener.accept().await?;
        let Ok(permit) = room.clone().try_acquire_owned() else {
            continue;
        };
        let private = private.clone();
        tokio::spawn(async move {
            // It ends when the caller has nothing more to ask.
            let _ = converse(&private, gateway, (stream, peer)).await;
            drop(permit);
        });
    }
}

async fn converse(
    private: &Private,
    gateway: Ipv4Addr,
    (mut stream, peer): (TcpStream, SocketAddr),
) -> io::Result<()> {
    loop {
        let question = timeout(CALLER_LIMIT, read(&mut stream)).await??;
        let network = private.network(gateway);
        let answer = match judge(network.as_deref(), peer.ip(), &question) {
            Verdict::Answer(answer, code) => {
                count(network.as_deref(), |it| it.answered(code));
                answer
            }
            Verdict::Forward => {
                count(network.as_deref(), |it| it.forwarded(true));
                forward(&question, ask_tcp).await
            }
            Verdict::Drop => return Ok(()),
        };
        timeout(CALLER_LIMIT, write(&mut stream, &answer)).await??;
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let size = stream.read_u16().await?;
    let mut message = vec![0; usize::from(size)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let size = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let whole = [&size.to_be_bytes(), message].concat();
    stream.write_all(&whole).await
}

/// What the first resolver of this machine says that answers; SERVFAIL where none does.
async fn forward<F>(question: &[u8], ask: impl Fn(SocketAddr, Vec<u8>) -> F) -> Vec<u8>
where
    F: Future<Output = io::Result<Vec<u8>>>,
{
    for resolver in resolvers().await.into_iter().take(RESOLVERS_MAX) {
        match timeout(RESOLVER_LIMIT, ask(resolver, question.to_vec())).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => tracing::debug!(%resolver, %error, "a resolver cannot be asked"),
            Err(_) => tracing::debug!(%resolver, "a resolver does not answer"),
        }
    }
    let Ok(question) = Message::from_vec(question) else {
        return Vec::new();
    };
    let metadata = &question.metadata;
    let mut answer = Message::error_msg(metadata.id, metadata.op_code, ResponseCode::ServFail);
    answer.add_queries(question.queries.iter().cloned());
    answer.to_vec().unwrap_or_default()
}

/// As they are now: a machine that moves has others.
async fn resolvers() -> Vec<SocketAddr> {
    let read = tokio::fs::read(RESOLV_CONF).await.unwrap_or_default();
    let Ok(config) = resolv_conf::Config::parse(read) else {
        tracing::warn!("{RESOLV_CONF} cannot be read: names of the outside are not resolved");
        return Vec::new();
    };
    let servers = config.nameservers.iter();
    servers
        .map(|server| SocketAddr::new(server.into(), 53))
        .collect()
}

async fn ask_udp(resolver: SocketAddr, question: Vec<u8>) -> io::Result<Vec<u8>> {
    let any: IpAddr = match resolver.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port of its own, drawn by the kernel, and nobody but the resolver is heard.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(&question).await?;
    let mut buffer = vec![0; UDP_BYTES];
    loop {
        let size = socket.recv(&mut buffer).await?;
        if size >= 2 && buffer[..2] == question[..2] {
            buffer.truncate(size);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, question: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    write(&mut stream, &question).await?;
    read(&mut stream).await
}
