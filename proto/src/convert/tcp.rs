//! Routes of connections, and the ports that they may have.

use skep_model::id::ServiceId;
use skep_model::route::{Backend, TcpRoute};
use skep_model::tcp::{Door, Ports, TcpSpec, TlsMode};

use super::{Error, enum_number, enum_value, error, id, id_bytes};
use crate::v1;

fn number(field: &'static str, number: u32) -> Result<u16, Error> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or(error(field))
}

impl From<&Door> for v1::TcpDoor {
    fn from(door: &Door) -> Self {
        match door {
            Door::Sni { host, tls } => Self {
                sni: Some(host.clone()),
                tls: enum_number(&TlsMode::ALL, tls),
                entry: 0,
            },
            Door::Entry(port) => Self {
                sni: None,
                tls: 0,
                entry: u32::from(*port),
            },
        }
    }
}

impl TryFrom<v1::TcpDoor> for Door {
    type Error = Error;

    fn try_from(message: v1::TcpDoor) -> Result<Self, Error> {
        Ok(match message.sni {
            Some(host) => Self::Sni {
                host,
                tls: enum_value("tls", &TlsMode::ALL, message.tls)?,
            },
            None => Self::Entry(number("entry", message.entry)?),
        })
    }
}

/// A door that must be there.
///
/// # Errors
/// It is not, or says nothing that is known.
pub fn door_in(message: Option<v1::TcpDoor>) -> Result<Door, Error> {
    message.ok_or(error("door"))?.try_into()
}

impl From<&TcpSpec> for v1::TcpSpec {
    fn from(tcp: &TcpSpec) -> Self {
        Self {
            port: u32::from(tcp.port),
            door: tcp.door().as_ref().map(Into::into),
            proxy_protocol: tcp.proxy_protocol,
        }
    }
}

impl TryFrom<v1::TcpSpec> for TcpSpec {
    type Error = Error;

    fn try_from(message: v1::TcpSpec) -> Result<Self, Error> {
        let (sni, tls, entry) = match door_in(message.door)? {
            Door::Sni { host, tls } => (Some(host), tls, None),
            Door::Entry(port) => (None, TlsMode::default(), Some(port)),
        };
        Ok(Self {
            port: number("port", message.port)?,
            sni,
            tls,
            entry,
            proxy_protocol: message.proxy_protocol,
        })
    }
}

impl From<&TcpRoute> for v1::TcpRoute {
    fn from(route: &TcpRoute) -> Self {
        Self {
            door: Some((&route.door).into()),
            proxy_protocol: route.proxy_protocol,
            service: id_bytes(route.service.as_u128()),
            name: route.name.clone(),
            backends: route.backends.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::TcpRoute> for TcpRoute {
    type Error = Error;

    fn try_from(message: v1::TcpRoute) -> Result<Self, Error> {
        Ok(Self {
            door: door_in(message.door)?,
            proxy_protocol: message.proxy_protocol,
            service: id!(ServiceId, message.service),
            name: message.name,
            backends: message
                .backends
                .into_iter()
                .map(Backend::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<Ports> for v1::TcpPorts {
    fn from(ports: Ports) -> Self {
        Self {
            first: u32::from(ports.first),
            last: u32::from(ports.last),
        }
    }
}

impl TryFrom<v1::TcpPorts> for Ports {
    type Error = Error;

    fn try_from(message: v1::TcpPorts) -> Result<Self, Error> {
        Ok(Self {
            first: number("first", message.first)?,
            last: number("last", message.last)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn routes_of_connections_survive_and_odd_ones_are_refused() {
        let by_name = TcpSpec {
            port: 1,
            sni: Some("*.a".into()),
            tls: TlsMode::Terminate,
            entry: None,
            proxy_protocol: true,
        };
        let by_port = TcpSpec {
            port: 2,
            entry: Some(3),
            ..TcpSpec::default()
        };
        for spec in [by_name, by_port] {
            let message = v1::TcpSpec::from(&spec);
            let bytes = message.encode_to_vec();
            let read = v1::TcpSpec::decode(&*bytes).expect("decodes");
            assert_eq!(TcpSpec::try_from(read), Ok(spec.clone()));
            let route = TcpRoute {
                door: spec.door().expect("one of them"),
                proxy_protocol: spec.proxy_protocol,
                service: ServiceId::from_u128(4),
                name: "b".into(),
                backends: Vec::new(),
            };
            assert_eq!(TcpRoute::try_from(v1::TcpRoute::from(&route)), Ok(route));
        }
        let door = |entry| v1::TcpDoor {
            entry,
            ..v1::TcpDoor::default()
        };
        for entry in [0, 65_536] {
            assert!(Door::try_from(door(entry)).is_err(), "{entry}");
        }
        assert!(door_in(None).is_err());
        let ports = Ports { first: 5, last: 6 };
        assert_eq!(Ports::try_from(v1::TcpPorts::from(ports)), Ok(ports));
    }
}
