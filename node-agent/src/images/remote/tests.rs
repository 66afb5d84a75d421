//! A registry that is away, hangs, refuses, lies or forgets; and one that does what it should, with passwords and with
//! tokens. Served by a small one, over real connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as Asked, State};
use axum::http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use axum::response::IntoResponse as _;
use base64::Engine as _;
use tokio::net::TcpListener;

use super::push::{Failed, push};
use super::*;
use crate::images::back;
use crate::images::manifest::Part;
use crate::images::store::Store;
use crate::images::testing::{Image, image};

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// As it should, for anybody.
    Fine,
    /// It wants `ci:secret`.
    Password,
    /// It wants a token, which it gives for `ci:secret`.
    Token,
    /// It takes what is sent and answers nothing.
    Hangs,
    /// It hands out another manifest than it took.
    Lies,
    /// It takes a manifest and says another digest.
    Renames,
    /// It hands out other bytes, as many as it took.
    Swaps,
    /// Whoever is in front of it is at an end.
    Broken,
}

struct Registry {
    manner: Manner,
    address: String,
    kept: Mutex<BTreeMap<String, Vec<u8>>>,
    calls: Mutex<Vec<String>>,
}

impl Registry {
    async fn start(manner: Manner) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one").to_string();
        let registry = Arc::new(Self {
            manner,
            address,
            kept: Mutex::default(),
            calls: Mutex::default(),
        });
        let app = Router::new().fallback(serve).with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        registry
    }

    async fn remote(&self, password: Option<&str>) -> Remote {
        let access = password.map(|password| RegistryAccess {
            workspace: None,
            host: self.address.clone(),
            user: "ci".into(),
            password: password.into(),
            bucket: None,
        });
        remote(&self.address, access).await
    }

    fn count(&self, method: &str) -> usize {
        let calls = self.calls.lock();
        calls.iter().filter(|call| call.starts_with(method)).count()
    }

    fn answer(&self, method: &Method, path: &str, bytes: Vec<u8>) -> Response<Body> {
        let missing = || (StatusCode::NOT_FOUND, "{}").into_response();
        let place = path.rsplit('/').next().unwrap_or_default().to_owned();
        if *method == Method::POST {
            let to = [(LOCATION, "/v2/team/web/blobs/uploads/1?state=x")];
            return (StatusCode::ACCEPTED, to).into_response();
        }
        if path.contains("/manifests/") && *method == Method::PUT {
            let digest = match self.manner {
                Manner::Renames => Digest::of(b"another").to_string(),
                _ => Digest::of(&bytes).to_string(),
            };
            let mut kept = self.kept.lock();
            kept.insert(Digest::of(&bytes).to_string(), bytes.clone());
            kept.insert(place, bytes);
            return (StatusCode::CREATED, [(CONTENT_DIGEST, digest)]).into_response();
        }
        match self.kept.lock().get(&place) {
            None => missing(),
            Some(_) if self.manner == Manner::Lies && *method == Method::GET => {
                b"something else".to_vec().into_response()
            }
            Some(bytes) if self.manner == Manner::Swaps && *method == Method::GET => {
                vec![0; bytes.len()].into_response()
            }
            Some(bytes) => {
                let digest = [(CONTENT_DIGEST, Digest::of(bytes).to_string())];
                (digest, bytes.clone()).into_response()
            }
        }
    }
}

