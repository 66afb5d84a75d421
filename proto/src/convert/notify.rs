//! Receivers, and the notifications on their way to them.

use skep_model::deployment::{Status, Trigger};
use skep_model::id::{DeploymentId, ProjectId, ReceiverId, ServiceId};
use skep_model::notify::{Attempt, Event, MAX_ANSWER, Notification, Receiver, Standing, Subject};
use skep_model::variable::Sealed;

use super::{Error, cut, enum_number, enum_value, error, id, id_bytes};
use crate::v1;
use crate::v1::notification::{self, Standing as Stands};

impl From<&Receiver> for v1::Receiver {
    fn from(receiver: &Receiver) -> Self {
        let events = receiver.events.iter();
        Self {
            id: id_bytes(receiver.id.as_u128()),
            project: id_bytes(receiver.project.as_u128()),
            name: receiver.name.clone(),
            url: receiver.url.clone(),
            events: events.map(|it| enum_number(&Event::ALL, it)).collect(),
            sealed_secret: receiver.secret.0.clone(),
            is_off: receiver.is_off,
            problem: receiver.problem.clone(),
            told: receiver.told,
            dropped: receiver.dropped,
            changed_ms: receiver.changed_ms,
            services: receiver.services.clone(),
            sealed_own: receiver.own.as_ref().map(|own| own.0.clone()),
        }
    }
}

impl TryFrom<v1::Receiver> for Receiver {
    type Error = Error;

    fn try_from(message: v1::Receiver) -> Result<Self, Error> {
        let events = message.events.iter();
        let events = events.map(|number| enum_value("events", &Event::ALL, *number));
        Ok(Self {
            id: id!(ReceiverId, message.id),
            project: id!(ProjectId, message.project),
            events: events.collect::<Result<_, _>>()?,
            name: message.name,
            url: message.url,
            secret: Sealed(message.sealed_secret),
            is_off: message.is_off,
            problem: message.problem,
            told: message.told,
            dropped: message.dropped,
            changed_ms: message.changed_ms,
            services: message.services,
            own: message.sealed_own.map(Sealed),
        })
    }
}

impl From<&Subject> for notification::Subject {
    fn from(subject: &Subject) -> Self {
        Self {
            environment: subject.environment.clone(),
            service: subject.service.clone(),
            service_id: id_bytes(subject.service_id.as_u128()),
            deployment: id_bytes(subject.deployment.as_u128()),
            status: enum_number(&Status::ALL, &subject.status),
            trigger: enum_number(&Trigger::ALL, &subject.trigger),
            commit: subject.commit.clone(),
            release: subject.release,
            reason: subject.reason.clone(),
        }
    }
}

impl TryFrom<notification::Subject> for Subject {
    type Error = Error;

    fn try_from(message: notification::Subject) -> Result<Self, Error> {
        Ok(Self {
            service_id: id!(ServiceId, message.service_id),
            deployment: id!(DeploymentId, message.deployment),
            status: enum_value("status", &Status::ALL, message.status)?,
            trigger: enum_value("trigger", &Trigger::ALL, message.trigger)?,
            environment: message.environment,
            service: message.service,
            commit: message.commit,
            release: message.release,
            reason: message.reason,
        })
    }
}

impl From<&Attempt> for v1::NotificationAttempt {
    fn from(attempt: &Attempt) -> Self {
        Self {
            at_ms: attempt.at_ms,
            status: attempt.status.map(u32::from),
            problem: attempt.problem.clone(),
        }
    }
}

impl TryFrom<v1::NotificationAttempt> for Attempt {
    type Error = Error;

    fn try_from(message: v1::NotificationAttempt) -> Result<Self, Error> {
        let status = message.status.map(u16::try_from).transpose();
        Ok(Self {
            at_ms: message.at_ms,
            status: status.map_err(|_| error("status"))?,
            problem: message.problem.map(|text| cut(text, MAX_ANSWER)),
        })
    }
}

impl From<&Notification> for v1::Notification {
    fn from(notification: &Notification) -> Self {
        let standing = match notification.standing {
            Standing::Pending { next_ms } => Stands::NextMs(next_ms),
            Standing::Delivered => Stands::Delivered(true),
            Standing::GivenUp => Stands::GivenUp(true),
        };
        Self {
            receiver: id_bytes(notification.receiver.as_u128()),
            number: notification.number,
            id: notification.id.clone(),
            event: enum_number(&Event::ALL, &notification.event),
            at_ms: notification.at_ms,
            workspace: notification.workspace.clone(),
            project: notification.project.clone(),
            subject: notification.subject.as_ref().map(Into::into),
            standing: Some(standing),
            attempts: notification.attempts,
            since_ms: notification.since_ms,
            last: notification.last.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::Notification> for Notification {
    type Error = Error;

    fn try_from(message: v1::Notification) -> Result<Self, Error> {
        let standing = match message.standing.ok_or(error("standing"))? {
            Stands::NextMs(next_ms) => Standing::Pending { next_ms },
            Stands::Delivered(_) => Standing::Delivered,
            Stands::GivenUp(_) => Standing::GivenUp,
        };
        Ok(Self {
            receiver: id!(ReceiverId, message.receiver),
            event: enum_value("event", &Event::ALL, message.event)?,
            subject: message.subject.map(TryInto::try_into).transpose()?,
            last: message.last.map(TryInto::try_into).transpose()?,
            number: message.number,
            id: message.id,
            at_ms: message.at_ms,
            workspace: message.workspace,
            project: message.project,
            standing,
            attempts: message.attempts,
            since_ms: message.since_ms,
        })
    }
}
