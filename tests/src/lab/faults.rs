//! What befalls servers in a lab, and how it is undone. Each fault leaves a majority whole: writes
//! have to go on.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cluster::LabCluster;

/// Share of packets that a bad cable loses.
const LOSS_PERCENT: u32 = 30;
/// A step of a clock, in seconds: longer than any lease or timeout, shorter than a certificate's
/// life, which has a test of its own.
const STEP_S: i64 = 3_600;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9, started again afterwards.
    Kill,
    /// SIGSTOP for longer than an election takes.
    Freeze,
    /// No packet in or out.
    Cut,
    /// As that, while clients still reach it.
    CutFromPeers,
    /// It hears nothing of the other servers, and they hear it.
    Deaf,
    /// The other servers hear nothing of it, and it hears them.
    Mute,
    /// A third of what arrives is lost.
    Lossy,
    /// Not a byte is left on the disk of its data.
    FullDisk,
    /// Its clock is an hour ahead.
    ClockAhead,
    /// Its clock is an hour behind.
    ClockBehind,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Kill,
        Self::Freeze,
        Self::Cut,
        Self::CutFromPeers,
        Self::Deaf,
        Self::Mute,
        Self::Lossy,
        Self::FullDisk,
        Self::ClockAhead,
        Self::ClockBehind,
    ];

    /// How long it lasts at least: a frozen server has to miss an election.
    pub fn least(self) -> Duration {
        match self {
            Self::Freeze => Duration::from_secs(4),
            _ => Duration::from_millis(500),
        }
    }

    /// Lets it befall a server.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn befall(self, cluster: &LabCluster, victim: usize) -> Result<()> {
        let host = cluster.host(victim);
        let others = || (0..cluster.servers.all().len()).filter(move |place| *place != victim);
        match self {
            Self::Kill => cluster.servers.kill(victim).await,
            Self::Freeze => cluster.servers.freeze(victim).await,
            Self::Cut => host.cut().await,
            Self::CutFromPeers => {
                for other in others() {
                    host.cut_from(cluster.host(other).address()).await?;
                }
                Ok(())
            }
            Self::Deaf => {
                for other in others() {
                    host.deafen(cluster.host(other).address()).await?;
                }
                Ok(())
            }
            Self::Mute => {
                for other in others() {
                    cluster.host(other).deafen(host.address()).await?;
                }
                Ok(())
            }
            Self::Lossy => host.lose(LOSS_PERCENT).await,
            Self::FullDisk => cluster.fill_disk(victim).await.map(drop),
            Self::ClockAhead => cluster.clock(victim).step(STEP_S),
            Self::ClockBehind => cluster.clock(victim).step(-STEP_S),
        }
    }

    /// Undoes it. A server that ended meanwhile, as one without a disk may, is started again.
    ///
    /// # Errors
    /// The kernel refused, or the server does not start.
    pub async fn undo(self, cluster: &LabCluster, victim: usize) -> Result<()> {
        match self {
            Self::Freeze => cluster.servers.thaw(victim).await?,
            Self::FullDisk => cluster.empty_disk(victim).await?,
            Self::ClockAhead | Self::ClockBehind => cluster.clock(victim).step(0)?,
            Self::Kill => {}
            Self::Cut | Self::CutFromPeers | Self::Deaf | Self::Mute | Self::Lossy => {
                for place in 0..cluster.servers.all().len() {
                    cluster.host(place).mend().await?;
                }
            }
        }
        let started = cluster.servers.start_all().await?;
        if self != Self::Kill && !started.is_empty() {
            println!("{self:?}: server {started:?} had ended and was started again");
        }
        let undone = cluster.servers.settled().await;
        undone
            .map(drop)
            .with_context(|| format!("after {self:?} of server {victim}"))
    }
}
