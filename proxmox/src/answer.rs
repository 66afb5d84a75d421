//! What an answer says: pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Kind, permission};
use crate::transport::Reply;

/// Longest text of an error that is kept.
const TEXT_MAX_CHARS: usize = 600;

#[derive(Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    data: Value,
    #[serde(default)]
    errors: Value,
    /// Since 8.4.
    #[serde(default)]
    message: Option<String>,
}

/// The data of an answer.
///
/// # Errors
/// What Proxmox says against it.
pub(crate) fn data(reply: &Reply) -> Result<Value, Error> {
    // What dies early in their server has no body, or plain text.
    let envelope = serde_json::from_slice::<Envelope>(&reply.body);
    if (200..300).contains(&reply.status) {
        return match envelope {
            Ok(envelope) => Ok(envelope.data),
            Err(error) => Err(Error {
                status: Some(reply.status),
                ..Error::new(Kind::Odd, format!("the answer is no JSON: {error}"))
            }),
        };
    }
    let envelope = envelope.unwrap_or_default();
    let fields = fields(&envelope.errors);
    let mut text = envelope.message.unwrap_or_default().trim().to_owned();
    if text.is_empty() {
        reply.reason.trim().clone_into(&mut text);
    }
    for (field, why) in &fields {
        text.push_str(&format!("; {field}: {why}"));
    }
    if text.is_empty() {
        text = format!("status {} without a word", reply.status);
    }
    let text: String = text.chars().take(TEXT_MAX_CHARS).collect();
    let said = Error::said(text);
    let kind = match reply.status {
        401 => Kind::Unauthenticated,
        403 => Kind::Permission(permission(&said.text).map(Box::new)),
        501 => Kind::NotSupported,
        595 => Kind::HostUnreachable,
        596..=599 => Kind::OutcomeUnknown,
        // A gateway in between.
        502 | 504 => Kind::OutcomeUnknown,
        400 if said.kind == Kind::Refused => Kind::Invalid,
        _ => said.kind,
    };
    Err(Error {
        kind,
        fields,
        status: Some(reply.status),
        ..said
    })
}

fn fields(errors: &Value) -> BTreeMap<String, String> {
    let all = errors.as_object().into_iter().flatten();
    all.map(|(field, why)| {
        let why = why
            .as_str()
            .map_or_else(|| why.to_string(), |text| text.trim().to_owned());
        (field.clone(), why)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Permission;
    use bytes::Bytes;

    fn reply(status: u16, reason: &str, body: &str) -> Reply {
        Reply {
            status,
            reason: reason.to_owned(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn refused(status: u16, reason: &str, body: &str) -> Error {
        data(&reply(status, reason, body)).expect_err("refused")
    }

    #[test]
    fn the_text_is_in_the_body_or_in_the_reason() {
        let gone = "Configuration file 'nodes/pve/qemu-server/101.conf' does not exist";
        // Before 8.4, and since.
        for body in [
            r#"{"data":null}"#.to_owned(),
            format!(r#"{{"data":null,"message":"{gone}\n"}}"#),
        ] {
            let reason = if body.contains("message") {
                "Internal Server Error"
            } else {
                gone
            };
            let error = refused(500, reason, &body);
            assert_eq!((error.kind, error.text.as_str()), (Kind::NotFound, gone));
        }
    }

    #[test]
    fn parameters_that_are_refused_are_named() {
        let body = r#"{"data":null,"errors":{"vmid":"invalid format - value does not look like a valid VM ID\n"},"message":"Parameter verification failed.\n"}"#;
        let error = refused(400, "Parameter verification failed.", body);
        assert_eq!(error.kind, Kind::Invalid);
        assert_eq!(
            error.fields["vmid"],
            "invalid format - value does not look like a valid VM ID"
        );
        assert!(error.text.contains("vmid: invalid format"), "{error}");
        let taken = r#"{"errors":{"vmid":"VM 100 already exists"},"data":null}"#;
        assert_eq!(
            refused(400, "Parameter verification failed.", taken).kind,
            Kind::Exists
        );
    }

    #[test]
    fn statuses_that_say_more_than_texts() {
        let missing = Permission {
            path: "/vms/100".to_owned(),
            privileges: vec!["VM.Audit".to_owned()],
        };
        for (status, reason, kind) in [
            (401, "No ticket", Kind::Unauthenticated),
            (401, "invalid token value!", Kind::Unauthenticated),
            (
                403,
                "Permission check failed (/vms/100, VM.Audit)",
                Kind::Permission(Some(Box::new(missing))),
            ),
            (403, "only root@pam can do that", Kind::Permission(None)),
            (501, "Method 'GET /x' not implemented", Kind::NotSupported),
            (595, "No route to host", Kind::HostUnreachable),
            (596, "Connection timed out", Kind::OutcomeUnknown),
            (599, "Too many redirections", Kind::OutcomeUnknown),
            (504, "", Kind::OutcomeUnknown),
        ] {
            for body in ["", "<html>", r#"{"data":null}"#] {
                let error = refused(status, reason, body);
                assert_eq!(error.kind, kind, "{status} {reason} {body}");
                assert!(!error.text.is_empty());
            }
        }
    }

    #[test]
    fn an_answer_that_is_none_is_said_to_be_odd() {
        assert_eq!(refused(200, "OK", "<html>").kind, Kind::Odd);
        let nothing = data(&reply(200, "OK", r#"{"data":null}"#)).expect("an answer");
        assert_eq!(nothing, Value::Null);
    }
}
