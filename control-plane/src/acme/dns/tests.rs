//! Providers against servers that play theirs: what is asked, and what is made of the answers.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::cloudflare::Cloudflare;
use super::exec::Exec;
use super::webhook::Webhook;
use super::{Provider as _, Record};

const TOKEN: &str = "t0ken";
const RECORD: Record<'_> = Record {
    name: "_acme-challenge.shop.example.com",
    value: "proof",
};

/// What is answered to whom: method, path with its query, status, body.
type Script = Vec<(&'static str, &'static str, u16, Value)>;

#[derive(Clone, Default)]
struct Played {
    script: Arc<Script>,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

async fn answer(
    State(played): State<Played>,
    (method, uri, headers): (Method, Uri, HeaderMap),
    body: Bytes,
) -> (StatusCode, String) {
    let path = uri.to_string();
    let token = headers
        .get("authorization")
        .map(|it| it.as_bytes().to_vec());
    let is_known = token.as_deref() == Some(format!("Bearer {TOKEN}").as_bytes());
    let said = String::from_utf8(body.to_vec()).expect("text");
    let asked = format!("{method} {path}");
    let mut lines = played.script.iter();
    let line = lines.find(|it| it.0 == method.as_str() && it.1 == path && is_known);
    let answer = line.map_or((StatusCode::FORBIDDEN, "who are\n you?".to_owned()), |it| {
        (
            StatusCode::from_u16(it.2).expect("a status"),
            it.3.to_string(),
        )
    });
    played.asked.lock().push((asked, said));
    answer
}

async fn play(script: Script) -> (SocketAddr, Played) {
    let played = Played {
        script: Arc::new(script),
        ..Played::default()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let at = listener.local_addr().expect("bound");
    let app = Router::new().fallback(answer).with_state(played.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (at, played)
}

fn zone(name: &'static str, found: &Value) -> (&'static str, &'static str, u16, Value) {
    (
        "GET",
        name,
        200,
        json!({ "success": true, "errors": [], "result": found }),
    )
}

fn cloudflare(at: SocketAddr, token: &str) -> Cloudflare {
    Cloudflare::at(&format!("http://{at}"), token.to_owned()).expect("an API")
}

const RECORDS: &str = "/zones/z1/dns_records";
const FOUND: &str =
    "/zones/z1/dns_records?type=TXT&name=_acme-challenge.shop.example.com&per_page=100";

#[tokio::test]
async fn cloudflare_has_the_record_in_the_longest_zone_and_loses_that_one_alone() {
    let entries = json!([
        { "id": "r1", "content": "\"other\"" },
        { "id": "r2", "content": "\"proof\"" },
    ]);
    let (at, played) = play(vec![
        zone("/zones?name=shop.example.com", &json!([])),
        zone(
            "/zones?name=example.com",
            &json!([{ "id": "z1", "name": "example.com" }]),
        ),
        (
            "POST",
            RECORDS,
            200,
            json!({ "success": true, "result": { "id": "r2" } }),
        ),
        zone(FOUND, &entries),
        (
            "DELETE",
            "/zones/z1/dns_records/r2",
            200,
            json!({ "success": true, "result": { "id": "r2" } }),
        ),
    ])
    .await;
    let api = cloudflare(at, TOKEN);
    api.present(RECORD).await.expect("written");
    api.cleanup(RECORD).await.expect("gone");
    let asked = std::mem::take(&mut *played.asked.lock());
    let body: Value = serde_json::from_str(&asked[2].1).expect("JSON");
    assert_eq!(
        (&body["type"], &body["name"], &body["content"]),
        (&json!("TXT"), &json!(RECORD.name), &json!("\"proof\""))
    );
    let asked: Vec<&str> = asked.iter().map(|it| &*it.0).collect();
    let zones = [
        "GET /zones?name=shop.example.com",
        "GET /zones?name=example.com",
    ];
    assert_eq!(asked[..2], zones);
    assert_eq!(asked[2], format!("POST {RECORDS}"));
    assert_eq!(asked[3..5], zones);
    assert_eq!(
        asked[5..],
        [format!("GET {FOUND}"), format!("DELETE {RECORDS}/r2")]
    );
}

#[tokio::test]
async fn cloudflare_says_what_is_wrong() {
    let taken = json!({ "success": false, "errors": [{ "code": 81058, "message": "identical" }] });
    let (at, _) = play(vec![
        zone("/zones?name=shop.example.com", &json!([{ "id": "z1" }])),
        ("POST", RECORDS, 400, taken),
        ("GET", FOUND, 403, json!({ "success": false, "errors": [{ "code": 10000, "message": "Authentication error" }] })),
    ])
    .await;
    let api = cloudflare(at, TOKEN);
    api.present(RECORD).await.expect("it is there already");
    let refused = api
        .cleanup(RECORD)
        .await
        .expect_err("not allowed")
        .to_string();
    assert!(
        refused.contains("Authentication error (10000)") && refused.contains("DNS:Edit"),
        "{refused}"
    );
    let unknown = cloudflare(at, "wrong").present(RECORD).await;
    let unknown = unknown.expect_err("a wrong token").to_string();
    assert!(unknown.contains("403 Forbidden: who are you?"), "{unknown}");
    let (at, _) = play(vec![
        zone("/zones?name=shop.example.com", &json!([])),
        zone("/zones?name=example.com", &json!([])),
    ])
    .await;
    let nowhere = cloudflare(at, TOKEN).present(RECORD).await;
    let nowhere = nowhere.expect_err("no zone").to_string();
    assert!(
        nowhere.contains("sees no zone of _acme-challenge.shop"),
        "{nowhere}"
    );
}

#[tokio::test]
async fn a_webhook_is_told_what_to_do_and_believed_by_its_status() {
    let (at, played) = play(vec![("POST", "/hook", 204, json!(""))]).await;
    let url = format!("http://{at}/hook");
    let hook = Webhook::new(&url, Some(format!("{TOKEN}\n"))).expect("a webhook");
    hook.present(RECORD).await.expect("done");
    hook.cleanup(RECORD).await.expect("done");
    let bodies: Vec<Value> = {
        let asked = played.asked.lock();
        let bodies = asked
            .iter()
            .map(|it| serde_json::from_str(&it.1).expect("JSON"));
        bodies.collect()
    };
    let body = |action: &str| json!({ "action": action, "fqdn": RECORD.name, "value": "proof" });
    assert_eq!(bodies, [body("present"), body("cleanup")]);
    let other = Webhook::new(&url, None).expect("a webhook");
    let refused = other
        .present(RECORD)
        .await
        .expect_err("no token")
        .to_string();
    assert!(
        refused.contains("403 Forbidden: who are you?") && refused.contains("token"),
        "{refused}"
    );
    let closed = Webhook::new("http://127.0.0.1:1/hook", None).expect("a webhook");
    let unreachable = closed
        .present(RECORD)
        .await
        .expect_err("nobody")
        .to_string();
    assert!(unreachable.contains("cannot be reached"), "{unreachable}");
}

#[tokio::test]
async fn a_program_is_run_only_where_its_operator_allowed_one() {
    let refused = Exec::new(None).err().expect("none is allowed").to_string();
    assert!(refused.contains("--acme-exec"), "{refused}");
    let dir = tempfile::tempdir().expect("a folder");
    let (path, log) = (dir.path().join("hook"), dir.path().join("log"));
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> {}\nif [ \"$1\" = cleanup ]; then echo no such zone >&2; exit 3; fi\n",
        log.display()
    );
    std::fs::write(&path, script).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("may be run");
    let program = Exec::new(Some(&path)).expect("a program");
    program.present(RECORD).await.expect("done");
    let failed = program
        .cleanup(RECORD)
        .await
        .expect_err("it ends with 3")
        .to_string();
    assert!(failed.contains("exit status: 3: no such zone"), "{failed}");
    let run = std::fs::read_to_string(log).expect("a log");
    let name = RECORD.name;
    assert_eq!(run, format!("present {name} proof\ncleanup {name} proof\n"));
}
