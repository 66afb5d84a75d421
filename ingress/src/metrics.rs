//! Counts of requests, and their text for Prometheus. Writing is a handful of relaxed atomic
//! additions; nothing here decides anything.

mod tcp;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;
use skep_model::id::{DeploymentId, ServiceId};
pub use skep_model::sample::LATENCY_BOUNDS_US;
use skep_model::sample::{CLASSES, LATENCY_BUCKETS as BUCKETS, TriedCounters};

use crate::reply::Refusal;
pub(crate) use tcp::Connected;
use tcp::TcpCounters;
pub use tcp::TcpSnapshot;

/// The labels of [`ServiceSnapshot::requests`]: status classes, and requests that the client
/// left before there was an answer.
pub const CODES: [&str; CLASSES] = ["1xx", "2xx", "3xx", "4xx", "5xx", "aborted"];
const ABORTED: usize = 5;

/// Live counters of a service.
#[derive(Debug)]
pub(crate) struct ServiceMetrics {
    service: ServiceId,
    requests: [AtomicU64; CLASSES],
    in_flight: AtomicU64,
    latency: [AtomicU64; BUCKETS],
    latency_sum_us: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    pub(crate) tcp: TcpCounters,
    /// The release that is tried, as the table says that is served now.
    tried: Mutex<Option<Arc<TriedMetrics>>>,
}

/// Live counters of a release that is tried beside the live one.
#[derive(Debug)]
pub(crate) struct TriedMetrics {
    deployment: DeploymentId,
    requests: [AtomicU64; CLASSES],
    latency: [AtomicU64; BUCKETS],
    moved_on: AtomicU64,
}

impl TriedMetrics {
    /// A request got no answer from it, and is sent to another backend.
    pub(crate) fn moved_on(&self) {
        self.moved_on.fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> TriedCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TriedCounters {
            deployment: self.deployment,
            requests: self.requests.each_ref().map(read),
            latency: self.latency.each_ref().map(read),
            moved_on: read(&self.moved_on),
        }
    }
}

impl ServiceMetrics {
    pub(crate) fn new(service: ServiceId) -> Self {
        Self {
            service,
            requests: Default::default(),
            in_flight: AtomicU64::new(0),
            latency: Default::default(),
            latency_sum_us: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            tcp: TcpCounters::default(),
            tried: Mutex::new(None),
        }
    }

    /// The counters of what this deployment brings: those that there are, or new ones.
    pub(crate) fn tried(&self, deployment: DeploymentId) -> Arc<TriedMetrics> {
        let mut tried = self.tried.lock();
        match &*tried {
            Some(known) if known.deployment == deployment => Arc::clone(known),
            _ => {
                let new = TriedMetrics {
                    deployment,
                    requests: Default::default(),
                    latency: Default::default(),
                    moved_on: AtomicU64::new(0),
                };
                Arc::clone(tried.insert(Arc::new(new)))
            }
        }
    }

    /// Forgets what is not tried any more.
    fn forget_tried(&self) {
        let mut tried = self.tried.lock();
        // Backends that are tried have the others.
        if tried.as_ref().is_some_and(|it| Arc::strong_count(it) == 1) {
            *tried = None;
        }
    }

    pub(crate) fn service(&self) -> ServiceId {
        self.service
    }

    pub(crate) fn add_request_bytes(&self, bytes: usize) {
        self.request_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_response_bytes(&self, bytes: usize) {
        self.response_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn snapshot(&self) -> ServiceSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServiceSnapshot {
            service: self.service,
            requests: self.requests.each_ref().map(read),
            in_flight: read(&self.in_flight),
            latency: self.latency.each_ref().map(read),
            latency_sum_us: read(&self.latency_sum_us),
            request_bytes: read(&self.request_bytes),
            response_bytes: read(&self.response_bytes),
            tcp: self.tcp.snapshot(),
            tried: self.tried.lock().as_ref().map(|tried| tried.snapshot()),
        }
    }
}

/// Counts one request: in flight until dropped, its status and latency when the head of the
/// answer is known. So a stream counts when it begins, not when it ends hours later.
#[derive(Debug)]
pub(crate) struct Meter {
    service: Arc<ServiceMetrics>,
    began: Instant,
    answered: bool,
}

impl Meter {
    pub(crate) fn new(service: Arc<ServiceMetrics>) -> Self {
        service.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            service,
            began: Instant::now(),
            answered: false,
        }
    }

    pub(crate) fn service(&self) -> &Arc<ServiceMetrics> {
        &self.service
    }

