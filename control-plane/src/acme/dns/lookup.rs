//! Asks DNS servers: where a name leads, which zone it is in, who serves that, and whether all of them show a record.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_net::client::{Client, ClientHandle as _};
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::tcp::TcpClientStream;
use hickory_net::udp::UdpClientStream;
use hickory_net::{DnsMultiplexer, NetError};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType, TSigner};
use tokio::time::{Instant, sleep, timeout};

use super::{Error, Record};

/// One question to one server.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Where DNS is spoken.
const PORT: u16 = 53;
/// How long all servers of a zone may take to show a record: most take seconds, some a minute.
const SPREAD_LIMIT: Duration = Duration::from_secs(120);
/// First and longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Longest chain of aliases that is followed.
const MAX_ALIASES: usize = 8;
/// Most servers of a zone that are asked.
const MAX_SERVERS: usize = 16;
/// The machine's own list.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Asks the servers that know where zones are.
pub(crate) struct Lookup {
    resolvers: Vec<SocketAddr>,
}

impl Lookup {
    /// By these servers; none: those of the machine, read now.
    pub(crate) fn new(resolvers: &[SocketAddr]) -> Self {
        if !resolvers.is_empty() {
            return Self {
                resolvers: resolvers.to_vec(),
            };
        }
        let read = std::fs::read(RESOLV_CONF).unwrap_or_default();
        let config = resolv_conf::Config::parse(read).unwrap_or_default();
        let servers = config.nameservers.iter();
        let own = servers.map(|ip| SocketAddr::new(ip.into(), PORT));
        Self {
            resolvers: own.collect(),
        }
    }

    /// Where a record for `name` is to be written: what its aliases lead to, without a last dot.
    ///
    /// # Errors
    /// Nobody knows.
    pub(crate) async fn follow(&self, name: &str) -> Result<String, Error> {
        let mut at = parse(name)?;
        for _ in 0..MAX_ALIASES {
            let answer = self.ask(&at, RecordType::CNAME).await?;
            let alias = answer.answers.iter().find_map(|it| match &it.data {
                RData::CNAME(to) if it.name == at => Some(to.0.clone()),
                _ => None,
            });
            match alias {
                Some(to) => at = to,
                None => return Ok(plain(&at)),
            }
        }
        let why = format!("more than {MAX_ALIASES} aliases");
        Err(no_zone(&at, why))
    }

    /// The texts that a name has; none: it has none, or is not there.
    ///
    /// # Errors
    /// Nobody knows.
    pub(crate) async fn texts(&self, name: &str) -> Result<Vec<String>, Error> {
        let answer = self.ask(&parse(name)?, RecordType::TXT).await?;
        let text = |data: &RData| match data {
            RData::TXT(text) => String::from_utf8(text.txt_data.concat()).ok(),
            _ => None,
        };
        let found = answer.answers.iter().filter_map(|it| text(&it.data));
        Ok(found.collect())
    }

