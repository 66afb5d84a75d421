//! Every request as it goes out, and recorded answers of real hosts.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::answer;
use crate::cloud_init::Address;
use crate::credentials::Secret;
use crate::ids::{At, GuestKind, Vmid};
use crate::request::{Call, Request};
use crate::transport::Reply;
use crate::upid::Upid;

const UPID: &str = "UPID:pve:00004675:0005B36F:6A4A8EED:qmclone:9101:root@pam!sdk:";

fn vmid(number: u32) -> Vmid {
    Vmid::new(number).expect("in range")
}

fn at(kind: GuestKind) -> At<'static> {
    At {
        host: "pve",
        kind,
        vmid: vmid(9101),
    }
}

fn upid() -> Upid {
    UPID.parse().expect("one")
}

/// As a line: `POST /nodes/pve/qemu/9101/clone newid=5001 name=a`.
fn line(request: &Request) -> String {
    let parameters = request.parameters.iter();
    let parameters: Vec<String> = parameters
        .map(|(name, value)| format!(" {name}={}", value.escape_debug()))
        .collect();
    let file = request.file.as_ref().map(|file| format!(" +{}", file.name));
    format!(
        "{} {}{}{}",
        request.method.as_str(),
        request.path,
        parameters.concat(),
        file.unwrap_or_default()
    )
}

