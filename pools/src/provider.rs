//! Where guests come from: Proxmox, a program of an operator's, a list of machines that exist. All of them are driven alike: a
//! turn looks, and does at most one thing; what is to be written down is written down before the next.

use std::future::Future;

use skep_model::pool::Guest;
use skep_proxmox::{Error, Kind, Transport};

use crate::driver::{Driver, Turn};

/// Why a turn came to nothing. The next one looks again, whatever it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Nothing was done, and later it may work.
    #[error("{0}")]
    Passing(String),
    /// Nothing was done, and somebody has to change something first.
    #[error("{0}")]
    Refused(String),
    /// It may have been done.
    #[error("nobody knows whether it was done: {0}")]
    Unknown(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error.kind {
            Kind::OutcomeUnknown | Kind::TimedOut => Self::Unknown(text),
            kind if kind.is_passing() => Self::Passing(text),
            _ => Self::Refused(text),
        }
    }
}

/// Drives the guests of a pool.
pub trait Provider: Send + Sync {
    /// Does the next thing with a guest. `others` are all guests that are written down, of every pool of this provider's: what
    /// they have is taken.
    fn turn(
        &self,
        guest: &Guest,
        others: &[Guest],
        now_ms: u64,
    ) -> impl Future<Output = Result<Turn, Trouble>> + Send;

    /// Tells a guest how to join, after [`Turn::Introduce`] and once that is written down: the environment of its agent, a
    /// line of `SKEP_NAME=value` for each variable.
    fn introduce(
        &self,
        guest: &Guest,
        text: &str,
    ) -> impl Future<Output = Result<Turn, Trouble>> + Send;

    /// Whether guests are told by people, to whom the text is shown: then no turn is [`Turn::Introduce`].
    fn is_told_by_people(&self) -> bool {
        false
    }
}

impl<T: Transport> Provider for Driver<'_, T> {
    async fn turn(&self, guest: &Guest, others: &[Guest], now_ms: u64) -> Result<Turn, Trouble> {
        Ok(Driver::turn(self, guest, others, now_ms).await?)
    }

    async fn introduce(&self, guest: &Guest, text: &str) -> Result<Turn, Trouble> {
        Ok(Driver::introduce(self, guest, text).await?)
    }
}
