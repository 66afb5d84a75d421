//! How many replicas a service should have, as pure functions: samples and time go in, a decision
//! with its reasons comes out. Whoever calls takes the samples, stores the [`History`] (a plain
//! value: a new leader is handed it, or starts with an empty one and holds), and carries decisions
//! out. Nothing here reads a clock, measures, or starts a replica.
//!
//! The same inputs give the same decision on every machine: sums are integers, and floating point
//! is used only for `+ - * /` and square roots, which IEEE 754 rounds alike everywhere.
//!
//! ```text
//! samples ─► History::observe ─► decide(spec, observed, history, now) ─► Decision
//!                 ▲                                                        │
//!                 └──────────────── History::record ◄──────────────────────┘
//! ```

pub mod advice;
mod bounds;
mod decide;
mod desire;
mod estimate;
pub mod history;
mod pace;
pub mod pool;
pub mod reason;
pub mod series;
pub mod trial;
pub mod usage;

pub use decide::{Activity, Decision, Observed, decide};
pub use history::History;
pub use reason::Reason;
pub use series::Sample;
