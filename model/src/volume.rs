//! Volumes on a node as operators see and change them: what may be asked for, and what is told. The node
//! does it; a service's wish for volumes is in [`crate::storage`].

use crate::name;
use crate::problem::Problem;
use crate::storage::HeldVolume;

/// Most snapshots of a volume.
pub const MAX_SNAPSHOTS: usize = 64;

/// What an operator asks a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// What there is, and how large it is.
    Measure,
    /// Delete a volume with its snapshots, or one of them.
    Remove {
        /// Which.
        volume: HeldVolume,
        /// That snapshot alone.
        snapshot: Option<String>,
    },
    /// Keep what a volume holds now.
    Snapshot {
        /// Of which.
        volume: HeldVolume,
        /// Its name, unique within the volume.
        name: String,
        /// Also where the app may write meanwhile and the copy is not of one moment.
        torn: bool,
    },
    /// Make a volume that holds what another holds, or held.
    Clone {
        /// Of which.
        volume: HeldVolume,
        /// Of that snapshot; none: as it is now.
        snapshot: Option<String>,
        /// Which is made.
        to: HeldVolume,
        /// Delete what is there by that name.
        replace: bool,
        /// As for a snapshot.
        torn: bool,
    },
}

/// A volume as its node finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Which.
    pub volume: HeldVolume,
    /// Disk that it takes, in bytes, without its snapshots.
    pub bytes: u64,
    /// It takes more: the node did not come to the end of it.
    pub at_least: bool,
    /// Names of its snapshots, in order.
    pub snapshots: Vec<String>,
}

impl Order {
    /// Refuses names that cannot be.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), Problem> {
        let (volume, snapshot, to) = match self {
            Self::Measure => return Ok(()),
            Self::Remove { volume, snapshot } => (volume, snapshot.as_ref(), None),
            Self::Snapshot { volume, name, .. } => (volume, Some(name), None),
            Self::Clone {
                volume,
                snapshot,
                to,
                ..
            } => (volume, snapshot.as_ref(), Some(to)),
        };
        name::check("volume", &volume.name)?;
        snapshot.map_or(Ok(()), |name| name::check("snapshot", name))?;
        let Some(to) = to else { return Ok(()) };
        if to == volume {
            return match snapshot {
                Some(_) => Ok(()),
                None => Err(Problem::invalid("to", "a volume is no clone of itself")
                    .hint("another name, or one of its snapshots: `VOLUME@SNAPSHOT`")),
            };
        }
        name::check("to", &to.name)
    }

    /// What was asked for, for the audit trail.
    pub fn describe(&self) -> String {
        let shown = |held: &HeldVolume, snapshot: Option<&String>| {
            let at = snapshot.map_or(String::new(), |name| format!("@{name}"));
            format!("{}{at}", held.key())
        };
        match self {
            Self::Measure => "measure volumes".to_owned(),
            Self::Remove { volume, snapshot } => {
                format!("remove {}", shown(volume, snapshot.as_ref()))
            }
            Self::Snapshot { volume, name, .. } => {
                format!("snapshot {}", shown(volume, Some(name)))
            }
            Self::Clone {
                volume,
                snapshot,
                to,
                ..
            } => format!("clone {} to {}", shown(volume, snapshot.as_ref()), to.key()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ServiceId;

    #[test]
    fn names_are_names_and_a_volume_is_no_clone_of_itself() {
        let held = |name: &str| HeldVolume {
            service: ServiceId::from_u128(7),
            name: name.into(),
        };
        let clone = |snapshot: Option<&str>, to: &str| Order::Clone {
            volume: held("data"),
            snapshot: snapshot.map(str::to_owned),
            to: held(to),
            replace: true,
            torn: false,
        };
        let field = |order: &Order| order.check().expect_err("refused").field;
        assert_eq!(clone(None, "other").check(), Ok(()));
        assert_eq!(clone(Some("monday"), "data").check(), Ok(()));
        assert_eq!(field(&clone(None, "data")).as_deref(), Some("to"));
        assert_eq!(field(&clone(None, "../up")).as_deref(), Some("to"));
        assert_eq!(
            field(&clone(Some("../up"), "b")).as_deref(),
            Some("snapshot")
        );
        let order = Order::Remove {
            volume: held(".."),
            snapshot: None,
        };
        assert_eq!(field(&order).as_deref(), Some("volume"));
        let service = held("data").service;
        assert_eq!(
            clone(Some("monday"), "other").describe(),
            format!("clone {service}.data@monday to {service}.other")
        );
    }
}
