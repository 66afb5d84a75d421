//! What operators ask of volumes, and what nodes tell of them.

use skep_model::storage::HeldVolume;
use skep_model::volume::{Measured, Order};

use super::{Error, error};
use crate::v1;
use crate::v1::volume_order::Kind;

fn target(volume: &HeldVolume) -> v1::VolumeTarget {
    v1::VolumeTarget {
        volume: Some(volume.into()),
        ..Default::default()
    }
}

fn held(message: Option<v1::HeldVolume>) -> Result<HeldVolume, Error> {
    message.ok_or_else(|| error("volume"))?.try_into()
}

fn named(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<&Order> for v1::VolumeOrder {
    fn from(order: &Order) -> Self {
        let kind = match order {
            Order::Measure => Kind::Measure(v1::VolumeMeasure {}),
            Order::Remove { volume, snapshot } => Kind::Remove(v1::VolumeTarget {
                snapshot: snapshot.clone().unwrap_or_default(),
                ..target(volume)
            }),
            Order::Snapshot { volume, name, torn } => Kind::Snapshot(v1::VolumeTarget {
                snapshot: name.clone(),
                torn: *torn,
                ..target(volume)
            }),
            Order::Clone {
                volume,
                snapshot,
                to,
                replace,
                torn,
            } => Kind::Clone(v1::VolumeTarget {
                snapshot: snapshot.clone().unwrap_or_default(),
                to: Some(to.into()),
                replace: *replace,
                torn: *torn,
                ..target(volume)
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::VolumeOrder> for Order {
    type Error = Error;

    fn try_from(message: v1::VolumeOrder) -> Result<Self, Error> {
        Ok(match message.kind.ok_or_else(|| error("kind"))? {
            Kind::Measure(_) => Self::Measure,
            Kind::Remove(one) => Self::Remove {
                volume: held(one.volume)?,
                snapshot: named(one.snapshot),
            },
            Kind::Snapshot(one) => Self::Snapshot {
                volume: held(one.volume)?,
                name: named(one.snapshot).ok_or_else(|| error("snapshot"))?,
                torn: one.torn,
            },
            Kind::Clone(one) => Self::Clone {
                volume: held(one.volume)?,
                snapshot: named(one.snapshot),
                to: held(one.to)?,
                replace: one.replace,
                torn: one.torn,
            },
        })
    }
}

impl From<&Measured> for v1::MeasuredVolume {
    fn from(measured: &Measured) -> Self {
        Self {
            volume: Some((&measured.volume).into()),
            bytes: measured.bytes,
            at_least: measured.at_least,
            snapshots: measured.snapshots.clone(),
        }
    }
}

impl TryFrom<v1::MeasuredVolume> for Measured {
    type Error = Error;

    fn try_from(message: v1::MeasuredVolume) -> Result<Self, Error> {
        Ok(Self {
            volume: held(message.volume)?,
            bytes: message.bytes,
            at_least: message.at_least,
            snapshots: message.snapshots,
        })
    }
}

#[cfg(test)]
mod tests {
    use skep_model::id::ServiceId;

    use super::*;

    #[test]
    fn orders_and_what_is_told_come_back_as_they_were() {
        let volume = |name: &str| HeldVolume {
            service: ServiceId::from_u128(7),
            name: name.into(),
        };
        let (data, monday) = (volume("data"), Some("monday".to_owned()));
        for order in [
            Order::Measure,
            Order::Remove {
                volume: data.clone(),
                snapshot: None,
            },
            Order::Remove {
                volume: data.clone(),
                snapshot: monday.clone(),
            },
            Order::Snapshot {
                volume: data.clone(),
                name: "monday".into(),
                torn: true,
            },
            Order::Clone {
                volume: data.clone(),
                snapshot: monday,
                to: volume("other"),
                replace: true,
                torn: false,
            },
        ] {
            assert_eq!(Order::try_from(v1::VolumeOrder::from(&order)), Ok(order));
        }
        let measured = Measured {
            volume: data,
            bytes: 1 << 40,
            at_least: true,
            snapshots: vec!["monday".into()],
        };
        let message = v1::MeasuredVolume::from(&measured);
        assert_eq!(Measured::try_from(message), Ok(measured));
        assert_eq!(
            Order::try_from(v1::VolumeOrder { kind: None }),
            Err(error("kind"))
        );
    }
}
