//! What a notification says, and the signature over it, in the form of Standard Webhooks: a receiver needs nothing of
//! Skep's to believe one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use skep_identity::{digest, random};
use skep_model::deployment::{Status, Trigger};
use skep_model::id::DeploymentId;
use skep_model::notify::{Event, Notification, Own, Subject};
use skep_model::problem::{Code, Problem};
use skep_state::State;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::urls::urls;

/// Version of what is said: raised where a field changes its meaning or goes, never for a new one.
const VERSION: u32 = 1;
/// How a secret begins: base64 of its bytes follows.
const SECRET_PREFIX: &str = "whsec_";
/// Bytes of a secret.
const SECRET_BYTES: usize = 32;

#[derive(Serialize)]
struct Payload<'a> {
    version: u32,
    #[serde(rename = "type")]
    event: Event,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    workspace: &'a str,
    project: &'a str,
    #[serde(flatten)]
    of: Option<Of<'a>>,
}

#[derive(Serialize)]
struct Of<'a> {
    environment: &'a str,
    service: &'a str,
    deployment: DeploymentId,
    status: Status,
    trigger: Trigger,
    commit: Option<&'a str>,
    release: Option<u64>,
    reason: Option<&'a str>,
    url: Option<String>,
}

/// The body of a notification.
pub(crate) fn payload(view: &State, notification: &Notification) -> Vec<u8> {
    let nanos = i128::from(notification.at_ms) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos);
    let text = at.ok().and_then(|at| at.format(&Rfc3339).ok());
    let payload = Payload {
        version: VERSION,
        event: notification.event,
        timestamp: text.unwrap_or_default(),
        data: Data {
            workspace: &notification.workspace,
            project: &notification.project,
            of: notification.subject.as_ref().map(|it| of(view, it)),
        },
    };
    serde_json::to_vec(&payload).expect("text, numbers and names of fields are JSON")
}

fn of<'a>(view: &State, subject: &'a Subject) -> Of<'a> {
    let service = view.service(subject.service_id);
    let urls = service.map(|service| urls(view, service));
    Of {
        environment: &subject.environment,
        service: &subject.service,
        deployment: subject.deployment,
        status: subject.status,
        trigger: subject.trigger,
        commit: subject.commit.as_deref(),
        release: subject.release,
        reason: subject.reason.as_deref(),
        url: urls.and_then(|urls| urls.into_iter().next()),
    }
}

/// The body of a receiver's own, with what is known in its places.
pub(crate) fn filled(view: &State, notification: &Notification, own: &Own) -> Vec<u8> {
    let subject = notification.subject.as_ref();
    let of = subject.map(|it| of(view, it));
    let value = |place: &str| {
        let of = of.as_ref();
        let text = match place {
            "event" => notification.event.as_str().to_owned(),
            "workspace" => notification.workspace.clone(),
            "project" => notification.project.clone(),
            "environment" => of?.environment.to_owned(),
            "service" => of?.service.to_owned(),
            "deployment" => of?.deployment.to_string(),
            "status" => of?.status.as_str().to_owned(),
            "commit" => of?.commit?.to_owned(),
            "release" => of?.release?.to_string(),
            "url" => of?.url.clone()?,
            "host" => host_of(of?.url.as_deref()?)?,
            _ => return None,
        };
        Some(match own.is_json() {
            true => within_quotes(&text),
            false => text,
        })
    };
    own.filled(value).into_bytes()
}

fn host_of(url: &str) -> Option<String> {
    let uri: axum::http::Uri = url.parse().ok()?;
    uri.host().map(str::to_owned)
}

/// As it stands within a text of JSON.
fn within_quotes(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("text is JSON");
    quoted[1..quoted.len() - 1].to_owned()
}

/// A new secret, as receivers' libraries take it.
pub(crate) fn new_secret() -> String {
    let bytes = random::bytes::<SECRET_BYTES>();
    format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes))
}

