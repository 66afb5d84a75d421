//! What clients and agents do in the world, and what their answers prove.

use super::{AGENT, AGENT_MS, PATIENCE_MS, World};
use crate::client::{Answer, Open, Operation, Outcome, Request};
use crate::event::{Event, Payload};
use crate::invariants::Violation;
use crate::workload;

impl World {
    /// A client begins an operation, or tries the one under way again somewhere else.
    pub(super) fn client(&mut self, id: usize, attempt: u64) {
        let registers = self.clients.len();
        let since = self.newest_index();
        let client = &mut self.clients[id];
        match client.current {
            Some(open) if open.request.attempt != attempt => return,
            Some(mut open) => {
                open.request.attempt = client.attempt();
                client.current = Some(open);
            }
            None if !self.is_chaos => return,
            None => {
                let operation = client.choose(&mut self.rng, registers);
                let at_least = match operation {
                    Operation::Read { register } => self.invariants.reads.at_least(register),
                    _ => 0,
                };
                let request = Request {
                    client: id,
                    attempt: client.attempt(),
                    key: self.rng.u128(..),
                    operation,
                    since,
                };
                client.current = Some(Open { request, at_least });
            }
        }
        let Some(open) = self.clients[id].current else {
            return;
        };
        self.send_request(open.request);
        let attempt = open.request.attempt;
        let patience = self.rng.u64(PATIENCE_MS / 2..PATIENCE_MS * 2);
        self.after(
            patience,
            Event::Client {
                client: id,
                attempt,
            },
        );
    }

    pub(super) fn send_request(&mut self, request: Request) {
        let slot = self.rng.usize(..self.servers.len());
        let to = self.servers[slot].member;
        if let Some(delay) = self.network.carry(&mut self.rng, 0, to).first() {
            let payload = Payload::Request { request, hops: 0 };
            self.after(*delay, Event::Arrive { to, payload });
        }
    }

    pub(super) fn answered(&mut self, id: usize, answer: Answer) -> Result<(), Violation> {
        if id == AGENT {
            return Ok(());
        }
        let Some(open) = self.clients[id].current else {
            return Ok(());
        };
        if open.request.attempt != answer.attempt {
            return Ok(());
        }
        match (open.request.operation, answer.result) {
            (Operation::Write { value }, Outcome::Written) => {
                self.invariants.acknowledged.wrote(id, value);
                self.invariants.reads.seen(id, value);
            }
            (Operation::Read { register }, Outcome::Value(value)) => {
                let sent = self.clients[register].newest_sent();
                let reads = &mut self.invariants.reads;
                reads.answered(register, value, (open.at_least, sent))?;
            }
            (Operation::Write { .. }, Outcome::Refused) => {}
            // The next attempt is already on the clock.
            _ => return Ok(()),
        }
        self.clients[id].current = None;
        self.report.operations += 1;
        let pause = self.rng.u64(5..120);
        let attempt = self.clients[id].next_attempt;
        self.after(
            pause,
            Event::Client {
                client: id,
                attempt,
            },
        );
        Ok(())
    }

    /// An agent says that the exclusive service's allocation has failed: a new one is wanted.
    pub(super) fn agent(&mut self) {
        let pause = self.rng.u64(AGENT_MS / 2..AGENT_MS * 2);
        self.after(pause, Event::Agent);
        let seen = self.servers.iter().filter_map(|server| {
            let member = server.running.as_ref()?;
            workload::live_allocation(&member.state)
        });
        let seen: Vec<u128> = seen.collect();
        if seen.is_empty() || !self.is_chaos {
            return;
        }
        self.agent_attempts += 1;
        let request = Request {
            client: AGENT,
            attempt: self.agent_attempts,
            key: self.rng.u128(..),
            operation: Operation::Fail {
                allocation: seen[self.rng.usize(..seen.len())],
            },
            since: self.newest_index(),
        };
        self.send_request(request);
    }
}
