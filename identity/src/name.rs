//! The name that a certificate carries: which cluster, and which server, node or operator it belongs
//! to, as one SPIFFE-style URI (`spiffe://<cluster>/node/<id>`). Never trusts: the certificate must have been
//! verified before its name means anything.

use std::fmt;
use std::str::FromStr;

use skep_model::id::{ClusterId, NodeId, OperatorId, ServerId};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

const SCHEME: &str = "spiffe://";

/// A name could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not one of the three forms.
    #[error(
        "`{text}` is not the name of a server, node or operator: spiffe://<cluster>/<role>/<id> \
         with the role server, node or operator is expected"
    )]
    Malformed {
        /// What was given.
        text: String,
    },
    /// Not X.509.
    #[error("the certificate cannot be parsed")]
    Certificate,
    /// A Skep certificate carries exactly one URI name.
    #[error("the certificate carries {count} URI names, exactly 1 is expected")]
    UriCount {
        /// How many there were.
        count: usize,
    },
}

/// What an identity may act as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A server of the control plane.
    Server,
    /// A node's agent or data plane.
    Node,
    /// A person or program that administers the cluster. Never a server or node.
    Operator,
}

impl Role {
    /// `server`, `node` or `operator`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Node => "node",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One server, node or operator, with its typed id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A server of the control plane.
    Server(ServerId),
    /// A node.
    Node(NodeId),
    /// An operator.
    Operator(OperatorId),
}

/// Who a certificate belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster whose CA vouches for it.
    pub cluster: ClusterId,
    /// The server, node or operator.
    pub subject: Subject,
}

impl Identity {
    /// The identity of a server.
    pub fn server(cluster: ClusterId, id: ServerId) -> Self {
        Self {
            cluster,
            subject: Subject::Server(id),
        }
    }

    /// The identity of a node.
    pub fn node(cluster: ClusterId, id: NodeId) -> Self {
        Self {
            cluster,
            subject: Subject::Node(id),
        }
    }

    /// The identity of an operator.
    pub fn operator(cluster: ClusterId, id: OperatorId) -> Self {
        Self {
            cluster,
            subject: Subject::Operator(id),
        }
    }

    /// Its role.
    pub fn role(&self) -> Role {
        match self.subject {
            Subject::Server(_) => Role::Server,
            Subject::Node(_) => Role::Node,
            Subject::Operator(_) => Role::Operator,
        }
    }

    /// Its id, if it is a server.
    pub fn server_id(&self) -> Option<ServerId> {
        match self.subject {
            Subject::Server(id) => Some(id),
            Subject::Node(_) | Subject::Operator(_) => None,
        }
    }

    /// Its id, if it is a node.
    pub fn node_id(&self) -> Option<NodeId> {
        match self.subject {
            Subject::Node(id) => Some(id),
            Subject::Server(_) | Subject::Operator(_) => None,
        }
    }

    /// Its id, if it is an operator.
    pub fn operator_id(&self) -> Option<OperatorId> {
        match self.subject {
            Subject::Operator(id) => Some(id),
            Subject::Server(_) | Subject::Node(_) => None,
        }
    }

    /// The name in a certificate's only URI. The caller has verified the certificate.
    pub fn from_certificate(der: &[u8]) -> Result<Self, Error> {
        only_uri(der)?.parse()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cluster, role) = (self.cluster, self.role());
        match self.subject {
            Subject::Server(id) => write!(f, "{SCHEME}{cluster}/{role}/{id}"),
            Subject::Node(id) => write!(f, "{SCHEME}{cluster}/{role}/{id}"),
            Subject::Operator(id) => write!(f, "{SCHEME}{cluster}/{role}/{id}"),
        }
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::Malformed {
            text: text.to_owned(),
        };
        let identity = parse(text).ok_or_else(malformed)?;
        // Ids may be spelt in several ways; a name has one spelling, so that comparing texts
        // and comparing identities can never differ.
        if identity.to_string() != text {
            return Err(malformed());
        }
        Ok(identity)
    }
}

fn parse(text: &str) -> Option<Identity> {
    let mut parts = text.strip_prefix(SCHEME)?.split('/');
    let cluster = parts.next()?.parse().ok()?;
    let (role, id) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    match role {
        "server" => Some(Identity::server(cluster, id.parse().ok()?)),
        "node" => Some(Identity::node(cluster, id.parse().ok()?)),
        "operator" => Some(Identity::operator(cluster, id.parse().ok()?)),
        _ => None,
    }
}

/// The URI name that the CA certificate of `cluster` carries: the trust domain itself.
pub(crate) fn trust_domain(cluster: ClusterId) -> String {
    format!("{SCHEME}{cluster}")
}

/// The cluster whose CA certificate this is.
pub(crate) fn cluster_of_ca(der: &[u8]) -> Result<ClusterId, Error> {
    let uri = only_uri(der)?;
    let cluster = uri.strip_prefix(SCHEME).and_then(|id| id.parse().ok());
    match cluster {
        Some(cluster) if trust_domain(cluster) == uri => Ok(cluster),
        _ => Err(Error::Malformed { text: uri }),
    }
}

fn only_uri(der: &[u8]) -> Result<String, Error> {
    let (rest, certificate) = parse_x509_certificate(der).map_err(|_| Error::Certificate)?;
    if !rest.is_empty() {
        return Err(Error::Certificate);
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| Error::Certificate)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok((*uri).to_owned()),
        _ => Err(Error::UriCount { count: uris.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_u128(0xabc << 64);

    #[test]
    fn names_round_trip_with_role_and_typed_id() {
        let server = Identity::server(CLUSTER, ServerId::from_u128(7));
        let node = Identity::node(CLUSTER, NodeId::from_u128(7));
        assert_eq!(server.to_string().parse(), Ok(server));
        assert_eq!(node.to_string().parse(), Ok(node));
        let operator = Identity::operator(CLUSTER, OperatorId::from_u128(7));
        assert_eq!(operator.to_string().parse(), Ok(operator));
        assert_eq!(
            (
                operator.server_id(),
                operator.node_id(),
                operator.operator_id()
            ),
            (None, None, Some(OperatorId::from_u128(7)))
        );
        assert_ne!(server.to_string(), node.to_string());
        assert_eq!((server.role(), node.role()), (Role::Server, Role::Node));
        assert_eq!(operator.role(), Role::Operator);
        assert_eq!(
            (server.node_id(), node.node_id()),
            (None, Some(NodeId::from_u128(7)))
        );
        assert_eq!(
            (server.server_id(), node.server_id()),
            (Some(ServerId::from_u128(7)), None)
        );
        assert!(
            node.to_string()
                .starts_with(&format!("spiffe://{CLUSTER}/node/"))
        );
    }

    #[test]
    fn only_the_exact_form_is_a_name() {
        let good = Identity::node(CLUSTER, NodeId::from_u128(7)).to_string();
        for bad in [
            String::new(),
            good.replace("spiffe://", "http://"),
            good.replace("/node/", "/admin/"),
            good.replace("/node/", "//"),
            good.replace("/node/", "/Node/"),
            good.to_ascii_uppercase()
                .replace("SPIFFE", "spiffe")
                .replace("NODE", "node"),
            good.replacen('0', "o", 1),
            format!("{good}/"),
            format!("{good}/more"),
            format!("{good}?query"),
            format!(" {good}"),
            good[..good.len() - 1].to_owned(),
            trust_domain(CLUSTER),
        ] {
            let parsed = bad.parse::<Identity>();
            assert_eq!(parsed, Err(Error::Malformed { text: bad }));
        }
    }
}
