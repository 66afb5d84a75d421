//! Which pages of other origins may use a route from a browser.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::check::{check_token, within};
use crate::problem::Problem;

/// Most origins, and most names of each list.
pub const MAX_CORS_NAMES: usize = 50;
/// Ten minutes: what a browser may go on believing after a change.
const DEFAULT_MAX_AGE_S: u32 = 600;
/// Browsers take no longer time than this.
const MOST_MAX_AGE_S: u64 = 86_400;
/// All there is.
const ANY: &str = "*";

/// Pages of which origins may ask, with what, and what they may read of answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Cors {
    /// Exact, as `https://app.example.com`, or `*` alone for every one.
    pub origins: Vec<String>,
    /// Methods beside GET, HEAD and POST, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Headers of requests that pages may set, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Headers of answers that pages may read, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// Requests may carry cookies and passwords of the route's host.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub credentials: bool,
    /// How long browsers need not ask again, in seconds.
    pub max_age_s: u32,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            methods: Vec::new(),
            headers: Vec::new(),
            expose: Vec::new(),
            credentials: false,
            max_age_s: DEFAULT_MAX_AGE_S,
        }
    }
}

impl Cors {
    /// Pages of every origin.
    pub fn is_for_any(&self) -> bool {
        self.origins == [ANY]
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.origins.is_empty() {
            return Err(Problem::invalid("cors.origins", "no origin is named")
                .hint("for example [\"https://app.example.com\"], or [\"*\"] for every one"));
        }
        if !self.is_for_any() {
            distinct("cors.origins", &self.origins)?;
            self.origins.iter().try_for_each(|it| check_origin(it))?;
        }
        let lists = [
            ("cors.methods", &self.methods),
            ("cors.headers", &self.headers),
            ("cors.expose", &self.expose),
        ];
        for (field, names) in lists {
            distinct(field, names)?;
            let names = names.iter().filter(|name| *name != ANY);
            names
                .map(String::as_str)
                .try_for_each(|name| check_token(field, name))?;
        }
        let small = self
            .methods
            .iter()
            .find(|it| **it != it.to_ascii_uppercase());
        if let Some(method) = small {
            let text = format!("`{method}` is not a method");
            return Err(Problem::invalid("cors.methods", text)
                .hint("methods have capitals: PUT, PATCH, DELETE"));
        }
        within(
            "cors.max_age_s",
            u64::from(self.max_age_s),
            1,
            MOST_MAX_AGE_S,
        )?;
        self.check_any_with_credentials()
    }

    /// Browsers refuse `*` as an origin then, and read it as a name elsewhere.
    fn check_any_with_credentials(&self) -> Result<(), Problem> {
        let lists = [
            ("cors.origins", &self.origins),
            ("cors.methods", &self.methods),
            ("cors.headers", &self.headers),
            ("cors.expose", &self.expose),
        ];
        let any = lists
            .iter()
            .find(|(_, names)| names.iter().any(|it| it == ANY));
        match any.filter(|_| self.credentials) {
            None => Ok(()),
            Some((field, _)) => Err(Problem::invalid(
                *field,
                "browsers do not take `*` together with `credentials`",
            )
            .hint("name each one, or leave `credentials` out")),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let lists = [&self.origins, &self.methods, &self.headers, &self.expose];
        lists.into_iter().flatten().map(String::len).sum()
    }
}

fn distinct(field: &str, names: &[String]) -> Result<(), Problem> {
    if names.len() > MAX_CORS_NAMES {
        let text = format!("{} are too many", names.len());
        return Err(Problem::invalid(field, text).hint(format!("at most {MAX_CORS_NAMES}")));
    }
    let mut seen = BTreeSet::new();
    let twice = names
        .iter()
        .find(|name| !seen.insert(name.to_ascii_lowercase()));
    twice.map_or(Ok(()), |name| {
        let text = format!("`{name}` is said twice");
        Err(Problem::invalid(field, text).hint("say each once"))
    })
}

/// As browsers send them, which is what they are compared with: scheme, host and no usual port.
fn check_origin(origin: &str) -> Result<(), Problem> {
    let usual = [("http", "80"), ("https", "443")];
    let is_origin = origin.split_once("://").is_some_and(|(scheme, place)| {
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        };
        let is_scheme =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_host =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
        !scheme.is_empty()
            && scheme.bytes().all(is_scheme)
            && (1..=253).contains(&host.len())
            && host.bytes().all(is_host)
            && port
                .is_none_or(|port| port.parse::<u16>().is_ok() && !usual.contains(&(scheme, port)))
    });
    if is_origin {
        return Ok(());
    }
    let shown: String = origin.chars().take(60).collect();
    let text = format!("`{}` is not an origin", shown.escape_debug());
    Err(Problem::invalid("cors.origins", text).hint(
        "scheme and host in lower case, a port only if it is not the usual one, and no path: \
         https://app.example.com, http://localhost:3000; `*` stands alone",
    ))
}
