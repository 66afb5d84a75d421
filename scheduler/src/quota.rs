//! What a workspace or an environment may have at one time, counted when starts are planned. Owns
//! the arithmetic and its words; who counts what is used is not its question.

use skep_model::problem::{Code, Problem};
use skep_model::settings::Quota;

use crate::filter::Ask;
use crate::refusal::{cores, mib_down, mib_up};
use crate::room::Room;

/// A quota and what of it is used by live allocations, those that are on their way out included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Whose, for a person: ``workspace `acme` ``.
    pub scope: String,
    /// The limits.
    pub quota: Quota,
    /// What is requested there.
    pub used: Room,
    /// How many allocations there are.
    pub allocations: u64,
}

/// One resource under a quota: its name, the limit, what is used, and what one more takes.
struct Line {
    name: &'static str,
    limit: Option<u64>,
    used: u64,
    each: u64,
}

impl Allowance {
    fn lines(&self, each: Room) -> [Line; 4] {
        let line = |name, limit, used, each| Line {
            name,
            limit,
            used,
            each,
        };
        let (quota, used) = (self.quota, self.used);
        [
            line("CPU", quota.cpu_millis, used.cpu_millis, each.cpu_millis),
            line(
                "memory",
                quota.memory_bytes,
                used.memory_bytes,
                each.memory_bytes,
            ),
            line("disk", quota.disk_bytes, used.disk_bytes, each.disk_bytes),
            line("allocations", quota.allocations, self.allocations, 1),
        ]
    }

    /// How many more of this size it lets in.
    pub fn lets_in(&self, each: Room) -> u64 {
        let fits = self.lines(each).map(|line| match (line.limit, line.each) {
            (Some(limit), each @ 1..) => limit.saturating_sub(line.used) / each,
            _ => u64::MAX,
        });
        fits.into_iter().min().unwrap_or(u64::MAX)
    }

    /// The same after so many more of this size.
    #[must_use]
    pub(crate) fn after(&self, each: Room, started: usize) -> Self {
        let mut after = self.clone();
        for _ in 0..started {
            after.used = after.used.plus(each);
            after.allocations += 1;
        }
        after
    }

    /// Why no more of this size is let in.
    pub(crate) fn problem(&self, each: Room, unplaced: usize, service: &str) -> Problem {
        let lines = self.lines(each);
        let full = lines.iter().find(|line| {
            let after = line.used.saturating_add(line.each);
            line.each > 0 && line.limit.is_some_and(|limit| after > limit)
        });
        let text = full.map_or_else(String::new, |line| {
            let limit = line.limit.unwrap_or(u64::MAX);
            let (needs, left, of) = match line.name {
                "CPU" => (
                    cores(line.each),
                    cores(limit.saturating_sub(line.used)),
                    cores(limit),
                ),
                "allocations" => (
                    line.each.to_string(),
                    limit.saturating_sub(line.used).to_string(),
                    limit.to_string(),
                ),
                _ => (
                    mib_up(line.each),
                    mib_down(limit.saturating_sub(line.used)),
                    mib_down(limit),
                ),
            };
            format!(": {} needs {needs}, {left} left of {of}", line.name)
        });
        let scope = &self.scope;
        let message =
            format!("{unplaced} allocations of `{service}` are beyond the quota of {scope}{text}");
        Problem::new(Code::Unplaceable, message)
            .hint(format!("stop something in {scope}, or raise its quota"))
    }
}

/// Why not one more beyond those that a plan has `started` already; none: every quota lets it in.
pub(crate) fn refuses(
    quotas: &[Allowance],
    ask: &Ask,
    started: usize,
    service: &str,
) -> Option<Problem> {
    let each = Room::from(ask.resources);
    let full = quotas
        .iter()
        .map(|allowance| allowance.after(each, started))
        .find(|allowance| allowance.lets_in(each) == 0)?;
    Some(full.problem(each, 1, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_counts_and_is_named() {
        let allowance = Allowance {
            scope: "workspace `acme`".into(),
            quota: Quota {
                cpu_millis: Some(2_000),
                allocations: Some(10),
                ..Quota::default()
            },
            used: Room {
                cpu_millis: 1_200,
                memory_bytes: 1 << 40,
                disk_bytes: 0,
            },
            allocations: 9,
        };
        let each = |cpu_millis| Room {
            cpu_millis,
            ..Room::default()
        };
        let table = [(100, 1), (800, 1), (801, 0), (0, 1)];
        for (cpu, lets_in) in table {
            assert_eq!(allowance.lets_in(each(cpu)), lets_in, "{cpu}");
        }
        let problem = allowance.problem(each(900), 2, "web");
        assert!(
            problem
                .message
                .contains("CPU needs 0.9 cores, 0.8 cores left of 2 cores")
        );
    }
}
