//! Logs, shells, histories and uploads that are at another server: asked for there, passed through here, stored nowhere.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use skep_model::id::{NodeId, ServerId, UploadId};
use skep_model::network_check::{self, Found};
use skep_model::polling;
use skep_model::probe::{Reach, Target};
use skep_model::problem::{Code, Problem};
use skep_model::registry;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::directory::Contact;
use super::history::{WAIT, ask_message, page};
use super::links::{Lane, Links};
use super::transport::reason;
use super::{probes, shells};
use crate::agents::elsewhere::{Chunks, Elsewhere};
use crate::agents::relay::Ask;
use crate::agents::shells::{Ask as ShellAsk, Shell};
use crate::agents::uploads::{CHUNKS, STALL_DEADLINE};
use crate::history;

/// How long a server may take to begin with a log.
const LOGS_BEGIN: Duration = Duration::from_secs(10);
/// How long a server may take for a page of a build's log.
const PAGE: Duration = Duration::from_secs(8);
/// Chunks of a log under way to one asker.
const LOG_CHUNKS: usize = 16;

/// Fetches what is at the other servers.
#[derive(Clone)]
pub struct Fetcher {
    links: Links,
}

impl Fetcher {
    /// Over `links`.
    pub fn new(links: Links) -> Self {
        Self { links }
    }

    async fn open_logs(
        &self,
        server: ServerId,
        ask: Ask,
    ) -> Result<Streaming<v1::LogChunk>, Problem> {
        let contact = self.links.directory().of_server(server);
        let away = |why: &str| {
            let text = format!("the server that the node is connected to cannot be reached: {why}");
            Problem::new(Code::Unavailable, text).hint("try again in a moment")
        };
        let contact = contact.ok_or_else(|| away("it was removed"))?;
        let request = v1::FetchLogsRequest {
            node: id_bytes(ask.node.as_u128()),
            allocation: id_bytes(ask.allocation.as_u128()),
            follow: ask.follow,
            tail: ask.tail,
            after_ns: ask.after_ns,
            until_ns: ask.until_ns,
            grep: ask.grep.to_string(),
        };
        let mut client =
            (self.links.shared(&contact, Lane::Bulk)).map_err(|status| away(&reason(&status)))?;
        match timeout(LOGS_BEGIN, client.fetch_logs(request)).await {
            Ok(Ok(lines)) => Ok(lines.into_inner()),
            Ok(Err(status)) => Err(away(&reason(&status))),
            Err(_) => Err(away("no answer")),
        }
    }

    async fn open_upload(
        &self,
        contact: &Contact,
        upload: UploadId,
    ) -> Result<Streaming<v1::Chunk>, Status> {
        let request = v1::FetchUploadRequest {
            upload: id_bytes(upload.as_u128()),
        };
        let mut client = self.links.shared(contact, Lane::Bulk)?;
        // Answered when the client is there; that server gives up on it in time.
        Ok(client.fetch_upload(request).await?.into_inner())
    }

    /// Whoever has the client answers first; the others are told to stop waiting by being dropped.
    async fn find_upload(&self, upload: UploadId) -> Result<Chunks, Problem> {
        let others = self.links.directory().others();
        let mut asked: FuturesUnordered<_> = others
            .iter()
            .map(|contact| self.open_upload(contact, upload))
            .collect();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(stream) => {
                    drop(asked);
                    let (sender, chunks) = mpsc::channel(CHUNKS);
                    tokio::spawn(pass_upload(stream, sender));
                    return Ok(chunks);
                }
                Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                    return Err(Problem::new(Code::SourceFailed, status.message())
                        .hint("upload again: `skep up`"));
                }
                Err(status) => tracing::debug!(why = %reason(&status), "no upload at a server"),
            }
        }
        Err(Problem::new(
            Code::NotFound,
            "no other server has the folder",
        ))
    }
}

