//! A network interface of a guest, as its configuration writes it: `virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=10` of a VM,
//! `name=eth0,bridge=vmbr0,hwaddr=...,ip=dhcp,type=veth` of a container.

use std::collections::BTreeMap;

/// Models of cards, whose key has the address as its value.
const MODELS: [&str; 4] = ["virtio", "e1000", "e1000e", "vmxnet3"];

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nic {
    /// Its address, in capitals, where it has one yet.
    pub mac: Option<String>,
    /// Of a VM: the card.
    pub model: Option<String>,
    /// Everything else, by name.
    pub options: BTreeMap<String, String>,
}

impl Nic {
    /// As a configuration says it. What is not understood is kept.
    pub fn parse(text: &str) -> Self {
        let mut nic = Self::default();
        for part in text.split(',') {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if MODELS.contains(&key) || key == "rtl8139" {
                nic.model = Some(key.to_owned());
                nic.mac = is_mac(value).then(|| value.to_ascii_uppercase());
            } else if key == "hwaddr" {
                nic.mac = is_mac(value).then(|| value.to_ascii_uppercase());
            } else if !key.is_empty() {
                nic.options.insert(key.to_owned(), value.to_owned());
            }
        }
        nic
    }

    /// The bridge that it is on.
    pub fn bridge(&self) -> Option<&str> {
        self.options.get("bridge").map(String::as_str)
    }
}

/// Six pairs of hex digits between colons.
pub(crate) fn is_mac(text: &str) -> bool {
    let is_pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
    text.split(':').count() == 6 && text.split(':').all(is_pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_one() {
        let vm = Nic::parse("virtio=bc:24:11:0a:0b:0c,bridge=vmbr0,tag=10,firewall=1");
        assert_eq!(vm.mac.as_deref(), Some("BC:24:11:0A:0B:0C"));
        assert_eq!(
            (vm.model.as_deref(), vm.bridge()),
            (Some("virtio"), Some("vmbr0"))
        );
        assert_eq!(vm.options["tag"], "10");
        let ct = Nic::parse("name=eth0,bridge=vmbr1,hwaddr=BC:24:11:00:00:01,ip=dhcp,type=veth");
        assert_eq!(ct.mac.as_deref(), Some("BC:24:11:00:00:01"));
        assert_eq!(
            (ct.bridge(), ct.options["ip"].as_str()),
            (Some("vmbr1"), "dhcp")
        );
        // What is not made yet has no address.
        assert_eq!(Nic::parse("virtio,bridge=vmbr0").mac, None);
        assert_eq!(Nic::parse(""), Nic::default());
    }
}
