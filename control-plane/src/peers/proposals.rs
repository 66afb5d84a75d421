//! The leader's end of forwarded writes: commands of a follower go into the log side by side and are
//! answered as each is applied. Never passes a command on: whoever does not lead says so.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use skep_proto::v1;
use skep_proto::v1::propose_reply::{Accepted, Rejected, Result as Outcome};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::consensus::{Handle, StateMachine as _};
use crate::machine::Machine;

/// Commands of one stream that are in the log's hands at once; more wait in the connection.
pub(super) const MAX_IN_FLIGHT: usize = 2_048;
/// Answers that wait to be sent.
pub(super) const REPLIES: usize = 256;

/// Answers until the follower goes away.
pub(super) async fn answer(
    consensus: Handle<Machine>,
    mut requests: Streaming<v1::ProposeRequest>,
    replies: mpsc::Sender<Result<v1::ProposeReply, Status>>,
) -> Result<(), Status> {
    let mut in_flight = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !in_flight.is_empty() {
        tokio::select! {
            request = requests.message(), if is_open && in_flight.len() < MAX_IN_FLIGHT => {
                match request? {
                    Some(request) => in_flight.push(propose(&consensus, request)),
                    None => is_open = false,
                }
            }
            Some(reply) = in_flight.next() => {
                if replies.send(Ok(reply)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

async fn propose(consensus: &Handle<Machine>, request: v1::ProposeRequest) -> v1::ProposeReply {
    let result = match consensus.propose_indexed(request.command).await {
        Ok((index, outcome)) => Outcome::Accepted(Accepted {
            index,
            outcome: Machine::encode_outcome(&outcome),
        }),
        Err(error) => {
            let rejected = Rejected {
                reason: error.to_string(),
                leader: consensus.leadership().borrow().leader.unwrap_or(0),
            };
            if error.is_outcome_unknown() {
                Outcome::Unknown(rejected)
            } else {
                Outcome::Rejected(rejected)
            }
        }
    };
    v1::ProposeReply {
        id: request.id,
        result: Some(result),
    }
}
