//! Clients of the registers: each asks one thing after the other, of a server by chance, and writes
//! down what it was told. An answer that does not come in time is no answer: the call stays open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use rustls::ClientConfig;
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::recorder::{Ask, Recorder, Told, Value};
use crate::http::{Answer, connect_over, read};
use crate::random::Random;
use crate::wait;

/// A client gives up by then; a server is to answer before, even if only with a refusal.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two calls of a client: what is recorded has to be judged, too.
const PAUSE: Duration = Duration::from_millis(25);
/// A cluster at rest answers at once.
const REST: Duration = Duration::from_secs(20);

/// How the registers are reached.
#[derive(Debug, Clone)]
pub struct Access {
    /// The APIs of all servers.
    pub servers: Vec<SocketAddr>,
    /// Trust in their CA.
    pub tls: Arc<ClientConfig>,
    /// An administrator's token.
    pub token: String,
    /// Name of the node whose metadata they are.
    pub node: String,
}

impl Access {
    fn request(
        &self,
        server: SocketAddr,
        register: usize,
        ask: Ask,
    ) -> Result<Request<Full<Bytes>>> {
        let (method, path, body) = match ask {
            Ask::Read => (Method::GET, "/v1/nodes".to_owned(), Bytes::new()),
            Ask::Write(value) => {
                let set = json!({ "set": { key(register): value.to_string() } });
                (
                    Method::PUT,
                    format!("/v1/nodes/{}/meta", self.node),
                    serde_json::to_vec(&set)?.into(),
                )
            }
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, server.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json");
        Ok(request.body(Full::new(body))?)
    }
}

fn key(register: usize) -> String {
    format!("register-{register}")
}

/// The metadata of a node in the API's list of nodes.
pub fn meta_of<'a>(nodes: &'a Json, node: &str) -> Option<&'a Json> {
    let nodes = nodes["nodes"].as_array()?;
    let own = nodes.iter().find(|one| one["name"] == node)?;
    Some(&own["meta"])
}

/// What an answer means for a call.
fn meaning(ask: Ask, (node, register): (&str, usize), answer: &Answer) -> Result<Told> {
    match (ask, answer.status) {
        (Ask::Read, 200) => {
            let nodes: Json = answer.json()?;
            let meta = meta_of(&nodes, node).context("the node is gone")?;
            let text = meta[key(register)].as_str();
            Ok(Told::Holds(text.map_or(Ok(0), str::parse::<Value>)?))
        }
        (Ask::Write(_), 200..=299) => Ok(Told::Written),
        // A sentence about the request itself: it was not taken in.
        (Ask::Write(_), 400..=499) => bail!(
            "a good write was refused: {} {}",
            answer.status,
            answer.text()
        ),
        _ => Ok(Told::Nothing),
    }
}

/// A client with a connection that it keeps while it works.
struct Client {
    access: Access,
    recorder: Arc<Recorder>,
    kept: Option<(SocketAddr, SendRequest<Full<Bytes>>)>,
}

impl Client {
    /// One call, written down.
    async fn call(&mut self, server: SocketAddr, register: usize, ask: Ask) -> Result<Told> {
        let kept = self
            .kept
            .take()
            .filter(|(to, sender)| *to == server && !sender.is_closed());
        let sender = match kept {
            Some((_, sender)) => Ok(sender),
            None => timeout(
                PATIENCE,
                connect_over(server, Some(self.access.tls.clone())),
            )
            .await
            .map_err(anyhow::Error::from)
            .flatten(),
        };
        // Without a connection nothing was asked.
        let Ok(mut sender) = sender else {
            return Ok(Told::Refused);
        };
        let request = self.access.request(server, register, ask)?;
        let ticket = self.recorder.ask(register, ask);
        let answer = timeout(PATIENCE, async {
            read(sender.send_request(request).await?).await
        });
        let told = match answer.await {
            Ok(Ok(answer)) => {
                self.kept = Some((server, sender));
                meaning(ask, (&self.access.node, register), &answer)
            }
            _ => Ok(Told::Nothing),
        };
        let shown = match told {
            Ok(told) => told,
            Err(_) => Told::Nothing,
        };
        self.recorder.tell(ticket, shown);
        told
    }
}

/// Clients at work.
pub struct Clients {
    access: Access,
    recorder: Arc<Recorder>,
    registers: usize,
    stop: CancellationToken,
    tasks: JoinSet<Result<()>>,
}

impl Clients {
    /// Starts `count` clients on the recorder's registers.
    pub fn start(
        access: &Access,
        recorder: &Arc<Recorder>,
        registers: usize,
        count: u64,
        random: &mut Random,
    ) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let client = Client {
                access: access.clone(),
                recorder: recorder.clone(),
                kept: None,
            };
            let random = Random::new(random.next_u64());
            let stopped = stop.clone().cancelled_owned();
            tasks.spawn(async move {
                // Between two calls only: a call that was sent is waited for.
                tokio::pin!(stopped);
                work(client, registers, random, stopped).await
            });
        }
        Self {
            access: access.clone(),
            recorder: recorder.clone(),
            registers,
            stop,
            tasks,
        }
    }

    /// Stops them and reads every register once more, through `server`: the moment of rest that a
    /// window ends with.
    ///
    /// # Errors
    /// A client failed, or the cluster does not answer at rest.
    pub async fn rest(mut self, server: SocketAddr) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        let mut client = Client {
            access: self.access.clone(),
            recorder: self.recorder.clone(),
            kept: None,
        };
        for register in 0..self.registers {
            wait::until_ok("an answer at rest", REST, async || {
                let told = client.call(server, register, Ask::Read).await?;
                ensure!(matches!(told, Told::Holds(_)), "{told:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

async fn work(
    mut client: Client,
    registers: usize,
    mut random: Random,
    mut stopped: std::pin::Pin<&mut tokio_util::sync::WaitForCancellationFutureOwned>,
) -> Result<()> {
    loop {
        let servers = &client.access.servers;
        let server = servers[below(&mut random, servers.len())];
        let register = below(&mut random, registers);
        let ask = match random.below(2) {
            0 => Ask::Read,
            _ => Ask::Write(client.recorder.fresh()),
        };
        client.call(server, register, ask).await?;
        tokio::select! {
            () = &mut stopped => return Ok(()),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

fn below(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.below(end as u64)).expect("below a usize")
}