/// Every call that there is.
fn all() -> Vec<Request> {
    let (vm, ct) = (at(GuestKind::Qemu), at(GuestKind::Lxc));
    let address = Address::Static {
        cidr: "10.0.0.5/24".to_owned(),
        gateway: Some("10.0.0.1".to_owned()),
    };
    let vm_clone = qemu::Clone {
        vmid: vmid(5001),
        name: "skep-a",
        pool: Some("skep"),
        full: false,
        target: None,
        storage: Some("local-zfs"),
        description: None,
    };
    let vm_change = qemu::Change {
        cores: Some(4),
        vcpus: None,
        memory_mib: Some(8192),
        balloon_mib: Some(0),
        net0: Some("virtio,bridge=vmbr0,tag=10"),
        tags: Some(&["skep", "pool-a"]),
        description: Some("a node"),
        agent: Some(true),
        start_with_host: Some(false),
        protection: Some(false),
        smbios1: Some("uuid=0f1e2d3c-0000-4000-8000-000000000001"),
        user: Some("skep"),
        ssh_keys: &["ssh-ed25519 AAA a@b"],
        address: Some(&address),
        nameservers: &["10.0.0.1", "10.0.0.2"],
        ide3: Some("local:iso/seed-5001.iso,media=cdrom"),
        delete: &["ide2", "net1"],
        digest: Some("ab12"),
    };
    let ct_clone = lxc::Clone {
        vmid: vmid(5002),
        hostname: "skep-b",
        pool: Some("skep"),
        full: true,
        target: Some("pve2"),
        storage: Some("ceph"),
        description: Some("a node"),
    };
    let vm_larger = qemu::Change {
        cores: Some(8),
        vcpus: Some(8),
        digest: Some("ab12"),
        ..qemu::Change::default()
    };
    let ct_create = lxc::Create {
        vmid: vmid(5003),
        hostname: "skep-c",
        ostemplate: "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst",
        rootfs: "local-zfs:8",
        cores: 2,
        memory_mib: 2048,
        swap_mib: 0,
        net0: "name=eth0,bridge=vmbr0,ip=dhcp",
        ssh_keys: &["ssh-ed25519 AAA a@b", "ssh-rsa B c"],
        pool: Some("skep"),
        tags: &["skep"],
        nesting: true,
        start: true,
    };
    let ct_change = lxc::Change {
        cores: Some(2),
        memory_mib: Some(1024),
        tags: Some(&[]),
        ..lxc::Change::default()
    };
    let ct_told = lxc::Change {
        nameservers: &["10.0.0.1", "10.0.0.2"],
        env: Some("TZ=UTC\0SKEP_SERVER=10.0.0.1:7072"),
        digest: Some("ab12"),
        ..lxc::Change::default()
    };
    let ct_forgets = lxc::Change {
        delete: &["env"],
        ..lxc::Change::default()
    };
    let purge = guests::Remove {
        purge: true,
        unreferenced_disks: true,
    };
    let backup = backups::Backup {
        storage: "pbs",
        keep_last: Some(4),
        notes: Some("{{guestname}}"),
    };
    let minute = std::time::Duration::from_secs(60);
    let day = hosts::Timeframe::Day;
    let iso = Bytes::from_static(b"iso");
    vec![
        access::version().request,
        access::permissions().request,
        access::ticket("root@pam", &Secret::new("p&ss")).request,
        cluster::status().request,
        cluster::guests().request,
        cluster::hosts().request,
        cluster::next_id().request,
        cluster::is_free(vmid(5001)).request,
        cluster::metrics().request,
        hosts::status("pve").request,
        hosts::history("pve", day).request,
        tasks::status(&upid()).request,
        tasks::log(&upid(), 0, 50).request,
        tasks::stop(&upid()).request,
        tasks::about("pve", vmid(5001), 1_783_271_149).request,
        guests::list("pve", GuestKind::Qemu).request,
        guests::list("pve", GuestKind::Lxc).request,
        guests::status(vm).request,
        guests::config(ct).request,
        guests::pending(vm).request,
        guests::pending(ct).request,
        guests::history(vm, day).request,
        guests::resize(vm, "scsi0", 32).request,
        guests::start(vm).request,
        guests::shut_down(ct, minute, true).request,
        guests::stop(vm, true).request,
        guests::stop(vm, false).request,
        guests::reboot(ct, minute).request,
        guests::remove(vm, purge).request,
        qemu::clone(vm, &vm_clone).request,
        qemu::change("pve", vmid(5001), &vm_change)
            .expect("keys")
            .request,
        qemu::change("pve", vmid(5001), &vm_larger)
            .expect("no key")
            .request,
        lxc::clone(ct, &ct_clone).request,
        lxc::create("pve", &ct_create).request,
        lxc::change("pve", vmid(5002), &ct_change).request,
        lxc::change("pve", vmid(5002), &ct_told).request,
        lxc::change("pve", vmid(5002), &ct_forgets).request,
        lxc::interfaces("pve", vmid(5002)).request,
        agent::ping("pve", vmid(5001)).request,
        agent::interfaces("pve", vmid(5001)).request,
        agent::exec("pve", vmid(5001), &["cat", "/etc/machine-id"]).request,
        agent::exec_status("pve", vmid(5001), 812).request,
        agent::write_file("pve", vmid(5001), "/run/skep/join", "a\nb").request,
        snapshots::list(vm).request,
        snapshots::create(ct, "weekly-1", "by skep", true).request,
        snapshots::roll_back(vm, "weekly-1").request,
        snapshots::remove(vm, "weekly-1").request,
        pools::members("skep").request,
        pools::add("skep", &[vmid(5001), vmid(5002)]).request,
        storage::list("pve", Some("images")).request,
        storage::content("pve", "local", Some("iso")).request,
        storage::upload_iso("pve", "local", "seed-5001.iso", iso)
            .expect("a name")
            .request,
        storage::remove("pve", "local", "local:iso/seed-5001.iso").request,
        backups::create(vm, &backup).request,
        backups::restore(vm, "pbs:backup/vm/9101/x", "local-zfs", Some("skep")).request,
        backups::restore(ct, "pbs:backup/ct/9101/x", "local-zfs", None).request,
        backups::put_back(vm, "pbs:backup/vm/9101/x").request,
        backups::put_back(ct, "pbs:backup/ct/9101/x").request,
        ha::resources().request,
        ha::status().request,
    ]
}

#[test]
fn every_request_is_as_it_was_looked_at() {
    let lines: Vec<String> = all().iter().map(line).collect();
    let found = format!("{}\n", lines.join("\n"));
    if std::env::var_os("SKEP_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/requests.txt");
        std::fs::write(path, &found).expect("written");
        return;
    }
    let expected = include_str!("../../golden/requests.txt");
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found, expected);
}

