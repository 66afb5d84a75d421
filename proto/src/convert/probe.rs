//! What nodes find when they knock at one another.

use skep_model::id::NodeId;
use skep_model::probe::{Reach, Target};

use super::{Error, enum_number, enum_value, optional_id_bits, optional_id_bytes, port};
use crate::v1;

impl From<&Target> for v1::ProbeTarget {
    fn from(target: &Target) -> Self {
        Self {
            node: optional_id_bytes(target.node.map_or(0, NodeId::as_u128)),
            address: target.address.clone(),
            also_port: target.also_port.map_or(0, u32::from),
            identify: target.identify,
        }
    }
}

impl TryFrom<v1::ProbeTarget> for Target {
    type Error = Error;

    fn try_from(message: v1::ProbeTarget) -> Result<Self, Error> {
        let node = optional_id_bits("node", &message.node)?;
        let also = (message.also_port != 0).then_some(message.also_port);
        Ok(Self {
            node: (node != 0).then(|| NodeId::from_u128(node)),
            address: message.address,
            also_port: port("also_port", also)?,
            identify: message.identify,
        })
    }
}

/// As a message says it.
pub fn reaches(found: &[Reach]) -> Vec<u32> {
    let numbers = found.iter().map(|reach| enum_number(&Reach::ALL, reach));
    numbers.collect()
}

/// What a message says; a word of a newer build says nothing.
pub fn reaches_of(numbers: &[u32]) -> Vec<Reach> {
    let reach = |number: &u32| enum_value("found", &Reach::ALL, *number).unwrap_or(Reach::Unknown);
    numbers.iter().map(reach).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_what_was_found_come_back_the_same() {
        let node = Target {
            node: Some(NodeId::from_u128(7)),
            address: "10.0.0.7:7074".into(),
            also_port: Some(80),
            identify: true,
        };
        let server = Target {
            node: None,
            address: String::new(),
            also_port: None,
            identify: false,
        };
        for target in [node, server] {
            assert_eq!(Target::try_from(v1::ProbeTarget::from(&target)), Ok(target));
        }
        let odd = v1::ProbeTarget {
            also_port: 70_000,
            ..Default::default()
        };
        assert!(Target::try_from(odd).is_err());
        assert_eq!(reaches_of(&reaches(&Reach::ALL)), Reach::ALL);
        assert_eq!(reaches_of(&[0, 99]), [Reach::Unknown; 2]);
    }
}
