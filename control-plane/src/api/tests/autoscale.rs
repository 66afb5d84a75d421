//! Who says how many allocations there are, and what is pushed for it.

use skep_model::autoscale::Metric;
use skep_scheduler::autoscale::Decision;

use super::*;
use crate::scaling::Thought;

const AUTOSCALE: &str = "/v1/projects/shop/environments/production/services/web/autoscale";
const METRICS: &str = "/v1/projects/shop/environments/production/services/web/metrics";

#[tokio::test]
async fn an_autoscaler_is_given_shown_pushed_to_and_taken_away() {
    let server = Server::start().await;
    server.context.samples.lead(true);
    server.put(WEB, json!({"spec": {"replicas": 2}})).await;
    let none = server.get(AUTOSCALE).await;
    assert_eq!(
        (&none.body["autoscale"], &none.body["wanted"]),
        (&Value::Null, &json!(2))
    );
    let pushed = server
        .post(METRICS, json!({"metrics": {"queue_length": 1}}))
        .await;
    assert_problem(&pushed, 409, "conflict", None);

    let wanted = json!({"min": 3, "max": 6, "targets": ["cpu=70%", "queue_length=10"]});
    let given = server.call(Method::PUT, AUTOSCALE, wanted).await;
    assert_eq!(given.status, 200, "{}", given.body);
    assert_eq!(given.body["wanted"], 3);
    let refused = server.call(Method::PUT, AUTOSCALE, json!({"min": 0})).await;
    assert_problem(&refused, 400, "invalid", Some("autoscale.min"));
    let zone = json!({"schedules": [{"from": "0 8 * * *", "to": "0 9 * * *", "time_zone": "Nowhere/At", "min": 1}]});
    let refused = server.call(Method::PUT, AUTOSCALE, zone).await;
    assert_problem(
        &refused,
        400,
        "invalid",
        Some("autoscale.schedules[0].time_zone"),
    );
    let by_hand = server
        .post(&format!("{WEB}/scale"), json!({"replicas": 5}))
        .await;
    assert_problem(&by_hand, 409, "conflict", Some("replicas"));

    let taken = server
        .post(METRICS, json!({"metrics": {"queue_length": 12.5}}))
        .await;
    assert_eq!(
        (taken.status.as_u16(), &taken.body["taken"]),
        (200, &json!(1))
    );
    let view = server.context.store.view();
    let service = view.services().next().expect("one").id;
    let pushed = server.context.scaling.pushed(service, &Metric::QueueLength);
    assert_eq!(pushed.map(|pushed| pushed.value_milli), Some(12_500));
    for (body, field) in [
        (json!({"metrics": {"cpu": 1}}), "metrics.cpu"),
        (
            json!({"metrics": {"custom:jobs": 1}}),
            "metrics.custom:jobs",
        ),
        (
            json!({"metrics": {"queue_length": -1}}),
            "metrics.queue_length",
        ),
        (json!({"metrics": {"nonsense": 1}}), "metrics.nonsense"),
        (json!({"metrics": {}}), "metrics"),
    ] {
        assert_problem(
            &server.post(METRICS, body).await,
            400,
            "invalid",
            Some(field),
        );
    }

    let thought = Thought {
        decision: Decision {
            at_ms: 1,
            from: 3,
            to: 3,
            recommended: 3,
            reasons: Vec::new(),
        },
        measured: vec![(Metric::QueueLength, Some(12_500))],
        advice: None,
    };
    server.context.scaling.think(service, thought);
    let shown = server.get(AUTOSCALE).await;
    assert_eq!(shown.body["decision"], "3 stays");
    let measured = json!([
        {"target": "cpu=70%", "measured": null},
        {"target": "queue_length=10", "measured": "12.5"}
    ]);
    assert_eq!(shown.body["measured"], measured);

    let off = server.call(Method::DELETE, AUTOSCALE, Value::Null).await;
    assert_eq!(
        (&off.body["autoscale"], &off.body["wanted"]),
        (&Value::Null, &json!(3))
    );
    let by_hand = server
        .post(&format!("{WEB}/scale"), json!({"replicas": 5}))
        .await;
    assert_eq!(by_hand.status, 200);
}
