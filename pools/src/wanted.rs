//! What a guest's configuration is to say, by the recipe and by what the guest was given. Pure.

use std::net::IpAddr;

use skep_model::pool::{Addresses, Guest, Kind, Recipe};
use skep_proxmox::Nic;
use skep_proxmox::cloud_init::Address;

use crate::TAG;
use crate::resize;
use crate::seen::Facts;

/// Whether the configuration is not what the recipe says.
pub(crate) fn differs(recipe: &Recipe, guest: &Guest, facts: &Facts) -> bool {
    let nic = facts.config.nic(0).unwrap_or_default();
    let vlan = recipe.vlan.map(|vlan| vlan.to_string());
    !resize::has(recipe.size(), facts, |name| facts.config.get(name))
        || !facts.config.tags().contains(&TAG)
        || nic.bridge() != Some(recipe.bridge.as_str())
        || nic.options.get("tag") != vlan.as_ref()
        || has_other_address(recipe, guest, (facts, &nic))
}

/// Where no range is, whatever the template says of its address stands.
fn has_other_address(recipe: &Recipe, guest: &Guest, (facts, nic): (&Facts, &Nic)) -> bool {
    let Some((addresses, address)) = given(recipe, guest) else {
        return false;
    };
    match recipe.kind {
        Kind::Vm => facts.config.get("ipconfig0") != Some(&vm(addresses, address).to_value()),
        Kind::Lxc => {
            let [ip, gateway] = keys(address);
            nic.options.get(ip) != Some(&addresses.cidr(address))
                || nic.options.get(gateway) != Some(&addresses.gateway.to_string())
        }
    }
}

/// The address that a guest was given, where the recipe still has a range of them.
pub(crate) fn given<'r>(recipe: &'r Recipe, guest: &Guest) -> Option<(&'r Addresses, IpAddr)> {
    Some((recipe.addresses.as_ref()?, guest.given?))
}

/// A VM's address, for cloud-init.
pub(crate) fn vm(addresses: &Addresses, address: IpAddr) -> Address {
    Address::Static {
        cidr: addresses.cidr(address),
        gateway: Some(addresses.gateway.to_string()),
    }
}

/// A container's interface: the address that proves it and the name stay.
pub(crate) fn lxc_net0(recipe: &Recipe, guest: &Guest, nic: &Nic) -> String {
    let option = |name: &str| nic.options.get(name).map(String::as_str);
    let mut net0 = format!(
        "name={},bridge={},hwaddr={}",
        option("name").unwrap_or("eth0"),
        recipe.bridge,
        nic.mac.as_deref().unwrap_or_default()
    );
    match given(recipe, guest) {
        Some((addresses, address)) => {
            let [ip, gateway] = keys(address);
            let cidr = addresses.cidr(address);
            net0.push_str(&format!(",{ip}={cidr},{gateway}={}", addresses.gateway));
        }
        None => net0.push_str(&format!(",ip={}", option("ip").unwrap_or("dhcp"))),
    }
    if let Some(vlan) = recipe.vlan {
        net0.push_str(&format!(",tag={vlan}"));
    }
    net0
}

/// What an address and its gateway are called in a container's interface.
const fn keys(address: IpAddr) -> [&'static str; 2] {
    match address {
        IpAddr::V4(_) => ["ip", "gw"],
        IpAddr::V6(_) => ["ip6", "gw6"],
    }
}

#[cfg(test)]
mod tests {
    use skep_model::id::GuestId;
    use skep_model::pool::Note;

    use super::*;
    use crate::next::tests::{range, recipe};

    #[test]
    fn a_containers_interface_keeps_what_proves_it() {
        let nic = Nic::parse("name=net1,bridge=vmbr9,hwaddr=BC:24:11:00:00:01,ip=dhcp,tag=3");
        let mut recipe = recipe();
        let mut guest = Guest::planned(GuestId::from_u128(7));
        let expected = "name=net1,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp,tag=10";
        assert_eq!(lxc_net0(&recipe, &guest, &nic), expected);
        recipe.addresses = Some(range());
        guest.take(Note::Chosen {
            host: "pve1".to_owned(),
            vmid: 5000,
            address: Some("10.0.0.100".parse().expect("one")),
            now_ms: 1,
        });
        let expected =
            "name=net1,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=10.0.0.100/24,gw=10.0.0.1,tag=10";
        assert_eq!(lxc_net0(&recipe, &guest, &nic), expected);
    }
}
