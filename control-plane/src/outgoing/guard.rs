//! Where requests may go. Owners of apps say where: hence the servers themselves, and a server's own link, are
//! not sent anything, whatever name stands for them, unless the operator allows it.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use parking_lot::Mutex;
use skep_model::problem::Problem;
use skep_model::routing::{Cidr, is_off_limits};
use skep_state::State;
use tower::Service;

/// What the operator of a server allows. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed {
    networks: Arc<[Cidr]>,
    /// Addresses that servers say are theirs.
    servers: Arc<Mutex<BTreeSet<IpAddr>>>,
}

impl Allowed {
    pub(crate) fn new(networks: &[Cidr]) -> Self {
        Self {
            networks: networks.into(),
            servers: Arc::default(),
        }
    }

    /// Learns which servers there are. Those that are known by name are not known by address.
    pub(crate) fn learn(&self, view: &State) {
        let addresses = view.servers().flat_map(|server| {
            let both = [&server.cluster_address, &server.api_address];
            both.map(|text| text.parse::<SocketAddr>().ok())
        });
        *self.servers.lock() = addresses
            .flatten()
            .map(|it| it.ip().to_canonical())
            .collect();
    }

    fn allows(&self, address: IpAddr) -> bool {
        let is_refused =
            is_off_limits(address) || self.servers.lock().contains(&address.to_canonical());
        !is_refused
            || self
                .networks
                .iter()
                .any(|network| network.contains(address))
    }

    /// Checks an address that a URL names by number.
    ///
    /// # Errors
    /// It is off limits, and how it would not be.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), Problem> {
        if self.allows(address) {
            return Ok(());
        }
        Err(Problem::invalid("url", refused(&address.to_string()))
            .hint("`skep server --notify-allow NETWORK`, on every server, allows it"))
    }
}

fn refused(what: &str) -> String {
    format!("{what} is a server, its link or nobody's, which --notify-allow does not name")
}

/// Names as the system resolves them, without the addresses that are off limits: what is connected to is what was
/// looked at.
#[derive(Debug, Clone)]
pub(super) struct Guarded {
    system: GaiResolver,
    allowed: Allowed,
}

impl Guarded {
    pub(super) fn new(allowed: Allowed) -> Self {
        Self {
            system: GaiResolver::new(),
            allowed,
        }
    }
}

impl Service<Name> for Guarded {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let text = format!("`{name}`");
        let found = self.system.call(name);
        let allowed = self.allowed.clone();
        Box::pin(async move {
            let all: Vec<SocketAddr> = found.await?.collect();
            let some = all.iter().filter(|it| allowed.allows(it.ip()));
            let some: Vec<SocketAddr> = some.copied().collect();
            if some.is_empty() && !all.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    refused(&text),
                ));
            }
            Ok(some.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_their_link_are_off_limits_unless_allowed() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let none = Allowed::new(&[]);
        none.servers.lock().insert(ip("10.0.0.7"));
        for (address, is_allowed) in [
            ("127.0.0.1", false),
            ("::1", false),
            ("169.254.169.254", false),
            ("10.0.0.7", false),
            ("::ffff:10.0.0.7", false),
            ("10.0.0.8", true),
            ("192.0.2.1", true),
        ] {
            assert_eq!(none.check(ip(address)).is_ok(), is_allowed, "{address}");
        }
        let networks = ["127.0.0.0/8", "10.0.0.7"].map(|it| it.parse().expect("a network"));
        let some = Allowed {
            servers: none.servers,
            ..Allowed::new(&networks)
        };
        for (address, is_allowed) in [("127.0.0.1", true), ("10.0.0.7", true), ("::1", false)] {
            assert_eq!(some.check(ip(address)).is_ok(), is_allowed, "{address}");
        }
    }
}
