//! Whether routes are what they may be.

use std::collections::BTreeSet;

use super::{
    Cidr, CircuitBreaker, Cors, ForwardAuth, HeaderChanges, MAX_BYTES, MAX_HEADER_VALUE,
    MAX_HEADERS, MAX_NETWORKS, MAX_PATH_BYTES, MAX_PRIORITY, MAX_RATE, MAX_ROUTES, MAX_USERS,
    Redirect, RouteSpec, split,
};
use crate::name::check_host;
use crate::problem::Problem;

/// Headers that make up the message itself, or that say who asks and what Skep found: what is in them is
/// the ingress' own.
const OWN: [&str; 14] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
];
/// Names that begin so, too.
const OWN_PREFIXES: [&str; 2] = ["x-forwarded-", "x-skep-"];
/// Longest name of a header, in bytes.
const MAX_HEADER_NAME: usize = 128;
/// Cheapest and dearest bcrypt that is taken: the one can be guessed, the other takes seconds of CPU
/// for each try, of whoever tries.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;
/// Length of a bcrypt hash: `$2y$`, cost, `$`, salt and digest.
const BCRYPT_LEN: usize = 60;

/// Checks all routes of a service, and its short `domains` beside them.
///
/// # Errors
/// The first field that is not accepted, and what would be.
pub fn check_all(routes: &[RouteSpec], domains: &[String]) -> Result<(), Problem> {
    if routes.len() > MAX_ROUTES {
        let text = format!("{} are too many", routes.len());
        return Err(Problem::invalid("routes", text).hint(format!("at most {MAX_ROUTES}")));
    }
    for (number, route) in routes.iter().enumerate() {
        check(route).map_err(|problem| {
            let field = problem.field.clone().unwrap_or_default();
            problem.at(format!("routes[{number}].{field}"))
        })?;
    }
    let bytes: usize = routes.iter().map(bytes_of).sum();
    if bytes > MAX_BYTES {
        let text = format!("together they have {bytes} bytes of text");
        return Err(Problem::invalid("routes", text).hint(format!("at most {MAX_BYTES}")));
    }
    conflict_within(routes, domains)
}

/// Whether two routes of one service are for the same host and path; names the second of them.
fn conflict_within(routes: &[RouteSpec], domains: &[String]) -> Result<(), Problem> {
    let mut seen: BTreeSet<(Option<&str>, &str)> = BTreeSet::new();
    seen.extend(domains.iter().map(|host| (Some(host.as_str()), "")));
    for (number, route) in routes.iter().enumerate() {
        if seen.insert((route.host.as_deref(), route.prefix())) {
            continue;
        }
        let host = route.host.as_deref().unwrap_or("the generated name");
        let text = format!("`{host}` has a route for `{}` already", route.path);
        return Err(Problem::invalid(format!("routes[{number}]"), text)
            .hint("one route for each host and path; `domains` is a route for `/` of each host"));
    }
    Ok(())
}

fn check(route: &RouteSpec) -> Result<(), Problem> {
    if let Some(host) = &route.host {
        check_host("host", host)?;
    }
    check_path("path", &route.path)?;
    if route.strip_prefix && route.prefix().is_empty() {
        let text = "the path `/` has nothing to strip";
        return Err(Problem::invalid("strip_prefix", text)
            .hint("leave it out, or say which `path` the service shall not see"));
    }
    if let Some(priority) = route.priority {
        within("priority", u64::from(priority), 1, u64::from(MAX_PRIORITY))?;
    }
    if let Some(redirect) = &route.redirect {
        check_redirect(route, redirect)?;
    }
    check_headers("headers.request", &route.headers.request)?;
    check_headers("headers.response", &route.headers.response)?;
    if route.allow_ips.len() > MAX_NETWORKS {
        let text = format!("{} networks are too many", route.allow_ips.len());
        return Err(Problem::invalid("allow_ips", text).hint(format!("at most {MAX_NETWORKS}")));
    }
    for network in &route.allow_ips {
        network.parse::<Cidr>()?;
    }
    check_users(&route.basic_auth)?;
    if let Some(limit) = &route.rate_limit {
        let most = u64::from(MAX_RATE);
        within(
            "rate_limit.per_second",
            u64::from(limit.per_second),
            1,
            most,
        )?;
        within("rate_limit.burst", u64::from(limit.burst), 1, most)?;
    }
    if let Some(bytes) = route.body_limit_bytes {
        within("body_limit_bytes", bytes, 1, 1 << 50)?;
    }
    if let Some(count) = route.in_flight {
        within("in_flight", u64::from(count), 1, u64::from(MAX_RATE))?;
    }
    route.cors.as_ref().map_or(Ok(()), Cors::check)?;
    let asked = route.forward_auth.as_ref();
    asked.map_or(Ok(()), ForwardAuth::check)?;
    let breaker = route.circuit_breaker.as_ref();
    breaker.map_or(Ok(()), CircuitBreaker::check)?;
    split::check(&route.split)
}

