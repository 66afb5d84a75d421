//! What is pushed to a service, over the same stream as shells: it needs no container.

use skep_model::problem::{Code, Problem};
use skep_model::pushed::Order;

use super::begun;
use super::wire::{Inbox, Input, Wire};
use crate::build::Stores;

/// Takes the pack in. Returns when all of it is safe; where the asker goes away before its end, nothing stays.
pub(super) async fn run(
    stores: &Stores,
    order: &Order,
    (wire, mut inbox): (&Wire, Inbox),
) -> Result<(), Problem> {
    let mut receiving = stores.begin(order).await?;
    begun(wire, None).await?;
    loop {
        match inbox.next().await {
            Some(Input::Data(part)) => {
                if !receiving.write(&part).await? {
                    // What it says tells why.
                    return receiving.finish().await;
                }
                wire.release(part.len()).await?;
            }
            Some(Input::Eof) => return receiving.finish().await,
            Some(Input::Resize(_)) => {}
            None => {
                let text = "the push broke off";
                return Err(Problem::new(Code::Canceled, text).hint("push again"));
            }
        }
    }
}
