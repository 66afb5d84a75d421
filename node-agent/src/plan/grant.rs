//! What of the node a container gets for itself alone: ports and devices. Chooses them, so that no two
//! containers share one. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skep_model::assignment::Assignment;
use skep_model::placement::{DYNAMIC_PORTS, FIRST_DYNAMIC_PORT};
use skep_model::problem::{Code, Problem};

/// The devices that a node offers, by name: each a path under `/dev`, given to one container at a time.
pub type Devices = BTreeMap<String, Vec<PathBuf>>;

/// What one container has. Its text form is a label of the container, so that it outlives the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// Ports of the node that reach the same port of the container: those asked for, then those chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<u16>,
    /// How many of them were chosen.
    #[serde(default)]
    pub(crate) chosen: usize,
    /// Devices by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) devices: BTreeMap<String, Vec<PathBuf>>,
}

impl Grant {
    pub(crate) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.devices.is_empty()
    }

    /// The ports that the agent chose.
    pub(crate) fn chosen_ports(&self) -> &[u16] {
        &self.ports[self.ports.len().saturating_sub(self.chosen)..]
    }
}

/// Whether an assignment wants anything of this kind.
pub(crate) fn asks(assignment: &Assignment) -> bool {
    !assignment.ports.is_empty() || assignment.dynamic_ports > 0 || !assignment.devices.is_empty()
}

/// What container number `attempt` gets beside those that are `taken`. A port that somebody else on the
/// machine uses shows when the container is started: the next attempt begins to look elsewhere.
///
/// # Errors
/// There are too few: the scheduler counts them, so a container that is about to end has them still.
pub(crate) fn grant<'a>(
    assignment: &Assignment,
    attempt: u32,
    offered: &Devices,
    taken: impl Iterator<Item = &'a Grant>,
) -> Result<Grant, Problem> {
    let mut ports = BTreeSet::new();
    let mut devices = BTreeSet::new();
    for grant in taken {
        ports.extend(grant.ports.iter().copied());
        devices.extend(grant.devices.values().flatten());
    }
    let busy = |text: String| Problem::new(Code::Busy, text);
    if let Some(port) = assignment.ports.iter().find(|port| ports.contains(port)) {
        return Err(busy(format!("port {port} of the node is still in use")));
    }
    let mut given = Grant {
        ports: assignment.ports.clone(),
        chosen: assignment.dynamic_ports as usize,
        ..Grant::default()
    };
    // Begins at another place for each container, so that a busy one is not met again and again.
    let start = assignment.allocation.as_u128() as u32 ^ attempt.wrapping_mul(2_654_435_761);
    let free = (0..DYNAMIC_PORTS)
        .map(|step| FIRST_DYNAMIC_PORT + (start.wrapping_add(step) % DYNAMIC_PORTS) as u16)
        .filter(|port| !ports.contains(port));
    given.ports.extend(free.take(given.chosen));
    if given.ports.len() < assignment.ports.len() + given.chosen {
        return Err(busy("no port of the node is free".to_owned()));
    }
    for (name, count) in &assignment.devices {
        let paths = offered.get(name).into_iter().flatten();
        let free: Vec<PathBuf> = paths
            .filter(|path| !devices.contains(path))
            .take(*count as usize)
            .cloned()
            .collect();
        if free.len() < *count as usize {
            let text = format!(
                "{count} of device `{name}` are needed, {} are free",
                free.len()
            );
            return Err(busy(text).hint("the agent's --device says which there are"));
        }
        given.devices.insert(name.clone(), free);
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assignment;

    fn offered() -> Devices {
        [("gpu".to_owned(), vec!["/dev/a".into(), "/dev/b".into()])].into()
    }

    #[test]
    fn no_two_containers_share_a_port_or_a_device() {
        let mut taken: Vec<Grant> = Vec::new();
        for id in 1..=2 {
            let mut wanted = assignment(id);
            wanted.ports = vec![8_000 + id as u16];
            wanted.dynamic_ports = 3;
            wanted.devices = [("gpu".to_owned(), 1)].into();
            let given = grant(&wanted, 1, &offered(), taken.iter()).expect("there are enough");
            assert_eq!(given.ports[0], 8_000 + id as u16);
            assert_eq!(given.chosen_ports().len(), 3);
            let range = 20_000..32_000;
            assert!(given.chosen_ports().iter().all(|port| range.contains(port)));
            taken.push(given);
        }
        let mut ports: Vec<u16> = taken.iter().flat_map(|grant| grant.ports.clone()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
        assert_ne!(taken[0].devices, taken[1].devices);
        let text = serde_json::to_string(&taken[0]).expect("a label");
        assert_eq!(
            serde_json::from_str::<Grant>(&text).expect("read"),
            taken[0]
        );

        let mut third = assignment(3);
        third.devices = [("gpu".to_owned(), 1)].into();
        let problem = grant(&third, 1, &offered(), taken.iter()).expect_err("both are taken");
        assert!(problem.message.contains("`gpu`"), "{problem}");
        third.devices.clear();
        third.ports = vec![8_001];
        let problem = grant(&third, 1, &offered(), taken.iter()).expect_err("taken");
        assert!(problem.message.contains("8001"), "{problem}");
    }

    #[test]
    fn what_was_busy_is_not_tried_again_at_once() {
        let mut wanted = assignment(1);
        wanted.dynamic_ports = 1;
        let port = |attempt| grant(&wanted, attempt, &offered(), std::iter::empty());
        assert_ne!(port(1).expect("free").ports, port(2).expect("free").ports);
        assert_eq!(port(1), port(1), "the same answer for the same question");
    }
}
