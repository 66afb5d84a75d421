//! Volumes as the API has them: by the nodes' word, with nobody to ask where they are away.

use skep_model::id::ServiceId;
use skep_model::storage::HeldVolume;

use super::*;

/// A node that says that it has the volume `data` of each of these.
async fn with_volumes(server: &Server, name: &str, services: &[ServiceId]) -> NodeId {
    let node = server.join(name).await;
    let held = services.iter().map(|service| HeldVolume {
        service: *service,
        name: "data".into(),
    });
    let facts = Facts {
        storage: true,
        volumes: held.collect(),
        ..Facts::default()
    };
    let said = v1::UpdateNode {
        node: id_bytes(node.as_u128()),
        facts: Some((&facts).into()),
    };
    server.propose(Kind::UpdateNode(said)).await;
    node
}

#[tokio::test]
async fn volumes_are_listed_with_who_needs_them_and_left_alone_where_nobody_answers() {
    let server = Server::start().await;
    let volume = json!({"name": "data", "path": "/data", "size_bytes": 5 << 20});
    let spec = json!({"spec": {"storage": {"volumes": [volume]}}});
    let made = server.put(WEB, spec).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let id = made.body["id"].as_str().expect("an id");
    let web: ServiceId = id.parse().expect("an id");
    let gone = ServiceId::from_u128(7);
    with_volumes(&server, "n1", &[web, gone]).await;

    let list = server.get("/v1/volumes").await;
    let shown = |at: usize, field: &str| list.body["volumes"][at][field].clone();
    assert_eq!(shown(0, "service"), "shop/production/web");
    assert_eq!(
        (shown(0, "state"), shown(0, "path")),
        (json!("idle"), json!("/data"))
    );
    assert_eq!(
        (shown(0, "size_bytes"), shown(0, "bytes")),
        (json!(5 << 20), Value::Null)
    );
    assert_eq!(
        (shown(1, "state"), shown(1, "service")),
        (json!("left_behind"), Value::Null)
    );
    assert_eq!(shown(1, "id"), format!("{gone}.data"));
    assert_eq!(shown(2, "id"), Value::Null);

    // The node is not connected: said, and nothing is made up.
    let measured = server.get("/v1/volumes?measure=true").await;
    let first = &measured.body["volumes"][0];
    assert_eq!(first["bytes"], Value::Null);
    assert!(first["problem"].is_string(), "{first}");
    let path = format!("/v1/volumes/{gone}.data");
    let away = server.call(Method::DELETE, &path, Value::Null).await;
    assert_problem(&away, 503, "unavailable", None);

    // Names that lead out of the folder reach no node.
    let odd = json!({"name": "../up"});
    let refused = server.post(&format!("{path}/snapshots"), odd).await;
    assert_problem(&refused, 400, "invalid", Some("snapshot"));
    let none = server
        .call(Method::DELETE, "/v1/volumes/none", Value::Null)
        .await;
    assert_problem(&none, 404, "not_found", Some("volume"));

    // Two nodes that have one: nobody guesses, and a clone makes no third place.
    with_volumes(&server, "n2", &[gone]).await;
    let both = server.call(Method::DELETE, &path, Value::Null).await;
    assert_problem(&both, 409, "conflict", Some("node"));
    let wanted = json!({
        "project": "shop", "environment": "production", "service": "web", "name": "data",
    });
    let cloned = server.post(&format!("{path}/clone?node=n2"), wanted).await;
    assert_problem(&cloned, 409, "conflict", Some("service"));
}
