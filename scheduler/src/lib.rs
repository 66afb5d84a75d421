//! Where allocations go and when they come and go: placement and rollout as pure functions over a
//! view of the cluster. Same input, same plan, whatever the order it is given in.
//!
//! Never does IO, never waits, never reads a clock or a random number, never talks to a node:
//! times and ids are inputs, plans are values, and somebody else proposes them.
//!
//! [`cluster::Cluster`] is kept up from what changed; a [`draft::Draft`] lies over it while
//! decisions are made; [`rollout::plan`] decides for one service; [`plan::fits`] is the leader's
//! check before it proposes, made of the filters that the planner uses.

pub mod autoscale;
mod backoff;
pub mod cluster;
mod column;
pub mod draft;
pub mod filter;
pub mod forecast;
pub mod jobs;
mod lens;
pub mod packing;
pub mod place;
pub mod plan;
pub mod preempt;
pub mod quota;
pub mod rebalance;
pub mod refusal;
pub mod rollout;
pub mod room;
pub mod score;
pub mod system;
pub mod why;
