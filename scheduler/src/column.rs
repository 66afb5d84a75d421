//! Attributes of nodes, one column for each: a dictionary of values, and for each node which. So a
//! rule is judged once per value, and a node costs one look-up. Knows no rules.

use std::collections::BTreeMap;

use skep_model::node::Node;

/// The value of a node that does not have the attribute.
pub(crate) const MISSING: u32 = 0;

/// One attribute of all nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Column {
    /// By node: which value.
    of_node: Vec<u32>,
    /// By value; the first stands for none.
    values: Vec<Box<str>>,
    /// By value: how many nodes have it.
    uses: Vec<u32>,
    numbers: BTreeMap<Box<str>, u32>,
    vacant: Vec<u32>,
}

impl Column {
    /// Which value a node has.
    pub(crate) fn of(&self, ordinal: u32) -> u32 {
        self.of_node
            .get(ordinal as usize)
            .copied()
            .unwrap_or(MISSING)
    }

    /// By node, as far as any has a value.
    pub(crate) fn by_node(&self) -> &[u32] {
        &self.of_node
    }

    /// The value in words; none: the attribute is missing.
    pub(crate) fn text(&self, value: u32) -> Option<&str> {
        (value != MISSING).then(|| &*self.values[value as usize])
    }

    /// Length of a table by value.
    pub(crate) fn len(&self) -> usize {
        self.values.len().max(1)
    }

    /// Which value this is, where any node has it.
    pub(crate) fn number(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The values that nodes have, [`MISSING`] apart.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = u32> {
        let used = self.uses.iter().enumerate().skip(1);
        used.filter(|(_, uses)| **uses > 0)
            .map(|(value, _)| value as u32)
    }

    fn set(&mut self, ordinal: u32, text: Option<&str>) {
        let old = self.of(ordinal);
        if self.text(old) == text {
            return;
        }
        let new = text.map_or(MISSING, |text| self.intern(text));
        if self.of_node.len() <= ordinal as usize {
            self.of_node.resize(ordinal as usize + 1, MISSING);
        }
        self.of_node[ordinal as usize] = new;
        if new != MISSING {
            self.uses[new as usize] += 1;
        }
        if old != MISSING {
            self.release(old);
        }
    }

    fn intern(&mut self, text: &str) -> u32 {
        if let Some(number) = self.number(text) {
            return number;
        }
        if self.values.is_empty() {
            self.values.push("".into());
            self.uses.push(0);
        }
        let number = match self.vacant.pop() {
            Some(number) => {
                self.values[number as usize] = text.into();
                number
            }
            None => {
                self.values.push(text.into());
                self.uses.push(0);
                self.values.len() as u32 - 1
            }
        };
        self.numbers.insert(text.into(), number);
        number
    }

    fn release(&mut self, value: u32) {
        let uses = &mut self.uses[value as usize];
        *uses -= 1;
        if *uses == 0 {
            let text = std::mem::take(&mut self.values[value as usize]);
            self.numbers.remove(&text);
            self.vacant.push(value);
        }
    }
}

/// The attribute that lists the host paths that a node offers, one a line.
pub(crate) const HOST_PATHS: &str = "node.host-paths";

/// The attribute that lists the storages that a node shares with others, one a line.
pub(crate) const SHARED_STORAGE: &str = "node.shared-storage";

/// Every attribute that any node has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Columns(BTreeMap<String, Column>);

impl Columns {
    /// None: no node has this attribute.
    pub(crate) fn get(&self, key: &str) -> Option<&Column> {
        self.0.get(key)
    }

    /// A node's value.
    pub(crate) fn value(&self, key: &str, ordinal: u32) -> Option<&str> {
        let column = self.0.get(key)?;
        column.text(column.of(ordinal))
    }

    /// What a node has and is, from now on.
    pub(crate) fn put(&mut self, ordinal: u32, node: &Node) {
        let host_paths = node.facts.host_paths.join("\n");
        let shared = node.facts.shared_storage.join("\n");
        let attributes = attributes_of(node, (&host_paths, &shared));
        for (key, column) in &mut self.0 {
            column.set(ordinal, attributes.get(&**key).copied());
        }
        for (key, text) in attributes {
            if !self.0.contains_key(key) {
                let column = self.0.entry(key.to_owned()).or_default();
                column.set(ordinal, Some(text));
            }
        }
        self.drop_empty();
    }

    /// A node that is no more.
    pub(crate) fn clear(&mut self, ordinal: u32) {
        self.0
            .values_mut()
            .for_each(|column| column.set(ordinal, None));
        self.drop_empty();
    }

    /// Everything that a node has, by name.
    pub(crate) fn of(&self, ordinal: u32) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter_map(move |(key, column)| Some((&**key, column.text(column.of(ordinal))?)))
    }

    fn drop_empty(&mut self) {
        self.0.retain(|_, column| !column.numbers.is_empty());
    }
}

/// Metadata, and what every node has of itself; the node's own word comes first.
fn attributes_of<'a>(
    node: &'a Node,
    (host_paths, shared): (&'a str, &'a str),
) -> BTreeMap<&'a str, &'a str> {
    // What operators say replaces what the agent was started with.
    let meta = node.facts.meta.iter().chain(&node.meta);
    let mut attributes: BTreeMap<&'a str, &'a str> =
        meta.map(|(key, value)| (&**key, &**value)).collect();
    if let Some(pool) = node.meta("pool") {
        attributes.insert("node.pool", pool);
    }
    let facts = &node.facts;
    let built_in = [
        ("node.name", &*node.name),
        ("node.arch", &facts.architecture),
        ("node.kernel", &facts.kernel),
        ("node.docker", &facts.docker_version),
        ("node.agent", &facts.agent_version),
        (
            "node.private-network",
            if facts.private_network { "true" } else { "" },
        ),
        ("node.storage", if facts.storage { "true" } else { "" }),
        (HOST_PATHS, host_paths),
        (SHARED_STORAGE, shared),
        (
            "node.images",
            if facts.image_address.is_some() {
                "true"
            } else {
                ""
            },
        ),
    ];
    for (key, value) in built_in {
        if value.is_empty() {
            attributes.remove(key);
        } else {
            attributes.insert(key, value);
        }
    }
    attributes
}
