//! Labels that people have written for Traefik, read as routes: a compose file's come along. What is not
//! understood is refused with its name, never passed over. Pure.

use std::collections::BTreeMap;

use regex_lite::Regex;

use super::{Cors, ForwardAuth, HeaderChanges, RateLimit, Redirect, RouteSpec, Scheme};
use crate::problem::Problem;

/// What rules may be.
const RULES: &str = "Host(`a.example`), several by ||, and after (...) one && PathPrefix(`/path`)";
/// What Skep decides by itself: every route is served in clear and, where its host has a certificate, under TLS.
const OF_ITSELF: [&str; 3] = ["entrypoints", "tls", "tls.certresolver"];

/// What labels say of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labelled {
    /// In the order of the routers' names.
    pub routes: Vec<RouteSpec>,
    /// Where the app listens.
    pub port: Option<u16>,
}

/// A label, split after the name of what it is of.
struct Said<'a> {
    label: &'a str,
    option: String,
    value: &'a str,
}

type ByName<'a> = BTreeMap<String, Vec<Said<'a>>>;

/// Reads a service's labels.
///
/// # Errors
/// The first label that means nothing here, and what would.
pub fn from_labels(labels: &BTreeMap<String, String>) -> Result<Labelled, Problem> {
    let (mut routers, mut middlewares) = (ByName::new(), ByName::new());
    let mut all = Labelled::default();
    for (label, value) in labels {
        let lower = label.to_ascii_lowercase();
        let said = |option: &str| Said {
            label,
            option: option.to_owned(),
            value: value.trim(),
        };
        let parts: Vec<_> = lower.splitn(5, '.').collect();
        match parts[..] {
            ["traefik", "enable"] if value.trim() == "true" => {}
            ["traefik", "docker", "network"] => {}
            ["traefik", "http", "routers", name, option] => {
                routers
                    .entry(name.to_owned())
                    .or_default()
                    .push(said(option));
            }
            ["traefik", "http", "middlewares", name, option] => {
                middlewares
                    .entry(name.to_owned())
                    .or_default()
                    .push(said(option));
            }
            ["traefik", "http", "services", _, "loadbalancer.server.port"] => {
                let port = value.trim().parse().ok();
                if port.is_none() || all.port.is_some_and(|it| Some(it) != port) {
                    return Err(refused(label, "not the one port that the app listens on"));
                }
                all.port = port;
            }
            _ => return Err(refused(label, "this label means nothing here")),
        }
    }
    for said in routers.values() {
        all.routes.extend(router(said, &middlewares)?);
    }
    let used = |name: &str| {
        let lists = routers
            .values()
            .flatten()
            .filter(|said| said.option == "middlewares");
        lists
            .flat_map(|said| names(said.value))
            .any(|it| it == name)
    };
    match middlewares.iter().find(|(name, _)| !used(name)) {
        None => Ok(all),
        Some((_, said)) => Err(refused(said[0].label, "no router uses this middleware")),
    }
}

/// The routes of one router: one for each host.
fn router(all: &[Said<'_>], middlewares: &ByName<'_>) -> Result<Vec<RouteSpec>, Problem> {
    let rule = all.iter().find(|said| said.option == "rule");
    let Some(rule) = rule else {
        return Err(refused(all[0].label, "its router has no rule"));
    };
    let (hosts, path) = read_rule(rule)?;
    let mut route = RouteSpec {
        path,
        ..RouteSpec::default()
    };
    for said in all {
        match said.option.as_str() {
            "rule" | "service" => {}
            "priority" => route.priority = Some(number(said)?),
            "middlewares" => {
                for name in names(said.value) {
                    let missing =
                        || refused(said.label, &format!("there is no middleware `{name}`"));
                    let options = middlewares.get(&name).ok_or_else(missing)?;
                    options
                        .iter()
                        .try_for_each(|option| add(&mut route, option))?;
                }
            }
            option if OF_ITSELF.contains(&option) => {}
            _ => {
                return Err(refused(
                    said.label,
                    "this option of a router means nothing here",
                ));
            }
        }
    }
    let at = |host: String| RouteSpec {
        host: Some(host),
        ..route.clone()
    };
    Ok(hosts.into_iter().map(at).collect())
}

/// `a@docker, b` without where they are from.
fn names(list: &str) -> impl Iterator<Item = String> + '_ {
    let all = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    all.map(|name| name.split('@').next().unwrap_or(name).to_ascii_lowercase())
}