pub(super) fn within(field: &str, value: u64, low: u64, high: u64) -> Result<(), Problem> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Problem::invalid(field, format!("{value} is out of range"))
        .hint(format!("{low} to {high}, or leave it out")))
}

fn check_path(field: &str, path: &str) -> Result<(), Problem> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte);
    let odd = path.split('/').any(|part| part == "." || part == "..") || path.contains("//");
    if path.starts_with('/') && path.len() <= MAX_PATH_BYTES && !odd && path.bytes().all(is_plain) {
        return Ok(());
    }
    let shown: String = path.chars().take(60).collect();
    let text = format!("`{}` is not a path", shown.escape_debug());
    Err(Problem::invalid(field, text).hint(format!(
        "it begins with `/` and holds letters, digits and -._~!$&'()*+,;=:@, without empty, `.` or `..` \
         segments, in at most {MAX_PATH_BYTES} bytes"
    )))
}

fn check_redirect(route: &RouteSpec, redirect: &Redirect) -> Result<(), Problem> {
    if let Some(host) = &redirect.host {
        check_host("redirect.host", host)?;
        if host.starts_with("*.") {
            return Err(Problem::invalid("redirect.host", "nobody is at a wildcard")
                .hint("the one host where requests shall go"));
        }
    }
    if let Some(path) = &redirect.path {
        check_path("redirect.path", path)?;
    }
    let same_host = redirect.host.is_none() || redirect.host == route.host;
    let to = redirect
        .path
        .as_deref()
        .map(|path| path.trim_end_matches('/'));
    let same_path = to.is_none_or(|to| to == route.prefix());
    if same_host && same_path && redirect.scheme.is_none() {
        return Err(Problem::invalid("redirect", "it leads nowhere else")
            .hint("say `host`, `scheme` or `path`"));
    }
    // What is below the route's own path, at its own host, would be sent on without end.
    if let (true, Some(to)) = (same_host, to) {
        let below = to.strip_prefix(route.prefix());
        if below.is_some_and(|rest| rest.starts_with('/')) {
            let text = format!("`{to}` is below the route's own path, and would be sent on again");
            return Err(Problem::invalid("redirect.path", text)
                .hint("a path outside of the route's, or another host"));
        }
    }
    if route.strip_prefix {
        return Err(
            Problem::invalid("strip_prefix", "a redirect strips nothing")
                .hint("leave it out: `redirect.path` stands in place of the route's path"),
        );
    }
    Ok(())
}

fn check_headers(field: &str, changes: &HeaderChanges) -> Result<(), Problem> {
    let count = changes.set.len() + changes.remove.len();
    if count > MAX_HEADERS {
        let text = format!("{count} headers are too many");
        return Err(Problem::invalid(field, text).hint(format!("at most {MAX_HEADERS}")));
    }
    let mut seen = BTreeSet::new();
    for name in changes.set.keys().chain(&changes.remove) {
        check_header_name(field, name)?;
        if !seen.insert(name.to_ascii_lowercase()) {
            let text = format!("`{name}` is said twice");
            return Err(Problem::invalid(field, text)
                .hint("set or remove each header once; capitals make no other header"));
        }
    }
    for (name, value) in &changes.set {
        let is_visible = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
        let is_trimmed = value.trim() == value && !value.is_empty();
        if !is_trimmed || value.len() > MAX_HEADER_VALUE || !value.bytes().all(is_visible) {
            return Err(Problem::invalid(
                format!("{field}.set.{name}"),
                "this is not the value of a header",
            )
            .hint(format!(
                "1 to {MAX_HEADER_VALUE} visible ASCII characters, no spaces around them; `remove` takes a header away"
            )));
        }
    }
    Ok(())
}

