//! What is pushed to the cluster itself.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::id::{NodeId, ServiceId};
use skep_model::pushed::{Order, Pushed, Reference, Update};

use super::{Error, id_bits, id_bytes};
use crate::v1;

impl From<&Pushed> for v1::Pushed {
    fn from(pushed: &Pushed) -> Self {
        let references = pushed.references.iter();
        Self {
            service: id_bytes(pushed.service.as_u128()),
            references: references
                .map(|(name, of)| v1::pushed::Reference {
                    name: name.clone(),
                    commit: of.commit.clone(),
                    holders: of.holders.iter().map(|it| id_bytes(it.as_u128())).collect(),
                })
                .collect(),
        }
    }
}

impl TryFrom<v1::Pushed> for Pushed {
    type Error = Error;

    fn try_from(message: v1::Pushed) -> Result<Self, Error> {
        let mut references = BTreeMap::new();
        for of in message.references {
            let reference = Reference {
                commit: of.commit,
                holders: holders_in(&of.holders)?,
            };
            references.insert(of.name, reference);
        }
        Ok(Self {
            service: ServiceId::from_u128(id_bits("service", &message.service)?),
            references,
        })
    }
}

/// Nodes by their ids.
///
/// # Errors
/// One is none.
pub fn holders_in(all: &[Vec<u8>]) -> Result<BTreeSet<NodeId>, Error> {
    let id = |bytes: &Vec<u8>| id_bits("holders", bytes).map(NodeId::from_u128);
    all.iter().map(id).collect()
}

impl From<&Update> for v1::push_references::Update {
    fn from(update: &Update) -> Self {
        Self {
            name: update.name.clone(),
            old: update.old.clone(),
            new: update.new.clone(),
        }
    }
}

impl From<v1::push_references::Update> for Update {
    fn from(message: v1::push_references::Update) -> Self {
        Self {
            name: message.name,
            old: message.old,
            new: message.new,
        }
    }
}

impl From<&Order> for v1::PushOrder {
    fn from(order: &Order) -> Self {
        Self {
            service: id_bytes(order.service.as_u128()),
            known: order.known.clone(),
            wanted: order.wanted.clone(),
            needed: order.needed.clone(),
        }
    }
}

impl TryFrom<v1::PushOrder> for Order {
    type Error = Error;

    fn try_from(message: v1::PushOrder) -> Result<Self, Error> {
        Ok(Self {
            service: ServiceId::from_u128(id_bits("service", &message.service)?),
            known: message.known,
            wanted: message.wanted,
            needed: message.needed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_back_as_they_were() {
        let reference = Reference {
            commit: "a".repeat(40),
            holders: [NodeId::from_u128(1), NodeId::from_u128(2)].into(),
        };
        let pushed = Pushed {
            service: ServiceId::from_u128(7),
            references: [("refs/heads/main".to_owned(), reference)].into(),
        };
        assert_eq!(Pushed::try_from(v1::Pushed::from(&pushed)), Ok(pushed));
        let order = Order {
            service: ServiceId::from_u128(7),
            known: vec!["b".repeat(40)],
            wanted: vec!["a".repeat(40)],
            needed: vec!["c".repeat(40)],
        };
        assert_eq!(Order::try_from(v1::PushOrder::from(&order)), Ok(order));
        let odd = v1::Pushed {
            references: vec![v1::pushed::Reference {
                holders: vec![vec![1]],
                ..Default::default()
            }],
            ..v1::Pushed::from(&Pushed::nothing(ServiceId::from_u128(7)))
        };
        assert_eq!(Pushed::try_from(odd).expect_err("odd").field, "holders");
    }
}
