//! Providers and pools that make their nodes: kept without their secret, refused where they make no sense. What hosts
//! answer, the end-to-end tests see.

use skep_model::provider::{Provider, Proxmox, Trust, Way};

use super::*;

const PROVIDER: &str = "/v1/providers/home";

/// A provider that nobody was asked for. Nothing listens there.
async fn known(server: &Server) {
    let provider = Provider {
        name: "home".into(),
        way: Way::Proxmox(Proxmox {
            endpoints: vec!["https://127.0.0.1:1".into()],
            trust: Trust::Pins(vec!["ab".repeat(32)]),
            token_id: "skep@pve!skep".into(),
            secret: server.context.secrets.seal_provider("home", "very-secret"),
        }),
        made_ms: 0,
        changed_ms: 0,
    };
    server
        .propose(Kind::PutProvider(v1::PutProvider {
            provider: Some((&provider).into()),
        }))
        .await;
}

fn request() -> Value {
    json!({"endpoints": ["https://127.0.0.1:1"], "trust": {"pins": ["ab".repeat(32)]}, "token_id": "skep@pve!skep"})
}

fn pool() -> Value {
    json!({"provider": "home", "size": {"min": 0, "max": 5, "wanted": 2}, "recipe": {
        "kind": "vm", "templates": {"pve1": 9000}, "full_clone": false, "storage": null, "cores": 2, "memory_mib": 2048,
        "disk_gib": 20, "disk": "scsi0", "bridge": "vmbr0", "vlan": null, "user": null, "ssh_keys": [],
        "vmids": {"first": 5000, "last": 5999}, "resource_pool": "skep", "max_per_host": null}})
}

#[tokio::test]
async fn a_secret_goes_to_nobody_but_whom_it_was_given_for() {
    let server = Server::start().await;
    let fresh = server.put(PROVIDER, request()).await;
    assert_problem(&fresh, 400, "invalid", Some("secret"));
    known(&server).await;
    let listed = server.get("/v1/providers").await.body;
    assert_eq!(listed["providers"][0]["token_id"], "skep@pve!skep");
    assert!(!listed.to_string().contains("secret"), "{listed}");
    // Kept as it is: nobody answers there, and that is all.
    let same = server.put(PROVIDER, request()).await;
    assert_problem(&same, 503, "unavailable", Some("provider"));
    for (field, value) in [
        ("trust", json!({"pins": ["cd".repeat(32)]})),
        ("trust", json!({"ca": "a CA"})),
        ("token_id", json!("skep@pve!other")),
    ] {
        let mut other = request();
        other[field] = value;
        let refused = server.put(PROVIDER, other).await;
        assert_problem(&refused, 400, "invalid", Some("secret"));
    }
    for (field, name, value) in [
        ("endpoints", "endpoints", json!(["http://pve1:8006"])),
        ("token_id", "token_id", json!("root")),
        ("trust", "pins", json!({"pins": []})),
        ("trust", "pins", json!({"pins": ["xy"]})),
    ] {
        let mut odd = request();
        odd[field] = value;
        odd["secret"] = json!("very-secret");
        let refused = server.put(PROVIDER, odd).await;
        assert_problem(&refused, 400, "invalid", Some(name));
    }
}

#[tokio::test]
async fn a_pool_is_made_changed_scaled_and_removed_and_holds_its_provider() {
    let server = Server::start().await;
    let path = "/v1/node-pools/web";
    let nobody = server.put(path, pool()).await;
    assert_problem(&nobody, 404, "not_found", Some("provider"));
    known(&server).await;
    let made = server.put(path, pool()).await;
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(made.body["edition"], 1);
    let mut odd = pool();
    odd["recipe"]["templates"] = json!({"pve1": 5001});
    assert_problem(&server.put(path, odd).await, 400, "invalid", Some("vmids"));
    let mut other = pool();
    other["recipe"]["cores"] = json!(4);
    assert_eq!(server.put(path, other).await.body["edition"], 2);
    let mut late = pool();
    late["generation"] = json!(1);
    assert_eq!(server.put(path, late).await.status, 409);
    let size = format!("{path}/size");
    let scaled = server.put(&size, json!({"nodes": 3})).await;
    assert_eq!(scaled.body["size"]["wanted"], 3, "{}", scaled.body);
    let too_many = server.put(&size, json!({"nodes": 6})).await;
    assert_problem(&too_many, 400, "invalid", Some("wanted"));
    let remove = |path: &'static str| server.call(Method::DELETE, path, Value::Null);
    assert_eq!(remove(PROVIDER).await.status, 409);
    assert_eq!(remove(path).await.status, 204);
    assert_problem(&server.get(path).await, 404, "not_found", Some("pool"));
    assert_eq!(remove(PROVIDER).await.status, 204);
}

