//! One round of asking for one suspect: who is asked, and at whom else each of them knocks in the same
//! moment. A witness that is itself cut off hears nothing from anybody, and that shows.

use std::collections::BTreeSet;
use std::time::Instant;

use skep_model::id::NodeId;
use skep_model::node::MAX_WITNESSES;
use skep_model::probe::{Reach, Target};

use super::book::{Book, Doors};
use super::decide::Testimony;

/// Suspects that are asked for at once, and testified against within a minute. More of them, or more
/// than a third of all nodes, are rather one fault of the network than so many deaths: silence decides.
const SUSPECTS_MAX: usize = 8;

/// Whom to ask, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Witnesses that have to agree.
    pub needed: usize,
    /// At most [`MAX_WITNESSES`].
    pub asks: Vec<Ask>,
}

/// What one witness is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Who.
    pub witness: NodeId,
    /// To knock at the suspect.
    pub suspect: Target,
    /// To knock at somebody who is there, in the same moment.
    pub control: Target,
}

impl Ask {
    /// What the witness says, from what it found at the suspect and at the other; none: no answer.
    pub fn testimony(&self, found: Option<&[Reach]>) -> Option<Testimony> {
        match found {
            Some(&[suspect, control]) => Some(Testimony {
                witness: self.witness,
                suspect,
                control,
            }),
            _ => None,
        }
    }
}

/// Whether so many fail together that no one of them is asked for.
pub fn is_outage(suspects: usize, recent: usize, sound: usize) -> bool {
    let failing = suspects + recent;
    failing > SUSPECTS_MAX.min((sound + failing) / 3).max(1)
}

/// A round for a suspect; none: nobody could testify to its death. `sound` are the nodes above
/// suspicion, `doors` where each is reached.
pub fn plan(
    book: &Book,
    suspect: (NodeId, &Doors),
    sound: &BTreeSet<NodeId>,
    doors: impl Fn(NodeId) -> Option<Doors>,
    now: Instant,
) -> Option<Round> {
    let (node, at) = suspect;
    let others = sound.len() - usize::from(sound.contains(&node));
    let control = |witness: NodeId| match others {
        // With nobody else there, that it reaches its server has to do.
        1 => Some(Target {
            node: None,
            address: String::new(),
            also_port: None,
            identify: false,
        }),
        _ => book.reached_by(witness, now).find_map(|(other, address)| {
            let is_third = other != node && sound.contains(&other);
            let at = doors(other).filter(|at| is_third && at.address == address)?;
            Some(at.target(other, false))
        }),
    };
    let asks = book
        .witnesses(node, at, now)
        .into_iter()
        .filter(|witness| sound.contains(witness))
        .filter_map(|witness| {
            Some(Ask {
                witness,
                suspect: at.target(node, false),
                control: control(witness)?,
            })
        });
    let asks: Vec<Ask> = asks.take(MAX_WITNESSES).collect();
    let needed = if others == 1 { 1 } else { 2 };
    (asks.len() >= needed).then_some(Round { needed, asks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const NODE: NodeId = NodeId::from_u128(1);

    fn known(count: u128) -> (Book, BTreeMap<NodeId, Doors>, Instant) {
        let (mut book, now) = (Book::default(), Instant::now());
        let doors = |n| Doors {
            address: format!("10.0.0.{n}:1"),
            also_port: None,
        };
        let nodes: BTreeMap<_, _> = (1..=count)
            .map(|n| (NodeId::from_u128(n), doors(n)))
            .collect();
        for visit in book.plan(&nodes, now) {
            for target in &visit.targets {
                book.reached(visit.witness, target, now);
            }
        }
        (book, nodes, now)
    }

    fn round(count: u128, sound: &[u128]) -> Option<Round> {
        let (book, nodes, now) = known(count);
        let sound = sound.iter().map(|n| NodeId::from_u128(*n)).collect();
        let doors = |node| nodes.get(&node).cloned();
        plan(&book, (NODE, &nodes[&NODE]), &sound, doors, now)
    }

    #[test]
    fn two_have_to_agree_unless_there_is_only_one() {
        assert_eq!(round(1, &[]), None, "nobody to ask");
        let of_two = round(2, &[2]).expect("the only other");
        assert_eq!((of_two.needed, of_two.asks.len()), (1, 1));
        assert_eq!(
            of_two.asks[0].control.node, None,
            "checked against its server"
        );
        let of_three = round(3, &[2, 3]).expect("two others");
        assert_eq!((of_three.needed, of_three.asks.len()), (2, 2));
        let many = round(9, &[2, 3, 4, 5, 6, 7, 8, 9]).expect("many");
        assert_eq!((many.needed, many.asks.len()), (2, MAX_WITNESSES));
        for ask in &many.asks {
            let control = ask.control.node.expect("another node");
            assert!(control != NODE && control != ask.witness);
            assert_eq!(ask.suspect.node, Some(NODE));
        }
    }

    #[test]
    fn who_is_suspect_itself_testifies_to_nothing_and_is_no_control() {
        // Of nine only one of its witnesses is left, and others that never reached it.
        assert_eq!(round(9, &[2, 3, 4, 5, 6, 9]), None);
        // All of its witnesses are there, and nobody else that they have reached.
        let few = round(9, &[7, 8, 9]).expect("they know each other");
        assert!(
            few.asks
                .iter()
                .all(|ask| ask.control.node > Some(NodeId::from_u128(6)))
        );
    }

    #[test]
    fn many_at_once_are_an_outage() {
        for (suspects, recent, sound, outage) in [
            (1, 0, 1, false),
            (1, 0, 2, false),
            (2, 0, 3, true),
            (2, 0, 4, false),
            (1, 1, 3, true),
            (8, 0, 100, false),
            (9, 0, 100, true),
            (1, 8, 100, true),
        ] {
            assert_eq!(
                is_outage(suspects, recent, sound),
                outage,
                "{suspects} {recent} {sound}"
            );
        }
    }
}
