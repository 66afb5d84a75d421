//! `git push skep main`: what git says and is told over HTTP, what a push means for its service, and the pack on its
//! way to the nodes that keep it. Stores nothing of it.

pub(crate) mod carry;
pub(crate) mod meaning;
pub(crate) mod wire;