/// The header `webhook-signature`: over id, time and body.
///
/// # Errors
/// The secret is none of [`new_secret`]'s.
pub(crate) fn signature(
    secret: &str,
    (id, at_s): (&str, u64),
    body: &[u8],
) -> Result<String, Problem> {
    let text = secret.strip_prefix(SECRET_PREFIX);
    let key = text.and_then(|text| STANDARD.decode(text).ok());
    let key = key.filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| Problem::new(Code::Internal, "the secret signs nothing"))?;
    let mut signed = format!("{id}.{at_s}.").into_bytes();
    signed.extend_from_slice(body);
    let tag = digest::hmac_sha256(&key, &signed);
    Ok(format!("v1,{}", STANDARD.encode(tag)))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use skep_forge::{Clock, Forge, verify};

    use super::*;
    use crate::notify::tests::failed;

    #[test]
    fn a_payload_is_the_documented_one() {
        let body = payload(&State::default(), &failed());
        let value: Value = serde_json::from_slice(&body).expect("JSON");
        let mut text = serde_json::to_string_pretty(&value).expect("JSON");
        text.push('\n');
        assert_eq!(text, include_str!("golden/failed.json"));
        let test = Notification {
            event: Event::Test,
            subject: None,
            ..failed()
        };
        let value: Value =
            serde_json::from_slice(&payload(&State::default(), &test)).expect("JSON");
        assert_eq!(value["type"], "test");
        let names: Vec<_> = value["data"].as_object().expect("fields").keys().collect();
        assert_eq!(names, ["project", "workspace"]);
    }

    #[test]
    fn a_body_of_its_own_has_what_is_known_in_its_places() {
        let own = |headers: &[(&str, &str)], body: &str| {
            let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            Own::new(headers.iter().map(pair).collect(), body.to_owned()).expect("fine")
        };
        let mut odd = failed();
        odd.project = "a\"b".into();
        let text = r#"{"tags":["{{service}}-{{environment}}"],"p":"{{project}}","e":"{{event}} {{status}}",
            "r":"{{release}}{{url}}{{host}}"}"#;
        let body = filled(&State::default(), &odd, &own(&[], text));
        let value: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(value["tags"][0], "web-production");
        assert_eq!(value["p"], "a\"b");
        assert_eq!(value["e"], "deployment.failed failed");
        assert_eq!(value["r"], "7", "nothing is nothing");
        let plain = own(&[("content-type", "text/plain")], "{{project}} {{commit}}");
        let body = filled(&State::default(), &odd, &plain);
        assert_eq!(body, b"a\"b 366701fde727cb7a9e7f21eb88264f59f6f9b89c");
    }

    #[test]
    fn a_signature_is_the_one_that_the_standard_shows() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let of = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330);
        let signed = signature(secret, of, br#"{"test": 2432232314}"#).expect("signs");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        for secret in ["", "whsec_", "whsec_*", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            signature(secret, of, b"").expect_err(secret);
        }
    }

    #[test]
    fn what_is_sent_is_believed_by_whoever_checks_it() {
        let (secret, body) = (new_secret(), payload(&State::default(), &failed()));
        let signed = signature(&secret, ("id", 100), &body).expect("signs");
        let mut headers = axum::http::HeaderMap::new();
        for (name, value) in [
            ("webhook-id", "id"),
            ("webhook-timestamp", "100"),
            ("webhook-signature", &signed),
        ] {
            headers.insert(name, value.parse().expect("a value"));
        }
        let clock = Clock {
            now_s: 100,
            tolerance_s: 1,
        };
        let believed = |body: &[u8], secret: &str| {
            verify(Forge::GitLab, &headers, body, secret, clock).is_ok()
        };
        assert!(believed(&body, &secret));
        assert!(!believed(&body[1..], &secret));
        assert!(!believed(&body, &new_secret()));
    }
}