fn read_rule(rule: &Said<'_>) -> Result<(Vec<String>, String), Problem> {
    let host = r#"Host\([`"]([^`"]+)[`"]\)"#;
    let hosts = format!(r"{host}(?:\s*\|\|\s*{host})*");
    let path = r#"\s*&&\s*PathPrefix\([`"]([^`"]+)[`"]\)"#;
    let shape = format!(r"^(?:{hosts}|{host}{path}|\(\s*{hosts}\s*\){path})$");
    let read = |pattern: &str| Regex::new(pattern).expect("a constant pattern");
    if !read(&shape).is_match(rule.value) {
        return Err(Problem::invalid(field(rule.label), "this rule cannot be read").hint(RULES));
    }
    let hosts = read(host);
    let hosts = hosts
        .captures_iter(rule.value)
        .map(|found| found[1].to_owned());
    let path = read(path)
        .captures(rule.value)
        .map(|found| found[1].to_owned());
    let path = path.unwrap_or_else(|| RouteSpec::default().path);
    Ok((hosts.map(|it| it.to_ascii_lowercase()).collect(), path))
}

/// What one label of a middleware does to a route.
fn add(route: &mut RouteSpec, said: &Said<'_>) -> Result<(), Problem> {
    let value = said.value;
    let list = || -> Vec<String> {
        let all = value.split(',').map(str::trim).filter(|it| !it.is_empty());
        all.map(str::to_owned).collect()
    };
    match said.option.as_str() {
        "stripprefix.prefixes" if value.trim_end_matches('/') == route.prefix() => {
            route.strip_prefix = true;
        }
        "stripprefix.prefixes" => {
            return Err(refused(
                said.label,
                "only the rule's own PathPrefix can be stripped",
            ));
        }
        "ratelimit.average" => rate(route).per_second = number(said)?,
        "ratelimit.burst" => rate(route).burst = number(said)?,
        // Compose files write `$$` for `$`, which no bcrypt hash has twice.
        "basicauth.users" => {
            route.basic_auth = list().iter().map(|it| it.replace("$$", "$")).collect();
        }
        "basicauth.removeheader" if value == "true" => {}
        "redirectscheme.scheme" => {
            let scheme = Scheme::ALL.into_iter().find(|it| it.as_str() == value);
            let scheme = scheme.ok_or_else(|| refused(said.label, "neither http nor https"))?;
            redirect(route).scheme = Some(scheme);
        }
        "redirectscheme.permanent" => redirect(route).permanent = flag(said)?,
        "ipallowlist.sourcerange" | "ipwhitelist.sourcerange" => route.allow_ips = list(),
        "inflightreq.amount" => route.in_flight = Some(number(said)?),
        "buffering.maxrequestbodybytes" => route.body_limit_bytes = Some(number(said)?.into()),
        "compress" => route.compress = flag(said)?,
        "forwardauth.address" => asked(route).url = value.to_owned(),
        "forwardauth.authrequestheaders" => asked(route).request_headers = list(),
        "forwardauth.authresponseheaders" => asked(route).response_headers = list(),
        "headers.accesscontrolalloworiginlist" => cors(route).origins = list(),
        "headers.accesscontrolallowmethods" => cors(route).methods = list(),
        "headers.accesscontrolallowheaders" => cors(route).headers = list(),
        "headers.accesscontrolexposeheaders" => cors(route).expose = list(),
        "headers.accesscontrolallowcredentials" => cors(route).credentials = flag(said)?,
        "headers.accesscontrolmaxage" => cors(route).max_age_s = number(said)?,
        "headers.addvaryheader" if value == "true" => {}
        option => {
            if let Some(name) = option.strip_prefix("headers.customrequestheaders.") {
                change(&mut route.headers.request, name, value);
            } else if let Some(name) = option.strip_prefix("headers.customresponseheaders.") {
                change(&mut route.headers.response, name, value);
            } else {
                return Err(refused(
                    said.label,
                    "this middleware's option means nothing here",
                ));
            }
        }
    }
    Ok(())
}

