//! What projects tell others of their deployments. A notification is made in the very change that it tells of, so
//! that neither is there without the other. Sends nothing, and never opens what is sealed.

use std::sync::Arc;

use skep_model::deployment::Deployment;
use skep_model::id::ReceiverId;
use skep_model::name;
use skep_model::notify::{
    Attempt, Event, KEEP_ENDED, MAX_OF_PROJECT, MAX_PENDING, MAX_REASON, MAX_RECEIVERS,
    Notification, Receiver, Standing, Subject, check_events, check_services, check_url,
};
use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use skep_proto::v1::ask_notification::What;
use skep_proto::v1::settle_notification::Then;

use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;

/// Longest id that somebody gives to a test.
const MAX_ID: usize = 100;

impl Context<'_> {
    /// Makes a receiver, or changes the one that the project has under this name.
    pub(super) fn put_receiver(&mut self, message: v1::PutReceiver) -> Outcome {
        let mut receiver: Receiver =
            understood(message.receiver.ok_or_else(|| missing("receiver"))?)?;
        name::check("receiver", &receiver.name)?;
        check_url(&receiver.url)?;
        receiver.events = check_events(receiver.events)?;
        check_services(&receiver.services)?;
        if self.state.project(receiver.project).is_none() {
            return Err(not_found("project", receiver.project));
        }
        let known = self.state.receiver_named(receiver.project, &receiver.name);
        match known.cloned() {
            Some(known) => {
                receiver.id = known.id;
                (receiver.told, receiver.dropped) = (known.told, known.dropped);
                if receiver.secret.0.is_empty() {
                    receiver.secret = known.secret.clone();
                }
                if message.keeps_own {
                    receiver.own = known.own.clone();
                }
            }
            None if receiver.secret.0.is_empty() => return Err(missing("secret")),
            None => {
                self.check_receivers(&receiver)?;
                (receiver.told, receiver.dropped) = (0, 0);
            }
        }
        receiver.problem = None;
        receiver.changed_ms = self.state.time_ms;
        self.put_changed_receiver(receiver);
        Ok(Reply::Done)
    }

    fn check_receivers(&self, new: &Receiver) -> Result<(), Problem> {
        let its = self.state.receivers.values();
        let its = its.filter(|one| one.project == new.project).count();
        let full =
            |text: String| Problem::new(Code::TooLarge, text).hint("`skep notify rm` removes one");
        if its >= MAX_OF_PROJECT {
            return Err(full(format!(
                "the project has {MAX_OF_PROJECT} receivers already"
            )));
        }
        if self.state.receivers.len() >= MAX_RECEIVERS {
            return Err(full(format!("there are {MAX_RECEIVERS} receivers already")));
        }
        if self.state.receivers.contains_key(&new.id) {
            let text = "there is a receiver with this id already";
            return Err(Problem::new(Code::Conflict, text));
        }
        Ok(())
    }

    pub(super) fn remove_receiver(&mut self, message: &v1::RemoveReceiver) -> Outcome {
        let id = ReceiverId::from_u128(bits("id", &message.id)?);
        if self.state.receivers.remove(&id).is_none() {
            return Err(not_found("receiver", id));
        }
        let all: Vec<u64> = self
            .state
            .notifications_of(id)
            .map(|it| it.number)
            .collect();
        for number in all {
            self.state.remove_notification((id, number));
        }
        self.changes.push(Change::Notifications);
        Ok(Reply::Done)
    }

    /// A deployment has entered its status: whoever wants to know of that is told.
    pub(super) fn tell(&mut self, deployment: &Deployment) {
        let Some(event) = Event::of(deployment.status) else {
            return;
        };
        let state = &self.state;
        let Some(service) = state.service(deployment.service) else {
            return;
        };
        let environment = state.environment(service.environment);
        let (Some(path), Some(environment)) = (state.path_of(service), environment) else {
            return;
        };
        let receivers = state.receivers.values();
        let wanting: Vec<Arc<Receiver>> = receivers
            .filter(|one| one.project == environment.project && one.wants(event, &service.name))
            .cloned()
            .collect();
        let subject = Subject {
            environment: path.environment,
            service: path.service,
            service_id: deployment.service,
            deployment: deployment.id,
            status: deployment.status,
            trigger: deployment.trigger,
            commit: deployment.commit().map(str::to_owned),
            release: deployment.release,
            reason: deployment.problem.as_ref().map(|it| cut(&it.message)),
        };
        for receiver in wanting {
            let id = Notification::id_of(deployment.id, event);
            self.add(&receiver, id, (event, Some(subject.clone())));
        }
    }

    fn add(&mut self, receiver: &Receiver, id: String, (event, subject): (Event, Option<Subject>)) {
        let mut receiver = receiver.clone();
        while self.state.pending_of(receiver.id) >= MAX_PENDING {
            let mut all = self.state.notifications_of(receiver.id);
            let oldest = all.find(|it| it.next_ms().is_some());
            let number = oldest.map_or(0, |it| it.number);
            drop(all);
            self.state.remove_notification((receiver.id, number));
            receiver.dropped += 1;
        }
        receiver.told += 1;
        let project = self.state.project(receiver.project);
        let workspace = project.and_then(|it| self.state.workspace(it.workspace));
        let notification = Notification {
            receiver: receiver.id,
            number: receiver.told,
            id,
            event,
            at_ms: self.state.time_ms,
            workspace: workspace.map_or_else(String::new, |it| it.name.clone()),
            project: project.map_or_else(String::new, |it| it.name.clone()),
            subject,
            standing: Standing::Pending { next_ms: 0 },
            attempts: 0,
            since_ms: self.state.time_ms,
            last: None,
        };
        self.state.put_notification(notification);
        self.put_changed_receiver(receiver);
    }

    pub(super) fn ask_notification(&mut self, message: v1::AskNotification) -> Outcome {
        let receiver = self.expect_receiver(&message.receiver)?;
        match message.what.ok_or_else(|| missing("what"))? {
            What::Test(id) if id.is_empty() || id.len() > MAX_ID => return Err(missing("test")),
            What::Test(id) => self.add(&receiver, id, (Event::Test, None)),
            What::Again(number) => {
                let found = self.state.notification(receiver.id, number).cloned();
                let found = found.ok_or_else(|| {
                    Problem::new(Code::NotFound, format!("there is no notification {number}"))
                        .hint("`skep notify show` lists those that are kept")
                })?;
                self.try_again(&found);
            }
            What::All(_) => {
                let all = self.state.notifications_of(receiver.id);
                let unarrived = all.filter(|it| it.standing != Standing::Delivered);
                let unarrived: Vec<_> = unarrived.cloned().collect();
                unarrived.iter().for_each(|it| self.try_again(it));
            }
        }
        self.changes.push(Change::Notifications);
        Ok(Reply::Done)
    }

    fn try_again(&mut self, notification: &Notification) {
        self.state.put_notification(Notification {
            standing: Standing::Pending { next_ms: 0 },
            since_ms: self.state.time_ms,
            ..notification.clone()
        });
    }

    pub(super) fn settle_notification(&mut self, message: v1::SettleNotification) -> Outcome {
        let receiver = self.expect_receiver(&message.receiver)?;
        let known = self.state.notification(receiver.id, message.number);
        let known = known.cloned().ok_or_else(|| {
            let text = format!("there is no notification {}", message.number);
            Problem::new(Code::NotFound, text)
        })?;
        let is_waiting = matches!(known.standing, Standing::Pending { .. });
        if !is_waiting || known.attempts != message.expected_attempts {
            return Err(changed_meanwhile("notification"));
        }
        let attempt: Attempt = understood(message.attempt.ok_or_else(|| missing("attempt"))?)?;
        let standing = match message.then.ok_or_else(|| missing("then"))? {
            Then::Delivered(_) => Standing::Delivered,
            Then::GivenUp(_) => Standing::GivenUp,
            Then::NextMs(next_ms) => Standing::Pending { next_ms },
        };
        if message.is_gone {
            let mut off = (*receiver).clone();
            off.is_off = true;
            off.problem = attempt.problem.clone();
            self.put_changed_receiver(off);
        }
        self.state.put_notification(Notification {
            standing,
            attempts: known.attempts.saturating_add(1),
            last: Some(attempt),
            ..(*known).clone()
        });
        self.forget_ended(receiver.id);
        self.changes.push(Change::Notifications);
        Ok(Reply::Done)
    }

    fn forget_ended(&mut self, receiver: ReceiverId) {
        let all = self.state.notifications_of(receiver);
        let ended: Vec<u64> = all
            .filter(|it| it.next_ms().is_none())
            .map(|it| it.number)
            .collect();
        let surplus = ended.len().saturating_sub(KEEP_ENDED);
        for number in ended.into_iter().take(surplus) {
            self.state.remove_notification((receiver, number));
        }
    }

    fn expect_receiver(&self, id: &[u8]) -> Result<Arc<Receiver>, Problem> {
        let id = ReceiverId::from_u128(bits("receiver", id)?);
        let found = self.state.receiver(id).cloned();
        found.ok_or_else(|| not_found("receiver", id))
    }

    fn put_changed_receiver(&mut self, receiver: Receiver) {
        if !self.changes.contains(&Change::Notifications) {
            self.changes.push(Change::Notifications);
        }
        self.state.receivers.insert(receiver.id, Arc::new(receiver));
    }
}

/// What is kept of a reason.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_REASON)].to_owned()
}
