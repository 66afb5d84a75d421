//! Backups, and what is in quarantine.

use skep_model::id::{AllocationId, ServiceId};
use skep_model::quarantine::Quarantined;
use skep_model::service::Target;

use super::*;
use crate::backup::Backup;

async fn whole(response: axum::response::Response) -> Vec<u8> {
    let body = response.into_body().collect().await.expect("whole");
    body.to_bytes().to_vec()
}

#[tokio::test]
async fn a_backup_is_the_state_as_it_is_and_leaves_a_line() {
    let server = Server::start().await;
    server.put(WEB, json!({ "spec": {} })).await;
    let get = || server.raw(request(Method::GET, "/v1/backup", Body::empty()));
    let first = get().await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(first.headers()["content-type"], "application/x-tar");
    let length: usize = first.headers()["content-length"]
        .to_str()
        .expect("text")
        .parse()
        .expect("number");
    let busy = get().await.status();
    let bytes = whole(first).await;
    assert_eq!(bytes.len(), length);
    assert_eq!(busy, StatusCode::TOO_MANY_REQUESTS, "one at a time");

    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("backup.tar");
    std::fs::write(&path, bytes).expect("written");
    let backup = Backup::read(&path).expect("sound");
    let state = backup.verify().expect("sound");
    assert_eq!(state.services().count(), 1);
    assert_eq!(backup.manifest.counts.services, 1);
    assert_eq!(backup.manifest.server, own_server().name);
    assert_eq!(backup.manifest.wrapped_data_key, "05".repeat(60));

    let seen = async || {
        let audit = server.get("/v1/audit").await;
        audit.body.to_string().contains("create_backup")
    };
    for _ in 0..100 {
        if seen().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("a backup is worth a line in the audit");
}

#[tokio::test]
async fn quarantine_is_listed_when_asked_for_and_settled_by_id() {
    let server = Server::start().await;
    let node = server.join("n1").await;
    let ids = [901, 902].map(AllocationId::from_u128);
    let entries = ids.map(|allocation| {
        let entry = Quarantined {
            node,
            allocation,
            service: ServiceId::from_u128(5),
            service_label: "web-production-gone".into(),
            target: Target {
                release: 3,
                deployment: DeploymentId::from_u128(6),
            },
            since_ms: 0,
        };
        v1::Quarantined::from(&entry)
    });
    server
        .propose(Kind::Observe(v1::Observe {
            node: id_bytes(node.as_u128()),
            quarantine: Some(v1::QuarantineList {
                entries: entries.into(),
            }),
            ..v1::Observe::default()
        }))
        .await;
    let plain = server.get("/v1/allocations").await.body;
    assert!(plain.get("quarantine").is_none(), "{plain}");
    let list = async || server.get("/v1/allocations?quarantine=true").await.body;
    let listed = list().await;
    assert_eq!(listed["allocations"], json!([]));
    let first = &listed["quarantine"][0];
    assert_eq!(first["id"], ids[0].to_string());
    assert_eq!(first["service"], "web-production-gone");
    assert_eq!(
        (&first["node"], &first["adoptable"]),
        (&json!("n1"), &json!(false))
    );

    let settle = async |id: AllocationId, verb: &str| {
        let path = format!("/v1/allocations/{id}/{verb}");
        server.call(Method::POST, &path, Value::Null).await
    };
    let refused = settle(ids[0], "adopt").await;
    assert_problem(&refused, 409, "conflict", None);
    assert!(
        refused.body["message"]
            .as_str()
            .expect("text")
            .contains("web-production-gone")
    );
    assert_eq!(settle(ids[0], "dismiss").await.status, 200);
    assert_problem(
        &settle(ids[0], "dismiss").await,
        404,
        "not_found",
        Some("allocation"),
    );
    assert_eq!(list().await["quarantine"].as_array().map(Vec::len), Some(1));
    let view = server.context.store.view();
    assert_eq!(view.dismissed_on(node).collect::<Vec<_>>(), [ids[0]]);
}