async fn serve(State(registry): State<Arc<Registry>>, request: Asked) -> Response<Body> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let shown = request.headers().get(AUTHORIZATION).cloned();
    let shown = shown.map(|it| it.to_str().expect("text").to_owned());
    registry.calls.lock().push(format!("{method} {uri}"));
    let password = base64::engine::general_purpose::STANDARD.encode("ci:secret");
    let password = format!("Basic {password}");
    let wanted = match registry.manner {
        Manner::Hangs => std::future::pending().await,
        Manner::Broken => return StatusCode::BAD_GATEWAY.into_response(),
        Manner::Password => Some((password, "Basic realm=\"lab\"".to_owned())),
        Manner::Token if uri.path() == "/token" => {
            let query = uri.query().unwrap_or_default();
            assert!(query.contains("scope=repository%3Ateam%2Fweb"), "{query}");
            return match shown == Some(password) {
                true => r#"{"token": "t1"}"#.into_response(),
                false => StatusCode::UNAUTHORIZED.into_response(),
            };
        }
        Manner::Token => {
            let challenge = format!(
                "Bearer realm=\"http://{}/token\",service=\"r\",scope=\"repository:team/web:pull,push\"",
                registry.address
            );
            Some(("Bearer t1".to_owned(), challenge))
        }
        Manner::Fine | Manner::Lies | Manner::Renames | Manner::Swaps => None,
    };
    if let Some((wanted, challenge)) = wanted
        && shown.as_ref() != Some(&wanted)
    {
        let said = r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}"#;
        return (
            StatusCode::UNAUTHORIZED,
            [(WWW_AUTHENTICATE, challenge)],
            said,
        )
            .into_response();
    }
    let bytes = axum::body::to_bytes(request.into_body(), usize::MAX).await;
    let bytes = bytes.expect("all of it").to_vec();
    if method == Method::PUT && uri.path().contains("/blobs/uploads/") {
        let digest = Digest::of(&bytes).to_string();
        let query = uri.query().unwrap_or_default();
        let expected = format!("state=x&digest={}", digest.replace(':', "%3A"));
        assert_eq!(query, expected, "the place that it was sent to");
        registry.kept.lock().insert(digest, bytes);
        return StatusCode::CREATED.into_response();
    }
    registry.answer(&method, uri.path(), bytes)
}

async fn remote(host: &str, access: Option<RegistryAccess>) -> Remote {
    // Nobody is asked: it is on the loopback.
    let docker = Docker::connect_with_http("http://127.0.0.1:1", 1, bollard::API_DEFAULT_VERSION);
    let docker = docker.expect("no call");
    let around = (Path::new("/nowhere"), Duration::from_millis(300));
    let made = Remote::with((host, "team/web"), access, &docker, around);
    made.await.expect("made")
}

/// A store with an image whose layer has several pieces.
async fn store() -> (tempfile::TempDir, Store, Image, Digest) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), u64::MAX).expect("opens");
    let made = image(&vec![7; 3 << 20]);
    for blob in [&made.layer, &made.config] {
        let digest = Digest::of(blob);
        let mut writer = store.partial(digest, u64::MAX).await.expect("a writer");
        writer.write(blob).await.expect("written");
        store.keep(writer, digest).await.expect("kept");
    }
    let put = store.put_manifest(("a", Some("1")), &made.manifest, false);
    let digest = put.await.expect("all is there");
    (folder, store, made, digest)
}

#[tokio::test]
async fn an_image_is_there_as_it_was_and_what_is_there_is_not_sent_again() {
    for manner in [Manner::Fine, Manner::Password, Manner::Token] {
        let registry = Registry::start(manner).await;
        let (_folder, store, made, digest) = store().await;
        let remote = registry.remote(Some("secret")).await;
        push(&store, &remote, (digest, "v1")).await.expect("pushed");
        {
            let kept = registry.kept.lock();
            assert_eq!(kept.get("v1"), Some(&made.manifest), "{manner:?}");
            let layer = Digest::of(&made.layer).to_string();
            assert_eq!(kept.get(&layer), Some(&made.layer));
        }
        let uploads = registry.count("POST");
        push(&store, &remote, (digest, "v1")).await.expect("again");
        push(&store, &remote, (digest, "v2"))
            .await
            .expect("another name");
        assert_eq!(registry.count("POST"), uploads, "{manner:?}");
        let found = remote.digest_of("v2").await.expect("there");
        assert_eq!(found, digest);
    }
}

#[tokio::test]
async fn who_is_not_known_is_told_so() {
    for (manner, password) in [
        (Manner::Password, Some("wrong")),
        (Manner::Password, None),
        (Manner::Token, Some("wrong")),
    ] {
        let registry = Registry::start(manner).await;
        let (_folder, store, _, digest) = store().await;
        let remote = registry.remote(password).await;
        let refused = push(&store, &remote, (digest, "v1")).await;
        let Err(Failed::Remote(error @ Error::Refused(_))) = refused else {
            panic!("{manner:?}: {refused:?}")
        };
        let problem = error.explain("r.example");
        assert_eq!(problem.code, Code::Forbidden);
        assert!(!problem.to_string().contains("wrong"), "{problem}");
        assert_eq!(registry.count("POST"), 0, "nothing was sent");
    }
}

