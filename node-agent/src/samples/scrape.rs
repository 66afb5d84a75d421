//! The machine and its containers for Prometheus. Read when they are asked for: nobody who does not
//! scrape pays for it. Labels are bounded by what runs here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use skep_model::id::AllocationId;
use tokio::sync::watch;

use super::extra::{self, ExtraFiles};
use super::reader::{Reader, read};
use super::running::{Board, Running};
use crate::logs::Places;

/// Reads for scrapes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    board: Board,
    places: watch::Receiver<Places>,
    data_dir: PathBuf,
    reader: Arc<Mutex<Reader>>,
}

/// One family of values.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    values: Vec<(String, u64)>,
}

const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

impl Scrape {
    /// Of the containers on `board`, which `places` has the names of.
    pub(crate) fn new(board: Board, places: watch::Receiver<Places>, data_dir: PathBuf) -> Self {
        Self {
            board,
            places,
            data_dir,
            reader: Arc::default(),
        }
    }

    /// Prometheus' text format. Blocks on the kernel.
    pub(crate) fn render(&self) -> String {
        let mut families = self.machine();
        families.extend(self.containers());
        let mut text = String::new();
        for family in families.iter().filter(|family| !family.values.is_empty()) {
            let Family {
                name, kind, help, ..
            } = family;
            // Writing into a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in &family.values {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        }
        text
    }

    fn machine(&self) -> Vec<Family> {
        let reading = self.reader.lock().machine();
        let mut buffer = String::new();
        let one = |value: Option<u64>| -> Vec<(String, u64)> {
            value
                .map(|value| (String::new(), value))
                .into_iter()
                .collect()
        };
        let mut pressure = Vec::new();
        for of in RESOURCES {
            let path = PathBuf::from(format!("/proc/pressure/{of}"));
            let total = read(&path, &mut buffer).and_then(extra::pressure_us);
            pressure.extend(total.map(|total| (format!("{{resource=\"{of}\"}}"), total)));
        }
        let network = read(Path::new("/proc/net/dev"), &mut buffer).and_then(extra::network_bytes);
        let disk = rustix::fs::statvfs(&self.data_dir).ok();
        let of_disk = |blocks: u64, size: u64| blocks.saturating_mul(size);
        vec![
            counter(
                "skep_node_cpu_microseconds_total",
                "CPU time of the machine, all cores.",
                one(reading.cpu_us),
            ),
            gauge(
                "skep_node_memory_used_bytes",
                "Memory that is not available any more.",
                one(reading.memory_bytes),
            ),
            counter(
                "skep_node_pressure_microseconds_total",
                "Time in which something waited (PSI, some).",
                pressure,
            ),
            counter(
                "skep_node_network_received_bytes_total",
                "Received on all interfaces but the loopback.",
                one(network.map(|it| it.0)),
            ),
            counter(
                "skep_node_network_sent_bytes_total",
                "Sent on all interfaces but the loopback.",
                one(network.map(|it| it.1)),
            ),
            gauge(
                "skep_node_disk_size_bytes",
                "Size of the file system of the agent's data.",
                one(disk.as_ref().map(|it| of_disk(it.f_blocks, it.f_frsize))),
            ),
            gauge(
                "skep_node_disk_free_bytes",
                "What the agent may still write there.",
                one(disk.map(|it| of_disk(it.f_bavail, it.f_frsize))),
            ),
        ]
    }

    fn containers(&self) -> Vec<Family> {
        let all = self.board.all();
        let readings = self.reader.lock().containers(&all);
        let mut cpu = counter("skep_container_cpu_microseconds_total", "CPU time.", vec![]);
        let mut memory = gauge(
            "skep_container_memory_working_set_bytes",
            "Memory without file pages that the kernel would take first.",
            vec![],
        );
        for reading in readings {
            let labels = format!("{{{}}}", self.labels(reading.allocation));
            cpu.values
                .extend(reading.cpu_us.map(|us| (labels.clone(), us)));
            memory
                .values
                .extend(reading.memory_bytes.map(|it| (labels, it)));
        }
        let mut families = vec![cpu, memory];
        families.extend(self.extras(&all));
        families
    }

    fn extras(&self, all: &[(AllocationId, Running)]) -> [Family; 7] {
        let mut throttles = counter(
            "skep_container_cpu_throttled_total",
            "Times it was held back for its CPU limit.",
            vec![],
        );
        let mut throttled = counter(
            "skep_container_cpu_throttled_microseconds_total",
            "How long it was held back for its CPU limit.",
            vec![],
        );
        let mut pressure = counter(
            "skep_container_pressure_microseconds_total",
            "Time in which something of it waited (PSI, some).",
            vec![],
        );
        let mut reads = counter(
            "skep_container_disk_read_bytes_total",
            "Read from disks.",
            vec![],
        );
        let mut writes = counter(
            "skep_container_disk_written_bytes_total",
            "Written to disks.",
            vec![],
        );
        let mut received = counter(
            "skep_container_network_received_bytes_total",
            "Received on all interfaces but the loopback.",
            vec![],
        );
        let mut sent = counter(
            "skep_container_network_sent_bytes_total",
            "Sent on all interfaces but the loopback.",
            vec![],
        );
        let mut buffer = String::new();
        for (id, running) in all {
            let names = self.labels(*id);
            let labels = format!("{{{names}}}");
            let Some(files) = self.reader.lock().extra_files(*id) else {
                continue;
            };
            let ExtraFiles {
                cpu_stat,
                is_v1,
                pressure: waits,
                io,
            } = &files;
            let stat = cpu_stat.as_ref().and_then(|path| read(path, &mut buffer));
            if let Some((times, us)) = stat.and_then(|text| extra::throttled(text, *is_v1)) {
                throttles.values.push((labels.clone(), times));
                throttled.values.push((labels.clone(), us));
            }
            for (of, path) in RESOURCES.into_iter().zip(waits) {
                let text = path.as_ref().and_then(|path| read(path, &mut buffer));
                let total = text.and_then(extra::pressure_us);
                let labels = format!("{{{names},resource=\"{of}\"}}");
                pressure.values.extend(total.map(|total| (labels, total)));
            }
            if let Some(text) = io.as_ref().and_then(|path| read(path, &mut buffer)) {
                let (read, written) = extra::disk_bytes(text, *is_v1);
                reads.values.push((labels.clone(), read));
                writes.values.push((labels.clone(), written));
            }
            let path = PathBuf::from(format!("/proc/{}/net/dev", running.pid));
            if let Some(bytes) = read(&path, &mut buffer).and_then(extra::network_bytes) {
                received.values.push((labels.clone(), bytes.0));
                sent.values.push((labels, bytes.1));
            }
        }
        [
            throttles, throttled, pressure, reads, writes, received, sent,
        ]
    }

    /// Names are letters, digits and dashes: nothing of them has to be escaped.
    fn labels(&self, id: AllocationId) -> String {
        let places = self.places.borrow();
        let names = places
            .get(&id)
            .map(|place| place.names.clone())
            .unwrap_or_default();
        format!(
            "allocation=\"{id}\",project=\"{}\",environment=\"{}\",service=\"{}\"",
            names.project, names.environment, names.service
        )
    }
}

fn counter(name: &'static str, help: &'static str, values: Vec<(String, u64)>) -> Family {
    Family {
        name,
        kind: "counter",
        help,
        values,
    }
}

fn gauge(name: &'static str, help: &'static str, values: Vec<(String, u64)>) -> Family {
    Family {
        name,
        kind: "gauge",
        help,
        values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_scraped() {
        let (_sender, places) = watch::channel(Places::default());
        let scrape = Scrape::new(Board::default(), places, "/".into());
        let text = scrape.render();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse::<u64>().ok())
        };
        for name in [
            "skep_node_cpu_microseconds_total",
            "skep_node_memory_used_bytes",
            "skep_node_disk_size_bytes",
        ] {
            assert!(
                value(name).is_some_and(|value| value > 0),
                "{name} in\n{text}"
            );
        }
    }
}
