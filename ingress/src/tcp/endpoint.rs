//! What a proxy in front that knows addresses alone (Traefik) is given for connections by name: each route has
//! one address of this machine, behind which this ingress chooses among its backends. So its table changes
//! with routes, never with deployments.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::endpoint::{free_address, is_endpoint};
use crate::ingress::mix;

/// The proxy may use an older table for so long after a newer one is there.
const STAYS: Duration = Duration::from_secs(60);

/// Which address is whose. The same after a restart, but for two that want the same one.
#[derive(Debug, Default)]
pub(crate) struct Names {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    by_host: HashMap<String, (Ipv4Addr, Instant)>,
    by_address: HashMap<Ipv4Addr, String>,
}

impl Names {
    /// The host behind an address; none: nothing any more.
    pub(crate) fn at(&self, address: IpAddr) -> Option<String> {
        match address {
            IpAddr::V4(v4) if is_endpoint(address) => self.book.lock().by_address.get(&v4).cloned(),
            _ => None,
        }
    }

    /// An address at `port` for each of `hosts`. What is no longer there keeps its own for a while.
    pub(crate) fn name(&self, hosts: &BTreeSet<&str>, port: u16) -> HashMap<String, SocketAddr> {
        let now = Instant::now();
        let mut book = self.book.lock();
        let Book {
            by_host,
            by_address,
        } = &mut *book;
        for host in hosts {
            if let Some((_, last)) = by_host.get_mut(*host) {
                *last = now;
            }
        }
        by_host.retain(|_, (_, last)| now.duration_since(*last) < STAYS);
        by_address.retain(|_, host| by_host.contains_key(host));
        let mut named = HashMap::with_capacity(hosts.len());
        for host in hosts {
            let (address, _) = by_host.entry((*host).to_owned()).or_insert_with(|| {
                let start = host
                    .bytes()
                    .fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
                let address = free_address(start, |it| by_address.contains_key(it));
                by_address.insert(address, (*host).to_owned());
                (address, now)
            });
            named.insert((*host).to_owned(), (*address, port).into());
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_its_address_and_nobody_shares_one() {
        let (names, again) = (Names::default(), Names::default());
        let all = names.name(&["a.io", "b.io", "*.c.io"].into(), 7078);
        assert_eq!(all, again.name(&["a.io", "b.io", "*.c.io"].into(), 7078));
        let distinct: BTreeSet<_> = all.values().collect();
        assert_eq!(distinct.len(), 3);
        for (host, address) in &all {
            assert_eq!(names.at(address.ip()).as_ref(), Some(host));
        }
        // One that is gone is still led on for whoever uses the older table.
        assert_eq!(names.name(&["a.io"].into(), 7078).len(), 1);
        assert_eq!(names.at(all["b.io"].ip()).as_deref(), Some("b.io"));
        assert_eq!(names.at(Ipv4Addr::LOCALHOST.into()), None);
    }
}
