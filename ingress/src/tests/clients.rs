//! Who the client is: behind proxies that are trusted and proxies that are not, by headers and by the PROXY
//! protocol; and which requests have to come again under TLS.

use std::time::Duration;

use http::{Request, StatusCode};

use super::support::{App, HOST, Reply, Served, serve_one};
use crate::Options;
use crate::trust::Trusted;

fn trusting(networks: &[&str]) -> Options {
    let proxies = networks.iter().map(|it| it.parse().expect("a network"));
    Options {
        trusted_proxies: Trusted::new(&proxies.collect::<Vec<_>>()),
        ..Options::default()
    }
}

async fn told(served: &Served, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::get("/headers").header("host", HOST);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    served.client().await.send(request, "").await
}

const CLAIMS: [(&str, &str); 6] = [
    ("x-forwarded-for", "6.6.6.6, 203.0.113.7, 10.0.0.2"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "shop.example"),
    ("x-forwarded-port", "444"),
    ("cf-connecting-ip", "6.6.6.6"),
    ("x-request-id", "of-the-proxy"),
];

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let app = App::start("a").await;
    let served = serve_one(trusting(&["127.0.0.1", "10.0.0.0/8"]), &[app.address]).await;
    let reply = told(&served, &CLAIMS).await;
    let expected = "GET /headers\nhost: app.test\nx-forwarded-for: 203.0.113.7\n\
                    x-forwarded-host: shop.example\nx-forwarded-port: 444\nx-forwarded-proto: https\n\
                    x-request-id: of-the-proxy\n";
    assert_eq!(reply.body, expected);
    assert_eq!(reply.headers["x-request-id"], "of-the-proxy");
}

#[tokio::test]
async fn anybody_else_is_not() {
    let app = App::start("a").await;
    let served = serve_one(trusting(&["10.0.0.0/8", "cloudflare"]), &[app.address]).await;
    let reply = told(&served, &CLAIMS).await;
    let id = reply.headers["x-request-id"].to_str().expect("text");
    let expected = format!(
        "GET /headers\nhost: app.test\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: app.test\n\
         x-forwarded-port: 80\nx-forwarded-proto: http\nx-request-id: {id}\n"
    );
    assert_eq!(reply.body, expected);
    assert_ne!(id, "of-the-proxy");
}

#[tokio::test]
async fn each_answer_has_an_id_of_its_own_refusals_too() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[app.address]).await;
    let mut client = served.client().await;
    let mut ids = Vec::new();
    for host in [HOST, HOST, "unknown.test"] {
        let reply = client
            .send(Request::get("/").header("host", host), "")
            .await;
        ids.push(reply.headers["x-request-id"].clone());
    }
    assert!(ids.iter().all(|id| id.len() == 32), "{ids:?}");
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
}

#[tokio::test]
async fn plain_requests_are_sent_to_https_but_for_certificate_authorities() {
    let app = App::start("a").await;
    let options = Options {
        https_redirect: Some(443),
        ..trusting(&["127.0.0.1"])
    };
    let served = serve_one(options, &[app.address]).await;
    let reply = served.get(HOST, "/x?y=1").await;
    assert_eq!(reply.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(reply.headers["location"], "https://app.test/x?y=1");
    assert_eq!(app.served(), 0);
    let asked = served.get(HOST, "/.well-known/acme-challenge/token").await;
    assert_eq!(asked.body, "a");
    // It came under TLS: sending it there again would never end.
    let behind = told(&served, &[("x-forwarded-proto", "https")]).await;
    assert_eq!(behind.status, StatusCode::OK);
    assert_eq!(app.served(), 2);
    let wrong = served
        .raw(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")
        .await;
    assert!(wrong.starts_with("HTTP/1.1 400 "), "{wrong}");
}

const GET: &str = "GET /headers HTTP/1.1\r\nhost: app.test\r\nx-forwarded-for: 6.6.6.6\r\n\
                   connection: close\r\n\r\n";

/// Version 2: the command, the family with its protocol, and what follows.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend(u16::try_from(rest.len()).expect("short").to_be_bytes());
    header.extend(rest);
    header
}

#[tokio::test]
async fn load_balancers_say_by_the_proxy_protocol_whose_connection_it_is() {
    let app = App::start("a").await;
    let options = Options {
        proxy_protocol: true,
        ..trusting(&["127.0.0.1"])
    };
    let served = serve_one(options, &[app.address]).await;
    let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80];
    let mut v6 = vec![0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    v6.extend([0; 16]);
    v6.extend([0x30, 0x39, 0, 80]);
    // A fact of an unknown kind, three bytes long.
    let with_fact = [&v4[..], &[0xee, 0, 3, 1, 2, 3]].concat();
    for (header, client) in [
        (
            b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 80\r\n".to_vec(),
            "203.0.113.7",
        ),
        (
            b"PROXY TCP6 2001:db8::7 ::1 12345 80\r\n".to_vec(),
            "2001:db8::7",
        ),
        // The load balancer's own check; it is trusted, so its headers are.
        (b"PROXY UNKNOWN\r\n".to_vec(), "6.6.6.6"),
        (b"PROXY UNKNOWN a b c\r\n".to_vec(), "6.6.6.6"),
        (binary(0, 0, &[]), "6.6.6.6"),
        (binary(1, 0x11, &v4), "203.0.113.7"),
        (binary(1, 0x11, &with_fact), "203.0.113.7"),
        (binary(1, 0x21, &v6), "2001:db8::7"),
    ] {
        let sent = [&header, GET.as_bytes()].concat();
        let answer = served.raw(&sent).await;
        assert!(
            answer.contains(&format!("x-forwarded-for: {client}\n")),
            "{header:?}: {answer}"
        );
    }
    assert_eq!(served.ingress.metrics().failed_arrivals, 0);
}

#[tokio::test]
async fn without_a_header_that_is_due_there_is_no_answer() {
    let app = App::start("a").await;
    let options = Options {
        proxy_protocol: true,
        handshake_timeout: Duration::from_millis(100),
        ..trusting(&["127.0.0.1"])
    };
    let served = serve_one(options, &[app.address]).await;
    let endless = format!("PROXY {}", "x".repeat(200));
    let huge = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 100]].concat();
    let wrong: [&[u8]; 7] = [
        GET.as_bytes(),
        b"PROXY TCP4 203.0.113.7\r\n0123456789\r\n",
        b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 80",
        endless.as_bytes(),
        &huge,
        &binary(2, 0x11, &[0; 12]),
        b"PR",
    ];
    for sent in wrong {
        assert_eq!(
            served.raw(sent).await,
            "",
            "{:?}",
            String::from_utf8_lossy(sent)
        );
    }
    assert_eq!(served.ingress.metrics().failed_arrivals, 7);
    assert_eq!(app.served(), 0);
}

#[tokio::test]
async fn nobody_else_may_say_whose_connection_it_is() {
    let app = App::start("a").await;
    let options = Options {
        proxy_protocol: true,
        ..trusting(&["10.0.0.0/8"])
    };
    let served = serve_one(options, &[app.address]).await;
    let forged = format!("PROXY TCP4 203.0.113.7 10.0.0.1 12345 80\r\n{GET}");
    let answer = served.raw(forged.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(app.served(), 0);
    let answer = served.raw(GET.as_bytes()).await;
    assert!(answer.contains("x-forwarded-for: 127.0.0.1\n"), "{answer}");
}
