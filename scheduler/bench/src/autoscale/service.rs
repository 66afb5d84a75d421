//! A service in steps of one second: requests arrive, ready replicas serve, the rest waits. A
//! replica that is ordered costs from that moment and serves after the start-up delay; one that is
//! taken away is gone at once, those that still start first.

use super::{Scaler, View};

/// The service under test.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Requests a second that one replica serves.
    pub capacity: f64,
    /// Seconds until a new replica serves.
    pub start_up_s: u64,
    /// Replicas that are ready when it begins.
    pub begins_with: u32,
}

/// What became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outcome {
    /// Seconds at whose end requests waited.
    pub backlog_s: u64,
    /// The longest queue.
    pub worst_backlog: f64,
    /// Replicas ordered, summed over the seconds.
    pub replica_s: f64,
    /// What serving the requests took at full load: nobody can do with less.
    pub ideal_s: f64,
    /// Times that the number of replicas turned from growing to shrinking or back.
    pub reversals: u64,
    /// Changes of the number of replicas.
    pub changes: u64,
    /// The second of the last change.
    pub last_change_s: u64,
}

impl Outcome {
    /// Replica-seconds over the ideal.
    pub fn over_s(&self) -> f64 {
        self.replica_s - self.ideal_s
    }
}

/// Runs a series of requests a second through a service.
pub fn run(service: &Service, arrivals: &[u32], scaler: &mut dyn Scaler) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut ready, mut backlog) = (service.begins_with, 0.0_f64);
    // When each serves, soonest first.
    let mut starting: Vec<u64> = Vec::new();
    let mut is_growing: Option<bool> = None;
    for (second, arrived) in arrivals.iter().enumerate() {
        let now = second as u64;
        let serving = starting.partition_point(|at| *at <= now);
        starting.drain(..serving);
        ready += serving as u32;
        backlog = (backlog + f64::from(*arrived) - f64::from(ready) * service.capacity).max(0.0);
        outcome.backlog_s += u64::from(backlog > 0.0);
        outcome.worst_backlog = outcome.worst_backlog.max(backlog);
        outcome.ideal_s += f64::from(*arrived) / service.capacity;
        let wanted = ready + starting.len() as u32;
        outcome.replica_s += f64::from(wanted);
        let wants = scaler.wants(&View {
            arrivals: &arrivals[..=second],
            ready,
            starting: starting.len() as u32,
            start_up_s: service.start_up_s,
        });
        if wants == wanted {
            continue;
        }
        outcome.changes += 1;
        outcome.last_change_s = now + 1;
        outcome.reversals += u64::from(is_growing == Some(wants < wanted));
        is_growing = Some(wants > wanted);
        let serves_at = now + 1 + service.start_up_s;
        for _ in wanted..wants {
            starting.push(serves_at);
        }
        for _ in wants..wanted {
            if starting.pop().is_none() {
                ready -= 1;
            }
        }
    }
    outcome
}