/// What their parameter checks refuse before anything is looked at.
#[test]
fn no_request_breaks_the_rules_of_parameters() {
    for request in all() {
        let line = line(&request);
        let sent = request.encode().expect("small");
        let mut seen = BTreeMap::new();
        for (name, value) in &request.parameters {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            assert!(name.bytes().all(is_name), "{line}");
            // Only an array is said twice.
            let times = seen.entry(name).or_insert(0);
            *times += 1;
            assert!(*times == 1 || name == "command", "{line}");
            assert!(!["true", "false"].contains(&value.as_str()), "{line}");
            assert!(!value.is_empty(), "{line}");
        }
        match request.method.is_read() || request.method == crate::request::Method::Delete {
            true => assert!(sent.body().is_empty(), "{line}"),
            false => assert_eq!(sent.uri().query(), None, "{line}"),
        }
        assert!(sent.uri().path().starts_with("/api2/json/"), "{line}");
        assert!(!sent.uri().path().contains("//"), "{line}");
    }
}

/// An interaction that was recorded.
struct Recorded {
    method: String,
    path: String,
    body: String,
    reply: Reply,
}

fn recorded(text: &str) -> Vec<Recorded> {
    let read = |line: &str| {
        let all: Value = serde_json::from_str(line).expect("JSON");
        let text = |name: &str| all[name].as_str().unwrap_or_default().to_owned();
        Recorded {
            method: text("method"),
            path: text("path"),
            body: text("req_body"),
            reply: Reply {
                status: u16::try_from(all["status"].as_u64().expect("a status")).expect("small"),
                reason: text("reason"),
                body: text("resp_body").into(),
            },
        }
    };
    text.lines().map(read).collect()
}

/// What a recorded host answers to a call: the request has to be the one that was recorded.
fn replay<T>(call: &Call<T>, recorded: &Recorded) -> T {
    let sent = call.request.encode().expect("small");
    assert_eq!(sent.method().as_str(), recorded.method);
    assert_eq!(sent.uri().path(), recorded.path);
    let body = std::str::from_utf8(sent.body()).expect("text");
    assert_eq!(body, recorded.body, "{}", recorded.path);
    let data = answer::data(&recorded.reply).expect("an answer");
    (call.read)(data).expect("read")
}

#[test]
fn the_life_of_a_vm_as_it_was_recorded() {
    let all = recorded(include_str!(
        "../../fixtures/proxmox-go-sdk_TestQEMULifecycle.jsonl"
    ));
    let version = replay(&access::version(), &all[0]);
    assert_eq!(version.numbers(), (9, 2));
    let mut started = Vec::new();
    for one in &all[1..] {
        let path: Vec<&str> = one.path.split('/').collect();
        let vm = at(GuestKind::Qemu);
        let begun = match (one.method.as_str(), path.last().copied()) {
            ("POST", Some("start")) => replay(&guests::start(vm), one),
            ("POST", Some("rollback")) => replay(&snapshots::roll_back(vm, "itest0"), one),
            ("GET", Some("status")) => {
                let upid: Upid = path[6].parse().expect("a task");
                let status = replay(&tasks::status(&upid), one);
                let outcome = crate::task::judge(&upid, &status).expect("no failure");
                assert_eq!(outcome.is_some(), status.status == "stopped");
                continue;
            }
            // Made with other parameters than ours: the answers are the same.
            _ => {
                let data = answer::data(&one.reply).expect("an answer");
                (guests::start(vm).read)(data).expect("a task")
            }
        };
        started.push(begun.kind().to_owned());
    }
    assert_eq!(
        started,
        [
            "qmcreate",
            "qmstart",
            "qmsnapshot",
            "qmrollback",
            "qmstop",
            "qmdestroy"
        ]
    );
}

#[test]
fn a_login_brings_a_ticket_and_shows_none() {
    let all = recorded(include_str!(
        "../../fixtures/proxmox-go-sdk_TestVersionRoundTrip.jsonl"
    ));
    let login = replay(
        &access::ticket("root@pam", &Secret::new("REDACTED")),
        &Recorded {
            body: "username=root%40pam&password=REDACTED".to_owned(),
            method: all[0].method.clone(),
            path: all[0].path.clone(),
            reply: all[0].reply.clone(),
        },
    );
    assert_eq!(login.cluster.as_deref(), Some("dogfood"));
    assert!(!format!("{login:?}").contains("REDACTED"), "{login:?}");
}

