//! What is measured: nothing where nobody leads, what is not known left out, and who may ask.

use skep_model::sample::{IngressReading, NodeReading, Samples, ServiceCounters};

use super::*;

const PATH: &str = "/v1/samples?nodes=true&allocations=true";

#[tokio::test]
async fn samples_are_the_leaders_and_what_is_not_known_is_null() {
    let server = Server::start().await;
    let put = server.put(WEB, json!({"spec": {"type": "web"}})).await;
    assert!(put.status.is_success(), "{}", put.body);
    let node = server.join("n1").await;
    let answer = server.get("/v1/samples?here=true").await;
    assert_problem(&answer, 503, "unavailable", None);
    server.context.samples.lead(true);
    let answer = server.get(PATH).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let of = &answer.body["services"][0];
    assert_eq!(of["name"], "web");
    for key in [
        "request_rate",
        "in_flight",
        "cpu_millis",
        "memory_bytes",
        "age_ms",
    ] {
        assert!(of[key].is_null(), "{key}: {of}");
    }
    assert!(answer.body["nodes"][0]["cpu_millis"].is_null());

    let view = server.context.store.view();
    let service = view.services().next().expect("there").id;
    let samples = &server.context.samples;
    for at_ms in [0, 2_000] {
        let counters = ServiceCounters {
            in_flight: 3,
            ..Default::default()
        };
        let said = Samples {
            life: 1,
            at_ms,
            node: NodeReading {
                cpu_us: Some(at_ms * 250),
                memory_bytes: Some(5),
            },
            allocations: Vec::new(),
            ingress: Some(IngressReading {
                life: 1,
                at_ms,
                services: vec![(service, counters)],
            }),
        };
        samples.hear(&view, (node, 1), said);
        samples.learn(samples.take(usize::MAX));
    }
    let body = server.get(PATH).await.body;
    assert_eq!(body["services"][0]["in_flight"], 3, "{body}");
    assert!(body["services"][0]["latency_p95_ms"].is_null(), "{body}");
    assert_eq!(body["nodes"][0]["cpu_millis"], 250, "{body}");
    assert_eq!(body["nodes"][0]["memory_bytes"], 5, "{body}");
    assert_problem(
        &server.get("/v1/samples?allocation=1").await,
        400,
        "invalid",
        None,
    );
}

#[tokio::test]
async fn a_service_that_sleeps_and_is_asked_for_waits_for_nobodys_turn() {
    let server = Server::start().await;
    let autoscale = json!({
        "targets": ["in_flight=50"], "scale_to_zero": {},
    });
    let spec = json!({"spec": {"type": "web", "autoscale": autoscale}});
    let put = server.put(WEB, spec).await;
    assert!(put.status.is_success(), "{}", put.body);
    let node = server.join("n1").await;
    let samples = &server.context.samples;
    let ask = |at_ms, in_flight| {
        let view = server.context.store.view();
        let service = view.services().next().expect("there").id;
        let counters = ServiceCounters {
            in_flight,
            ..Default::default()
        };
        let said = Samples {
            life: 1,
            at_ms,
            ingress: Some(IngressReading {
                life: 1,
                at_ms,
                services: vec![(service, counters)],
            }),
            ..Default::default()
        };
        samples.hear(&view, (node, 1), said);
    };
    let hurry = samples.hurry();
    ask(1, 3);
    assert!(!hurry.has_changed().expect("open"), "it does not sleep");
    let view = server.context.store.view();
    let service = view.services().next().expect("there");
    let sleep = skep_proto::v1::ScaleService {
        service: skep_proto::convert::id_bytes(service.id.as_u128()),
        expected_generation: service.generation,
        replicas: 0,
        reason: "idle".to_owned(),
    };
    let sleep = skep_proto::v1::command::Kind::ScaleService(sleep);
    server.context.store.propose(sleep).await.expect("accepted");
    ask(2, 0);
    assert!(!hurry.has_changed().expect("open"), "nobody asks");
    ask(3, 1);
    assert!(hurry.has_changed().expect("open"));
}
