//! How many nodes the packing score needs, beside classic heuristics and the fluid bound. Owns
//! the generated loads, the reader of traces and the replay; the score itself is
//! `skep_scheduler::packing`.

pub mod load;
pub mod presets;
pub mod replay;
pub mod report;
pub mod rules;
pub mod trace;