#[tokio::test]
async fn a_registry_that_is_away_hangs_or_breaks_is_left() {
    let (_folder, store, _, digest) = store().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = gone.local_addr().expect("it has one").to_string();
    drop(gone);
    let remote = remote(&address, None).await;
    let away = push(&store, &remote, (digest, "v1")).await;
    assert!(
        matches!(away, Err(Failed::Remote(Error::Unreachable(_)))),
        "{away:?}"
    );

    let registry = Registry::start(Manner::Hangs).await;
    let hangs = push(&store, &registry.remote(None).await, (digest, "v1")).await;
    assert!(
        matches!(hangs, Err(Failed::Remote(Error::Silent(_)))),
        "{hangs:?}"
    );

    let registry = Registry::start(Manner::Broken).await;
    let broken = push(&store, &registry.remote(None).await, (digest, "v1")).await;
    let Err(Failed::Remote(Error::Odd(why))) = broken else {
        panic!("{broken:?}")
    };
    assert!(why.contains("502"), "{why}");
}

#[tokio::test]
async fn a_registry_that_has_something_else_is_not_believed() {
    for manner in [Manner::Lies, Manner::Renames] {
        let registry = Registry::start(manner).await;
        let (_folder, store, _, digest) = store().await;
        let lied = push(&store, &registry.remote(None).await, (digest, "v1")).await;
        let Err(Failed::Remote(Error::Digest { wanted, .. })) = lied else {
            panic!("{manner:?}: {lied:?}")
        };
        assert_eq!(wanted, digest);
    }
}

#[tokio::test]
async fn what_is_not_in_the_store_or_at_the_registry_is_said() {
    let registry = Registry::start(Manner::Fine).await;
    let (_folder, store, _, _) = store().await;
    let remote = registry.remote(None).await;
    let other = Digest::of(b"other");
    let gone = push(&store, &remote, (other, "v1")).await;
    assert!(
        matches!(gone, Err(Failed::Gone(digest)) if digest == other),
        "{gone:?}"
    );
    let missing = remote.digest_of("v9").await;
    assert!(matches!(missing, Err(Error::Missing(_))), "{missing:?}");
}

/// What it has of the image, as if somebody had pushed it there.
fn keep(registry: &Registry, made: &Image) {
    let mut kept = registry.kept.lock();
    for blob in [&made.layer, &made.config, &made.manifest] {
        kept.insert(Digest::of(blob).to_string(), blob.clone());
    }
}

#[tokio::test]
async fn a_blob_comes_back_as_it_was_or_not_at_all() {
    for manner in [Manner::Password, Manner::Lies, Manner::Swaps] {
        let registry = Registry::start(manner).await;
        let made = image(&vec![7; 3 << 20]);
        keep(&registry, &made);
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), u64::MAX).expect("opens");
        let store = Arc::new(store);
        let part = Part {
            digest: Digest::of(&made.layer),
            size: made.layer.len() as u64,
        };
        let remote = registry.remote(Some("secret")).await;
        let came = back::blob(&store, &remote, part).await;
        let manifest = remote.manifest_bytes(Digest::of(&made.manifest)).await;
        match manner {
            Manner::Password => {
                came.expect("it is what it was");
                assert_eq!(manifest.expect("there"), made.manifest);
                let calls = registry.count("GET");
                back::blob(&store, &remote, part).await.expect("it is here");
                assert_eq!(registry.count("GET"), calls, "nobody is asked");
            }
            Manner::Lies => assert!(matches!(came, Err(back::Failed::Remote(_))), "{came:?}"),
            _ => assert!(matches!(came, Err(back::Failed::Store(_))), "{came:?}"),
        }
        let is_here = store.size(part.digest).is_some();
        assert_eq!(is_here, manner == Manner::Password, "{manner:?}");
        let left = std::fs::read_dir(folder.path().join("uploads")).expect("a folder");
        assert_eq!(left.count(), 0, "nothing of it stays");
    }
}
