//! What is pushed to the cluster itself (`git push skep main`): which references a service has, which nodes hold
//! all that they need, and what a push may ask for. Knows no git and no wire.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{NodeId, ServiceId};
use crate::problem::Problem;

/// Most references of one push.
pub const MAX_UPDATES: usize = 64;
/// Most references of a service.
pub const MAX_REFERENCES: usize = 256;
/// Most commits that a store is told to keep: where references are, and what was deployed last.
pub const MAX_NEEDED: usize = 2 * MAX_REFERENCES;
/// Longest name of a reference, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Nodes that hold a push before it is acknowledged, where there are so many.
pub const COPIES: usize = 2;
/// Largest pack of one push, in bytes.
pub const MAX_PACK_BYTES: u64 = 2 << 30;
/// The field of problems that say that a node has not what it should hold.
pub const NOT_HELD: &str = "pushed";
/// What is before the name of a branch.
const HEADS: &str = "refs/heads/";
/// What is before the name of a tag.
const TAGS: &str = "refs/tags/";
/// Digits of a commit.
const COMMIT_DIGITS: usize = 40;

/// One reference: where it is, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The commit (or the tag's own object), 40 hex digits.
    pub commit: String,
    /// Nodes with everything that it needs.
    pub holders: BTreeSet<NodeId>,
}

/// All that was pushed to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Whose.
    pub service: ServiceId,
    /// By whole name: `refs/heads/main`.
    pub references: BTreeMap<String, Reference>,
}

/// A reference that moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Its whole name.
    pub name: String,
    /// Where it is; none: there is none.
    pub old: Option<String>,
    /// Where it goes; none: it is removed.
    pub new: Option<String>,
}

/// What a node is asked to take in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Into whose store.
    pub service: ServiceId,
    /// Commits that the node holds with all that they need: what comes may build on them.
    pub known: Vec<String>,
    /// Commits that it is to hold as wholly afterwards.
    pub wanted: Vec<String>,
    /// What else something leads to, whether the node holds it or not: a store may drop everything that neither these
    /// nor the wanted ones need. Empty: nothing is known, and nothing may go.
    pub needed: Vec<String>,
}

impl Pushed {
    /// Nothing yet.
    pub fn nothing(service: ServiceId) -> Self {
        Self {
            service,
            references: BTreeMap::new(),
        }
    }

    /// The references that each of these nodes holds; none of nodes hold nothing.
    pub fn held_by_all(&self, nodes: &[NodeId]) -> BTreeMap<&str, &str> {
        let is_held =
            |of: &Reference| !nodes.is_empty() && nodes.iter().all(|it| of.holders.contains(it));
        let all = self.references.iter().filter(|(_, of)| is_held(of));
        all.map(|(name, of)| (name.as_str(), of.commit.as_str()))
            .collect()
    }

    /// The nodes that hold a commit of a branch: those that hold any reference to it, else those of what the branch
    /// has become, of which it mostly is a part.
    pub fn holders_of(&self, branch: &str, commit: &str) -> BTreeSet<NodeId> {
        let all = self.references.values();
        let its = all.filter(|of| of.commit == commit);
        let holders: BTreeSet<NodeId> = its.flat_map(|of| of.holders.iter().copied()).collect();
        match self.references.get(&branch_name(branch)) {
            Some(of) if holders.is_empty() => of.holders.clone(),
            _ => holders,
        }
    }

    /// What a store must not drop: where references are, and these. Empty where that is more than a node is told.
    pub fn needed<'a>(&'a self, deployed: impl Iterator<Item = &'a str>) -> Vec<String> {
        let references = self.references.values().map(|of| of.commit.as_str());
        let all: BTreeSet<&str> = references.chain(deployed).collect();
        match all.len() > MAX_NEEDED {
            true => Vec::new(),
            false => all.into_iter().map(str::to_owned).collect(),
        }
    }

    /// Which of the nodes that are there take a push: first those that do nothing but build, so that it is built there;
    /// of each those that hold the most already, so that the least has to be sent; no more than [`COPIES`]. The same of
    /// the same, so that what was told is what is meant. `ready`: each with whether it does nothing else.
    pub fn choose(&self, ready: impl IntoIterator<Item = (NodeId, bool)>) -> Vec<NodeId> {
        let held = |node: NodeId| {
            let all = self.references.values();
            all.filter(|of| of.holders.contains(&node)).count()
        };
        let mut all: Vec<(NodeId, bool)> = ready.into_iter().collect();
        all.sort_by_key(|(node, builds_only)| {
            (!builds_only, std::cmp::Reverse(held(*node)), *node)
        });
        all.truncate(COPIES);
        all.into_iter().map(|(node, _)| node).collect()
    }
}

impl Order {
    /// Refuses what is beyond the limits, and what is no commit.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), Problem> {
        if self.wanted.len() > MAX_UPDATES
            || self.known.len() > MAX_REFERENCES
            || self.needed.len() > MAX_NEEDED
        {
            return Err(Problem::invalid("wanted", "too many commits"));
        }
        let mut all = self.known.iter().chain(&self.wanted).chain(&self.needed);
        all.try_for_each(|commit| check_commit("wanted", commit))
    }
}

