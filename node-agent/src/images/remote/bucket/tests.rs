//! Where objects are, and what refusals mean, with bodies as stores send them.

use skep_model::id::WorkspaceId;

use super::*;

fn objects(host: &str, path_style: bool) -> Objects {
    let access = RegistryAccess {
        workspace: Some(WorkspaceId::from_u128(1)),
        host: host.into(),
        user: "AKIA1".into(),
        password: "not to be seen".into(),
        bucket: Some(skep_model::registry::Bucket {
            name: "sites".into(),
            region: "eu-central-1".into(),
            path_style,
        }),
    };
    let made = Objects::of(&access, ("https", "sites/team/acme/shop/web"));
    made.expect("sound").expect("a bucket")
}

#[test]
fn an_object_lies_below_the_services_folders_under_its_digest() {
    let digest = Digest::of(b"x");
    for (host, path_style, begin) in [
        (
            "s3.example.com",
            false,
            "https://sites.s3.example.com/team/",
        ),
        ("s3.example.com", true, "https://s3.example.com/sites/team/"),
        ("minio:9000", true, "https://minio:9000/sites/team/"),
        // A name before an address leads nowhere.
        ("10.0.0.1:9000", false, "https://10.0.0.1:9000/sites/team/"),
    ] {
        let objects = objects(host, path_style);
        for (object, folder) in [
            (Object::Blob(digest), "blobs"),
            (Object::Manifest(digest), "manifests"),
        ] {
            let url = objects.signed(&Method::GET, &objects.key(object));
            let place = format!("{begin}acme/shop/web/{folder}/sha256/{}?", digest.hex());
            let url = url.as_str();
            assert!(url.starts_with(&place), "{url} is not below {place}");
            assert!(url.contains("%2Feu-central-1%2Fs3%2Faws4_request"), "{url}");
            assert!(!url.contains("seen"), "{url}");
        }
    }
}

#[test]
fn what_lies_in_another_bucket_is_not_looked_for_in_this_one() {
    let mut access = RegistryAccess {
        workspace: None,
        host: "s3.example.com".into(),
        user: "AKIA1".into(),
        password: "secret".into(),
        bucket: Some(skep_model::registry::Bucket {
            name: "sites".into(),
            region: "auto".into(),
            path_style: false,
        }),
    };
    let of = |access: &RegistryAccess, repository: &str| {
        Objects::of(access, ("https", repository)).map(|it| it.is_some())
    };
    for other in ["old/acme/shop/web", "sites2/acme/shop/web", "sites"] {
        assert!(
            matches!(of(&access, other), Err(Error::Missing(_))),
            "{other}"
        );
    }
    access.bucket = None;
    assert!(matches!(of(&access, "old/acme/shop/web"), Ok(false)));
}

#[test]
fn refusals_say_what_to_do() {
    let objects = objects("s3.example.com", false);
    let xml = |code: &str, more: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
             <Message>It is said &amp; meant.</Message>{more}<RequestId>1</RequestId></Error>"
        )
    };
    for (status, body, code, hint) in [
        (
            403,
            xml("SignatureDoesNotMatch", "<StringToSign>a</StringToSign>"),
            Code::Forbidden,
            "secret",
        ),
        (
            403,
            xml("InvalidAccessKeyId", "<AWSAccessKeyId>A</AWSAccessKeyId>"),
            Code::Forbidden,
            "does not know",
        ),
        (403, xml("AccessDenied", ""), Code::Forbidden, "ListBucket"),
        (
            404,
            xml("NoSuchBucket", "<BucketName>sites</BucketName>"),
            Code::NotFound,
            "make the bucket",
        ),
        (
            301,
            xml("PermanentRedirect", "<Endpoint>e</Endpoint>"),
            Code::Invalid,
            "region",
        ),
        (
            400,
            xml("AuthorizationHeaderMalformed", "<Region>us-west-2</Region>"),
            Code::Invalid,
            "region",
        ),
        (
            403,
            xml("RequestTimeTooSkewed", "<ServerTime>t</ServerTime>"),
            Code::Invalid,
            "clock",
        ),
        (503, xml("SlowDown", ""), Code::Unavailable, "tried again"),
        (403, String::new(), Code::Forbidden, "check the key"),
        (
            200,
            "<html>hello</html>".to_owned(),
            Code::Unavailable,
            "S3",
        ),
        (502, "not XML at all <".to_owned(), Code::Unavailable, "S3"),
    ] {
        let status = StatusCode::from_u16(status).expect("a status");
        let refused = refusal(status, body.as_bytes());
        let problem = objects.explain(&Error::Store(refused), "s3.example.com");
        let said = problem.hint.clone().unwrap_or_default();
        assert!(
            problem.code == code && said.contains(hint),
            "{body}: {problem:?}"
        );
        assert!(
            problem
                .message
                .starts_with("bucket sites at s3.example.com: "),
            "{problem}"
        );
        if body.contains("Message") {
            assert!(problem.message.contains("It is said & meant."), "{problem}");
        }
    }
}
