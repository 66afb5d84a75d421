//! What happens in the private networks of this node, counted by environment: as many as have a bridge here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hickory_proto::op::ResponseCode;
use skep_model::id::EnvironmentId;

/// Of one environment.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections that are carried now.
    pub(super) open: AtomicU64,
    /// Connections that came about.
    pub(super) carried: AtomicU64,
    /// Connections that did not: nobody took them, or there was no room.
    pub(super) failed: AtomicU64,
    known: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    forwarded: AtomicU64,
}

impl Counters {
    /// A question was answered from the table.
    pub(super) fn answered(&self, code: ResponseCode) {
        let which = match code {
            ResponseCode::NoError => &self.known,
            ResponseCode::NXDomain => &self.unknown,
            _ => &self.refused,
        };
        which.fetch_add(1, Ordering::Relaxed);
    }

    /// A question was passed on; or there was no room for it.
    pub(super) fn forwarded(&self, had_room: bool) {
        let which = if had_room {
            &self.forwarded
        } else {
            &self.refused
        };
        which.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection that is carried, for as long as it lives.
#[derive(Debug)]
pub(super) struct Carried(Arc<Counters>);

impl Carried {
    pub(super) fn begin(counters: &Arc<Counters>) -> Self {
        counters.carried.fetch_add(1, Ordering::Relaxed);
        counters.open.fetch_add(1, Ordering::Relaxed);
        Self(counters.clone())
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All of them, as Prometheus reads it.
pub(super) fn render(all: &BTreeMap<EnvironmentId, Arc<Counters>>) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write(&mut text, all);
    text
}

fn write(text: &mut String, all: &BTreeMap<EnvironmentId, Arc<Counters>>) -> std::fmt::Result {
    let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
    writeln!(
        text,
        "# HELP skep_private_connections Connections by private names that are open.\n\
         # TYPE skep_private_connections gauge"
    )?;
    for (id, one) in all {
        let open = read(&one.open);
        writeln!(
            text,
            "skep_private_connections{{environment=\"{id}\"}} {open}"
        )?;
    }
    writeln!(
        text,
        "# HELP skep_private_connections_total Connections by private names: carried, or failed.\n\
         # TYPE skep_private_connections_total counter"
    )?;
    for (id, one) in all {
        for (outcome, count) in [("carried", &one.carried), ("failed", &one.failed)] {
            let count = read(count);
            writeln!(
                text,
                "skep_private_connections_total{{environment=\"{id}\",outcome=\"{outcome}\"}} {count}"
            )?;
        }
    }
    writeln!(
        text,
        "# HELP skep_private_names_total Questions for names: known, unknown, refused, or passed on.\n\
         # TYPE skep_private_names_total counter"
    )?;
    for (id, one) in all {
        for (outcome, count) in [
            ("known", &one.known),
            ("unknown", &one.unknown),
            ("refused", &one.refused),
            ("forwarded", &one.forwarded),
        ] {
            let count = read(count);
            writeln!(
                text,
                "skep_private_names_total{{environment=\"{id}\",outcome=\"{outcome}\"}} {count}"
            )?;
        }
    }
    Ok(())
}
