//! Those who wait for a node's answer: a request goes down its session, and what comes up there under the
//! same number is theirs. Who asks what is not known here.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use skep_identity::random;
use skep_model::id::NodeId;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// All who wait for answers of one kind; whoever asks bounds how many there are.
pub(super) struct Waiting<T> {
    askers: Mutex<BTreeMap<u64, (NodeId, oneshot::Sender<T>)>>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            askers: Mutex::default(),
        }
    }
}

/// A place among those who wait; takes itself back.
pub(super) struct Place<'a, T> {
    waiting: &'a Waiting<T>,
    request: u64,
    answered: oneshot::Receiver<T>,
}

impl<T> Waiting<T> {
    /// Begins to wait for an answer of `node`.
    pub(super) fn place(&self, node: NodeId) -> Place<'_, T> {
        // An answer to what somebody else asked can then not be taken for this one's.
        let request = u64::from_le_bytes(random::bytes());
        let (asker, answered) = oneshot::channel();
        self.askers.lock().insert(request, (node, asker));
        Place {
            waiting: self,
            request,
            answered,
        }
    }

    /// A node has answered.
    pub(super) fn answer(&self, node: NodeId, request: u64, answer: T) {
        let mut askers = self.askers.lock();
        let is_its_own = askers.get(&request).is_some_and(|(of, _)| *of == node);
        if is_its_own && let Some((_, asker)) = askers.remove(&request) {
            // Whoever asked may have gone.
            let _ = asker.send(answer);
        }
    }

    /// The node's session ended: nobody answers.
    pub(super) fn leave(&self, node: NodeId) {
        self.askers.lock().retain(|_, (of, _)| *of != node);
    }

    /// Whether nobody waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.askers.lock().is_empty()
    }
}

impl<T> Place<'_, T> {
    /// The number that the request is to have.
    pub(super) fn request(&self) -> u64 {
        self.request
    }

    /// The answer; none: not in time, or the node is gone.
    pub(super) async fn answer(mut self, limit: Duration) -> Option<T> {
        timeout(limit, &mut self.answered).await.ok()?.ok()
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.waiting.askers.lock().remove(&self.request);
    }
}
