//! What the machine under a node is.

use skep_model::machine::{Guest, Machine, Warning};

use super::{Error, enum_number, enum_value};
use crate::v1;

impl From<&Machine> for v1::Machine {
    fn from(machine: &Machine) -> Self {
        let warning = |warning: &Warning| v1::MachineWarning {
            text: warning.text.clone(),
            fix: warning.fix.clone(),
        };
        let guest = machine.guest.as_ref();
        Self {
            guest: guest.map_or(0, |guest| enum_number(&Guest::ALL, guest)),
            vendor: machine.vendor.clone(),
            uuid: machine.uuid.clone(),
            macs: machine.macs.clone(),
            storage_driver: machine.storage_driver.clone(),
            cgroup_version: machine.cgroup_version,
            memory_unknown: machine.memory_unknown,
            warnings: machine.warnings.iter().map(warning).collect(),
        }
    }
}

impl TryFrom<v1::Machine> for Machine {
    type Error = Error;

    fn try_from(message: v1::Machine) -> Result<Self, Error> {
        let warning = |message: v1::MachineWarning| Warning {
            text: message.text,
            fix: message.fix,
        };
        Ok(Self {
            guest: match message.guest {
                0 => None,
                number => Some(enum_value("guest", &Guest::ALL, number)?),
            },
            vendor: message.vendor,
            uuid: message.uuid,
            macs: message.macs,
            storage_driver: message.storage_driver,
            cgroup_version: message.cgroup_version,
            memory_unknown: message.memory_unknown,
            warnings: message.warnings.into_iter().map(warning).collect(),
        })
    }
}