#[test]
fn resources_of_a_real_cluster() {
    let all = recorded(include_str!(
        "../../fixtures/proxmox-go-sdk_TestClusterAndHAReads.jsonl"
    ));
    let whole = all[2].reply.clone();
    let only = |kind: &'static str| {
        let mut whole: Value = serde_json::from_slice(&whole.body).expect("JSON");
        let rows = whole["data"].as_array_mut().expect("rows");
        rows.retain(|row| match kind {
            "vm" => row["type"] == "qemu" || row["type"] == "lxc",
            kind => row["type"] == kind,
        });
        whole["data"].take()
    };
    let hosts = (cluster::hosts().read)(only("node")).expect("read");
    assert!(hosts.odd.is_empty() && !hosts.rows.is_empty());
    assert!(
        hosts
            .rows
            .iter()
            .any(|host| host.node == "pve2-dogfood" && host.is_online())
    );
    assert!(hosts.rows.iter().all(|host| host.maxmem > Some(1 << 30)));
    assert!(replay(&ha::resources(), &all[3]).rows.is_empty());

    let text = include_str!("../../fixtures/datadog_pve8.4_cluster_resources.json");
    let mut old: Value = serde_json::from_str(text).expect("JSON");
    let guests = (cluster::guests().read)(old["data"].take()).expect("read");
    assert!(guests.odd.is_empty(), "{:?}", guests.odd);
    let kinds = |kind| {
        guests
            .rows
            .iter()
            .filter(|guest| guest.kind() == Some(kind))
            .count()
    };
    assert!(
        kinds(GuestKind::Qemu) + kinds(GuestKind::Lxc) > 0,
        "{guests:?}"
    );
    for guest in guests.rows.iter().filter(|guest| guest.kind().is_some()) {
        assert!(guest.vmid().is_some() && guest.node.is_some(), "{guest:?}");
    }
}

#[test]
fn metrics_and_samples_of_real_hosts() {
    let text = include_str!("../../fixtures/datadog_pve8.4_metrics_export_trimmed.json");
    let mut all: Value = serde_json::from_str(text).expect("JSON");
    let metrics = (cluster::metrics().read)(all["data"].take()).expect("read");
    assert!(metrics.odd.is_empty() && !metrics.rows.is_empty());
    assert!(metrics.rows.iter().any(|metric| metric.value.is_some()));
    for (text, name) in [
        (
            include_str!("../../fixtures/pulse_pve9_node_rrddata.json"),
            "pressurememorysome",
        ),
        (
            include_str!("../../fixtures/pulse_pve9_qemu_rrddata.json"),
            "maxmem",
        ),
        (
            include_str!("../../fixtures/pulse_pve9_lxc_rrddata.json"),
            "maxmem",
        ),
    ] {
        let value: Value = serde_json::from_str(text).expect("JSON");
        let value = value.get("data").cloned().unwrap_or(value);
        let samples = hosts::read_samples(value).expect("read");
        assert!(samples.len() > 1, "{name}");
        assert!(samples.iter().all(|sample| sample.time_s > 1_600_000_000));
        assert!(
            samples
                .iter()
                .any(|sample| sample.values.contains_key(name)),
            "{samples:?}"
        );
    }
}

#[test]
fn numbers_that_are_text_in_old_versions() {
    let all = recorded(include_str!("../../fixtures/telegraf_proxmox.jsonl"));
    let find = |end: &str| {
        let found = all.iter().find(|one| one.path.ends_with(end));
        answer::data(&found.expect("recorded").reply).expect("an answer")
    };
    let guests = (guests::list("testnode", GuestKind::Qemu).read)(find("/qemu")).expect("read");
    assert_eq!(guests.rows[0].vmid, Some(113));
    let containers = (guests::list("testnode", GuestKind::Lxc).read)(find("/lxc")).expect("read");
    assert_eq!(containers.rows[0].vmid, Some(111));
    let status = guests::status(at(GuestKind::Lxc));
    let status = (status.read)(find("/lxc/111/status/current")).expect("read");
    assert!(status.is_running() && status.uptime == Some(2_078_164));
}