/// Traefik's own: without a burst it is one.
fn rate(route: &mut RouteSpec) -> &mut RateLimit {
    route.rate_limit.get_or_insert(RateLimit {
        per_second: 0,
        burst: 1,
    })
}

fn redirect(route: &mut RouteSpec) -> &mut Redirect {
    route.redirect.get_or_insert_with(Redirect::default)
}

fn asked(route: &mut RouteSpec) -> &mut ForwardAuth {
    route.forward_auth.get_or_insert_with(ForwardAuth::default)
}

fn cors(route: &mut RouteSpec) -> &mut Cors {
    route.cors.get_or_insert_with(Cors::default)
}

/// An empty value takes a header away.
fn change(changes: &mut HeaderChanges, name: &str, value: &str) {
    if value.is_empty() {
        changes.remove.push(name.to_owned());
    } else {
        changes.set.insert(name.to_owned(), value.to_owned());
    }
}

fn number(said: &Said<'_>) -> Result<u32, Problem> {
    let found = said.value.parse().ok();
    found.ok_or_else(|| refused(said.label, "not a whole number"))
}

fn flag(said: &Said<'_>) -> Result<bool, Problem> {
    let found = said.value.parse().ok();
    found.ok_or_else(|| refused(said.label, "neither true nor false"))
}

fn field(label: &str) -> String {
    format!("labels.{label}")
}