fn machine(number: u8) -> Value {
    json!({"name": format!("m{number}"), "address": format!("10.0.0.{number}"),
        "mac": format!("bc:24:11:00:00:{number:02x}")})
}

#[tokio::test]
async fn a_provider_is_one_thing() {
    let server = Server::start().await;
    let program = json!({"file": "cloud.sh"});
    let both = json!({"program": program, "machines": [machine(1)]});
    for (field, body) in [
        ("program", both),
        ("program", json!({"program": program, "token_id": "a@b!c"})),
        (
            "machines",
            json!({"machines": [machine(1)], "secret": "hush"}),
        ),
        ("trust", json!({})),
        ("program.file", json!({"program": {"file": "/bin/sh"}})),
        ("program.file", json!({"program": {"file": "../cloud.sh"}})),
        ("machines", json!({"machines": [machine(1), machine(1)]})),
    ] {
        let refused = server.put(PROVIDER, body).await;
        assert_problem(&refused, 400, "invalid", Some(field));
    }
    // Without a folder of its own a server runs no program.
    let refused = server.put(PROVIDER, json!({"program": program})).await;
    assert_problem(&refused, 400, "invalid", Some("program.file"));
    let hint = refused.body["hint"].to_string();
    assert!(hint.contains("--provider-programs"), "{}", refused.body);
    assert_eq!(
        server.get("/v1/providers").await.body["providers"],
        json!([])
    );
}

#[tokio::test]
async fn machines_that_exist_are_taken_and_told_by_people() {
    let server = Server::start().await;
    let list = json!({"machines": [machine(2), machine(1)]});
    let made = server.put(PROVIDER, list).await;
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(made.body["kind"], "static");
    let at = "/v1/node-pools/web";
    let wanted = |nodes: u32| json!({"provider": "home", "recipe": {}, "size": {"min": 0, "max": 5, "wanted": nodes}});
    let mut odd = wanted(1);
    odd["recipe"]["cores"] = json!(2);
    assert_problem(&server.put(at, odd).await, 400, "invalid", Some("cores"));
    let plan = server.post("/v1/node-pools/web/plan", wanted(3)).await;
    let (steps, against) = (
        plan.body["steps"].to_string(),
        plan.body["against"].to_string(),
    );
    assert!(
        steps.contains("`m1`") && steps.contains("skep node introduction m2"),
        "{steps}"
    );
    assert!(against.contains("of 2 machines"), "{against}");
    assert_eq!(server.put(at, wanted(1)).await.status, 200);

    // A guest that has taken m1.
    let id = skep_model::id::GuestId::from_u128(77);
    let bytes = || skep_proto::convert::id_bytes(77);
    let note = |note: skep_model::pool::Note| {
        Kind::NoteGuest(v1::NoteGuest {
            id: bytes(),
            note: skep_proto::convert::note_out(&note),
        })
    };
    server
        .propose(Kind::PlanGuest(v1::PlanGuest {
            id: bytes(),
            pool: "web".into(),
        }))
        .await;
    let text = format!("/v1/guests/{}/introduction", skep_model::pool::name_of(id));
    let early = server.post(&text, json!({})).await;
    assert_problem(&early, 409, "conflict", Some("guest"));
    server
        .propose(note(skep_model::pool::Note::Asked {
            machine: Some("m1".into()),
            address: None,
            now_ms: 1,
        }))
        .await;
    server
        .propose(note(skep_model::pool::Note::Identified(
            skep_model::pool::Identity {
                mac: "BC:24:11:00:00:01".into(),
                smbios: None,
            },
        )))
        .await;
    let told = server.post(&text, json!({})).await;
    assert_eq!(told.status, 200, "{}", told.body);
    assert_eq!(told.body["path"], "/etc/skep/agent.env");
    let content = told.body["content"].as_str().expect("a text");
    for variable in ["SKEP_SERVER=", "SKEP_NODE_NAME=skep-", "SKEP_JOIN_TOKEN="] {
        assert!(content.contains(variable), "{variable}");
    }
    // By its machine's name the same guest is meant; the first text is good for nothing any more.
    let again = server.post("/v1/guests/m1/introduction", json!({})).await;
    assert_eq!(again.body["guest"], told.body["guest"]);
    assert_ne!(again.body["content"], told.body["content"]);
    assert_eq!(server.context.store.view().tokens().count(), 1);
    let missing = server.post("/v1/guests/m9/introduction", json!({})).await;
    assert_problem(&missing, 404, "not_found", Some("guest"));
    let state = server.get("/v1/providers/home/state").await.body;
    let taken: Vec<(&Value, bool)> = state["machines"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| (&it["name"], it["guest"].is_string()))
        .collect();
    assert_eq!(taken, [(&json!("m1"), true), (&json!("m2"), false)]);

    let upgrade = server.post("/v1/node-pools/web/upgrade", json!({})).await;
    assert_problem(&upgrade, 409, "conflict", Some("pool"));
    let held = server
        .put(PROVIDER, json!({"machines": [machine(2)]}))
        .await;
    assert_problem(&held, 409, "conflict", Some("machines"));
    let audit = server.get("/v1/audit").await.body.to_string();
    assert!(!audit.contains("SKEP_JOIN_TOKEN"), "{audit}");
}

