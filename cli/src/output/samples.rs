//! What services, allocations and nodes use, as tables. What is not known is a dash.

use skep_control_plane::api::types::{AllocationSampleView, NodeSampleView, ServiceSampleView};

use super::{table, time};

const UNKNOWN: &str = "-";
/// Latencies from here on are shown in seconds, ms.
const SECOND_MS: f64 = 1_000.0;

/// All services.
pub(crate) fn services(views: &[ServiceSampleView]) -> String {
    let rows = views.iter().map(|view| {
        vec![
            format!("{}/{}/{}", view.project, view.environment, view.name),
            format!("{}/{}", view.healthy, view.wanted),
            of(view.cpu_millis, view.cpu_millis_requested, cores),
            of(view.memory_bytes, view.memory_bytes_requested, time::bytes),
            view.request_rate
                .map_or(UNKNOWN.into(), |rate| format!("{rate:.1}")),
            view.in_flight
                .map_or(UNKNOWN.into(), |count| count.to_string()),
            view.latency_p95_ms.map_or(UNKNOWN.into(), latency),
        ]
    });
    let columns = [
        "SERVICE",
        "REPLICAS",
        "CPU",
        "MEMORY",
        "REQ/S",
        "IN FLIGHT",
        "P95",
    ];
    table::render(
        &columns,
        rows.collect(),
        "there are no services: `skep up` makes one",
    )
}

/// The allocations of one service.
pub(crate) fn allocations(views: &[AllocationSampleView]) -> String {
    let rows = views.iter().map(|view| {
        vec![
            view.id.to_string(),
            view.node.clone(),
            view.release.to_string(),
            view.state.as_str().to_owned(),
            of(view.cpu_millis, view.cpu_millis_requested, cores),
            of(view.memory_bytes, view.memory_bytes_requested, time::bytes),
        ]
    });
    let columns = ["ALLOCATION", "NODE", "RELEASE", "STATE", "CPU", "MEMORY"];
    table::render(&columns, rows.collect(), "nothing runs")
}

/// All nodes.
pub(crate) fn nodes(views: &[NodeSampleView]) -> String {
    let rows = views.iter().map(|view| {
        vec![
            view.name.clone(),
            of(view.cpu_millis, view.cpu_millis_total, cores),
            of(view.memory_bytes, view.memory_bytes_total, time::bytes),
        ]
    });
    table::render(
        &["NODE", "CPU", "MEMORY"],
        rows.collect(),
        "there are no nodes",
    )
}

/// Used of requested.
fn of(used: Option<u64>, requested: u64, show: impl Fn(u64) -> String) -> String {
    let used = used.map_or(UNKNOWN.to_owned(), &show);
    format!("{used} of {}", show(requested))
}

fn cores(millis: u64) -> String {
    format!("{millis}m")
}

fn latency(ms: f64) -> String {
    if ms >= SECOND_MS {
        return format!("{:.1} s", ms / SECOND_MS);
    }
    format!("{ms:.0} ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::id::ServiceId;

    #[test]
    fn what_is_not_known_is_a_dash_and_zero_is_zero() {
        let view = ServiceSampleView {
            id: ServiceId::from_u128(1),
            project: "shop".into(),
            environment: "production".into(),
            name: "web".into(),
            wanted: 2,
            healthy: 1,
            cpu_millis: Some(350),
            cpu_millis_requested: 500,
            memory_bytes: None,
            memory_bytes_requested: 512 << 20,
            request_rate: Some(0.0),
            in_flight: None,
            latency_p95_ms: Some(1_250.0),
            age_ms: None,
            missing: 1,
            allocations: None,
        };
        let text = services(&[view]);
        let expected = "\
SERVICE              REPLICAS  CPU           MEMORY          REQ/S  IN FLIGHT  P95
shop/production/web  1/2       350m of 500m  - of 512.0 MiB  0.0    -          1.2 s";
        assert_eq!(text, expected);
    }
}