fn refused(label: &str, text: &str) -> Problem {
    Problem::invalid(field(label), text).hint(
        "docs/skep-toml.md has a table of labels that are read; [[routes]] says everything else",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::check_all;

    /// `LABEL = VALUE` in lines; `traefik.http.` may be left out.
    fn read(text: &str) -> Result<Labelled, Problem> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let labels = lines.map(|line| {
            let (label, value) = line.split_once(" =").expect("a label and its value");
            let is_short = ["routers.", "middlewares.", "services."]
                .iter()
                .any(|it| label.starts_with(it));
            let prefix = if is_short { "traefik.http." } else { "" };
            (format!("{prefix}{label}"), value.trim().to_owned())
        });
        from_labels(&labels.collect())
    }

    #[test]
    fn a_compose_files_labels_are_routes() {
        let found = read(
            "traefik.enable = true
             routers.api.rule = (Host(`A.example`) || Host(`b.example`)) && PathPrefix(`/api`)
             routers.api.entrypoints = websecure
             routers.api.tls.certresolver = le
             routers.api.priority = 7
             routers.api.middlewares = strip@docker, Guard
             middlewares.strip.stripprefix.prefixes = /api
             middlewares.guard.ratelimit.average = 10
             middlewares.guard.basicauth.users = ann:$$2y$$04$$hqqCpOR5LQaVdT7GQBB9IeM/FUT3jdb4reC3l/S80BB2G1uEgBGhu
             middlewares.guard.headers.customRequestHeaders.X-Env = prod
             middlewares.guard.headers.customresponseheaders.Server =
             routers.www.rule = Host(`www.example`)
             routers.www.middlewares = https
             middlewares.https.redirectscheme.scheme = https
             middlewares.https.redirectscheme.permanent = true
             services.web.loadbalancer.server.port = 3000",
        );
        let found = found.expect("read");
        assert_eq!(found.port, Some(3_000));
        assert_eq!(check_all(&found.routes, &[]), Ok(()));
        let [a, b, www] = &found.routes[..] else {
            panic!("{:?}", found.routes)
        };
        assert_eq!(a.host.as_deref(), Some("a.example"));
        assert_eq!(
            RouteSpec {
                host: a.host.clone(),
                ..b.clone()
            },
            *a
        );
        assert_eq!(
            (&*a.path, a.strip_prefix, a.priority),
            ("/api", true, Some(7))
        );
        assert_eq!(
            a.rate_limit,
            Some(RateLimit {
                per_second: 10,
                burst: 1
            })
        );
        assert!(
            a.basic_auth[0].starts_with("ann:$2y$04$"),
            "{:?}",
            a.basic_auth
        );
        assert_eq!(a.headers.request.set["x-env"], "prod");
        assert_eq!(a.headers.response.remove, ["server"]);
        let sent = www.redirect.as_ref().expect("a redirect");
        assert_eq!((sent.scheme, sent.permanent), (Some(Scheme::Https), true));
    }

    #[test]
    fn rules_of_other_shapes_are_refused_with_what_is_accepted() {
        for (rule, hosts, path) in [
            ("Host(`a`)", 1, "/"),
            ("Host(\"a\") || Host(`b`)||Host(`c`)", 3, "/"),
            ("Host(`a`) && PathPrefix(`/x`)", 1, "/x"),
        ] {
            let found = read(&format!("routers.r.rule = {rule}"))
                .expect(rule)
                .routes;
            assert_eq!((found.len(), &*found[0].path), (hosts, path), "{rule}");
        }
        for rule in [
            "PathPrefix(`/x`)",
            "HostRegexp(`.*`)",
            "Host(`a`, `b`)",
            "Host(`a`) || Host(`b`) && PathPrefix(`/x`)",
            "Host(`a`) && Path(`/x`)",
            "!Host(`a`)",
            "Host(`a`) && Headers(`x`, `y`)",
            "",
        ] {
            let problem = read(&format!("routers.r.rule = {rule}")).expect_err(rule);
            assert_eq!(
                problem.field.as_deref(),
                Some("labels.traefik.http.routers.r.rule")
            );
            assert_eq!(problem.hint.as_deref(), Some(RULES));
        }
    }

    #[test]
    fn what_means_nothing_is_named() {
        let router = "routers.r.rule = Host(`a`)\nrouters.r.middlewares = m\nmiddlewares.m.compress = true\n";
        for (text, label) in [
            ("com.example.team = a", "com.example.team"),
            ("traefik.enable = false", "traefik.enable"),
            (
                "traefik.tcp.routers.r.rule = x",
                "traefik.tcp.routers.r.rule",
            ),
            (
                "services.s.loadbalancer.sticky = true",
                "traefik.http.services.s.loadbalancer.sticky",
            ),
            (
                "services.s.loadbalancer.server.port = x",
                "traefik.http.services.s.loadbalancer.server.port",
            ),
            ("routers.q.priority = 1", "traefik.http.routers.q.priority"),
            (
                "routers.r.observability.metrics = no",
                "traefik.http.routers.r.observability.metrics",
            ),
            (
                "middlewares.m.plugin.x = 1",
                "traefik.http.middlewares.m.plugin.x",
            ),
            (
                "middlewares.m.ratelimit.period = 1m",
                "traefik.http.middlewares.m.ratelimit.period",
            ),
            (
                "middlewares.m.ratelimit.average = many",
                "traefik.http.middlewares.m.ratelimit.average",
            ),
            (
                "middlewares.m.stripprefix.prefixes = /x",
                "traefik.http.middlewares.m.stripprefix.prefixes",
            ),
            (
                "routers.r.middlewares = m, none",
                "traefik.http.routers.r.middlewares",
            ),
            (
                "middlewares.n.compress = true",
                "traefik.http.middlewares.n.compress",
            ),
        ] {
            let problem = read(&format!("{router}{text}")).expect_err(label);
            assert_eq!(problem.field, Some(format!("labels.{label}")), "{problem}");
            assert!(problem.hint.is_some());
        }
    }
}
