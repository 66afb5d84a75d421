use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use skep_model::assignment::ImagePeer;
use tempfile::TempDir;
use tower_like::call;

use super::super::digest::Digest;
use super::super::fetch::{Answer, Ask, Refusal};
use super::super::testing::image;
use super::*;
use crate::metrics::Metrics;

/// No other node.
struct Nobody;

impl Ask for Nobody {
    fn ask(&self, _: &ImagePeer, _: Digest, _: u64) -> BoxFuture<'static, Result<Answer, Refusal>> {
        Box::pin(async { Err(Refusal::Missing) })
    }
}

/// One request to the registry, without a network.
mod tower_like {
    use super::*;

    pub(super) struct Said {
        pub(super) status: u16,
        pub(super) headers: HeaderMap,
        pub(super) body: Vec<u8>,
    }

    impl Said {
        pub(super) fn header(&self, name: &str) -> String {
            let value = self.headers.get(name).and_then(|it| it.to_str().ok());
            value.unwrap_or_default().to_owned()
        }
    }

    pub(super) async fn call(
        registry: &Arc<Registry>,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Said {
        let mut request = axum::http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        let answer = handle(State(registry.clone()), request).await;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Said {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.to_vec(),
        }
    }
}

fn registry() -> (TempDir, Arc<Registry>) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Store::open(folder.path(), 1 << 20).expect("opened"));
    let fetcher = Fetcher::new(store.clone(), Arc::new(Nobody), Metrics::default());
    let registry = Registry::new(store, fetcher, Zeroizing::new("secret".to_owned()));
    (folder, Arc::new(registry))
}

/// `skep:secret`.
const OURS: (&str, &str) = ("authorization", "Basic c2tlcDpzZWNyZXQ=");

#[tokio::test]
async fn nobody_passes_without_the_secret() {
    let (_folder, registry) = registry();
    for authorization in [
        None,
        Some("Basic c2tlcDp3cm9uZw=="),
        Some("Bearer secret"),
        Some("Basic !"),
    ] {
        let headers: Vec<_> = authorization
            .map(|it| ("authorization", it))
            .into_iter()
            .collect();
        for request in [
            ("GET", "/v2/"),
            ("POST", "/v2/a/blobs/uploads/"),
            ("GET", "/else"),
        ] {
            let said = call(&registry, request, &headers, b"").await;
            assert_eq!(said.status, 401, "{request:?} {authorization:?}");
            assert_eq!(said.header("www-authenticate"), "Basic realm=\"skep\"");
        }
    }
    assert_eq!(
        call(&registry, ("GET", "/v2/"), &[OURS], b"").await.status,
        200
    );
}

async fn push_blob(registry: &Arc<Registry>, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let path = format!("/v2/skep/web/blobs/uploads/?digest={digest}");
    let said = call(registry, ("POST", &path), &[OURS], bytes).await;
    assert_eq!(said.status, 201, "{}", String::from_utf8_lossy(&said.body));
    assert_eq!(said.header("docker-content-digest"), digest.to_string());
    digest
}

