//! Generated loads: shapes of asks and nodes, arrivals and lifetimes, all from one seed.

use fastrand::Rng;
use skep_scheduler::packing::Size;

/// One allocation over time, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Item {
    /// When it is asked for.
    pub arrival_s: f64,
    /// How long it stays; infinite: to the end.
    pub lifetime_s: f64,
    /// What it needs.
    pub size: Size,
}

const MIB: f64 = (1 << 20) as f64;
const GIB: f64 = 1024.0 * MIB;
/// Services of the mix that consists of replicas of a few.
const SERVICES: usize = 8;

/// What is asked for, and the nodes it is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Many small, some middling, few large, CPU and memory independent.
    Web,
    /// Half want CPU and little memory, half the opposite.
    Opposed,
    /// Sizes of cloud machines: powers of two, 1 to 8 GiB a core.
    Cloud,
    /// Web on nodes of four kinds.
    Uneven,
    /// Log-normal sizes, CPU and memory related.
    Lognormal,
    /// Uniform from 6 to 60 percent of a node.
    Uniform,
    /// Replicas of eight services, each of one size.
    Replicas,
    /// A heavy tail of sizes at four proportions.
    Tail,
    /// CPU-bound, with a few that want memory, on nodes with memory to spare.
    Scarce,
    /// Tenths of a node, from one to five, CPU and memory independent.
    Steps,
}

impl Mix {
    /// All. The constants were chosen by the mean over all but the last two, on other seeds; the
    /// last two were made afterwards, and nothing was changed for them.
    pub const ALL: [Self; 10] = [
        Self::Web,
        Self::Opposed,
        Self::Cloud,
        Self::Uneven,
        Self::Lognormal,
        Self::Uniform,
        Self::Replicas,
        Self::Tail,
        Self::Scarce,
        Self::Steps,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Opposed => "opposed",
            Self::Cloud => "cloud",
            Self::Uneven => "uneven",
            Self::Lognormal => "lognormal",
            Self::Uniform => "uniform",
            Self::Replicas => "replicas",
            Self::Tail => "tail",
            Self::Scarce => "scarce",
            Self::Steps => "steps",
        }
    }

    fn node(self, rng: &mut Rng) -> Size {
        let (cores, gib) = match self {
            Self::Web => (8.0, 16.0),
            Self::Opposed => (16.0, 64.0),
            Self::Cloud => (64.0, 256.0),
            Self::Uneven => {
                [(4.0, 8.0), (8.0, 16.0), (16.0, 32.0), (8.0, 32.0)][pick(rng, &[1.0; 4])]
            }
            Self::Lognormal | Self::Uniform | Self::Replicas | Self::Tail => (8.0, 32.0),
            Self::Scarce => (16.0, 128.0),
            Self::Steps => (10.0, 40.0),
        };
        size(cores * 1000.0, gib * GIB)
    }

    fn ask(self, rng: &mut Rng, services: &[Size]) -> Size {
        match self {
            Self::Web | Self::Uneven => match pick(rng, &[0.65, 0.27, 0.08]) {
                0 => size(log(rng, 50.0, 500.0), log(rng, 64.0, 768.0) * MIB),
                1 => size(log(rng, 400.0, 2e3), log(rng, 512.0, 4096.0) * MIB),
                _ => size(log(rng, 1.5e3, 6e3), log(rng, 3072.0, 12288.0) * MIB),
            },
            Self::Opposed if rng.bool() => size(log(rng, 1e3, 5e3), log(rng, 256.0, 2048.0) * MIB),
            Self::Opposed => size(log(rng, 100.0, 800.0), log(rng, 4096.0, 16384.0) * MIB),
            Self::Cloud => {
                let cores = [1.0, 2.0, 4.0, 8.0, 16.0];
                let cores = cores[pick(rng, &[0.35, 0.3, 0.2, 0.1, 0.05])];
                let gib = [1.0, 2.0, 4.0, 8.0][pick(rng, &[0.1, 0.3, 0.4, 0.2])];
                size(cores * 1000.0, cores * gib * GIB)
            }
            Self::Lognormal => {
                let a = normal(rng);
                let b = 0.6 * a + 0.8 * normal(rng);
                let cpu = (600.0 * (0.9 * a).exp()).clamp(20.0, 8e3);
                size(cpu, (1500.0 * (0.9 * b).exp()).clamp(32.0, 30e3) * MIB)
            }
            Self::Uniform => {
                let part = |rng: &mut Rng| 0.06 + 0.54 * rng.f64();
                size(part(rng) * 8e3, part(rng) * 32.0 * GIB)
            }
            Self::Replicas => services[pick(rng, &[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])],
            Self::Scarce if pick(rng, &[0.9, 0.1]) == 0 => {
                size(log(rng, 250.0, 7e3), log(rng, 256.0, 8192.0) * MIB)
            }
            Self::Scarce => size(log(rng, 250.0, 2e3), log(rng, 8192.0, 49152.0) * MIB),
            Self::Steps => {
                let tenths = |rng: &mut Rng| f64::from(rng.u32(1..=5));
                size(tenths(rng) * 1000.0, tenths(rng) * 4.0 * GIB)
            }
            Self::Tail => {
                let cpu = (20.0 * (1.0 - rng.f64()).powf(-0.8)).min(7e3);
                let mib = [0.5, 2.0, 4.0, 12.0][pick(rng, &[1.0, 1.0, 1.0, 0.6])];
                size(cpu, (cpu * mib).clamp(16.0, 30e3) * MIB)
            }
        }
    }
}

/// A source of asks and nodes of one mix; the same seed gives the same.
#[derive(Debug, Clone)]
pub struct Source {
    mix: Mix,
    rng: Rng,
    services: Vec<Size>,
}

impl Source {
    /// From a seed.
    pub fn new(mix: Mix, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let service = |_| {
            size(
                log(&mut rng, 200.0, 4e3),
                log(&mut rng, 256.0, 16384.0) * MIB,
            )
        };
        let services = (0..SERVICES).map(service).collect();
        Self { mix, rng, services }
    }

    /// Nodes of the mix.
    pub fn nodes(&mut self, count: usize) -> Vec<Size> {
        (0..count).map(|_| self.mix.node(&mut self.rng)).collect()
    }

    /// The next ask.
    pub fn ask(&mut self) -> Size {
        self.mix.ask(&mut self.rng, &self.services)
    }

    /// Exponential with this mean.
    pub fn gap(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.rng.f64()).ln()
    }

    /// Log-normal with this mean: many stay for a short while, few for very long.
    pub fn lifetime(&mut self, mean: f64) -> f64 {
        const SIGMA: f64 = 1.3;
        mean * (SIGMA * normal(&mut self.rng) - SIGMA * SIGMA / 2.0).exp()
    }
}

fn size(cpu_millis: f64, memory_bytes: f64) -> Size {
    Size {
        cpu: cpu_millis.round() as u64,
        memory: memory_bytes.round() as u64,
    }
}

/// Uniform in the logarithm.
fn log(rng: &mut Rng, least: f64, most: f64) -> f64 {
    least * (most / least).powf(rng.f64())
}

fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

fn pick(rng: &mut Rng, weights: &[f64]) -> usize {
    let mut at = rng.f64() * weights.iter().sum::<f64>();
    for (index, weight) in weights.iter().enumerate() {
        at -= weight;
        if at < 0.0 {
            return index;
        }
    }
    weights.len() - 1
}
