//! The steps of a browser: what is asked for is checked, whom a URL is good for, and who signs for an App.

use skep_identity::digest;
use skep_model::forge::{AppSecrets, AppSite, ForgeApp, Setup};
use skep_model::id::ForgeAppId;
use skep_proto::v1::command::Kind;

use super::*;
use crate::secrets::AppUse;

const APP: ForgeAppId = ForgeAppId::from_u128(70);

async fn begun(server: &Server) -> String {
    let request = json!({ "cluster_url": "https://skep.example.com/", "organization": "a<b" });
    let made = server.post("/v1/forge-apps", request).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let url = made.body["url"].as_str().expect("a URL");
    let path = url.strip_prefix("https://skep.example.com").expect("there");
    path.to_owned()
}

/// As a browser comes, with no token.
async fn browse(server: &Server, path: &str) -> Answer {
    let request = Request::get(path).body(Body::empty()).expect("sound");
    server.send(request).await
}

#[tokio::test]
async fn a_page_is_shown_to_whoever_has_its_secret_and_shows_no_markup_of_others() {
    let server = Server::start().await;
    let path = begun(&server).await;
    for _ in 0..2 {
        // Looking at it does not take it.
        let page = browse(&server, &path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let text = page.body.as_str().expect("a page");
        assert!(
            text.contains("organization a&lt;b") && !text.contains("a<b"),
            "{text}"
        );
        let action = "action=\"https://github.com/organizations/a%3Cb/settings/apps/new?state=";
        assert!(text.contains(action), "{text}");
        let policy = page.headers["content-security-policy"]
            .to_str()
            .expect("text");
        assert!(
            policy.contains("form-action https://github.com;"),
            "{policy}"
        );
        assert_eq!(page.headers["cache-control"], "no-store");
    }
    for other in [
        "/v1/github/make",
        "/v1/github/make?state=0",
        &path.replace("make", "installed"),
    ] {
        assert_eq!(browse(&server, other).await.status, 404, "{other}");
    }
    let odd = browse(&server, &path.replace("make", "made")).await;
    assert_eq!(odd.status, 400, "without a code it is not taken");
    assert_eq!(browse(&server, &path).await.status, 200);
}

#[tokio::test]
async fn a_step_is_void_with_the_token_of_whoever_began_it() {
    let server = Server::start().await;
    let path = begun(&server).await;
    let (_, secret) = path.split_once("state=").expect("a state");
    let sum = digest::sha256(secret.as_bytes());
    let view = server.context.store.view();
    let known = view.forge_setup(&sum).expect("waited for");
    for (secret, by, status) in [
        ("ours", known.by.clone(), 200),
        ("theirs", vec![0; 32], 404),
    ] {
        let setup = Setup {
            digest: digest::sha256(secret.as_bytes()).to_vec(),
            by,
            ..(**known).clone()
        };
        let setup = Some((&setup).into());
        let command = Kind::BeginForgeSetup(v1::BeginForgeSetup { setup });
        server.context.store.propose(command).await.expect("taken");
        let page = browse(&server, &format!("/v1/github/make?state={secret}")).await;
        assert_eq!(page.status, status, "{secret}");
    }
}

#[tokio::test]
async fn what_nobody_can_reach_or_name_is_refused_with_the_field() {
    let server = Server::start().await;
    let cluster_url = "https://skep.example.com";
    for (request, field) in [
        (json!({ "cluster_url": "skep" }), "cluster_url"),
        (
            json!({ "cluster_url": cluster_url, "host": "GitHub.com" }),
            "host",
        ),
        (
            json!({ "cluster_url": cluster_url, "api_url": "http://127.0.0.1:1" }),
            "api_url",
        ),
        (
            json!({ "cluster_url": cluster_url, "web_url": "http://127.0.0.1:1" }),
            "web_url",
        ),
        (
            json!({ "cluster_url": cluster_url, "organization": "a/b" }),
            "organization",
        ),
        (
            json!({ "cluster_url": cluster_url, "name": "x".repeat(35) }),
            "name",
        ),
        (
            json!({ "cluster_url": cluster_url, "ca_pem": "none" }),
            "ca_pem",
        ),
    ] {
        let answer = server.post("/v1/forge-apps", request).await;
        assert_problem(&answer, 400, "invalid", Some(field));
    }
    let missing = server
        .post("/v1/forge-apps/skep-1/install", json!({}))
        .await;
    assert_problem(&missing, 404, "not_found", Some("app"));
}

#[tokio::test]
async fn a_delivery_to_an_app_is_signed_as_github_does_with_its_own_secret() {
    let server = Server::start().await;
    let secrets = &server.context.secrets;
    let seal = |of: AppUse| secrets.seal_app(of, APP, "s3cret");
    let app = ForgeApp {
        id: APP,
        workspace: server
            .context
            .store
            .view()
            .workspaces()
            .next()
            .expect("one")
            .id,
        number: 42,
        slug: "skep-1".into(),
        owner: "acme".into(),
        client_id: "Iv1.x".into(),
        site: AppSite {
            host: "github.com".into(),
            api_url: "https://api.github.com".into(),
            web_url: "https://github.com".into(),
            ca_pem: None,
        },
        secrets: AppSecrets {
            private_key: seal(AppUse::Key),
            webhook: seal(AppUse::Webhook),
            client: seal(AppUse::Client),
        },
        made_ms: 0,
        changed_ms: 0,
    };
    let command = Kind::PutForgeApp(v1::PutForgeApp {
        app: Some((&app).into()),
        expected_changed_ms: 0,
    });
    server.context.store.propose(command).await.expect("taken");
    let body = r#"{"installation":{"id":9},"repository":{"full_name":"acme/shop"}}"#;
    let post = async |header: &'static str, prefix: &str, secret: &str| {
        let tag = digest::hmac_sha256(secret.as_bytes(), body.as_bytes());
        let request = Request::post(format!("/v1/hooks/github/{APP}"))
            .header("x-github-event", "installation")
            .header("x-github-delivery", "d-1")
            .header(header, format!("{prefix}{}", hex::encode(tag)))
            .body(Body::from(body));
        server.send(request.expect("sound")).await
    };
    let taken = post("x-hub-signature-256", "sha256=", "s3cret").await;
    assert_eq!(taken.status, 200, "{}", taken.body);
    assert!(
        taken.body["ignored"]
            .as_str()
            .expect("why")
            .contains("no workspace")
    );
    assert_eq!(
        post("x-hub-signature-256", "sha256=", "wrong").await.status,
        401
    );
    // Of another forge's kind, though with the secret.
    assert_eq!(post("x-gitea-signature", "", "s3cret").await.status, 401);
    let listed = server.get("/v1/forge-apps").await;
    assert_eq!(listed.body["apps"][0]["slug"], "skep-1");
    assert!(!listed.body.to_string().contains("s3cret"));
}
