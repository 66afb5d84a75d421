use super::*;

#[test]
fn the_default_is_valid_and_each_bound_holds() {
    assert_eq!(ServiceSpec::default().check(), Ok(()));
    let broken: Vec<(&str, ServiceSpec)> = vec![
        (
            "replicas",
            ServiceSpec {
                replicas: 1_001,
                ..Default::default()
            },
        ),
        (
            "port",
            ServiceSpec {
                port: Some(0),
                ..Default::default()
            },
        ),
        (
            "dockerfile",
            ServiceSpec {
                dockerfile: Some("../Dockerfile".into()),
                ..Default::default()
            },
        ),
        (
            "routes",
            ServiceSpec {
                kind: ServiceType::Worker,
                routes: vec![RouteSpec::default()],
                ..Default::default()
            },
        ),
        (
            "domains",
            ServiceSpec {
                domains: vec!["a b".into()],
                ..Default::default()
            },
        ),
        (
            "resources.memory_bytes",
            ServiceSpec {
                resources: Resources {
                    memory_bytes: 1,
                    ..Default::default()
                },
                ..Default::default()
            },
        ),
        (
            "health.path",
            ServiceSpec {
                health: Health {
                    path: Some("x".into()),
                    ..Default::default()
                },
                ..Default::default()
            },
        ),
        (
            "source.repository",
            ServiceSpec {
                source: Some(Source::Git {
                    repository: "--upload-pack=x".into(),
                    branch: "main".into(),
                    directory: String::new(),
                }),
                ..Default::default()
            },
        ),
    ];
    for (field, spec) in broken {
        assert_eq!(spec.check().expect_err(field).field.as_deref(), Some(field));
    }
}

#[test]
fn unknown_fields_are_refused() {
    let error = serde_json::from_str::<ServiceSpec>(r#"{"replica": 3}"#).expect_err("typo");
    assert!(
        error.to_string().contains("unknown field `replica`"),
        "{error}"
    );
}