#[test]
fn one_odd_row_hides_no_other() {
    let rows = serde_json::json!([
        {"id": "qemu/101", "type": "qemu", "vmid": 101, "node": "pve1", "template": "", "tags": "skep;a"},
        {"type": "qemu", "vmid": "no id"},
        {"id": "lxc/102", "type": "lxc", "status": "unknown", "node": "pve2"},
        {"id": "qemu/103", "type": "qemu", "vmid": "103", "maxmem": {"odd": 1}},
    ]);
    let read = (cluster::guests().read)(rows).expect("read");
    let ids: Vec<&str> = read.rows.iter().map(|guest| guest.id.as_str()).collect();
    assert_eq!(ids, ["qemu/101", "lxc/102"]);
    assert_eq!(read.odd.len(), 2);
    assert_eq!(read.rows[1].vmid(), Some(vmid(102)), "out of its id");
    assert_eq!(read.rows[0].tags(), ["skep", "a"]);
}

#[test]
fn an_address_is_the_one_of_our_interface() {
    let value = serde_json::json!({"result": [
        {"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [
            {"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8}]},
        {"name": "docker0", "hardware-address": "02:42:00:00:00:01", "ip-addresses": [
            {"ip-address": "172.17.0.1", "ip-address-type": "ipv4", "prefix": 16}]},
        {"name": "eth0", "hardware-address": "bc:24:11:00:00:01", "ip-addresses": [
            {"ip-address": "fe80::1%eth0", "ip-address-type": "ipv6", "prefix": 64},
            {"ip-address": "2001:db8::5", "ip-address-type": "ipv6", "prefix": 64},
            {"ip-address": "10.0.0.5", "ip-address-type": "ipv4", "prefix": 24}]},
        {"name": "wg0"},
    ]});
    let interfaces = (agent::interfaces("pve", vmid(101)).read)(value).expect("read");
    let found = |mac| agent::address_by_mac(&interfaces, mac).map(|it| it.to_string());
    assert_eq!(found("BC:24:11:00:00:01").as_deref(), Some("10.0.0.5"));
    assert_eq!(found("BC:24:11:00:00:02"), None);
    let old =
        serde_json::json!({"result": {"error": {"class": "Unsupported", "desc": "unsupported"}}});
    (agent::interfaces("pve", vmid(101)).read)(old).expect_err("refused with a success");

    let both = serde_json::json!([
        {"name": "eth0", "hwaddr": "bc:24:11:00:00:02", "inet": "10.0.0.6/24", "inet6": "fe80::2/64"},
        {"name": "eth1", "hardware-address": "bc:24:11:00:00:03", "ip-addresses": [
            {"ip-address": "10.1.0.6", "ip-address-type": "inet", "prefix": "24"}]},
    ]);
    let read = lxc::interfaces("pve", vmid(102)).read;
    let interfaces = read(both).expect("read");
    let found = |mac| agent::address_by_mac(&interfaces, mac).map(|it| it.to_string());
    assert_eq!(found("BC:24:11:00:00:02").as_deref(), Some("10.0.0.6"));
    assert_eq!(found("bc:24:11:00:00:03").as_deref(), Some("10.1.0.6"));
    assert!(read(Value::Null).expect("does not run").is_empty());
}

#[test]
fn a_file_on_a_storage_has_a_name_and_no_path() {
    for odd in ["seed", "../x.iso", "a b.iso", ".iso", "x.iso/y"] {
        storage::upload_iso("pve", "local", odd, Bytes::new()).expect_err(odd);
    }
    assert!(backups::is_of(
        "pbs:backup/vzdump-qemu-101-2026_11_29.vma.zst",
        vmid(101)
    ));
    assert!(!backups::is_of(
        "pbs:backup/vzdump-qemu-1011-2026_11_29.vma.zst",
        vmid(101)
    ));
    let on_a_server = "pbs:backup/vm/101/2026-11-29T03:00:00Z";
    assert!(backups::is_of(on_a_server, vmid(101)));
    assert!(!backups::is_of(on_a_server, vmid(1010)));
}
