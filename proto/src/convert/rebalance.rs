//! Rebalancing.

use std::collections::BTreeMap;

use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::rebalance::{Mode, Moving, Rebalance};

use super::{Error, enum_number, enum_value, id, id_bytes};
use crate::v1;

impl From<&Rebalance> for v1::Rebalance {
    fn from(rebalance: &Rebalance) -> Self {
        Self {
            mode: enum_number(&Mode::ALL, &rebalance.mode),
            moves_per_minute: rebalance.moves_per_minute,
            moves: rebalance.moves.iter().map(Into::into).collect(),
        }
    }
}

impl From<(&AllocationId, &Moving)> for v1::Moving {
    fn from((allocation, moving): (&AllocationId, &Moving)) -> Self {
        Self {
            allocation: id_bytes(allocation.as_u128()),
            to: id_bytes(moving.to.as_u128()),
            service: id_bytes(moving.service.as_u128()),
            at_ms: moving.at_ms,
        }
    }
}

impl TryFrom<v1::Rebalance> for Rebalance {
    type Error = Error;

    fn try_from(message: v1::Rebalance) -> Result<Self, Error> {
        let moves = message.moves.into_iter().map(|moving| {
            let allocation = id!(AllocationId, moving.allocation);
            let moving = Moving {
                service: id!(ServiceId, moving.service),
                to: id!(NodeId, moving.to),
                at_ms: moving.at_ms,
            };
            Ok((allocation, moving))
        });
        Ok(Self {
            mode: enum_value("mode", &Mode::ALL, message.mode)?,
            moves_per_minute: message.moves_per_minute,
            moves: moves.collect::<Result<BTreeMap<_, _>, Error>>()?,
        })
    }
}
