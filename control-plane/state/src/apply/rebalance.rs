//! Rebalancing: its settings, and the moves that were decided. Never decides one.

use std::sync::Arc;

use skep_model::allocation::Desired;
use skep_model::id::{AllocationId, NodeId};
use skep_model::problem::{Code, Problem};
use skep_model::rebalance::{MAX_MOVES, Mode, Moving, REMEMBERED_MS, Rebalance};
use skep_proto::convert::enum_value;
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, missing, not_found};
use crate::change::Change;

impl Context<'_> {
    pub(super) fn set_rebalance(&mut self, message: &v1::SetRebalance) -> Outcome {
        let mode = enum_value("mode", &Mode::ALL, message.mode).map_err(|_| missing("mode"))?;
        Rebalance::check_pace(message.moves_per_minute)?;
        self.state.rebalance = Arc::new(Rebalance {
            mode,
            moves_per_minute: message.moves_per_minute,
            moves: self.state.rebalance.moves.clone(),
        });
        self.changes.push(Change::Cluster);
        Ok(Reply::Done)
    }

    /// Refused whole where one of them cannot be: the advice is of another state then.
    pub(super) fn move_allocations(&mut self, message: &v1::MoveAllocations) -> Outcome {
        if message.moves.len() > MAX_MOVES as usize {
            let text = format!("{} moves at once", message.moves.len());
            return Err(Problem::invalid("moves", text).hint(format!("at most {MAX_MOVES}")));
        }
        let now_ms = self.state.time_ms;
        let mut rebalance = (*self.state.rebalance).clone();
        // So it is bounded: by the pace, times an hour.
        rebalance
            .moves
            .retain(|_, moving| now_ms < moving.at_ms.saturating_add(REMEMBERED_MS));
        for moving in &message.moves {
            let id = AllocationId::from_u128(bits("allocation", &moving.allocation)?);
            let to = NodeId::from_u128(bits("to", &moving.to)?);
            let found = self.state.allocation(id);
            let allocation = found.ok_or_else(|| not_found("allocation", id))?;
            self.state.node(to).ok_or_else(|| not_found("node", to))?;
            let is_movable = allocation.is_live()
                && allocation.desired == Desired::Run
                && allocation.job.is_none()
                && allocation.node != to;
            if !is_movable || rebalance.moves.contains_key(&id) {
                let text = format!("allocation {} cannot be moved any more", id.short());
                return Err(Problem::new(Code::Conflict, text));
            }
            let service = allocation.service;
            let at_ms = now_ms;
            rebalance.moves.insert(id, Moving { service, to, at_ms });
            self.changes.push(Change::Service(service));
        }
        self.state.rebalance = Arc::new(rebalance);
        Ok(Reply::Done)
    }
}
