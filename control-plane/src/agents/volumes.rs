//! Volumes on nodes: what operators ask, carried like a shell to the node that has them.

use std::time::Duration;

use prost::Message as _;
use skep_model::id::{AllocationId, NodeId};
use skep_model::problem::{Code, Problem};
use skep_model::shell::{Frame, GRANT_BYTES, Wish};
use skep_model::volume::{Measured, Order};
use skep_proto::v1;
use tokio::time::timeout;

use super::relay::Relay;
use super::shells::{Ask, Shell, broken};

/// Largest report of a node: all the volumes and snapshots that it may have.
const REPORT_MAX_BYTES: usize = 16 << 20;
/// Below the deadline of a call: what takes longer goes on at the node.
const PATIENCE: Duration = Duration::from_secs(50);

impl Relay {
    /// Has a node do something with its volumes, wherever it is connected; what it tells.
    ///
    /// # Errors
    /// It is not connected, refuses, or has not ended in time.
    pub async fn order_volumes(
        &self,
        node: NodeId,
        order: Order,
    ) -> Result<Vec<Measured>, Problem> {
        let ask = Ask {
            // It is about the node itself.
            allocation: AllocationId::from_u128(0),
            node,
            wish: Wish::Volumes(order),
        };
        let done = async { answer(self.open_shell(ask).await?).await };
        timeout(PATIENCE, done).await.unwrap_or_else(|_| {
            let text = "the node has not ended yet, and goes on";
            Err(Problem::new(Code::Timeout, text).hint("`skep volume ls` shows what is done"))
        })
    }
}

async fn answer(shell: Shell) -> Result<Vec<Measured>, Problem> {
    let mut line = shell.line;
    let mut told = Vec::new();
    let mut ungranted = 0;
    loop {
        match line.down.recv().await {
            Some(Frame::Data(data)) => {
                told.extend_from_slice(&data);
                if told.len() > REPORT_MAX_BYTES {
                    let text = "the node tells more of its volumes than there can be";
                    return Err(Problem::new(Code::Internal, text));
                }
                ungranted += u32::try_from(data.len()).unwrap_or(u32::MAX);
                if ungranted >= GRANT_BYTES {
                    // Fails only where the node has gone, which is seen next.
                    let _ = line.up.send(Frame::Grant(ungranted)).await;
                    ungranted = 0;
                }
            }
            Some(Frame::Exit(_)) => break,
            Some(Frame::Problem(problem)) => return Err(problem),
            Some(_) => {}
            None => return Err(broken("it went away")),
        }
    }
    let odd = |why: String| {
        let text = format!("the node's report of its volumes cannot be read: {why}");
        Problem::new(Code::Internal, text)
    };
    let report = v1::VolumeReport::decode(&*told).map_err(|error| odd(error.to_string()))?;
    let volumes = report.volumes.into_iter().map(TryInto::try_into);
    volumes
        .collect::<Result<_, skep_proto::convert::Error>>()
        .map_err(|error| odd(error.to_string()))
}

#[cfg(test)]
mod tests {
    use skep_model::shell::{DATA_MAX_BYTES, Opened, WINDOW_BYTES};
    use skep_model::storage::HeldVolume;
    use tokio::sync::mpsc;

    use super::super::shells::Line;
    use super::*;

    #[tokio::test]
    async fn a_report_larger_than_a_window_comes_whole() {
        let measured = |number: u64| Measured {
            volume: HeldVolume {
                service: skep_model::id::ServiceId::from_u128(7),
                name: format!("data-{number}"),
            },
            bytes: number,
            at_least: false,
            snapshots: vec!["a".repeat(60); 10],
        };
        let all: Vec<Measured> = (0..1_000).map(measured).collect();
        let report = v1::VolumeReport {
            volumes: all.iter().map(Into::into).collect(),
        };
        let bytes = report.encode_to_vec();
        assert!(bytes.len() > 2 * WINDOW_BYTES as usize);
        let (up, mut granted) = mpsc::channel(16);
        let (to_server, down) = mpsc::channel(16);
        // As a node does: no more than it was granted.
        let node = tokio::spawn(async move {
            let mut credit = WINDOW_BYTES as usize;
            for part in bytes.chunks(DATA_MAX_BYTES) {
                while credit < part.len() {
                    match granted.recv().await {
                        Some(Frame::Grant(more)) => credit += more as usize,
                        other => panic!("{other:?}"),
                    }
                }
                credit -= part.len();
                to_server
                    .send(Frame::Data(part.to_vec()))
                    .await
                    .expect("read");
            }
            to_server.send(Frame::Exit(0)).await.expect("read");
        });
        let opened = Opened {
            allocation: AllocationId::from_u128(0),
            node: String::new(),
            name: None,
        };
        let line = Line { up, down };
        let told = answer(Shell { opened, line }).await.expect("a report");
        node.await.expect("it ends");
        assert_eq!(told, all);
    }
}
