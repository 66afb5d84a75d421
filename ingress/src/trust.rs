//! Which proxies in front are believed when they say who the client is. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Where Cloudflare's proxies connect from: <https://www.cloudflare.com/ips/>, the list that was last
/// changed on 28 September 2023: to be compared before each release. A range that they add is not
/// believed (their address is then taken for the client's) until it is here or among the operator's own.
const CLOUDFLARE: [&str; 22] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];
/// The word for all of [`CLOUDFLARE`].
const CLOUDFLARE_NAME: &str = "cloudflare";

/// What an operator trusts: a network, or a preset of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxies {
    /// The addresses of one network.
    Network(Network),
    /// Cloudflare's published ranges.
    Cloudflare,
}

/// The addresses that have their first `bits` in common with `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

/// A word that names no proxies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not an address, a network or a preset.
    #[error(
        "`{0}` is no network: write an address, as 10.0.0.7, a network, as 10.0.0.0/8, or `cloudflare`"
    )]
    Unlike(String),
    /// Some of the address would be ignored.
    #[error("`{given}` has bits beyond its length: write {meant}")]
    Bits {
        /// As given.
        given: String,
        /// The network that it lies in.
        meant: String,
    },
}

impl Proxies {
    /// All that are meant.
    pub fn networks(self) -> Vec<Network> {
        match self {
            Self::Network(network) => vec![network],
            Self::Cloudflare => cloudflare(),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

fn cloudflare() -> Vec<Network> {
    let networks = CLOUDFLARE.iter().map(|it| it.parse());
    let networks: Result<_, _> = networks.collect();
    networks.expect("the constant holds networks: a test reads it")
}

impl FromStr for Proxies {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.trim() {
            CLOUDFLARE_NAME => Ok(Self::Cloudflare),
            network => network.parse().map(Self::Network),
        }
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unlike = || Error::Unlike(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let given: IpAddr = address.parse().map_err(|_| unlike())?;
        let widest = if given.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(widest), |bits| bits.parse().map_err(|_| unlike()))?;
        if bits > widest {
            return Err(unlike());
        }
        let first = first_of(given, bits);
        if first != given {
            return Err(Error::Bits {
                given: text.to_owned(),
                meant: format!("{first}/{bits}"),
            });
        }
        Ok(Self { first, bits })
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && first_of(address, self.bits) == self.first
    }
}

/// The address with all but its first `bits` cleared.
fn first_of(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

/// How far somebody's word about a client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Not at all: it is a client.
    Client,
    /// `X-Forwarded-*` and request ids.
    Proxy,
    /// `CF-Connecting-IP` too.
    Cloudflare,
}

/// The proxies that are trusted. By default none is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trusted {
    own: Vec<Network>,
    cloudflare: Vec<Network>,
}

impl Trusted {
    /// Trusts all of `proxies`.
    pub fn new(proxies: &[Proxies]) -> Self {
        let mut trusted = Self::default();
        for it in proxies {
            match it {
                Proxies::Network(network) => trusted.own.push(*network),
                Proxies::Cloudflare => trusted.cloudflare = cloudflare(),
            }
        }
        trusted
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.cloudflare.is_empty()
    }

    /// What the word of `address` is worth.
    pub(crate) fn of(&self, address: IpAddr) -> Trust {
        let address = address.to_canonical();
        let among = |networks: &[Network]| networks.iter().any(|it| it.contains(address));
        if among(&self.cloudflare) {
            Trust::Cloudflare
        } else if among(&self.own) {
            Trust::Proxy
        } else {
            Trust::Client
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(words: &[&str]) -> Trusted {
        let proxies: Result<Vec<Proxies>, _> = words.iter().map(|word| word.parse()).collect();
        Trusted::new(&proxies.expect("networks"))
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.6", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ] {
            let word = trusted(&[network]).of(address.parse().expect("an address"));
            assert_eq!(word != Trust::Client, inside, "{address} in {network}");
        }
        assert!(trusted(&[]).is_empty());
    }

    #[test]
    fn cloudflares_own_word_is_its_own() {
        let both = trusted(&["cloudflare", "10.0.0.0/8"]);
        let of = |address: &str| both.of(address.parse().expect("an address"));
        assert_eq!(of("104.16.0.1"), Trust::Cloudflare);
        assert_eq!(of("2606:4700::1"), Trust::Cloudflare);
        assert_eq!(of("10.0.0.1"), Trust::Proxy);
        assert_eq!(of("104.32.0.1"), Trust::Client);
    }

    #[test]
    fn what_is_no_network_is_said_to_be_none() {
        for word in [
            "",
            "cloud",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "::/129",
            "a/8",
        ] {
            let error = word.parse::<Proxies>().expect_err(word);
            assert!(matches!(error, Error::Unlike(_)), "{word}: {error}");
        }
        let error = "10.0.0.1/8".parse::<Proxies>().expect_err("bits");
        assert!(error.to_string().ends_with("write 10.0.0.0/8"), "{error}");
    }
}
