//! Has somebody's program behind HTTP write records: `POST {"action": "present" | "cleanup", "fqdn", "value"}`; any answer
//! of 2xx says that it is done.

use hyper::Method;
use serde_json::json;

use super::rest::Rest;
use super::{Doing, Error, Provider, Record, said};

/// One address.
pub(super) struct Webhook {
    rest: Rest,
    url: String,
}

impl Webhook {
    /// What answers at `url` to whoever shows `token`.
    pub(super) fn new(url: &str, token: Option<String>) -> Result<Self, Error> {
        Ok(Self {
            rest: Rest::new("the webhook", token)?,
            url: url.to_owned(),
        })
    }

    async fn tell(&self, action: &str, record: Record<'_>) -> Result<(), Error> {
        let body = json!({ "action": action, "fqdn": record.name, "value": record.value });
        let sent = self.rest.send(Method::POST, &self.url, Some(&body));
        let (status, text) = sent.await?;
        if status.is_success() {
            return Ok(());
        }
        Err(Error::Failed {
            who: self.rest.who().to_owned(),
            said: format!("{status}: {}", said(&text)),
            hint: "it answers 2xx when the record is written or taken away; is its token right?",
        })
    }
}

impl Provider for Webhook {
    fn name(&self) -> &'static str {
        "the webhook"
    }

    fn present<'a>(&'a self, record: Record<'a>) -> Doing<'a> {
        Box::pin(self.tell("present", record))
    }

    fn cleanup<'a>(&'a self, record: Record<'a>) -> Doing<'a> {
        Box::pin(self.tell("cleanup", record))
    }
}