    /// The head of the answer is known; with the counters of whoever gave it, or failed to, where it is tried.
    pub(crate) fn answered(&mut self, status: StatusCode, tried: Option<&TriedMetrics>) {
        self.answered = true;
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.service.requests[class].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < micros);
        self.service.latency[bucket].fetch_add(1, Ordering::Relaxed);
        if let Some(tried) = tried {
            tried.requests[class].fetch_add(1, Ordering::Relaxed);
            tried.latency[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.service
            .latency_sum_us
            .fetch_add(micros, Ordering::Relaxed);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.service.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            self.service.requests[ABORTED].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A number that goes up and down with the life of its [`Present`]s.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauge(Arc<AtomicU64>);

/// One counted in a [`Gauge`].
#[derive(Debug)]
pub(crate) struct Present(Gauge);

impl Gauge {
    pub(crate) fn enter(&self) -> Present {
        self.0.fetch_add(1, Ordering::Relaxed);
        Present(self.clone())
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        (self.0).0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Every counter of an ingress.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    services: Mutex<BTreeMap<ServiceId, Arc<ServiceMetrics>>>,
    refusals: [AtomicU64; Refusal::ALL.len()],
    pub(crate) connections: Gauge,
    pub(crate) tunnels: Gauge,
    failed_arrivals: AtomicU64,
}

impl Registry {
    pub(crate) fn service(&self, service: ServiceId) -> Arc<ServiceMetrics> {
        let mut services = self.services.lock();
        Arc::clone(
            services
                .entry(service)
                .or_insert_with(|| Arc::new(ServiceMetrics::new(service))),
        )
    }

    /// Forgets services that neither a table nor a request refers to, and releases that none tries.
    pub(crate) fn forget_unused(&self) {
        self.services.lock().retain(|_, metrics| {
            metrics.forget_tried();
            Arc::strong_count(metrics) > 1
        });
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended before there was a request: a handshake or a header of the PROXY protocol that
    /// was none, or not in time.
    pub(crate) fn failed_arrival(&self) {
        self.failed_arrivals.fetch_add(1, Ordering::Relaxed);
    }

    /// All but what the access log counts.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let refusals = Refusal::ALL.iter().zip(&self.refusals);
        Snapshot {
            services: self
                .services
                .lock()
                .values()
                .map(|metrics| metrics.snapshot())
                .collect(),
            refusals: refusals
                .map(|(refusal, count)| (refusal.code(), count.load(Ordering::Relaxed)))
                .collect(),
            connections: self.connections.count(),
            tunnels: self.tunnels.count(),
            failed_arrivals: self.failed_arrivals.load(Ordering::Relaxed),
            access_lines_lost: 0,
        }
    }
}

/// The counters of an ingress at one moment. Counters begin at 0 with the process, and a
/// service's also when it comes back after no table named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// In the order of their ids.
    pub services: Vec<ServiceSnapshot>,
    /// Answers that the ingress gave by itself, by the code in `x-skep-error`.
    pub refusals: Vec<(&'static str, u64)>,
    /// Open connections of clients.
    pub connections: u64,
    /// Open upgraded connections.
    pub tunnels: u64,
    /// Connections without a TLS handshake, or without a header of the PROXY protocol where one is due.
    pub failed_arrivals: u64,
    /// Lines of the access log that could not be written.
    pub access_lines_lost: u64,
}

/// The counters of a service at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSnapshot {
    /// Whose.
    pub service: ServiceId,
    /// Requests since the start, by [`CODES`]. Refusals for want of a backend are among them.
    pub requests: [u64; CLASSES],
    /// Requests now: bodies being streamed and upgraded connections included.
    pub in_flight: u64,
    /// Requests by time to the head of the answer: not cumulative, bounds in
    /// [`LATENCY_BOUNDS_US`], the last without a bound.
    pub latency: [u64; BUCKETS],
    /// The sum of these times, in microseconds.
    pub latency_sum_us: u64,
    /// Bytes of requests' bodies.
    pub request_bytes: u64,
    /// Bytes of answers' bodies.
    pub response_bytes: u64,
    /// Connections of TCP routes.
    pub tcp: TcpSnapshot,
    /// What is among these of the release that is tried; none: none is.
    pub tried: Option<TriedCounters>,
}

/// A number of a service.
type Value = fn(&ServiceSnapshot) -> u64;

impl Snapshot {
    /// Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        family(
            &mut text,
            "skep_ingress_connections",
            "gauge",
            "Open connections of clients.",
        );
        line(&mut text, "skep_ingress_connections", "", self.connections);
        family(
            &mut text,
            "skep_ingress_tunnels",
            "gauge",
            "Open upgraded connections.",
        );
        line(&mut text, "skep_ingress_tunnels", "", self.tunnels);
        let (arrivals, lost) = (self.failed_arrivals, self.access_lines_lost);
        for (name, help, count) in [
            (
                "skep_ingress_failed_arrivals_total",
                "Connections without a TLS handshake, or without a header of the PROXY protocol where one is due.",
                arrivals,
            ),
            (
                "skep_ingress_access_lines_lost_total",
                "Lines of the access log that could not be written.",
                lost,
            ),
        ] {
            family(&mut text, name, "counter", help);
            line(&mut text, name, "", count);
        }
        family(
            &mut text,
            "skep_ingress_refusals_total",
            "counter",
            "Answers that the ingress gave by itself.",
        );
        for (code, count) in &self.refusals {
            line(
                &mut text,
                "skep_ingress_refusals_total",
                &format!("{{code=\"{code}\"}}"),
                *count,
            );
        }
        family(
            &mut text,
            "skep_ingress_requests_total",
            "counter",
            "Requests by class of status.",
        );
        for it in &self.services {
            for (code, count) in CODES.iter().zip(it.requests) {
                let labels = format!("{{service=\"{}\",code=\"{code}\"}}", it.service);
                line(&mut text, "skep_ingress_requests_total", &labels, count);
            }
        }
        let simple: [(&str, &str, &str, Value); 3] = [
            (
                "skep_ingress_requests_in_flight",
                "gauge",
                "Requests now.",
                |it| it.in_flight,
            ),
            (
                "skep_ingress_request_bytes_total",
                "counter",
                "Bytes of requests' bodies.",
                |it| it.request_bytes,
            ),
            (
                "skep_ingress_response_bytes_total",
                "counter",
                "Bytes of answers' bodies.",
                |it| it.response_bytes,
            ),
        ];
        for (name, kind, help, value) in simple.into_iter().chain(tcp::FAMILIES) {
            family(&mut text, name, kind, help);
            for it in &self.services {
                line(
                    &mut text,
                    name,
                    &format!("{{service=\"{}\"}}", it.service),
                    value(it),
                );
            }
        }
        let name = "skep_ingress_response_seconds";
        family(
            &mut text,
            name,
            "histogram",
            "Time to the head of the answer.",
        );
        for it in &self.services {
            histogram(&mut text, name, it);
        }
        text
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name}{labels} {value}");
}

fn histogram(text: &mut String, name: &str, it: &ServiceSnapshot) {
    let service = it.service;
    let mut so_far = 0;
    for (place, count) in it.latency.iter().enumerate() {
        so_far += count;
        let bound = LATENCY_BOUNDS_US
            .get(place)
            .map_or("+Inf".to_owned(), |bound| {
                Duration::from_micros(*bound).as_secs_f64().to_string()
            });
        line(
            text,
            &format!("{name}_bucket"),
            &format!("{{service=\"{service}\",le=\"{bound}\"}}"),
            so_far,
        );
    }
    let seconds = Duration::from_micros(it.latency_sum_us).as_secs_f64();
    line(
        text,
        &format!("{name}_sum"),
        &format!("{{service=\"{service}\"}}"),
        seconds,
    );
    line(
        text,
        &format!("{name}_count"),
        &format!("{{service=\"{service}\"}}"),
        so_far,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_class_and_aborted_ones_apart() {
        let registry = Registry::default();
        let metrics = registry.service(ServiceId::from_u128(7));
        let mut answered = Meter::new(Arc::clone(&metrics));
        answered.answered(StatusCode::NOT_FOUND, None);
        let left = Meter::new(Arc::clone(&metrics));
        assert_eq!(registry.snapshot().services[0].in_flight, 2);
        drop((answered, left));
        let service = &registry.snapshot().services[0];
        assert_eq!(
            (service.in_flight, service.requests),
            (0, [0, 0, 0, 1, 0, 1])
        );
        assert_eq!(service.latency.iter().sum::<u64>(), 1);
    }

    #[test]
    fn text_has_cumulative_buckets_in_seconds() {
        let registry = Registry::default();
        let metrics = registry.service(ServiceId::from_u128(7));
        metrics.latency[0].store(2, Ordering::Relaxed);
        metrics.latency[2].store(3, Ordering::Relaxed);
        metrics.latency_sum_us.store(1_500_000, Ordering::Relaxed);
        registry.refused(Refusal::UnknownHost);
        let text = registry.snapshot().render();
        let id = ServiceId::from_u128(7);
        for expected in [
            format!("skep_ingress_response_seconds_bucket{{service=\"{id}\",le=\"0.001\"}} 2"),
            format!("skep_ingress_response_seconds_bucket{{service=\"{id}\",le=\"0.005\"}} 5"),
            format!("skep_ingress_response_seconds_bucket{{service=\"{id}\",le=\"+Inf\"}} 5"),
            format!("skep_ingress_response_seconds_sum{{service=\"{id}\"}} 1.5"),
            format!("skep_ingress_requests_total{{service=\"{id}\",code=\"2xx\"}} 0"),
            "skep_ingress_refusals_total{code=\"unknown_host\"} 1".to_owned(),
        ] {
            assert!(
                text.lines().any(|line| line == expected),
                "{expected} in\n{text}"
            );
        }
    }

    #[test]
    fn a_service_is_forgotten_when_nothing_refers_to_it() {
        let registry = Registry::default();
        let kept = registry.service(ServiceId::from_u128(1));
        registry.service(ServiceId::from_u128(2));
        registry.forget_unused();
        let left: Vec<_> = registry
            .snapshot()
            .services
            .iter()
            .map(|it| it.service)
            .collect();
        assert_eq!(left, [kept.service()]);
    }
}
