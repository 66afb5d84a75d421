//! Counts of connections of TCP routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{ServiceMetrics, Value};

/// Live counters of a service's connections.
#[derive(Debug, Default)]
pub(crate) struct TcpCounters {
    open: AtomicU64,
    total: AtomicU64,
    failed: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl TcpCounters {
    /// Bytes from clients.
    pub(crate) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes to them.
    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// No backend has taken a connection.
    pub(crate) fn add_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> TcpSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TcpSnapshot {
            open: read(&self.open),
            total: read(&self.total),
            failed: read(&self.failed),
            received_bytes: read(&self.received),
            sent_bytes: read(&self.sent),
        }
    }
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub(crate) struct Connected(Arc<ServiceMetrics>);

impl Connected {
    pub(crate) fn new(service: &Arc<ServiceMetrics>) -> Self {
        service.tcp.open.fetch_add(1, Ordering::Relaxed);
        service.tcp.total.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(service))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.tcp.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counters of a service's connections at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpSnapshot {
    /// Now.
    pub open: u64,
    /// Since the start, those that are open included.
    pub total: u64,
    /// That no backend has taken.
    pub failed: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
}

/// Name, kind, help and value of each.
pub(super) const FAMILIES: [(&str, &str, &str, Value); 5] = [
    (
        "skep_ingress_tcp_connections",
        "gauge",
        "Open connections of TCP routes.",
        |it| it.tcp.open,
    ),
    (
        "skep_ingress_tcp_connections_total",
        "counter",
        "Connections of TCP routes.",
        |it| it.tcp.total,
    ),
    (
        "skep_ingress_tcp_failures_total",
        "counter",
        "Connections of TCP routes that no replica has taken.",
        |it| it.tcp.failed,
    ),
    (
        "skep_ingress_tcp_received_bytes_total",
        "counter",
        "Bytes from clients of TCP routes.",
        |it| it.tcp.received_bytes,
    ),
    (
        "skep_ingress_tcp_sent_bytes_total",
        "counter",
        "Bytes to clients of TCP routes.",
        |it| it.tcp.sent_bytes,
    ),
];
