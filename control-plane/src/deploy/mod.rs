//! From a request to a running release: pure decisions on one deployment at a time. The reconciler
//! proposes what they say.

pub mod decide;
pub mod gate;
pub mod queue;
pub mod release;
mod site;

#[cfg(test)]
mod tests;
