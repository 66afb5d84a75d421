//! What is mounted into containers, and what of it nodes have.

use skep_model::id::ServiceId;
use skep_model::storage::{FileMode, HeldVolume, HostPath, Owner, SecretFile, Storage, Volume};

use super::{Error, error, id, id_bytes};
use crate::v1;

/// Absent where there is nothing: an older reader then sees what it knows.
pub(crate) fn optional(storage: &Storage) -> Option<v1::Storage> {
    (!storage.is_empty()).then(|| storage.into())
}

/// Absent: nothing.
pub(crate) fn or_empty(message: Option<v1::Storage>) -> Result<Storage, Error> {
    let storage = message.map(Storage::try_from).transpose()?;
    Ok(storage.unwrap_or_default())
}

fn owner_text(owner: Option<Owner>) -> String {
    owner.map(|owner| owner.to_string()).unwrap_or_default()
}

fn owner(text: &str) -> Result<Option<Owner>, Error> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| error("owner")),
    }
}

impl From<&Storage> for v1::Storage {
    fn from(storage: &Storage) -> Self {
        let volume = |volume: &Volume| v1::Volume {
            name: volume.name.clone(),
            path: volume.path.clone(),
            owner: owner_text(volume.owner),
            size_bytes: volume.size_bytes,
            read_only: volume.read_only,
            storage: volume.storage.clone().unwrap_or_default(),
        };
        let host_path = |host: &HostPath| v1::HostPath {
            host: host.host.clone(),
            path: host.path.clone(),
            read_only: host.read_only,
        };
        let secret = |secret: &SecretFile| v1::SecretFile {
            variable: secret.variable.clone(),
            path: secret.path.clone(),
            mode: secret.mode.0,
            owner: owner_text(secret.owner),
        };
        Self {
            volumes: storage.volumes.iter().map(volume).collect(),
            host_paths: storage.host_paths.iter().map(host_path).collect(),
            secrets: storage.secrets.iter().map(secret).collect(),
        }
    }
}

impl TryFrom<v1::Storage> for Storage {
    type Error = Error;

    fn try_from(message: v1::Storage) -> Result<Self, Error> {
        let volume = |volume: v1::Volume| {
            Ok(Volume {
                owner: owner(&volume.owner)?,
                name: volume.name,
                path: volume.path,
                size_bytes: volume.size_bytes,
                read_only: volume.read_only,
                storage: (!volume.storage.is_empty()).then_some(volume.storage),
            })
        };
        let host_path = |host: v1::HostPath| HostPath {
            host: host.host,
            path: host.path,
            read_only: host.read_only,
        };
        let secret = |secret: v1::SecretFile| {
            Ok(SecretFile {
                owner: owner(&secret.owner)?,
                variable: secret.variable,
                path: secret.path,
                mode: FileMode(secret.mode),
            })
        };
        let volumes = message.volumes.into_iter().map(volume);
        let secrets = message.secrets.into_iter().map(secret);
        Ok(Self {
            volumes: volumes.collect::<Result<_, Error>>()?,
            host_paths: message.host_paths.into_iter().map(host_path).collect(),
            secrets: secrets.collect::<Result<_, Error>>()?,
        })
    }
}

impl From<&HeldVolume> for v1::HeldVolume {
    fn from(held: &HeldVolume) -> Self {
        Self {
            service: id_bytes(held.service.as_u128()),
            name: held.name.clone(),
        }
    }
}

impl TryFrom<v1::HeldVolume> for HeldVolume {
    type Error = Error;

    fn try_from(message: v1::HeldVolume) -> Result<Self, Error> {
        Ok(Self {
            service: id!(ServiceId, message.service),
            name: message.name,
        })
    }
}
