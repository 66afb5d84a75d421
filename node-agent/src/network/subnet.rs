//! Which network a new bridge gets: the first of the pool that neither Docker nor a route of this machine
//! has any part of.

use bollard::models::Network;
use skep_model::network::Pool;

/// Leading bits of a bridge's network: 253 containers of an environment on one node.
pub(crate) const BITS: u32 = 24;

/// A network: first address and leading bits.
pub(super) type Subnet = (u32, u32);

/// The first address of the first network of `pool` that shares nothing with `taken`.
pub(super) fn free(pool: Pool, taken: &[Subnet]) -> Option<u32> {
    let mut all = pool.subnets(BITS);
    all.find(|first| !taken.iter().any(|other| overlap((*first, BITS), *other)))
}

fn overlap((a, a_bits): Subnet, (b, b_bits): Subnet) -> bool {
    let shift = 32 - a_bits.min(b_bits);
    u64::from(a) >> shift == u64::from(b) >> shift
}

/// What Docker gave to a network.
pub(super) fn of_network(network: &Network) -> impl Iterator<Item = Subnet> + use<'_> {
    let configs = network.ipam.iter().flat_map(|ipam| ipam.config.iter());
    configs.flatten().filter_map(|config| {
        let (address, bits) = config.subnet.as_deref()?.split_once('/')?;
        let address: std::net::Ipv4Addr = address.parse().ok()?;
        Some((
            u32::from(address),
            bits.parse().ok().filter(|bits| *bits <= 32)?,
        ))
    })
}

/// Where this machine's routes lead, the default route apart.
pub(super) fn of_routes() -> Vec<Subnet> {
    named_routes()
        .into_iter()
        .map(|(_, subnet)| subnet)
        .collect()
}

/// The same with the interfaces that they are of.
pub(super) fn named_routes() -> Vec<(String, Subnet)> {
    let routes = procfs::net::route().unwrap_or_default();
    let named = routes.into_iter().map(|route| {
        let bits = u32::from(route.mask).count_ones();
        (route.iface, (u32::from(route.destination), bits))
    });
    named.filter(|(_, (_, bits))| *bits > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_a_part_of_is_passed_over() {
        let pool: Pool = "10.202.0.0/22".parse().expect("a pool");
        let first = 0x0ACA_0000;
        assert_eq!(free(pool, &[]), Some(first));
        assert_eq!(free(pool, &[(first + 77, 32)]), Some(first + 256));
        assert_eq!(free(pool, &[(first, 23)]), Some(first + 512));
        assert_eq!(free(pool, &[(10 << 24, 8)]), None);
        assert_eq!(free(pool, &[(0xC0A8_0000, 16)]), Some(first));
        let narrow: Pool = "10.202.0.0/27".parse().expect("a pool");
        assert_eq!(free(narrow, &[]), None);
    }
}