/// The branch that a reference is; none: it is a tag.
pub fn branch_of(name: &str) -> Option<&str> {
    name.strip_prefix(HEADS)
}

/// The whole name of a branch.
pub fn branch_name(branch: &str) -> String {
    format!("{HEADS}{branch}")
}

/// Whether it is as long as a commit's id, in lower-case hex.
///
/// # Errors
/// Names the field.
pub fn check_commit(field: &str, text: &str) -> Result<(), Problem> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() == COMMIT_DIGITS && text.bytes().all(is_digit) {
        return Ok(());
    }
    let shown: String = text.chars().take(COMMIT_DIGITS).collect();
    let text = format!("`{}` is not a commit", shown.escape_debug());
    Err(Problem::invalid(field, text).hint("40 lower-case hex digits (SHA-1)"))
}

/// A branch or a tag, by git's own rules for names.
///
/// # Errors
/// Names the field, and says what is accepted.
pub fn check_reference(field: &str, name: &str) -> Result<(), Problem> {
    let is_ours = [HEADS, TAGS].iter().any(|it| name.starts_with(it));
    let is_short = name.len() <= MAX_NAME_BYTES;
    if is_ours && is_short && gix_validate::reference::name(name.into()).is_ok() {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    let text = format!("`{}` is no branch and no tag", shown.escape_debug());
    Err(Problem::invalid(field, text).hint(format!(
        "refs/heads/... or refs/tags/..., up to {MAX_NAME_BYTES} bytes"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u128) -> NodeId {
        NodeId::from_u128(number)
    }

    fn pushed(held: &[(&str, &[u128])]) -> Pushed {
        let reference = |holders: &[u128]| Reference {
            commit: "a".repeat(40),
            holders: holders.iter().map(|it| node(*it)).collect(),
        };
        let all = held.iter();
        Pushed {
            service: ServiceId::from_u128(1),
            references: all
                .map(|(name, holders)| (branch_name(name), reference(holders)))
                .collect(),
        }
    }

    /// `main:12 dev:1` are held by nodes 1 and 2, and 1; who takes a push of the ready ones, and what is told. Nodes
    /// from 7 on do nothing but build.
    fn told(held: &[(&str, &[u128])], ready: &[u128]) -> (Vec<u128>, String) {
        let pushed = pushed(held);
        let chosen = pushed.choose(ready.iter().map(|it| (node(*it), *it >= 7)));
        let told: Vec<&str> = pushed.held_by_all(&chosen).into_keys().collect();
        (
            chosen.iter().map(|it| it.as_u128()).collect(),
            told.join(" "),
        )
    }

    #[test]
    fn only_what_all_who_take_a_push_hold_is_told() {
        type Case<'a> = (&'a [(&'a str, &'a [u128])], &'a [u128], &'a [u128], &'a str);
        let cases: [Case<'_>; 10] = [
            (&[], &[], &[], ""),
            (&[], &[3, 2, 1], &[1, 2], ""),
            (&[("main", &[1, 2])], &[1, 2, 3], &[1, 2], "refs/heads/main"),
            (&[("main", &[2, 3])], &[1, 2, 3], &[2, 3], "refs/heads/main"),
            // One of two is away: a fresh one needs everything.
            (&[("main", &[1, 2])], &[2, 3], &[2, 3], ""),
            // Who builds only comes first, whatever others hold.
            (&[("main", &[1, 2])], &[1, 2, 7], &[7, 1], ""),
            (&[("main", &[1, 8])], &[1, 7, 8], &[8, 7], ""),
            // There is but one.
            (&[("main", &[1, 2])], &[2], &[2], "refs/heads/main"),
            (&[("main", &[1, 2])], &[3], &[3], ""),
            (
                &[("dev", &[1]), ("main", &[1, 2])],
                &[1, 2],
                &[1, 2],
                "refs/heads/main",
            ),
        ];
        for (held, ready, chosen, references) in cases {
            let expected = (chosen.to_vec(), references.to_owned());
            assert_eq!(told(held, ready), expected, "{held:?} {ready:?}");
        }
        assert!(pushed(&[("main", &[])]).held_by_all(&[]).is_empty());
    }

    #[test]
    fn only_branches_and_tags_are_taken() {
        for good in ["refs/heads/main", "refs/heads/a/b", "refs/tags/v1.0"] {
            check_reference("ref", good).expect(good);
        }
        let long = format!("refs/heads/{}", "x".repeat(MAX_NAME_BYTES));
        for bad in [
            "",
            "main",
            "HEAD",
            "refs/notes/x",
            "refs/heads/",
            "refs/heads/a..b",
            "refs/heads/a b",
            "refs/heads/-a\u{7f}",
            "refs/heads/a.lock",
            "refs/heads/../x",
            &long,
        ] {
            let refused = check_reference("ref", bad).expect_err(bad);
            assert_eq!(refused.field.as_deref(), Some("ref"));
        }
        check_commit("commit", &"0f".repeat(20)).expect("a commit");
        for bad in ["", "abc", &"0F".repeat(20), &"0f".repeat(32)] {
            check_commit("commit", bad).expect_err("none");
        }
    }
}
