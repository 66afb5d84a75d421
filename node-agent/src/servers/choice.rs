//! Which server comes next: a pure walk over the list, in an order of its own on every agent so that
//! agents spread evenly. Dials nothing.

/// Draws a number below its argument.
pub(super) type Draw<'a> = &'a mut dyn FnMut(usize) -> usize;

/// The order in which servers are tried, and the one of the moment.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    configured: Vec<String>,
    learned: Vec<String>,
    /// Learned ones in the agent's own order, then configured ones that are not among them.
    queue: Vec<String>,
    at: usize,
}

impl Choice {
    /// At least one address must be given.
    pub(super) fn new(configured: Vec<String>, learned: Vec<String>, draw: Draw<'_>) -> Self {
        let mut choice = Self {
            configured,
            learned,
            queue: Vec::new(),
            at: 0,
        };
        choice.shuffle(draw);
        choice
    }

    /// The server of the moment.
    pub(super) fn address(&self) -> &str {
        &self.queue[self.at]
    }

    /// On to the next one; false: there is no other.
    pub(super) fn move_on(&mut self) -> bool {
        self.at = (self.at + 1) % self.queue.len();
        self.queue.len() > 1
    }

    /// Takes a new list; true: the agent goes over to another server now. Of n servers k are new:
    /// k of n agents go over, so that the new ones get their share and the others keep theirs.
    pub(super) fn learn(&mut self, list: Vec<String>, draw: Draw<'_>) -> bool {
        let is_same = list.len() == self.learned.len()
            && list.iter().all(|address| self.learned.contains(address));
        if is_same || list.is_empty() {
            return false;
        }
        let current = self.address().to_owned();
        let is_first = self.learned.is_empty();
        let is_new = |address: &&String| {
            if is_first {
                **address != current
            } else {
                !self.learned.contains(address)
            }
        };
        let fresh: Vec<String> = list.iter().filter(is_new).cloned().collect();
        self.learned = list;
        self.shuffle(draw);
        let goes_over = draw(self.learned.len()) < fresh.len();
        let next = if goes_over {
            fresh[draw(fresh.len())].clone()
        } else {
            current.clone()
        };
        // A server that is no more in the list is kept only while it answers.
        match self.queue.iter().position(|address| *address == next) {
            Some(at) => self.queue.swap(0, at),
            None => self.queue.insert(0, next.clone()),
        }
        next != current
    }

    fn shuffle(&mut self, draw: Draw<'_>) {
        let mut queue = self.learned.clone();
        for last in (1..queue.len()).rev() {
            queue.swap(last, draw(last + 1));
        }
        for address in &self.configured {
            if !queue.contains(address) {
                queue.push(address.clone());
            }
        }
        self.queue = queue;
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn list(names: &str) -> Vec<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// A small generator: the same every time.
    fn source(mut seed: u64) -> impl FnMut(usize) -> usize {
        move |below| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        }
    }

    #[test]
    fn every_server_is_tried_and_then_the_configured_one() {
        let mut draw = source(1);
        let mut choice = Choice::new(list("old:1"), list("a:1 b:1 c:1"), &mut draw);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(choice.address().to_owned());
            assert!(choice.move_on());
        }
        assert_eq!(seen.pop().as_deref(), Some("old:1"));
        seen.sort();
        assert_eq!(seen, list("a:1 b:1 c:1"));
        let mut alone = Choice::new(list("a:1"), Vec::new(), &mut draw);
        assert!(!alone.move_on());
        assert_eq!(alone.address(), "a:1");
    }

    #[test]
    fn agents_spread_evenly_when_servers_are_added() {
        let mut draw = source(7);
        let mut agents: Vec<Choice> = (0..3_000)
            .map(|_| Choice::new(list("a:1"), Vec::new(), &mut draw))
            .collect();
        for servers in ["a:1", "a:1 b:1", "a:1 b:1 c:1", "a:1 b:1 c:1 d:1 e:1"] {
            let servers = list(servers);
            for agent in &mut agents {
                agent.learn(servers.clone(), &mut draw);
                assert!(!agent.learn(servers.clone(), &mut draw), "once is enough");
            }
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for agent in &agents {
                *counts.entry(agent.address()).or_default() += 1;
            }
            let fair = agents.len() / servers.len();
            for server in &servers {
                let count = counts[server.as_str()];
                assert!(count.abs_diff(fair) < fair / 5, "{counts:?}");
            }
        }
    }

    #[test]
    fn a_server_that_left_is_used_until_it_fails() {
        let mut draw = source(3);
        let mut choice = Choice::new(list("a:1"), list("a:1 b:1"), &mut draw);
        while choice.address() != "a:1" {
            choice.move_on();
        }
        assert!(!choice.learn(list("b:1"), &mut draw));
        assert_eq!(choice.address(), "a:1");
        choice.move_on();
        assert_eq!(choice.address(), "b:1");
    }
}
