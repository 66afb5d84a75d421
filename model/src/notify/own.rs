//! A request of a receiver's own, in place of the one that Skep makes up: a CDN that is to forget a site, a chat.

use std::collections::BTreeMap;
use std::fmt;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Most headers of its own.
const MAX_HEADERS: usize = 16;
/// Longest body, before it is filled in.
const MAX_BODY: usize = 8 << 10;
/// What a body may name between `{{` and `}}`.
pub const PLACES: [&str; 11] = [
    "event",
    "workspace",
    "project",
    "environment",
    "service",
    "deployment",
    "status",
    "commit",
    "release",
    "url",
    "host",
];
/// Headers that HTTP or Skep sets.
const TAKEN: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "idempotency-key",
    "x-skep-event",
];

/// Headers and body of what is posted. Either may hold a secret, so that it is sealed and shown by nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// By name, in small letters.
    pub headers: BTreeMap<String, String>,
    /// With places, `{{service}}`.
    pub body: String,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.headers.keys().collect();
        f.debug_struct("Own")
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

impl Own {
    /// Headers and a body as somebody gives them.
    ///
    /// # Errors
    /// Names the field, and says what is accepted.
    pub fn new(headers: BTreeMap<String, String>, body: String) -> Result<Self, Problem> {
        if headers.len() > MAX_HEADERS {
            let text = format!("{} headers are too many", headers.len());
            return Err(Problem::invalid("headers", text).hint(format!("{MAX_HEADERS} at most")));
        }
        let mut named = BTreeMap::new();
        for (name, value) in headers {
            let lower = name.to_ascii_lowercase();
            let is_good = HeaderName::from_bytes(lower.as_bytes()).is_ok();
            if !is_good || TAKEN.contains(&lower.as_str()) {
                let text = format!("`{}` is no header that can be set", name.escape_debug());
                return Err(Problem::invalid("headers", text)
                    .hint("a name of letters and dashes that neither HTTP nor Skep sets itself"));
            }
            if HeaderValue::from_str(&value).is_err() {
                let text = format!("the value of `{lower}` is not one line of text");
                return Err(Problem::invalid("headers", text));
            }
            named.insert(lower, value);
        }
        let own = Self {
            headers: named,
            body,
        };
        own.check_body()?;
        Ok(own)
    }

    fn check_body(&self) -> Result<(), Problem> {
        if self.body.len() > MAX_BODY {
            let text = format!("a body of {} bytes is too long", self.body.len());
            return Err(Problem::invalid("body", text).hint(format!("{MAX_BODY} bytes at most")));
        }
        for (_, place) in self.parts() {
            let Some(place) = place else { continue };
            if !PLACES.contains(&place) {
                let text = format!(
                    "`{{{{{}}}}}` is nothing that can be named",
                    place.escape_debug()
                );
                return Err(
                    Problem::invalid("body", text).hint(format!("one of {}", PLACES.join(", ")))
                );
            }
        }
        Ok(())
    }

    /// Whether the body is JSON, so that what is filled in has to be escaped.
    pub fn is_json(&self) -> bool {
        let kind = self.headers.get("content-type");
        kind.is_none_or(|kind| kind.to_ascii_lowercase().contains("json"))
    }

    /// The body in parts: text, and the place behind it.
    fn parts(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let mut rest = Some(self.body.as_str());
        std::iter::from_fn(move || {
            let text = rest.take()?;
            let Some((before, after)) = text.split_once("{{") else {
                return Some((text, None));
            };
            match after.split_once("}}") {
                Some((place, behind)) => {
                    rest = Some(behind);
                    Some((before, Some(place.trim())))
                }
                None => Some((text, None)),
            }
        })
    }

    /// The body with what is there in its places; nothing where there is nothing.
    pub fn filled(&self, value: impl Fn(&str) -> Option<String>) -> String {
        let mut filled = String::new();
        for (text, place) in self.parts() {
            filled.push_str(text);
            filled.extend(place.and_then(&value));
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(headers: &[(&str, &str)], body: &str) -> Result<Own, Problem> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Own::new(headers.iter().map(pair).collect(), body.to_owned())
    }

    #[test]
    fn places_are_filled_in() {
        let own = own(&[], r#"{"a":"{{ service }}","b":"{{commit}}","c":"{"#).expect("fine");
        let value = |place: &str| (place == "service").then(|| "web".to_owned());
        assert_eq!(own.filled(value), r#"{"a":"web","b":"","c":"{"#);
        assert!(own.is_json());
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_name() {
        let long = "x".repeat(MAX_BODY + 1);
        for (headers, body, field) in [
            (vec![("Host", "x")], "", "headers"),
            (vec![("webhook-id", "x")], "", "headers"),
            (vec![("a b", "x")], "", "headers"),
            (vec![("a", "x\ny")], "", "headers"),
            (vec![], "{{secret}}", "body"),
            (vec![], long.as_str(), "body"),
        ] {
            let problem = own(&headers, body).expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field));
        }
        let own = own(
            &[
                ("Authorization", "Bearer x"),
                ("Content-Type", "text/plain"),
            ],
            "a",
        );
        let own = own.expect("fine");
        assert!(!own.is_json());
        assert!(!format!("{own:?}").contains("Bearer"), "{own:?}");
    }
}