#[tokio::test]
async fn what_is_pushed_is_pulled_by_tag_and_digest() {
    let (_folder, registry) = registry();
    let image = image(b"a layer");
    let early = call(
        &registry,
        ("PUT", "/v2/skep/web/manifests/one"),
        &[OURS],
        &image.manifest,
    )
    .await;
    assert_eq!(early.status, 400, "its blobs are not here");
    let layer = push_blob(&registry, &image.layer).await;
    push_blob(&registry, &image.config).await;
    let put = call(
        &registry,
        ("PUT", "/v2/skep/web/manifests/one"),
        &[OURS],
        &image.manifest,
    )
    .await;
    let digest = Digest::of(&image.manifest).to_string();
    assert_eq!(
        (put.status, put.header("docker-content-digest")),
        (201, digest.clone())
    );
    for name in ["one", &digest] {
        let path = format!("/v2/skep/web/manifests/{name}");
        let got = call(&registry, ("GET", &path), &[OURS], b"").await;
        assert_eq!((got.status, &got.body), (200, &image.manifest));
        assert_eq!(
            got.header("content-type"),
            "application/vnd.oci.image.manifest.v1+json"
        );
        let head = call(&registry, ("HEAD", &path), &[OURS], b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(
            head.header("content-length"),
            image.manifest.len().to_string()
        );
    }
    let path = format!("/v2/skep/web/blobs/{layer}");
    assert_eq!(
        call(&registry, ("GET", &path), &[OURS], b"").await.body,
        image.layer
    );
    let part = call(
        &registry,
        ("GET", &path),
        &[OURS, ("range", "bytes=2-3")],
        b"",
    )
    .await;
    assert_eq!((part.status, &part.body[..]), (206, &b"la"[..]));
    assert_eq!(part.header("content-range"), "bytes 2-3/7");
    let beyond = call(
        &registry,
        ("GET", &path),
        &[OURS, ("range", "bytes=9-")],
        b"",
    )
    .await;
    assert_eq!(beyond.status, 416);
    let tags = call(&registry, ("GET", "/v2/skep/web/tags/list"), &[OURS], b"").await;
    assert_eq!(
        String::from_utf8_lossy(&tags.body),
        r#"{"name":"skep/web","tags":["one"]}"#
    );
}

#[tokio::test]
async fn uploads_come_in_pieces_in_order_and_survive_a_restart() {
    let (folder, registry) = registry();
    let begun = call(
        &registry,
        ("POST", "/v2/skep/web/blobs/uploads/"),
        &[OURS],
        b"",
    )
    .await;
    assert_eq!(begun.status, 202);
    let upload = begun.header("location");
    let first = call(
        &registry,
        ("PATCH", &upload),
        &[OURS, ("content-range", "0-3")],
        b"abcd",
    )
    .await;
    assert_eq!(
        (first.status, first.header("range")),
        (202, "0-3".to_owned())
    );
    let again = call(
        &registry,
        ("PATCH", &upload),
        &[OURS, ("content-range", "0-3")],
        b"abcd",
    )
    .await;
    assert_eq!(again.status, 416);
    drop(registry);
    let store = Arc::new(Store::open(folder.path(), 1 << 20).expect("opened"));
    let fetcher = Fetcher::new(store.clone(), Arc::new(Nobody), Metrics::default());
    let registry = Arc::new(Registry::new(
        store,
        fetcher,
        Zeroizing::new("secret".to_owned()),
    ));
    let status = call(&registry, ("GET", &upload), &[OURS], b"").await;
    assert_eq!(
        (status.status, status.header("range")),
        (204, "0-3".to_owned())
    );
    let digest = Digest::of(b"abcdef");
    let end = format!("{upload}?digest={digest}");
    let ended = call(&registry, ("PUT", &end), &[OURS], b"ef").await;
    assert_eq!(ended.status, 201);
    let mounted = format!("/v2/skep/other/blobs/uploads/?mount={digest}&from=skep/web");
    assert_eq!(
        call(&registry, ("POST", &mounted), &[OURS], b"")
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn what_is_not_what_it_says_is_refused() {
    let (_folder, registry) = registry();
    let digest = Digest::of(b"right");
    let path = format!("/v2/skep/web/blobs/uploads/?digest={digest}");
    let said = call(&registry, ("POST", &path), &[OURS], b"wrong").await;
    assert_eq!(said.status, 400);
    assert!(String::from_utf8_lossy(&said.body).contains("DIGEST_INVALID"));
    let path = format!("/v2/skep/web/manifests/{digest}");
    let said = call(&registry, ("PUT", &path), &[OURS], &image(b"l").manifest).await;
    assert!(String::from_utf8_lossy(&said.body).contains("DIGEST_INVALID"));
    let gone = call(
        &registry,
        ("GET", &format!("/v2/a/blobs/{digest}")),
        &[OURS],
        b"",
    )
    .await;
    assert_eq!(gone.status, 404);
    assert!(String::from_utf8_lossy(&gone.body).contains("BLOB_UNKNOWN"));
    for request in [
        ("DELETE", "/v2/a/manifests/x"),
        ("PUT", "/v2/"),
        ("POST", "/v2/a/tags/list"),
    ] {
        assert_eq!(
            call(&registry, request, &[OURS], b"").await.status,
            405,
            "{request:?}"
        );
    }
}
