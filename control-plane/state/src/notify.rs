//! Receivers and what waits for them: look-ups, and the index of what is still to arrive.

use std::sync::Arc;

use skep_model::id::{ProjectId, ReceiverId};
use skep_model::notify::{Notification, Receiver};

use crate::state::State;

impl State {
    /// Every receiver, oldest first.
    pub fn receivers(&self) -> impl Iterator<Item = &Arc<Receiver>> {
        self.receivers.values()
    }

    /// A receiver.
    pub fn receiver(&self, id: ReceiverId) -> Option<&Arc<Receiver>> {
        self.receivers.get(&id)
    }

    /// A receiver by its name in a project.
    pub fn receiver_named(&self, project: ProjectId, name: &str) -> Option<&Arc<Receiver>> {
        let mut all = self.receivers.values();
        all.find(|receiver| receiver.project == project && receiver.name == name)
    }

    /// What a receiver was or is to be told, oldest first. Those that ended long ago are forgotten.
    pub fn notifications_of(
        &self,
        receiver: ReceiverId,
    ) -> impl DoubleEndedIterator<Item = &Arc<Notification>> {
        let all = self
            .notifications
            .range((receiver, 0)..=(receiver, u64::MAX));
        all.map(|(_, notification)| notification)
    }

    /// A notification by its number.
    pub fn notification(&self, receiver: ReceiverId, number: u64) -> Option<&Arc<Notification>> {
        self.notifications.get(&(receiver, number))
    }

    /// How many are still to arrive at a receiver.
    pub fn pending_of(&self, receiver: ReceiverId) -> usize {
        let low = (receiver, 0, 0);
        let high = (receiver, u64::MAX, u64::MAX);
        self.pending_notifications.range(low..=high).count()
    }

    /// The one that a receiver is sent next.
    pub fn next_notification(&self, receiver: ReceiverId) -> Option<&Arc<Notification>> {
        let low = (receiver, 0, 0);
        let high = (receiver, u64::MAX, u64::MAX);
        let (_, _, number) = self.pending_notifications.range(low..=high).next()?;
        self.notification(receiver, *number)
    }

    pub(crate) fn put_notification(&mut self, notification: impl Into<Arc<Notification>>) {
        let notification: Arc<Notification> = notification.into();
        self.remove_notification((notification.receiver, notification.number));
        if let Some(next_ms) = notification.next_ms() {
            let place = (notification.receiver, next_ms, notification.number);
            self.pending_notifications.insert(place);
        }
        let key = (notification.receiver, notification.number);
        self.notifications.insert(key, notification);
    }

    pub(crate) fn remove_notification(&mut self, key: (ReceiverId, u64)) {
        let Some(old) = self.notifications.remove(&key) else {
            return;
        };
        if let Some(next_ms) = old.next_ms() {
            self.pending_notifications.remove(&(key.0, next_ms, key.1));
        }
    }
}