pub(super) fn check_header_name(field: &str, name: &str) -> Result<(), Problem> {
    check_token(field, name)?;
    let lower = name.to_ascii_lowercase();
    let is_own = OWN.contains(&&*lower) || OWN_PREFIXES.iter().any(|own| lower.starts_with(own));
    if is_own {
        let text = format!("`{name}` is written by the ingress alone");
        return Err(Problem::invalid(field, text).hint("choose another name"));
    }
    Ok(())
}

/// A token (RFC 9110, 5.6.2), which names of headers and methods are.
pub(super) fn check_token(field: &str, name: &str) -> Result<(), Problem> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if (1..=MAX_HEADER_NAME).contains(&name.len()) && name.bytes().all(is_token) {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    let text = format!("`{}` is not a name", shown.escape_debug());
    Err(Problem::invalid(field, text).hint("letters, digits and -, like X-Frame-Options"))
}

fn check_users(lines: &[String]) -> Result<(), Problem> {
    if lines.len() > MAX_USERS {
        let text = format!("{} users are too many", lines.len());
        return Err(Problem::invalid("basic_auth", text).hint(format!("at most {MAX_USERS}")));
    }
    let mut seen = BTreeSet::new();
    for (number, line) in lines.iter().enumerate() {
        let field = format!("basic_auth[{number}]");
        let user = line.split_once(':').filter(|(_, hash)| is_bcrypt(hash));
        // The line itself is not repeated: somebody may have written a password.
        let Some((user, _)) = user else {
            return Err(
                Problem::invalid(field, "this is not a user with a bcrypt hash")
                    .hint("a line of `htpasswd -nB USER`: user:$2y$..., with a cost of 4 to 14"),
            );
        };
        let is_plain = |byte: u8| (b'!'..=b'~').contains(&byte);
        if user.is_empty() || user.len() > 64 || !user.bytes().all(is_plain) {
            return Err(Problem::invalid(field, "the user's name is not accepted")
                .hint("1 to 64 visible ASCII characters without spaces and `:`"));
        }
        if !seen.insert(user) {
            let text = format!("the user `{user}` is there twice");
            return Err(Problem::invalid(field, text).hint("one line for each user"));
        }
    }
    Ok(())
}

fn is_bcrypt(hash: &str) -> bool {
    let kind = ["$2a$", "$2b$", "$2y$"];
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
    let Some(rest) = kind.iter().find_map(|kind| hash.strip_prefix(kind)) else {
        return false;
    };
    let cost = rest.get(..2).and_then(|cost| cost.parse().ok());
    hash.len() == BCRYPT_LEN
        && cost.is_some_and(|cost| COSTS.contains(&cost))
        && rest.as_bytes().get(2) == Some(&b'$')
        && rest.bytes().skip(3).all(is_base64)
}

/// How much text a route holds.
fn bytes_of(route: &RouteSpec) -> usize {
    let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let lens = |all: &[String]| all.iter().map(String::len).sum::<usize>();
    let changes = |all: &HeaderChanges| {
        let set: usize = all
            .set
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        set + lens(&all.remove)
    };
    let redirect = route.redirect.as_ref();
    len(&route.host)
        + route.path.len()
        + redirect.map_or(0, |redirect| len(&redirect.host) + len(&redirect.path))
        + changes(&route.headers.request)
        + changes(&route.headers.response)
        + lens(&route.allow_ips)
        + lens(&route.basic_auth)
        + route.cors.as_ref().map_or(0, Cors::bytes)
        + route.forward_auth.as_ref().map_or(0, ForwardAuth::bytes)
        + split::bytes_of(&route.split)
}
