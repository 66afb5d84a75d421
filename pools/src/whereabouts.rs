//! Which guest is on which host, and what hosts have promised: by one look at all of them. Proxmox moves guests by itself, so
//! this is true of the moment of the look and no other.

use std::collections::BTreeMap;

use skep_proxmox::calls::cluster;

/// The host of each guest, by number.
pub fn whereabouts(rows: &[cluster::Guest]) -> BTreeMap<u32, String> {
    let known = rows
        .iter()
        .filter_map(|row| Some((row.vmid()?.get(), row.node.clone()?)));
    known.collect()
}

/// A host whose guests were promised more memory than it has: its kernel ends one of them when they use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overcommit {
    /// The host.
    pub host: String,
    /// What those that run were promised, bytes.
    pub promised: u64,
    /// What it has, bytes.
    pub has: u64,
}

/// What guests of a host were promised, bytes. What does not run needs nothing; what nobody knows of may run.
pub fn promised(host: &str, rows: &[cluster::Guest]) -> u64 {
    let its = rows.iter().filter(|row| {
        let may_run = row.status.as_deref() != Some("stopped");
        row.node.as_deref() == Some(host) && !row.is_template() && may_run
    });
    its.filter_map(|row| row.maxmem).sum()
}

/// Hosts that have promised more than they have.
pub fn overcommitted(hosts: &[cluster::Host], rows: &[cluster::Guest]) -> Vec<Overcommit> {
    let mut found = Vec::new();
    for host in hosts {
        let Some(has) = host.maxmem else { continue };
        let promised = promised(&host.node, rows);
        if promised > has {
            found.push(Overcommit {
                host: host.node.clone(),
                promised,
                has,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn where_guests_are_and_what_was_promised_there() {
        let rows: Vec<cluster::Guest> = serde_json::from_value(json!([
            {"id": "qemu/101", "type": "qemu", "vmid": 101, "node": "pve1", "maxmem": 60, "status": "running"},
            {"id": "qemu/102", "type": "qemu", "vmid": "102", "node": "pve1", "maxmem": 5, "status": "unknown"},
            {"id": "lxc/103", "type": "lxc", "node": "pve1", "maxmem": 60, "status": "stopped"},
            {"id": "qemu/104", "type": "qemu", "vmid": 104, "node": "pve1", "maxmem": 60, "template": 1},
            {"id": "qemu/105", "type": "qemu", "vmid": 105, "node": "pve2", "maxmem": 64, "status": "running"},
            {"id": "qemu/106", "type": "qemu", "vmid": 106},
        ]))
        .expect("rows");
        let hosts: Vec<cluster::Host> = serde_json::from_value(json!([
            {"node": "pve1", "status": "online", "maxmem": 64},
            {"node": "pve2", "status": "online", "maxmem": 64},
            {"node": "pve3", "status": "offline"},
        ]))
        .expect("hosts");
        let at: Vec<(u32, &str)> = vec![
            (101, "pve1"),
            (102, "pve1"),
            (103, "pve1"),
            (104, "pve1"),
            (105, "pve2"),
        ];
        let found = whereabouts(&rows);
        let found: Vec<(u32, &str)> = found
            .iter()
            .map(|(vmid, host)| (*vmid, host.as_str()))
            .collect();
        assert_eq!(found, at);
        let expected = Overcommit {
            host: "pve1".to_owned(),
            promised: 65,
            has: 64,
        };
        assert_eq!(overcommitted(&hosts, &rows), [expected]);
    }
}
