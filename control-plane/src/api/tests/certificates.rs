//! Certificates of apps: uploaded, listed without their key, taken away; and who issues them.

use skep_model::certificate::{Certificate, Material};
use skep_model::variable::Sealed;
use skep_proto::v1;
use skep_proto::v1::command::Kind;

use super::*;
use crate::store::now_ms;

fn pair(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("made");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[tokio::test]
async fn a_certificate_is_shown_without_its_key_and_taken_away() {
    let server = Server::start().await;
    let (chain, key) = pair("www.example.com");
    let path = "/v1/certificates/www.example.com";
    let set = server.put(path, json!({"chain": chain, "key": key})).await;
    assert_eq!(set.status, 200, "{}", set.body);
    assert_eq!(set.body["names"], json!(["www.example.com"]));
    let listed = server.get("/v1/certificates").await.body;
    assert_eq!(listed["certificates"][0]["source"], "uploaded");
    assert_eq!(listed["issuer"], Value::Null);
    for shown in [&set.body, &listed] {
        assert!(!shown.to_string().contains("PRIVATE"), "{shown}");
    }
    let status = server.get("/v1/status").await.body;
    assert_eq!(status["certificates"]["held"], 1);
    let (_, strange) = pair("www.example.com");
    for (chain, key, field) in [
        (chain.as_str(), strange.as_str(), "key"),
        ("", key.as_str(), "chain"),
        (chain.as_str(), "", "key"),
    ] {
        let odd = server.put(path, json!({"chain": chain, "key": key})).await;
        assert_problem(&odd, 400, "invalid", Some(field));
    }
    let odd = server
        .put(
            "/v1/certificates/UPPER",
            json!({"chain": chain, "key": key}),
        )
        .await;
    assert_problem(&odd, 400, "invalid", Some("name"));
    let renewed = server
        .call(Method::POST, &format!("{path}/renew"), Value::Null)
        .await;
    assert_problem(&renewed, 409, "conflict", Some("name"));
    assert_eq!(
        server.call(Method::DELETE, path, Value::Null).await.status,
        204
    );
    let gone = server.call(Method::DELETE, path, Value::Null).await;
    assert_problem(&gone, 404, "not_found", Some("name"));
}

#[tokio::test]
async fn the_certificates_that_end_first_have_lines_of_their_own() {
    let server = Server::start().await;
    let now_ms = now_ms();
    for n in 0..60_u64 {
        let name = format!("h{n:02}.example.com");
        let mut certificate = Certificate::wanted(&name);
        certificate.material = Some(Material {
            chain_pem: "PEM".into(),
            key: Sealed(vec![1]),
            names: vec![name],
            not_before_ms: 0,
            // The last ones end first, the very last one has ended.
            not_after_ms: now_ms + 57_000 - n * 1_000,
            serial: String::new(),
            issuer: String::new(),
        });
        let command = v1::PutCertificate {
            certificate: Some((&certificate).into()),
        };
        let put = server
            .context
            .store
            .propose(Kind::PutCertificate(command))
            .await;
        put.expect("kept");
    }
    let text = server.get("/metrics").await.body;
    let text = text.as_str().expect("text");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("skep_certificate_expiry_seconds{"))
        .collect();
    assert_eq!(lines.len(), 50);
    assert!(
        lines[0].starts_with("skep_certificate_expiry_seconds{name=\"h59.example.com\"} -"),
        "{}",
        lines[0]
    );
    assert!(lines[49].contains("h10.example.com"), "{}", lines[49]);
    for line in [
        "skep_certificates{state=\"held\"} 60\n",
        "skep_certificates{state=\"ending\"} 60\n",
        "skep_certificates{state=\"failing\"} 0\n",
        "skep_certificate_issued_total 0\n",
        "skep_certificate_failures_total 0\n",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[tokio::test]
async fn an_issuer_is_set_by_who_agrees_to_its_terms_and_its_secret_is_never_shown() {
    let server = Server::start().await;
    let path = "/v1/issuer";
    let issuer = |with: Value| {
        let mut body = json!({
            "directory": "https://ca.example/dir", "contact": "ops@example.com",
            "terms_agreed": true, "challenge": "http-01",
        });
        let body_fields = body.as_object_mut().expect("an object");
        body_fields.extend(with.as_object().expect("an object").clone());
        body
    };
    for (with, field) in [
        (json!({"terms_agreed": false}), "terms_agreed"),
        (json!({"directory": "http://ca.example"}), "directory"),
        (json!({"contact": "nobody"}), "contact"),
        (json!({"root": "none"}), "root"),
        (json!({"eab_key_id": "k"}), "eab_key_id"),
        (json!({"eab_key_id": "k", "eab_hmac": "%"}), "eab_hmac"),
        (json!({"challenge": "dns-01"}), "dns"),
        (json!({"dns": {"provider": {"kind": "exec"}}}), "dns"),
        (
            json!({"challenge": "dns-01", "dns": {"provider": {"kind": "cloudflare"}}}),
            "dns.secret",
        ),
        (
            json!({"challenge": "dns-01", "dns": {"provider": {"kind": "rfc2136", "server": "ns1.example.com:53",
            "key_name": "skep"}, "secret": "%"}}),
            "dns.secret",
        ),
    ] {
        let odd = server.put(path, issuer(with)).await;
        assert_problem(&odd, 400, "invalid", Some(field));
    }
    let eab = json!({"eab_key_id": "k1", "eab_hmac": "c2VjcmV0LWtleQ"});
    let set = server.put(path, issuer(eab.clone())).await;
    assert_eq!(set.status, 200, "{}", set.body);
    assert_eq!(set.body["binding"], "k1");
    let stored = |server: &Server| {
        let view = server.context.store.view();
        view.issuer().expect("set").binding.clone()
    };
    let first = stored(&server);
    server.put(path, issuer(eab)).await;
    assert_eq!(stored(&server), first, "said again it is the same");
    let listed = server.get("/v1/certificates").await.body;
    assert_eq!(listed["issuer"]["directory"], "https://ca.example/dir");
    assert!(!listed.to_string().contains("c2VjcmV0"), "{listed}");
    let gone = server.call(Method::DELETE, path, Value::Null).await;
    assert_eq!(gone.status, 204);
    let listed = server.get("/v1/certificates").await.body;
    assert_eq!(listed["issuer"], Value::Null);
}
