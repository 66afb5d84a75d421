//! Raft messages that wait for one peer. Bounded: Raft repeats what matters, and the newest message
//! says more than the oldest.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that wait at most: a full window of appends.
pub(super) const MAX_BYTES: usize = 32 << 20;
/// Messages that wait at most.
pub(super) const MAX_MESSAGES: usize = 16 << 10;
/// A batch is closed at this size; its last message may go beyond it.
pub(super) const BATCH_BYTES: usize = 4 << 20;

#[derive(Debug)]
struct State {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    taken_at: Option<Instant>,
    heard_at: Option<Instant>,
}

/// What waits for one peer, and when it was last heard.
#[derive(Debug)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    filled: Notify,
    heard: Notify,
}

impl Mailbox {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                messages: VecDeque::new(),
                bytes: 0,
                taken_at: None,
                heard_at: None,
            }),
            filled: Notify::new(),
            heard: Notify::new(),
        }
    }

    /// Puts a message at the end. Returns how many old ones had to go for it.
    pub(super) fn put(&self, message: Vec<u8>) -> usize {
        let mut state = self.state.lock();
        state.bytes += message.len();
        state.messages.push_back(message);
        let mut dropped = 0;
        while state.bytes > MAX_BYTES || state.messages.len() > MAX_MESSAGES {
            let Some(oldest) = state.messages.pop_front() else {
                break;
            };
            state.bytes -= oldest.len();
            dropped += 1;
        }
        drop(state);
        self.filled.notify_one();
        dropped
    }

    /// Waits until there is something.
    pub(super) async fn filled(&self) {
        while self.state.lock().messages.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Everything that waits, up to the size of a batch; waits until there is something.
    pub(super) async fn next_batch(&self) -> Vec<Vec<u8>> {
        self.filled().await;
        let mut state = self.state.lock();
        let mut batch = Vec::with_capacity(state.messages.len());
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(message) = state.messages.pop_front()
        {
            bytes += message.len();
            batch.push(message);
        }
        state.bytes -= bytes;
        state.taken_at = Some(Instant::now());
        batch
    }

    /// The peer has said something.
    pub(super) fn note_heard(&self) {
        self.state.lock().heard_at = Some(Instant::now());
        self.heard.notify_one();
    }

    /// Waits until the peer says something.
    pub(super) async fn heard(&self) {
        self.heard.notified().await;
    }

    /// When the peer was last heard, and whether anything was handed on for it since.
    pub(super) fn silence(&self) -> (Option<Instant>, bool) {
        let state = self.state.lock();
        (state.heard_at, state.taken_at > state.heard_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_leave_in_order_and_in_batches() {
        let mailbox = Mailbox::new();
        for byte in 0..3u8 {
            assert_eq!(mailbox.put(vec![byte; BATCH_BYTES / 2]), 0);
        }
        let first: Vec<u8> = mailbox.next_batch().await.iter().map(|m| m[0]).collect();
        let rest: Vec<u8> = mailbox.next_batch().await.iter().map(|m| m[0]).collect();
        assert_eq!((first, rest), (vec![0, 1], vec![2]));
    }

    #[tokio::test]
    async fn the_oldest_goes_when_there_is_no_room() {
        let mailbox = Mailbox::new();
        let dropped: usize = (0..MAX_MESSAGES as u64 + 2)
            .map(|number| mailbox.put(number.to_be_bytes().to_vec()))
            .sum();
        assert_eq!(dropped, 2);
        assert_eq!(mailbox.next_batch().await[0], 2u64.to_be_bytes());
        let huge = Mailbox::new();
        huge.put(vec![1; 8]);
        assert_eq!(huge.put(vec![2; MAX_BYTES]), 1);
        assert_eq!(huge.next_batch().await[0][0], 2);
    }

    #[test]
    fn silence_counts_only_after_something_was_said() {
        let mailbox = Mailbox::new();
        assert_eq!(mailbox.silence(), (None, false));
        mailbox.state.lock().taken_at = Some(Instant::now());
        assert!(mailbox.silence().1);
        mailbox.note_heard();
        assert!(!mailbox.silence().1);
    }
}
