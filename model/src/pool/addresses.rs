//! Addresses of a pool's own, for networks without a DHCP server.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Most addresses of a range: more than a pool has guests is of no use, and all of them are looked through.
const MAX_ADDRESSES: u128 = 65_536;

/// Addresses that guests get, both ends among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = GuestAddresses))]
pub struct Addresses {
    /// The first, `10.0.0.100`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub first: IpAddr,
    /// The last, of the same kind.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub last: IpAddr,
    /// Bits of an address that are the network's: `24`.
    pub prefix: u8,
    /// Where what is for elsewhere goes.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub gateway: IpAddr,
    /// Servers for names; none: as the host has them.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub dns: Vec<IpAddr>,
}

impl Addresses {
    /// The addresses, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        let is_v4 = self.first.is_ipv4();
        let all = number(self.first)..=number(self.last);
        all.map(move |number| match is_v4 {
            // Both ends of the range are of 32 bits.
            true => IpAddr::V4((number as u32).into()),
            false => IpAddr::V6(number.into()),
        })
    }

    /// An address as a configuration writes it: `10.0.0.100/24`.
    pub fn cidr(&self, address: IpAddr) -> String {
        format!("{address}/{}", self.prefix)
    }

    /// Refuses a range that guests could not talk from.
    ///
    /// # Errors
    /// Names the field, and says what is accepted.
    pub fn check(&self) -> Result<(), Problem> {
        let kinds = [self.last, self.gateway].map(|it| it.is_ipv4());
        if kinds.iter().any(|is_v4| *is_v4 != self.first.is_ipv4()) {
            return Err(
                Problem::invalid("addresses", "IPv4 and IPv6 are mixed").hint("one range of one")
            );
        }
        let bits: u8 = if self.first.is_ipv4() { 32 } else { 128 };
        if self.prefix == 0 || self.prefix >= bits {
            let text = format!("{} is no length of a network", self.prefix);
            return Err(Problem::invalid("addresses.prefix", text)
                .hint(format!("bits of the network, 1 to {}: 24", bits - 1)));
        }
        let (first, last) = (number(self.first), number(self.last));
        if first > last || last - first >= MAX_ADDRESSES {
            let text = format!("{} to {} is no range", self.first, self.last);
            return Err(Problem::invalid("addresses.last", text).hint(format!(
                "the last is behind the first, at most {MAX_ADDRESSES} in all"
            )));
        }
        let network = |address: IpAddr| number(address) >> (bits - self.prefix);
        for (field, address) in [
            ("addresses.last", self.last),
            ("addresses.gateway", self.gateway),
        ] {
            if network(address) != network(self.first) {
                let text = format!(
                    "{address} is not in the network of {}/{}",
                    self.first, self.prefix
                );
                return Err(Problem::invalid(field, text).hint("all of them are in one network"));
            }
        }
        if (first..=last).contains(&number(self.gateway)) {
            let text = format!("the gateway {} is one of the addresses", self.gateway);
            return Err(
                Problem::invalid("addresses.gateway", text).hint("leave it out of the range")
            );
        }
        // Of an IPv4 network the lowest and the highest are nobody's.
        let host_bits = u32::from(bits - self.prefix);
        let host = |number: u128| number & ((1 << host_bits) - 1);
        let is_edge = host(first) == 0 || host(last) == (1 << host_bits) - 1;
        if bits == 32 && host_bits > 1 && is_edge {
            let text = format!(
                "{} to {} has the address of the network itself, or that of all in it",
                self.first, self.last
            );
            return Err(Problem::invalid("addresses.first", text)
                .hint("leave the first and the last of the network out"));
        }
        Ok(())
    }
}

/// An address as a number.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str, prefix: u8, gateway: &str) -> Addresses {
        let parse = |text: &str| text.parse().expect("an address");
        Addresses {
            first: parse(first),
            last: parse(last),
            prefix,
            gateway: parse(gateway),
            dns: Vec::new(),
        }
    }

    #[test]
    fn a_range_is_of_one_network_and_leaves_out_what_is_not_for_guests() {
        for (first, last, prefix, gateway) in [
            ("10.0.0.100", "10.0.0.199", 24, "10.0.0.1"),
            ("10.0.0.5", "10.0.0.5", 24, "10.0.0.1"),
            ("10.0.0.2", "10.0.3.254", 22, "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1", 31, "10.0.0.0"),
            ("fd00::100", "fd00::1ff", 64, "fd00::1"),
        ] {
            range(first, last, prefix, gateway).check().expect(first);
        }
        for (field, first, last, prefix, gateway) in [
            ("addresses", "10.0.0.5", "fd00::1", 24, "10.0.0.1"),
            ("addresses", "10.0.0.5", "10.0.0.9", 24, "fd00::1"),
            ("addresses.prefix", "10.0.0.5", "10.0.0.9", 0, "10.0.0.1"),
            ("addresses.prefix", "10.0.0.5", "10.0.0.9", 32, "10.0.0.1"),
            ("addresses.last", "10.0.0.9", "10.0.0.5", 24, "10.0.0.1"),
            ("addresses.last", "10.0.0.9", "10.0.1.5", 24, "10.0.0.1"),
            ("addresses.last", "fd00::100", "fd00::1:1ff", 64, "fd00::1"),
            ("addresses.gateway", "10.0.0.5", "10.0.0.9", 24, "10.0.1.1"),
            ("addresses.gateway", "10.0.0.5", "10.0.0.9", 24, "10.0.0.7"),
            ("addresses.first", "10.0.0.0", "10.0.0.9", 24, "10.0.0.11"),
            ("addresses.first", "10.0.0.5", "10.0.0.255", 24, "10.0.0.1"),
        ] {
            let problem = range(first, last, prefix, gateway).check();
            let problem = problem.expect_err(first);
            assert_eq!(problem.field.as_deref(), Some(field), "{first} to {last}");
        }
    }

    #[test]
    fn all_of_them_in_order() {
        let v4 = range("10.0.0.254", "10.0.1.1", 16, "10.0.5.5");
        let all: Vec<String> = v4.iter().map(|it| v4.cidr(it)).collect();
        assert_eq!(
            all,
            [
                "10.0.0.254/16",
                "10.0.0.255/16",
                "10.0.1.0/16",
                "10.0.1.1/16"
            ]
        );
        let v6 = range("fd00::ff", "fd00::100", 64, "fd00::1");
        let all: Vec<String> = v6.iter().map(|it| it.to_string()).collect();
        assert_eq!(all, ["fd00::ff", "fd00::100"]);
    }
}
