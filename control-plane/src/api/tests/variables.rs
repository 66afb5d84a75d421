//! References in variables, and variables that an environment's services share.

use super::*;

const SHARED: &str = "/v1/projects/shop/environments/production/variables";
const DB: &str = "/v1/projects/shop/environments/production/services/db";

fn set(name: &str, value: &str) -> Value {
    json!({"set": [{"name": name, "value": value}]})
}

async fn patch(server: &Server, service: &str, body: Value) -> Answer {
    server
        .call(Method::PATCH, &format!("{service}/variables"), body)
        .await
}

#[tokio::test]
async fn shared_variables_are_set_listed_and_unset_and_secrets_never_shown() {
    let server = Server::start().await;
    assert_problem(&server.get(SHARED).await, 404, "not_found", Some("project"));
    let secret = json!({"set": [{"name": "KEY", "value": "s3cret", "secret": true}]});
    let made = server.call(Method::PATCH, SHARED, secret).await;
    assert_eq!(
        (made.status.as_u16(), &made.body["generation"]),
        (200, &json!(1))
    );
    server
        .call(Method::PATCH, SHARED, set("REGION", "eu"))
        .await;
    let list = server.get(SHARED).await;
    assert_eq!(list.body["variables"][1]["value"], "eu");
    assert!(!list.body.to_string().contains("s3cret"));
    let unset = json!({"unset": ["KEY"]});
    let left = server.call(Method::PATCH, SHARED, unset.clone()).await;
    assert_eq!(left.body["variables"].as_array().map(Vec::len), Some(1));
    let again = server.call(Method::PATCH, SHARED, unset).await;
    assert_problem(&again, 404, "not_found", Some("unset"));
    let reserved = server.call(Method::PATCH, SHARED, set("SKEP_X", "1")).await;
    assert_problem(&reserved, 400, "invalid", Some("set.name"));
}

#[tokio::test]
async fn a_shared_secret_is_rotated_in_one_request_with_keeping_the_old_one() {
    let server = Server::start().await;
    let secret = |value: &str| json!({"name": "KEY", "value": value, "secret": true});
    let made = json!({"set": [secret("first")]});
    server.call(Method::PATCH, SHARED, made).await;
    let keep = |name: &str, under: &str| json!({"set": [secret("second")], "keep": [{"name": name, "under": under}]});
    for (name, under, status, field) in [
        ("OTHER", "KEY_OLD", 404, "keep"),
        ("KEY", "KEY", 400, "keep.under"),
        ("KEY", "SKEP_KEY", 400, "keep.name"),
    ] {
        let refused = server.call(Method::PATCH, SHARED, keep(name, under)).await;
        let code = if status == 404 {
            "not_found"
        } else {
            "invalid"
        };
        assert_problem(&refused, status, code, Some(field));
    }
    let done = server
        .call(Method::PATCH, SHARED, keep("KEY", "KEY_OLD"))
        .await;
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(done.body["generation"], 2, "in one step");
    let view = server.context.store.view();
    let environment = view.environments().next().expect("one").id;
    let shared = view.shared_variables(environment);
    for (name, value) in [("KEY", "second"), ("KEY_OLD", "first")] {
        let variable = &shared.variables[name];
        let open = server
            .context
            .secrets
            .open_shared(environment, name, variable);
        assert_eq!(open.expect("opens"), value);
        assert!(variable.secret, "{name} stays one");
    }
    assert!(!done.body.to_string().contains("first"), "{}", done.body);
}

#[tokio::test]
async fn what_can_never_resolve_is_refused_and_what_is_missing_is_a_warning() {
    let server = Server::start().await;
    server.put(WEB, Value::Null).await;
    let early = patch(&server, WEB, set("URL", "x://${{db.USER}}")).await;
    assert_eq!(early.status, 200, "{}", early.body);
    let warning = early.body["warnings"][0]["message"].as_str().expect("one");
    assert!(warning.contains("no service `db`"), "{warning}");
    assert!(warning.ends_with("web.URL -> db.USER"), "{warning}");
    server.put(DB, Value::Null).await;
    let circle = patch(&server, DB, set("USER", "${{web.URL}}")).await;
    assert_problem(&circle, 400, "invalid", Some("value"));
    let way = circle.body["message"].as_str().expect("text");
    assert!(way.ends_with("db.USER -> web.URL -> db.USER"), "{way}");
    for bad in ["${{db.USER", "${{staging/db.USER}}", "${{1}}"] {
        let refused = patch(&server, DB, set("OTHER", bad)).await;
        assert_problem(&refused, 400, "invalid", Some("set.value"));
    }
    let named = server.put(&DB.replace("/db", "/shared"), Value::Null).await;
    assert_problem(&named, 400, "invalid", Some("service"));
}

#[tokio::test]
async fn who_refers_to_a_change_is_told_and_deployed_again_on_request() {
    let server = Server::start().await;
    server.join("n1").await;
    server
        .put(
            DB,
            json!({"variables": [{"name": "URL", "value": "${{shared.HOST}}"}]}),
        )
        .await;
    server
        .put(
            WEB,
            json!({"variables": [{"name": "DB", "value": "${{db.URL}}"}]}),
        )
        .await;
    let made = server
        .post(
            &format!("{WEB}/deployments"),
            json!({"type": "image", "reference": "app:1"}),
        )
        .await;
    let id = made.body["id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("an id");
    server.bring_live(id).await;
    let told = server.call(Method::PATCH, SHARED, set("HOST", "a")).await;
    assert_eq!(told.body["dependents"], json!(["web"]), "db does not run");
    assert_eq!(told.body["dependent_deployments"], Value::Null);
    let mut body = set("HOST", "b");
    body["redeploy"] = json!(true);
    let done = server.call(Method::PATCH, SHARED, body).await;
    let deployment = &done.body["dependent_deployments"][0];
    assert_eq!(
        (&deployment["service"], &deployment["trigger"]),
        (&json!("web"), &json!("redeploy"))
    );
}
