//! The second path on which the leader hears that a machine is gone: other nodes. Which of them have
//! reached it before and can tell silence from a wall ([`book`]), whom to ask and against what to check
//! them ([`round`]), and what follows from their answers ([`decide`]). All of it pure; asking is the
//! leader's duty in `reconcile/witnessing.rs`.
//!
//! Never concludes anything from a broken connection or from silence: these only make it ask.

pub mod book;
pub mod decide;
#[cfg(test)]
mod laws;
pub mod round;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use book::Book;

/// Who can testify for whom, as the leader knows it; empty elsewhere. Cheap to clone.
#[derive(Clone, Default)]
pub struct Witnesses {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    book: Mutex<Book>,
    witnessed: AtomicUsize,
}

impl Witnesses {
    /// Reads the book, or writes into it.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Book) -> T) -> T {
        work(&mut self.inner.book.lock())
    }

    /// Another term of office: whom others had reached under the last one is not known.
    pub(crate) fn begin(&self) {
        self.with(|book| *book = Book::default());
        self.set_witnessed(0);
    }

    pub(crate) fn set_witnessed(&self, nodes: usize) {
        self.inner.witnessed.store(nodes, Ordering::Relaxed);
    }

    /// Nodes whose death enough of the others could testify to; 0 where this server does not lead.
    pub fn witnessed(&self) -> usize {
        self.inner.witnessed.load(Ordering::Relaxed)
    }
}
