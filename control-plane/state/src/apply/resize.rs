//! Guests that become another size: written down first, one of a pool at a time, with their node kept as it has to be
//! meanwhile. What is done with the guest is its driver's; what fits where whoever asks has looked at.

use std::sync::Arc;

use skep_model::guest_pool::PoolGuest;
use skep_model::id::NodeId;
use skep_model::node::{Admin, Node};
use skep_model::pool::{Down, GuestSize, Held, Note, Phase, Resizing};
use skep_model::problem::{Code, Problem};
use skep_proto::v1;

use super::{Context, Outcome, Reply, changed_meanwhile, missing};

impl Context<'_> {
    pub(super) fn resize_guest(&mut self, message: &v1::ResizeGuest) -> Outcome {
        let known = self.guest(&message.id)?;
        let size: GuestSize = message.size.ok_or_else(|| missing("size"))?.into();
        let from: GuestSize = message.from.ok_or_else(|| missing("from"))?.into();
        from.check_next(&size)?;
        self.check_may_resize(&known)?;
        let node = known.node.and_then(|id| self.state.node(id)).cloned();
        let generation = node.as_ref().map_or(0, |node| node.generation);
        if generation != message.expected_node_generation {
            return Err(changed_meanwhile("node"));
        }
        let before = known.guest.resizing.as_ref();
        let down = before.and_then(|it| it.down);
        let mut resizing = Resizing {
            asked_ms: self.state.time_ms,
            from: before.map_or(from, |it| it.from),
            // What is down, or may be by now, has to be started in any case: its shutdown is asked for before it is heard of.
            stops: message.stops || before.is_some_and(Resizing::keeps_empty),
            may_interrupt: message.may_interrupt,
            drain_ms: message.drain_ms,
            held: before.and_then(|it| it.held),
            down,
            done_ms: None,
        };
        if let Some(node) = node {
            if resizing.stops {
                self.drain_for(&mut resizing, &node);
            } else if message.cordons && node.admin == Admin::Eligible {
                self.hold(
                    &mut resizing,
                    node.id,
                    Held {
                        was_cordoned: false,
                        deadline_ms: None,
                    },
                );
            }
        }
        let mut next = (*known).clone();
        next.guest.size = Some(size);
        next.guest.resizing = Some(resizing);
        next.guest.problem = None;
        self.put_guest(next);
        Ok(Reply::Done)
    }

    fn check_may_resize(&self, known: &PoolGuest) -> Result<(), Problem> {
        let name = known.guest.name();
        if known.guest.phase != Phase::Ready || known.is_retiring {
            let text = format!("the guest {name} comes or goes");
            return Err(Problem::new(Code::Conflict, text)
                .at("node")
                .hint("what was ready once, and is to stay, can become another size"));
        }
        if let Some(restoring) = &known.guest.restoring {
            let text = format!("the guest {name} is becoming `{}`", restoring.archive);
            return Err(Problem::new(Code::Conflict, text)
                .at("node")
                .hint("again when that is done: `skep pool show` says how far it is"));
        }
        let mut beside = self.state.guests_of(&known.pool);
        let other =
            beside.find(|one| one.guest.id != known.guest.id && one.guest.resizing.is_some());
        if let Some(other) = other {
            let text = format!(
                "{} of the pool `{}` is being resized, and one is at a time",
                other.guest.name(),
                known.pool
            );
            return Err(Problem::new(Code::Conflict, text)
                .at("node")
                .hint("again when that is done: `skep pool show` says how far it is"));
        }
        Ok(())
    }

    /// Nothing new comes, and what is there goes. What somebody else drains is left to them.
    fn drain_for(&mut self, resizing: &mut Resizing, node: &Node) {
        let ours = resizing.held.filter(|held| held.admin() == node.admin);
        if ours.is_none() && matches!(node.admin, Admin::Draining { .. }) {
            resizing.held = None;
            return;
        }
        let was_cordoned = match ours {
            Some(held) => held.was_cordoned,
            None => node.admin == Admin::Cordoned,
        };
        let deadline_ms = Some(self.state.time_ms.saturating_add(resizing.drain_ms));
        self.hold(
            resizing,
            node.id,
            Held {
                was_cordoned,
                deadline_ms,
            },
        );
    }

    fn hold(&mut self, resizing: &mut Resizing, node: NodeId, held: Held) {
        resizing.held = Some(held);
        self.set_admin(node, held.admin());
    }

    /// Whoever has emptied a node does not need that any more: whether its guest does, which is resized.
    pub(super) fn hold_on(&mut self, node: NodeId, held: Held) -> bool {
        let Some(one) = self.state.guest_of(node).cloned() else {
            return false;
        };
        let mut next = (*one).clone();
        let resizing = next.guest.resizing.as_mut();
        let Some(resizing) = resizing.filter(|it| it.keeps_empty()) else {
            return false;
        };
        resizing.held = Some(held);
        self.put_guest(next);
        true
    }

    /// What a note means for a guest that is being resized, beside what it says itself.
    pub(super) fn note_resize(&mut self, note: &Note, next: &mut PoolGuest) {
        let node = next.node.and_then(|id| self.state.node(id)).cloned();
        let (Some(resizing), Some(node)) = (&mut next.guest.resizing, node) else {
            return;
        };
        match note {
            Note::Down if resizing.down.is_none() => {
                resizing.down = Some(Down {
                    seat: node.seat,
                    cpu_millis: node.facts.cpu_millis,
                    memory_bytes: node.facts.memory_bytes,
                });
            }
            Note::MustStop if !resizing.stops => self.drain_for(resizing, &node),
            _ => {}
        }
    }

    pub(super) fn hasten_resize(&mut self, message: &v1::HastenResize) -> Outcome {
        let (known, mut resizing) = self.resized(&message.id)?;
        let held = resizing.held.filter(|held| held.deadline_ms.is_some());
        let Some(held) = held.filter(|_| resizing.keeps_empty() && resizing.down.is_none()) else {
            return Err(changed_meanwhile("guest"));
        };
        let is_ours = |node: &Arc<Node>| node.admin == held.admin();
        let Some(node) = known
            .node
            .filter(|id| self.state.node(*id).is_some_and(is_ours))
        else {
            return Err(changed_meanwhile("node"));
        };
        let deadline_ms = Some(self.state.time_ms);
        self.hold(
            &mut resizing,
            node,
            Held {
                deadline_ms,
                ..held
            },
        );
        let mut next = (*known).clone();
        next.guest.resizing = Some(resizing);
        self.put_guest(next);
        Ok(Reply::Done)
    }

    pub(super) fn finish_resize(&mut self, message: &v1::FinishResize) -> Outcome {
        let (known, resizing) = self.resized(&message.id)?;
        if resizing.done_ms.is_none() {
            let text = format!(
                "the guest {} does not have its size yet",
                known.guest.name()
            );
            return Err(Problem::new(Code::Conflict, text));
        }
        // What somebody has said of the node since stays.
        if let (Some(held), Some(id)) = (resizing.held, known.node)
            && self
                .state
                .node(id)
                .is_some_and(|node| node.admin == held.admin())
        {
            self.set_admin(id, held.before());
        }
        let mut next = (*known).clone();
        next.guest.resizing = None;
        self.put_guest(next);
        Ok(Reply::Done)
    }

    fn resized(&self, id: &[u8]) -> Result<(Arc<PoolGuest>, Resizing), Problem> {
        let known = self.guest(id)?;
        let resizing = known.guest.resizing.clone();
        let resizing = resizing.ok_or_else(|| changed_meanwhile("guest"))?;
        Ok((known, resizing))
    }

    /// Whether a node may be let take work: not while its guest is shut down to become another size.
    pub(super) fn check_not_resized(&self, node: NodeId) -> Result<(), Problem> {
        let guest = self.state.guest_of(node);
        let resizing = guest.and_then(|one| one.guest.resizing.as_ref());
        match resizing.is_some_and(Resizing::keeps_empty) {
            false => Ok(()),
            true => Err(Problem::new(
                Code::Conflict,
                "the node is empty so that its guest can become another size",
            )
            .hint(
                "it takes work again by itself afterwards; `skep node resize` to the size that it has ends that",
            )),
        }
    }
}
