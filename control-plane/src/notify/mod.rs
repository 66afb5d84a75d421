//! Notifications as receivers get them: what they say, how they are signed, what an answer means. Pure; the sender
//! beside it is the one part that does anything. When which is sent is `reconcile::notify`'s.

mod payload;
mod send;

use skep_model::notify::{Notification, pause_ms};

pub(crate) use payload::{filled, new_secret, payload, signature};
pub(crate) use send::{Answer, Letter, Sender};

/// How long one notification is tried: a receiver that is away over night has it in the morning.
const GIVE_UP_MS: u64 = 24 * 3_600_000;
/// Longest that a receiver may have us wait.
const LONGEST_WAIT_MS: u64 = 3_600_000;
/// Says that nobody is there any more, and nobody will be.
const GONE: u16 = 410;

/// What is done after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It has arrived.
    Delivered,
    /// It is sent again then.
    Retry { next_ms: u64 },
    /// It was tried for long enough.
    GivenUp,
    /// The same, and the receiver wants no others.
    Gone,
}

/// What an answer to this attempt means. A receiver that says when to come again is heard, within bounds.
pub(crate) fn after(notification: &Notification, answer: &Answer, now_ms: u64) -> Then {
    match answer.status {
        Some(status) if (200..300).contains(&status) => return Then::Delivered,
        Some(GONE) => return Then::Gone,
        _ => {}
    }
    let attempts = notification.attempts.saturating_add(1);
    let asked_ms = answer.retry_after_ms.unwrap_or(0).min(LONGEST_WAIT_MS);
    let pause = pause_ms(&notification.id, attempts).max(asked_ms);
    let next_ms = now_ms.saturating_add(pause);
    match next_ms > notification.since_ms.saturating_add(GIVE_UP_MS) {
        true => Then::GivenUp,
        false => Then::Retry { next_ms },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use skep_model::deployment::{Status, Trigger};
    use skep_model::id::{DeploymentId, ReceiverId, ServiceId};
    use skep_model::notify::{Event, Standing, Subject};

    use super::*;

    /// A failed deployment's notification at 2026-01-02 03:04:05.678.
    pub(crate) fn failed() -> Notification {
        let deployment = DeploymentId::from_u128(0x0198_0000_0000_0000_0000_0000_0000_0001);
        Notification {
            receiver: ReceiverId::from_u128(1),
            number: 1,
            id: Notification::id_of(deployment, Event::Failed),
            event: Event::Failed,
            at_ms: 1_767_323_045_678,
            workspace: "default".into(),
            project: "shop".into(),
            subject: Some(Subject {
                environment: "production".into(),
                service: "web".into(),
                service_id: ServiceId::from_u128(2),
                deployment,
                status: Status::Failed,
                trigger: Trigger::Webhook,
                commit: Some("366701fde727cb7a9e7f21eb88264f59f6f9b89c".into()),
                release: Some(7),
                reason: Some("the container exited with 1".into()),
            }),
            standing: Standing::Pending { next_ms: 0 },
            attempts: 0,
            since_ms: 1_767_323_045_678,
            last: None,
        }
    }

    fn answered(status: u16) -> Answer {
        Answer {
            status: Some(status),
            ..Answer::silent("")
        }
    }

    #[test]
    fn only_2xx_is_an_arrival_and_only_410_an_end() {
        let now = failed().since_ms;
        for (answer, is_retried) in [
            (answered(200), Some(Then::Delivered)),
            (answered(204), Some(Then::Delivered)),
            (answered(410), Some(Then::Gone)),
            (answered(301), None),
            (answered(400), None),
            (answered(500), None),
            (Answer::silent("refused"), None),
        ] {
            let then = after(&failed(), &answer, now);
            match is_retried {
                Some(expected) => assert_eq!(then, expected, "{answer:?}"),
                None => assert!(matches!(then, Then::Retry { .. }), "{answer:?} {then:?}"),
            }
        }
    }

    #[test]
    fn pauses_grow_and_a_day_ends_them() {
        let mut notification = failed();
        let mut now = notification.since_ms;
        let mut pauses = Vec::new();
        while let Then::Retry { next_ms } = after(&notification, &answered(500), now) {
            pauses.push(next_ms - now);
            (now, notification.attempts) = (next_ms, notification.attempts + 1);
        }
        assert!(pauses[0] <= 5_000 && pauses[1] > 5_000, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= 3_600_000), "{pauses:?}");
        let total: u64 = pauses.iter().sum();
        assert!(
            (GIVE_UP_MS - 3_600_000..=GIVE_UP_MS).contains(&total),
            "{total}"
        );
        assert_eq!(after(&notification, &answered(500), now), Then::GivenUp);
    }

    #[test]
    fn a_receiver_says_when_to_come_again_within_bounds() {
        let now = failed().since_ms;
        let waits = |ms| {
            let answer = Answer {
                retry_after_ms: Some(ms),
                ..answered(429)
            };
            match after(&failed(), &answer, now) {
                Then::Retry { next_ms } => next_ms - now,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(waits(60_000), 60_000);
        assert_eq!(waits(u64::MAX), LONGEST_WAIT_MS);
        assert!(waits(1) > 1_000, "never sooner than by itself");
    }
}
