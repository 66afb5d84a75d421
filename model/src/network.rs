//! The private network of an environment: from which pool services have their addresses there, and which
//! one is next. Owns the arithmetic; who has which address is in the replicated state.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::id::{AllocationId, EnvironmentId, NodeId, ServiceId};
use crate::problem::Problem;

/// How long the address of a service that is gone stays unused, in ms: whoever still holds it must not
/// reach a stranger.
pub const GRACE_MS: u64 = 3_600_000;
/// An environment gets addresses by blocks of so many, all of them its own.
pub const BLOCK: u32 = 32;
/// The longest prefix of a pool: one block.
const MAX_BITS: u8 = 27;
/// The shortest: more addresses than there can be services, and still not half of a private range.
const MIN_BITS: u8 = 10;

/// Addresses of which environments get theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    first: u32,
    bits: u8,
}

impl Default for Pool {
    /// 10.201.0.0/16: 2,048 blocks, in a part of 10.0.0.0/8 that few use.
    fn default() -> Self {
        Self {
            first: u32::from(Ipv4Addr::new(10, 201, 0, 0)),
            bits: 16,
        }
    }
}

impl Pool {
    /// The first block of which `is_taken` says no.
    pub fn free_block(&self, is_taken: impl Fn(u32) -> bool) -> Option<u32> {
        let size = 1_u32 << (32 - self.bits);
        let blocks = (0..size / BLOCK).map(|number| self.first + number * BLOCK);
        let mut free = blocks.filter(|block| !is_taken(*block));
        free.next()
    }

    /// Its networks of so many leading bits, by their first addresses; none where it is smaller itself.
    pub fn subnets(&self, bits: u32) -> impl Iterator<Item = u32> + use<> {
        let (first, own) = (self.first, u32::from(self.bits));
        let count = match bits >= own {
            true => 1_u32 << (bits - own).min(31),
            false => 0,
        };
        (0..count).map(move |number| first + (number << (32 - bits)))
    }

    /// Blocks that it has.
    pub fn blocks(&self) -> u32 {
        (1_u32 << (32 - self.bits)) / BLOCK
    }

    /// Whether it shares an address with a network, by its first address and leading bits.
    pub fn shares(&self, (first, bits): (u32, u32)) -> bool {
        let shift = 32 - bits.min(u32::from(self.bits));
        u64::from(first) >> shift == u64::from(self.first) >> shift
    }

    /// Whether two pools share an address.
    pub fn overlaps(&self, other: Self) -> bool {
        self.shares((other.first, u32::from(other.bits)))
    }

    /// Whether an address is of this pool.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) >> (32 - self.bits) == self.first >> (32 - self.bits)
    }
}

impl FromStr for Pool {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let wrong = |why: &str| {
            let text = format!("`{}` {why}", text.escape_debug());
            Problem::invalid("pool", text).hint("a network like 10.201.0.0/16")
        };
        let (address, bits) = text.split_once('/').ok_or_else(|| wrong("is no network"))?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong("is no network"))?;
        let bits: u8 = bits.parse().map_err(|_| wrong("is no network"))?;
        if !(MIN_BITS..=MAX_BITS).contains(&bits) {
            return Err(wrong("has not between 10 and 27 bits"));
        }
        let first = u32::from(address);
        if first << bits != 0 {
            return Err(wrong("does not begin at its first address"));
        }
        if !address.is_private() {
            return Err(wrong("is not private"));
        }
        Ok(Self { first, bits })
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.bits)
    }
}

/// The block that an address is of.
pub fn block_of(address: u32) -> u32 {
    address - address % BLOCK
}

/// The addresses of a block that services may have: neither its first nor its last, which some tools take
/// for those of a net.
pub fn usable(block: u32) -> impl Iterator<Item = u32> {
    (block + 1)..(block + BLOCK - 1)
}

/// An address that a service has, or had until lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateAddress {
    /// Which.
    pub address: Ipv4Addr,
    /// Whose.
    pub service: ServiceId,
    /// Where it means something.
    pub environment: EnvironmentId,
    /// When its service went, cluster time in ms since the epoch; none: it is there.
    pub released_ms: Option<u64>,
}

impl PrivateAddress {
    /// Whether another service may have it.
    pub fn is_free(&self, now_ms: u64) -> bool {
        self.released_ms
            .is_some_and(|at_ms| at_ms.saturating_add(GRACE_MS) <= now_ms)
    }
}

/// What a node with containers of an environment knows of that environment's services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Which environment.
    pub environment: EnvironmentId,
    /// Its services, by name.
    pub services: BTreeMap<String, Named>,
}

/// A service, as others of its environment reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its address: the same for as long as it is there.
    pub address: Ipv4Addr,
    /// What answers there, in the order of their ids; none: the name is known, and nothing is healthy.
    pub backends: Vec<NameBackend>,
}

/// An allocation that answers at a service's private address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameBackend {
    /// Where it runs.
    pub node: NodeId,
    /// Which.
    pub allocation: AllocationId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_read_and_refused() {
        for good in ["10.201.0.0/16", "172.16.0.0/12", "192.168.7.32/27"] {
            let pool: Pool = good.parse().expect("a pool");
            assert_eq!(pool.to_string(), good);
        }
        assert_eq!("10.201.0.0/16".parse(), Ok(Pool::default()));
        for bad in [
            "10.201.0.0",
            "10.201.0.1/16",
            "10.0.0.0/8",
            "10.201.0.0/28",
            "8.8.0.0/16",
            "x/16",
        ] {
            bad.parse::<Pool>().expect_err(bad);
        }
    }

    #[test]
    fn pools_that_share_an_address_overlap() {
        let pool = |text: &str| text.parse::<Pool>().expect("a pool");
        let own = pool("10.201.0.0/16");
        assert_eq!(own.blocks(), 2_048);
        for (other, shares) in [
            ("10.201.0.0/16", true),
            ("10.201.255.224/27", true),
            ("10.128.0.0/10", false),
            ("10.192.0.0/10", true),
            ("10.202.0.0/16", false),
        ] {
            assert_eq!(own.overlaps(pool(other)), shares, "{other}");
            assert_eq!(pool(other).overlaps(own), shares, "{other}");
        }
        // The default route shares nothing that matters: callers leave it out.
        assert!(own.shares((0, 0)) && !own.shares((10 << 24, 32)));
    }

    #[test]
    fn blocks_are_given_from_the_first_on_until_none_is_left() {
        let pool: Pool = "192.168.7.0/26".parse().expect("a pool");
        let first = u32::from(Ipv4Addr::new(192, 168, 7, 0));
        assert_eq!(pool.free_block(|_| false), Some(first));
        assert_eq!(pool.free_block(|block| block == first), Some(first + 32));
        assert_eq!(pool.free_block(|_| true), None);
        let all: Vec<u32> = usable(first).collect();
        assert_eq!((all.len(), all[0], all[29]), (30, first + 1, first + 30));
        assert!(all.iter().all(|one| block_of(*one) == first));
    }
}
