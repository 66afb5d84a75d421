//! Answers in Proxmox's words.

use serde_json::{Value, json};
use skep_proxmox::Reply;

/// A success.
pub(crate) fn data(value: &Value) -> Reply {
    Reply {
        status: 200,
        reason: "OK".to_owned(),
        body: json!({ "data": value }).to_string().into(),
    }
}

/// A failure, with its text in the reason alone, as before 8.4, or in both.
pub(crate) fn refused(status: u16, text: &str, is_old: bool) -> Reply {
    let body = match is_old {
        true => json!({ "data": null }),
        false => json!({ "data": null, "message": format!("{text}\n") }),
    };
    Reply {
        status,
        reason: text.to_owned(),
        body: body.to_string().into(),
    }
}

/// A parameter that is not taken.
pub(crate) fn wrong(parameter: &str, text: &str) -> Reply {
    let reason = "Parameter verification failed.";
    let message = format!("{reason}\n");
    Reply {
        status: 400,
        reason: reason.to_owned(),
        body: json!({ "data": null, "errors": { parameter: format!("{text}\n") }, "message": message })
            .to_string()
            .into(),
    }
}

/// A number, as it comes: a number or text.
pub(crate) fn drifting(number: u64, as_text: bool) -> Value {
    match as_text {
        true => json!(number.to_string()),
        false => json!(number),
    }
}