    /// Waits until each server of the record's zone that answers shows it, and at least one does.
    ///
    /// # Errors
    /// Some do not, for too long.
    pub(crate) async fn seen(&self, record: Record<'_>) -> Result<(), Error> {
        let name = parse(record.name)?;
        let servers = self.authorities(&name).await?;
        let until = Instant::now() + SPREAD_LIMIT;
        let mut pause = PAUSES.0;
        loop {
            let looked = servers.iter().map(|at| shows(*at, &name, record.value));
            let looks = join_all(looked).await;
            let is_everywhere = !looks.contains(&Look::Missing) && looks.contains(&Look::There);
            if is_everywhere {
                return Ok(());
            }
            if Instant::now() + pause >= until {
                let missing = servers.iter().zip(&looks);
                let missing = missing.filter(|(_, look)| **look != Look::There);
                let missing: Vec<String> = missing.map(|(at, _)| at.to_string()).collect();
                return Err(Error::NotSeen {
                    name: record.name.to_owned(),
                    missing: missing.join(", "),
                    seconds: SPREAD_LIMIT.as_secs(),
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Where the servers of a name's zone are.
    async fn authorities(&self, name: &Name) -> Result<Vec<SocketAddr>, Error> {
        let answer = self.ask(name, RecordType::SOA).await?;
        let zone = zone_of(&answer).ok_or_else(|| no_zone(name, "no zone is named".to_owned()))?;
        let answer = self.ask(&zone, RecordType::NS).await?;
        let names = answer.answers.iter().filter_map(|it| match &it.data {
            RData::NS(server) => Some(server.0.clone()),
            _ => None,
        });
        let mut servers = Vec::new();
        for server in names.take(MAX_SERVERS) {
            for kind in [RecordType::A, RecordType::AAAA] {
                let Ok(answer) = self.ask(&server, kind).await else {
                    continue;
                };
                servers.extend(answer.answers.iter().filter_map(|it| match &it.data {
                    RData::A(ip) => Some(SocketAddr::new(ip.0.into(), PORT)),
                    RData::AAAA(ip) => Some(SocketAddr::new(ip.0.into(), PORT)),
                    _ => None,
                }));
            }
        }
        servers.truncate(MAX_SERVERS);
        match servers.is_empty() {
            true => Err(no_zone(name, format!("{} has no servers", plain(&zone)))),
            false => Ok(servers),
        }
    }

    /// The first answer that is one: some name, or that there is none.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, Error> {
        let mut why = "there is none to ask".to_owned();
        for at in &self.resolvers {
            match ask(*at, name, kind).await {
                Ok(answer) if is_answer(&answer) => return Ok(answer),
                Ok(answer) => why = format!("{at} says {}", answer.metadata.response_code),
                Err(error) => why = format!("{at}: {error}"),
            }
        }
        Err(no_zone(name, why))
    }
}

/// What one server has of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    There,
    Missing,
    /// Issuers ask another one then.
    Silent,
}

async fn shows(at: SocketAddr, name: &Name, value: &str) -> Look {
    let Ok(answer) = ask(at, name, RecordType::TXT).await else {
        return Look::Silent;
    };
    let is_it = |data: &RData| match data {
        RData::TXT(text) => text.txt_data.concat() == value.as_bytes(),
        _ => false,
    };
    match answer.answers.iter().any(|it| is_it(&it.data)) {
        true => Look::There,
        false => Look::Missing,
    }
}

/// Asks one server: by UDP, and by TCP what does not fit there or does not come.
pub(super) async fn ask(
    at: SocketAddr,
    name: &Name,
    kind: RecordType,
) -> Result<Message, NetError> {
    let runtime = TokioRuntimeProvider::new();
    let udp = UdpClientStream::builder(at, runtime).with_timeout(Some(ASK_LIMIT));
    let (mut client, background) = Client::<TokioRuntimeProvider>::from_sender(udp.build());
    let asked = client.query(name.clone(), DNSClass::IN, kind);
    let answer = tokio::select! {
        answer = asked => answer,
        _ = background => Err(NetError::NoConnections),
    };
    match answer {
        Ok(answer) if !answer.metadata.truncation => return Ok(answer.into_message()),
        Ok(_) | Err(_) => {}
    }
    let (mut client, background) = connect(at, None).await?;
    tokio::select! {
        answer = client.query(name.clone(), DNSClass::IN, kind) => answer.map(|it| it.into_message()),
        _ = background => Err(NetError::NoConnections),
    }
}

/// A connection to one server; what drives it is to be polled beside it.
pub(super) async fn connect(
    at: SocketAddr,
    signer: Option<TSigner>,
) -> Result<(Client<TokioRuntimeProvider>, impl Future), NetError> {
    let runtime = TokioRuntimeProvider::new();
    let (stream, handle) = TcpClientStream::new(at, None, Some(ASK_LIMIT), runtime);
    let late = |_| NetError::Timeout;
    let stream = timeout(ASK_LIMIT, stream).await.map_err(late)??;
    let mut requests = DnsMultiplexer::new(stream, handle).with_timeout(ASK_LIMIT);
    if let Some(signer) = signer {
        requests = requests.with_signer(signer);
    }
    Ok(Client::from_sender(requests))
}

/// The zone that an answer to a question for its beginning names.
pub(super) fn zone_of(answer: &Message) -> Option<Name> {
    let mut records = answer.answers.iter().chain(&answer.authorities);
    let soa = records.find(|it| it.record_type() == RecordType::SOA);
    soa.map(|it| it.name.clone())
}

fn is_answer(answer: &Message) -> bool {
    matches!(
        answer.metadata.response_code,
        ResponseCode::NoError | ResponseCode::NXDomain
    )
}

fn no_zone(name: &Name, why: String) -> Error {
    Error::NoZone {
        name: plain(name),
        why,
    }
}

/// A name as DNS has it.
pub(super) fn parse(name: &str) -> Result<Name, Error> {
    let absolute = format!("{}.", name.trim_end_matches('.'));
    let unusable = |error| Error::Unusable(format!("{name} is no name in DNS: {error}"));
    Name::from_ascii(absolute).map_err(unusable)
}

fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}