#[tokio::test]
async fn a_node_that_no_pool_made_is_not_retired() {
    let server = Server::start().await;
    server.join("n1").await;
    let refused = server.post("/v1/nodes/n1/retire", json!({})).await;
    assert_problem(&refused, 409, "conflict", Some("node"));
    let refused = server
        .post("/v1/nodes/n1/resize", json!({"cores": 4}))
        .await;
    assert_problem(&refused, 409, "conflict", Some("node"));
    let odd = server.post("/v1/nodes/n1/resize", json!({"cpus": 4})).await;
    assert_eq!(odd.status, 400);
    let missing = server
        .post("/v1/nodes/n2/resize", json!({"cores": 4}))
        .await;
    assert_problem(&missing, 404, "not_found", Some("node"));
    let missing = server.post("/v1/nodes/n2/retire", json!({})).await;
    assert_problem(&missing, 404, "not_found", Some("node"));
}

#[tokio::test]
async fn a_lost_node_is_fenced_by_a_word_that_is_meant() {
    let server = Server::start().await;
    let id = server.join("n1").await;
    let at = "/v1/nodes/n1/fence";
    let there = server.post(at, json!({ "confirm": true })).await;
    assert_problem(&there, 409, "conflict", Some("node"));
    server.judge(id, NodeStatus::Lost).await;
    let plan = server.post(at, json!({})).await;
    assert_eq!(plan.status, 200);
    let steps = plan.body["steps"].to_string();
    assert!(steps.contains("make sure first that n1 is off"), "{steps}");
    let fenced = async || server.get("/v1/nodes").await.body["nodes"][0].clone();
    assert!(fenced().await["fenced"].is_null(), "nothing was done");
    assert_eq!(
        server.post(at, json!({ "confirm": true })).await.status,
        200
    );
    let node = fenced().await;
    assert_eq!(
        (&node["fenced"]["by"], &node["incarnation"]),
        (&json!("admin"), &json!(1))
    );
    let again = server.post(at, json!({ "confirm": true })).await;
    assert!(
        again.body["steps"].to_string().contains("fenced already"),
        "{:?}",
        again.body
    );
    assert_eq!(fenced().await["incarnation"], 1);
    let odd = server.post(at, json!({ "confirmed": true })).await;
    assert_eq!(odd.status, 400);
    let missing = server.post("/v1/nodes/n2/fence", json!({})).await;
    assert_problem(&missing, 404, "not_found", Some("node"));
}