impl Elsewhere for Fetcher {
    fn logs(&self, server: ServerId, ask: Ask) -> mpsc::Receiver<v1::LogChunk> {
        let (sender, chunks) = mpsc::channel(LOG_CHUNKS);
        let fetcher = self.clone();
        tokio::spawn(async move {
            let allocation = ask.allocation;
            let pass = async {
                let problem = match fetcher.open_logs(server, ask).await {
                    Ok(lines) => pass_logs(lines, &sender).await,
                    Err(problem) => Some(problem),
                };
                let last = problem.map(|problem| v1::LogChunk {
                    allocation: id_bytes(allocation.as_u128()),
                    problem: Some((&problem).into()),
                    ..v1::LogChunk::default()
                });
                if let Some(last) = last {
                    // A reader who has gone needs no reason.
                    let _ = sender.send(last).await;
                }
            };
            tokio::select! {
                () = pass => {}
                () = sender.closed() => {}
            }
        });
        chunks
    }

    fn shell(&self, server: ServerId, ask: ShellAsk) -> BoxFuture<'_, Result<Shell, Problem>> {
        Box::pin(shells::open(&self.links, server, ask))
    }

    fn probe(
        &self,
        server: ServerId,
        node: NodeId,
        targets: Vec<Target>,
    ) -> BoxFuture<'_, Option<Vec<Reach>>> {
        Box::pin(probes::ask(&self.links, server, (node, targets)))
    }

    fn check_network(
        &self,
        server: ServerId,
        node: NodeId,
        ask: network_check::Ask,
    ) -> BoxFuture<'_, Option<Found>> {
        Box::pin(probes::ask_network(&self.links, server, (node, ask)))
    }

    fn ask_source(
        &self,
        server: ServerId,
        node: NodeId,
        ask: polling::Ask,
    ) -> BoxFuture<'_, Option<polling::Found>> {
        Box::pin(probes::ask_source(&self.links, server, (node, ask)))
    }

    fn ask_registry(
        &self,
        server: ServerId,
        node: NodeId,
        ask: registry::Ask,
    ) -> BoxFuture<'_, Option<registry::Found>> {
        Box::pin(probes::ask_registry(&self.links, server, (node, ask)))
    }

    fn upload(&self, upload: UploadId) -> BoxFuture<'_, Result<Chunks, Problem>> {
        Box::pin(self.find_upload(upload))
    }
}

impl history::Elsewhere for Fetcher {
    fn events(
        &self,
        server: ServerId,
        ask: history::Ask,
    ) -> BoxFuture<'_, Result<history::Page, Problem>> {
        Box::pin(async move {
            let away = |why: &str| Problem::new(Code::Unavailable, why);
            let contact = self.links.directory().of_server(server);
            let contact = contact.ok_or_else(|| away("it was removed from the cluster"))?;
            let client = self.links.shared(&contact, Lane::Bulk);
            let mut client = client.map_err(|status| away(&reason(&status)))?;
            let deadline = if ask.wait { PAGE + WAIT } else { PAGE };
            match timeout(deadline, client.fetch_events(ask_message(&ask))).await {
                Ok(Ok(reply)) => Ok(page(reply.into_inner())),
                Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => Err(away(
                    "it has an older version, which shows its build logs itself",
                )),
                Ok(Err(status)) => Err(away(&reason(&status))),
                Err(_) => Err(away("no answer")),
            }
        })
    }
}

async fn pass_logs(
    mut lines: Streaming<v1::LogChunk>,
    sender: &mpsc::Sender<v1::LogChunk>,
) -> Option<Problem> {
    loop {
        match lines.message().await {
            Ok(Some(chunk)) => sender.send(chunk).await.ok()?,
            Ok(None) => return None,
            Err(status) => {
                let text = format!("the log broke off: {}", reason(&status));
                return Some(Problem::new(Code::Unavailable, text));
            }
        }
    }
}

async fn pass_upload(
    mut stream: Streaming<v1::Chunk>,
    sender: mpsc::Sender<Result<Bytes, Problem>>,
) {
    let broken =
        |text: String| Problem::new(Code::SourceFailed, text).hint("upload again: `skep up`");
    loop {
        let chunk = match timeout(STALL_DEADLINE, stream.message()).await {
            Ok(Ok(Some(chunk))) => Ok(Bytes::from(chunk.data)),
            Ok(Ok(None)) => return,
            Ok(Err(status)) => Err(broken(format!("the upload broke off: {}", reason(&status)))),
            Err(_) => Err(broken("the upload stalled".to_owned())),
        };
        let is_over = chunk.is_err();
        let sent = timeout(STALL_DEADLINE, sender.send(chunk)).await;
        if is_over || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}
