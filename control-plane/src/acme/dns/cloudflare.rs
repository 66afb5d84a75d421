//! Writes records by Cloudflare's API, with a token that may read zones and edit their DNS.

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::rest::Rest;
use super::{Doing, Error, Provider, Record, said};

/// Where it is.
const API: &str = "https://api.cloudflare.com/client/v4";
/// How long others may keep a record, in seconds: the least that everybody may say.
const TTL_S: u32 = 60;
/// The very record is there already.
const IDENTICAL: u64 = 81058;
/// What is to be done where it refuses.
const HINT: &str = "the token needs Zone:Read and DNS:Edit for the zone";

/// What every answer has.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
    #[serde(default)]
    errors: Vec<Wrong>,
    #[serde(default)]
    result: Value,
}

#[derive(Debug, Deserialize)]
struct Wrong {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    message: String,
}

/// The part of a zone or a record that is used.
#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    content: String,
}

/// The API with one token.
pub(super) struct Cloudflare {
    rest: Rest,
    api: String,
}

impl Cloudflare {
    /// With this token.
    pub(super) fn new(token: String) -> Result<Self, Error> {
        Self::at(API, token)
    }

    pub(super) fn at(api: &str, token: String) -> Result<Self, Error> {
        Ok(Self {
            rest: Rest::new("Cloudflare", Some(token))?,
            api: api.to_owned(),
        })
    }

    async fn add(&self, record: Record<'_>) -> Result<(), Error> {
        let zone = self.zone(record.name).await?;
        let body = json!({
            "type": "TXT", "name": record.name, "content": quoted(record.value), "ttl": TTL_S,
            "comment": "Skep proves a host to an issuer of certificates; it takes this away again",
        });
        let path = format!("/zones/{zone}/dns_records");
        let answer = self.ask(Method::POST, &path, Some(&body)).await?;
        let is_there = answer.errors.iter().any(|it| it.code == IDENTICAL);
        match answer.success || is_there {
            true => Ok(()),
            false => Err(self.refused(&answer)),
        }
    }

    async fn remove(&self, record: Record<'_>) -> Result<(), Error> {
        let zone = self.zone(record.name).await?;
        let path = format!(
            "/zones/{zone}/dns_records?type=TXT&name={}&per_page=100",
            record.name
        );
        let found = self.entries(&path).await?;
        let same = found
            .iter()
            .filter(|it| it.content.trim_matches('"') == record.value);
        for entry in same {
            let path = format!("/zones/{zone}/dns_records/{}", entry.id);
            let answer = self.ask(Method::DELETE, &path, None).await?;
            if !answer.success {
                return Err(self.refused(&answer));
            }
        }
        Ok(())
    }

    /// The zone of a name: the longest end of it that is one.
    async fn zone(&self, name: &str) -> Result<String, Error> {
        let ends = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
        for end in ends.filter(|end| end.contains('.')) {
            let found = self.entries(&format!("/zones?name={end}")).await?;
            if let Some(zone) = found.into_iter().next() {
                return Ok(zone.id);
            }
        }
        Err(Error::Refused {
            who: self.rest.who().to_owned(),
            said: format!("the token sees no zone of {name}"),
            hint: HINT,
        })
    }

    async fn entries(&self, path: &str) -> Result<Vec<Entry>, Error> {
        let answer = self.ask(Method::GET, path, None).await?;
        if !answer.success {
            return Err(self.refused(&answer));
        }
        let read = serde_json::from_value(answer.result);
        read.map_err(|error| Error::Unusable(format!("Cloudflare's answer is odd: {error}")))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Error> {
        let url = format!("{}{path}", self.api);
        let (status, text) = self.rest.send(method, &url, body).await?;
        let answer = serde_json::from_str(&text).ok();
        answer.ok_or_else(|| Error::Refused {
            who: self.rest.who().to_owned(),
            said: format!("{status}: {}", said(&text)),
            hint: match status {
                StatusCode::TOO_MANY_REQUESTS => "it is asked again by itself",
                _ => HINT,
            },
        })
    }

    fn refused(&self, answer: &Answer) -> Error {
        let wrong = answer.errors.iter();
        let wrong: Vec<String> = wrong
            .map(|it| format!("{} ({})", it.message, it.code))
            .collect();
        Error::Refused {
            who: self.rest.who().to_owned(),
            said: said(&wrong.join("; ")),
            hint: HINT,
        }
    }
}

/// As zone files have a text: without quotes the API complains.
fn quoted(value: &str) -> String {
    format!("\"{value}\"")
}

impl Provider for Cloudflare {
    fn name(&self) -> &'static str {
        "Cloudflare"
    }

    fn present<'a>(&'a self, record: Record<'a>) -> Doing<'a> {
        Box::pin(self.add(record))
    }

    fn cleanup<'a>(&'a self, record: Record<'a>) -> Doing<'a> {
        Box::pin(self.remove(record))
    }
}
