//! What operators ask of the node's volumes, over the same stream as shells: it needs no container.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use skep_model::problem::{Code, Problem};
use skep_model::volume::Order;
use skep_proto::v1;
use tokio_util::task::TaskTracker;

use super::begun;
use super::wire::Wire;
use crate::runtime::Runtime;
use crate::storage::Shelf;

/// Does what is asked for and sends what is told. It goes on when the asker goes away: half a copy is no
/// use to anybody.
pub(super) async fn run(
    (shelf, runtime, tasks): (&Arc<Shelf>, &Runtime, &TaskTracker),
    order: Order,
    wire: &Wire,
) -> Result<(), Problem> {
    begun(wire, None).await?;
    let (shelf, runtime) = (shelf.clone(), runtime.clone());
    let done = tasks.spawn(async move { shelf.obey(&runtime, order).await });
    let told = done.await;
    let told = told.map_err(|error| Problem::new(Code::Internal, error.to_string()))??;
    let report = v1::VolumeReport {
        volumes: told.iter().map(Into::into).collect(),
    };
    wire.data(Bytes::from(report.encode_to_vec()), false)
        .await?;
    Ok(())
}
