//! Which installation a repository is asked for as, what is signed, and that one question answers all who wait.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use skep_forge::api::app::{Claims, claims};
use skep_identity::seal::SealingKey;
use skep_model::forge::AppSecrets;
use skep_model::id::{ForgeAppId, WorkspaceId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::secrets::AppUse;

const KEY: &str = include_str!("../../../../tests/fixtures/github-app/key.pem");
const PUBLIC: &str = include_str!("../../../../tests/fixtures/github-app/public.pem");

fn installation(account: &str, is_suspended: bool) -> Installation {
    Installation {
        app: ForgeAppId::from_u128(1),
        number: 9,
        account: account.into(),
        is_organization: true,
        is_suspended,
        missing: Vec::new(),
        renamed: Vec::new(),
    }
}

#[test]
fn a_repository_is_asked_for_as_the_app_at_its_owner() {
    let all = [installation("acme", false), installation("others", true)];
    let of = |repository: &str| chosen(&all, ("github.com", repository)).map(|it| &*it.account);
    assert_eq!(of("Acme/shop"), Ok("acme"));
    assert!(
        of("others/shop")
            .expect_err("suspended")
            .contains("suspended")
    );
    assert!(
        of("acmes/shop")
            .expect_err("nowhere")
            .contains("skep forge app install")
    );
}

#[test]
fn a_proof_is_what_the_public_key_says_it_is() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let said = claims(42, now_ms() / 1_000);
    let proof = signed(KEY, &said).expect("signed");
    let lines: String = PUBLIC.lines().filter(|it| !it.starts_with('-')).collect();
    let der = STANDARD.decode(lines).expect("base64");
    let mut wanted = Validation::new(Algorithm::RS256);
    wanted.leeway = 0;
    let read = jsonwebtoken::decode::<serde_json::Value>(
        &proof,
        &DecodingKey::from_rsa_der(&der),
        &wanted,
    );
    let read = read.expect("holds").claims;
    let Claims { iat, exp, iss } = said;
    assert_eq!(
        read,
        serde_json::json!({ "iat": iat, "exp": exp, "iss": iss })
    );
    for odd in [
        "",
        "nothing",
        "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    ] {
        assert!(check_key(odd).is_err(), "{odd}");
    }
}

/// A GitHub that gives tokens that last so long, one after the other; answers with how many there were.
async fn minting(lasts_s: i64) -> (std::net::SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let number = counting.fetch_add(1, Ordering::SeqCst);
            let ends = time::OffsetDateTime::now_utc() + time::Duration::seconds(lasts_s);
            let ends = ends.format(&time::format_description::well_known::Rfc3339);
            let body = serde_json::json!({ "token": format!("ghs_{number}"), "expires_at": ends.expect("a time") });
            let body = body.to_string();
            let mut seen = vec![0; 8 << 10];
            let _ = stream.read(&mut seen).await;
            let head = format!(
                "HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    (address, count)
}

fn app(secrets: &Secrets, address: std::net::SocketAddr) -> ForgeApp {
    let id = ForgeAppId::from_u128(1);
    let seal = |of: AppUse, text: &str| secrets.seal_app(of, id, text);
    ForgeApp {
        id,
        workspace: WorkspaceId::from_u128(1),
        number: 42,
        slug: "skep-1".into(),
        owner: "acme".into(),
        client_id: "Iv1.x".into(),
        site: AppSite {
            host: "127.0.0.1".into(),
            api_url: format!("http://{address}"),
            web_url: format!("http://{address}"),
            ca_pem: None,
        },
        secrets: AppSecrets {
            private_key: seal(AppUse::Key, KEY),
            webhook: seal(AppUse::Webhook, "w"),
            client: seal(AppUse::Client, "c"),
        },
        made_ms: 0,
        changed_ms: 1,
    }
}

fn tokens(secrets: &Secrets) -> Tokens {
    let here = ["127.0.0.0/8".parse().expect("a network")];
    Tokens::new(secrets.clone(), &here)
}

#[tokio::test]
async fn many_who_wait_for_a_token_are_given_one() {
    let secrets = Secrets::new(SealingKey::generate());
    let (address, count) = minting(3_600).await;
    let tokens = tokens(&secrets);
    let app = Arc::new(app(&secrets, address));
    let who = As::App(Arc::clone(&app), installation("acme", false));
    let all = (0..20).map(|_| tokens.token(&who, &Scope::All));
    let all = futures_util::future::join_all(all).await;
    assert!(
        all.iter()
            .all(|it| it.as_ref().is_ok_and(|it| **it == "ghs_0"))
    );
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
    // Another use, and an App that was changed, have one of their own.
    let contents = Scope::Contents("acme/shop".into());
    assert_eq!(
        **tokens.token(&who, &contents).await.as_ref().expect("given"),
        "ghs_1"
    );
    let changed = ForgeApp {
        changed_ms: 2,
        ..(*app).clone()
    };
    let who = As::App(Arc::new(changed), installation("acme", false));
    assert_eq!(
        **tokens
            .token(&who, &Scope::All)
            .await
            .as_ref()
            .expect("given"),
        "ghs_2"
    );
}

#[tokio::test]
async fn a_token_that_ends_soon_is_not_given_again() {
    let secrets = Secrets::new(SealingKey::generate());
    for (lasts_s, asked) in [
        (MARGIN_MS as i64 / 1_000 - 5, 2),
        (MARGIN_MS as i64 / 1_000 + 60, 1),
    ] {
        let (address, count) = minting(lasts_s).await;
        let tokens = tokens(&secrets);
        let who = As::App(
            Arc::new(app(&secrets, address)),
            installation("acme", false),
        );
        for _ in 0..2 {
            tokens.token(&who, &Scope::All).await.expect("given");
        }
        assert_eq!(
            count.load(std::sync::atomic::Ordering::SeqCst),
            asked,
            "{lasts_s} s"
        );
    }
}
