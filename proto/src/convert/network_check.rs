//! Whether nodes reach one another.

use skep_model::id::NodeId;
use skep_model::network::Pool;
use skep_model::network_check::{
    Ask, Dialed, Door, Found, MAX_DOORS, MAX_OVERLAPS, NodeNetwork, Overlap,
};
use skep_model::node::MAX_ADDRESS;

use super::{Error, cut, enum_number, enum_value, error, id, id_bytes};
use crate::v1;

/// Longest text of a node about itself, in bytes: what is longer is cut.
const MAX_TEXT: usize = 512;

impl From<&Ask> for v1::NetworkAsk {
    fn from(ask: &Ask) -> Self {
        let door = |door: &Door| v1::NetworkDoor {
            node: id_bytes(door.node.as_u128()),
            address: door.address.clone(),
        };
        Self {
            // Given by whoever sends it.
            request: 0,
            doors: ask.doors.iter().map(door).collect(),
            pool: ask.pool.to_string(),
        }
    }
}

impl TryFrom<v1::NetworkAsk> for Ask {
    type Error = Error;

    fn try_from(message: v1::NetworkAsk) -> Result<Self, Error> {
        let doors = message.doors.into_iter().take(MAX_DOORS).map(|door| {
            Ok(Door {
                node: id!(NodeId, door.node),
                address: cut(door.address, MAX_ADDRESS),
            })
        });
        Ok(Self {
            doors: doors.collect::<Result<_, Error>>()?,
            pool: message.pool.parse().map_err(|_| error("pool"))?,
        })
    }
}

impl From<&Found> for v1::NetworkFound {
    fn from(found: &Found) -> Self {
        let numbers = found.dialed.iter();
        let overlap = |overlap: &Overlap| v1::NetworkOverlap {
            what: overlap.what.clone(),
            network: overlap.network.clone(),
        };
        let NodeNetwork {
            pool,
            trouble,
            bridges,
            overlaps,
        } = &found.own;
        Self {
            request: 0,
            dialed: numbers.map(|it| enum_number(&Dialed::ALL, it)).collect(),
            pool: pool.map_or_else(String::new, |pool| pool.to_string()),
            trouble: trouble.clone(),
            bridges: *bridges,
            overlaps: overlaps.iter().map(overlap).collect(),
        }
    }
}

impl From<v1::NetworkFound> for Found {
    /// What means nothing to this build is as if it had not been tried.
    fn from(message: v1::NetworkFound) -> Self {
        let dialed =
            message.dialed.iter().take(MAX_DOORS).map(|number| {
                enum_value("dialed", &Dialed::ALL, *number).unwrap_or(Dialed::Untried)
            });
        let overlaps = message.overlaps.into_iter().take(MAX_OVERLAPS);
        Self {
            dialed: dialed.collect(),
            own: NodeNetwork {
                pool: message.pool.parse::<Pool>().ok(),
                trouble: cut(message.trouble, MAX_TEXT),
                bridges: message.bridges,
                overlaps: overlaps
                    .map(|it| Overlap {
                        what: cut(it.what, MAX_TEXT),
                        network: cut(it.network, MAX_TEXT),
                    })
                    .collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_found_comes_back_the_same() {
        let ask = Ask {
            doors: vec![Door {
                node: NodeId::from_u128(7),
                address: "10.0.0.7:7075".into(),
            }],
            pool: Pool::default(),
        };
        assert_eq!(Ask::try_from(v1::NetworkAsk::from(&ask)), Ok(ask));
        let found = Found {
            dialed: Dialed::ALL.to_vec(),
            own: NodeNetwork {
                pool: Some(Pool::default()),
                trouble: "no iptables".into(),
                bridges: 3,
                overlaps: vec![Overlap {
                    what: "route of eth0".into(),
                    network: "10.201.4.0/24".into(),
                }],
            },
        };
        assert_eq!(Found::from(v1::NetworkFound::from(&found)), found);
    }

    #[test]
    fn an_agent_that_says_too_much_or_something_new_is_no_trouble() {
        let found = Found::from(v1::NetworkFound {
            dialed: vec![99],
            trouble: "ä".repeat(MAX_TEXT),
            overlaps: vec![v1::NetworkOverlap::default(); MAX_OVERLAPS + 1],
            ..Default::default()
        });
        assert_eq!(found.dialed, [Dialed::Untried]);
        assert_eq!(found.own.overlaps.len(), MAX_OVERLAPS);
        assert!(found.own.trouble.len() <= MAX_TEXT);
    }
}
