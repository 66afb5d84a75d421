//! The private networks of environments.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use skep_model::id::{AllocationId, EnvironmentId, NodeId, ServiceId};
use skep_model::network::{NameBackend, Named, Names, PrivateAddress};

use super::{Error, id, id_bytes};
use crate::v1;

impl From<&PrivateAddress> for v1::PrivateAddress {
    fn from(held: &PrivateAddress) -> Self {
        Self {
            address: u32::from(held.address),
            service: id_bytes(held.service.as_u128()),
            environment: id_bytes(held.environment.as_u128()),
            released_ms: held.released_ms,
        }
    }
}

impl TryFrom<v1::PrivateAddress> for PrivateAddress {
    type Error = Error;

    fn try_from(message: v1::PrivateAddress) -> Result<Self, Error> {
        Ok(Self {
            address: Ipv4Addr::from(message.address),
            service: id!(ServiceId, message.service),
            environment: id!(EnvironmentId, message.environment),
            released_ms: message.released_ms,
        })
    }
}

impl From<&Names> for v1::PrivateNames {
    fn from(names: &Names) -> Self {
        let backend = |backend: &NameBackend| v1::PrivateBackend {
            node: id_bytes(backend.node.as_u128()),
            allocation: id_bytes(backend.allocation.as_u128()),
        };
        let service = |(name, named): (&String, &Named)| v1::PrivateName {
            name: name.clone(),
            address: u32::from(named.address),
            backends: named.backends.iter().map(backend).collect(),
        };
        Self {
            environment: id_bytes(names.environment.as_u128()),
            services: names.services.iter().map(service).collect(),
        }
    }
}

impl TryFrom<v1::PrivateNames> for Names {
    type Error = Error;

    fn try_from(message: v1::PrivateNames) -> Result<Self, Error> {
        let mut services = BTreeMap::new();
        for service in message.services {
            let backends = service.backends.into_iter().map(|backend| {
                Ok(NameBackend {
                    node: id!(NodeId, backend.node),
                    allocation: id!(AllocationId, backend.allocation),
                })
            });
            let named = Named {
                address: Ipv4Addr::from(service.address),
                backends: backends.collect::<Result<_, Error>>()?,
            };
            services.insert(service.name, named);
        }
        Ok(Self {
            environment: id!(EnvironmentId, message.environment),
            services,
        })
    }
}
