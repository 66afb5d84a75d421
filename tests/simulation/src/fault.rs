//! The faults of the chaos phase: drawn one after another from the seed.

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A server is killed; it starts again later.
    Kill,
    /// The power of all servers fails at once.
    KillAll,
    /// A server hears and is heard by nobody.
    Isolate,
    /// The servers fall into two groups.
    Split,
    /// Messages between two servers go one way only.
    OneWay,
    /// The network delays, loses, repeats and reorders more, or less.
    Weather,
    /// All links are whole again.
    Mend,
    /// A server stands still for longer than an election takes, then goes on.
    Pause,
    /// A record of a server's disk goes bad: it comes back under a new member id, with nothing.
    Damage,
    /// A server joins.
    Join,
    /// A server is taken out for good.
    Leave,
    /// The leader hands over.
    Transfer,
}

impl Fault {
    /// The frequent ones first, so that hard cases have time to develop between them.
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Self {
        match rng.u32(..100) {
            0..=21 => Self::Kill,
            22..=24 => Self::KillAll,
            25..=36 => Self::Isolate,
            37..=46 => Self::Split,
            47..=56 => Self::OneWay,
            57..=64 => Self::Weather,
            65..=78 => Self::Mend,
            79..=84 => Self::Pause,
            85..=88 => Self::Damage,
            89..=91 => Self::Join,
            92..=94 => Self::Leave,
            _ => Self::Transfer,
        }
    }
}
