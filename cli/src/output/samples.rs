//! What services, allocations and nodes use, as tables. What is not known is a dash.

use skep_control_plane::api::types::{
    AllocationSampleView, DetailView, NodeSampleView, ServiceSampleView,
};

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

/// The allocations of all services, with everything that is known.
pub(crate) fn wide(services: &[ServiceSampleView]) -> String {
    let each = services.iter().flat_map(|service| {
        let views = service.allocations.iter().flatten();
        views.map(|view| (service.name.as_str(), view))
    });
    let rows = each.map(|(service, view)| {
        let DetailView {
            throttled_percent,
            cpu_wait_percent,
            memory_wait_percent,
            io_wait_percent,
            disk_read_per_s,
            disk_written_per_s,
            network_received_per_s,
            network_sent_per_s,
            memory_peak_bytes,
            throttled_ms_per_s: _,
        } = view.detail;
        vec![
            service.to_owned(),
            view.id.to_string(),
            view.node.clone(),
            view.restarts.to_string(),
            of(view.cpu_millis, view.cpu_millis_requested, cores),
            throttled_percent.map_or(UNKNOWN.into(), percent),
            of(view.memory_bytes, view.memory_bytes_requested, time::bytes),
            memory_peak_bytes.map_or(UNKNOWN.into(), time::bytes),
            both(
                [cpu_wait_percent, memory_wait_percent, io_wait_percent],
                percent,
            ),
            both([disk_read_per_s, disk_written_per_s], rate),
            both([network_received_per_s, network_sent_per_s], rate),
        ]
    });
    let columns = [
        "SERVICE",
        "ALLOCATION",
        "NODE",
        "RESTARTS",
        "CPU",
        "THROTTLED",
        "MEMORY",
        "PEAK",
        "WAITS CPU/MEM/IO",
        "DISK R/W",
        "NET IN/OUT",
    ];
    table::render(&columns, rows.collect(), "nothing runs")
}

/// What is known of several, one after the other; nothing of none is one dash.
fn both<const N: usize>(values: [Option<f64>; N], show: impl Fn(f64) -> String) -> String {
    if values.iter().all(Option::is_none) {
        return UNKNOWN.to_owned();
    }
    let each = values.map(|value| value.map_or(UNKNOWN.to_owned(), &show));
    each.join(" / ")
}

fn percent(value: f64) -> String {
    format!("{value:.0}%")
}

/// Bytes a second.
fn rate(value: f64) -> String {
    // Never negative, and far below what would be cut.
    format!("{}/s", time::bytes(value.round() as u64))
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
    use skep_model::allocation::State;
    use skep_model::id::{AllocationId, ServiceId};

    #[test]
    fn wide_shows_each_allocation_and_what_its_kernel_counts() {
        let view = AllocationSampleView {
            id: AllocationId::from_u128(1),
            node: "one".into(),
            release: 3,
            state: State::Healthy,
            cpu_millis: Some(250),
            cpu_millis_requested: 250,
            memory_bytes: Some(100 << 20),
            memory_bytes_requested: 128 << 20,
            restarts: 2,
            detail: DetailView {
                throttled_percent: Some(41.7),
                disk_read_per_s: Some(0.0),
                disk_written_per_s: Some(2_048.4),
                memory_peak_bytes: Some(120 << 20),
                ..DetailView::default()
            },
        };
        let id = view.id;
        let service = ServiceSampleView {
            allocations: Some(vec![view]),
            ..service()
        };
        let text = wide(&[service]);
        let row: Vec<&str> = text.lines().nth(1).expect("a row").split("  ").collect();
        let cells: Vec<&str> = row
            .iter()
            .map(|it| it.trim())
            .filter(|it| !it.is_empty())
            .collect();
        let id = id.to_string();
        assert_eq!(
            cells,
            [
                "web",
                &id,
                "one",
                "2",
                "250m of 250m",
                "42%",
                "100.0 MiB of 128.0 MiB",
                "120.0 MiB",
                "-",
                "0 B/s / 2.0 KiB/s",
                "-"
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_zero_is_zero() {
        let text = services(&[service()]);
        let expected = "\
SERVICE              REPLICAS  CPU           MEMORY          REQ/S  IN FLIGHT  P95
shop/production/web  1/2       350m of 500m  - of 512.0 MiB  0.0    -          1.2 s";
        assert_eq!(text, expected);
    }

    fn service() -> ServiceSampleView {
        ServiceSampleView {
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
        }
    }
}
