//! `ports`, `networks` and names: who reaches a service, and as what.

use skep_model::spec::ServiceType;

use crate::draft::Draft;
use crate::report::At;
use crate::value::Value;

/// Ports at which nobody speaks HTTP: a service that publishes one is no web service for it.
const NOT_HTTP: [u16; 32] = [
    21, 22, 25, 53, 110, 143, 389, 465, 587, 636, 993, 995, 1433, 1521, 1883, 2222, 3306, 4222,
    5432, 5433, 5671, 5672, 6379, 6380, 8883, 9042, 9092, 11211, 26257, 27017, 27018, 28015,
];

/// Ports at which TLS is spoken: the ingress ends it, and apps are asked in clear.
const TLS: [u16; 2] = [443, 8443];

/// One published port.
#[derive(Debug, PartialEq, Eq)]
struct Port {
    target: u16,
    is_tcp: bool,
}

/// Reads `ports`: the first that may be HTTP is the service's.
pub(super) fn ports<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    for at in at.items() {
        let port = match at.value {
            Value::Map(_) => long(&at),
            _ => at.text().and_then(|text| {
                let port = short(&text);
                if port.is_none() {
                    at.left("not one port", "one line for each port, like \"8080:80\"");
                }
                port
            }),
        };
        if let Some(port) = port {
            publish(draft, &port, &at);
        }
    }
}

fn publish<'a>(draft: &mut Draft<'a>, port: &Port, at: &At<'a>) {
    let (name, target) = (draft.name.clone(), port.target);
    if !port.is_tcp {
        return at.left(
            "only TCP comes in",
            "run it beside Skep where it has to be UDP",
        );
    }
    if NOT_HTTP.contains(&target) {
        return at.left(
            format!("{target} is no port for HTTP; services of the environment reach it as {name}:{target}"),
            "for clients outside: [[tcp]] in skep.toml (docs/skep-toml.md)",
        );
    }
    if TLS.contains(&target) {
        return at.left(
            format!("the ingress does HTTPS, and asks apps in clear: no request comes to {target}"),
            "publish the port that speaks HTTP; docs/certificates.md",
        );
    }
    if draft.spec.kind == ServiceType::Web {
        if draft.spec.port == Some(target) {
            return;
        }
        return at.left(
            format!("a web service has one port; services of the environment reach this as {name}:{target}"),
            "for clients outside: [[tcp]] in skep.toml (docs/skep-toml.md)",
        );
    }
    draft.change(at, |spec| {
        spec.kind = ServiceType::Web;
        spec.port = Some(target);
    });
    at.note(
        format!("no port of a node is opened: requests come by host name to port {target}"),
        "`skep status` shows the address; a label like traefik.http.routers.a.rule=Host(`a.example`) gives it a host",
    );
}

/// `[[ip:]published:]target[/protocol]`; none where that is no one port.
fn short(text: &str) -> Option<Port> {
    let (text, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let target = text.rsplit(':').next().unwrap_or(text);
    let target = target.trim().parse().ok().filter(|port| *port > 0)?;
    Some(Port {
        target,
        is_tcp: protocol == "tcp",
    })
}

fn long(at: &At<'_>) -> Option<Port> {
    let mut target = None;
    let mut is_tcp = true;
    for (key, at) in at.entries() {
        match key {
            "target" => target = at.parsed("one port").filter(|port| *port > 0),
            "protocol" => is_tcp = at.text().is_none_or(|it| it == "tcp"),
            // Which of a node's: told once, with the port.
            "published" | "host_ip" | "mode" | "name" | "app_protocol" => at.take(),
            _ => at.unknown(),
        }
    }
    if target.is_none() {
        at.left("it names no port of the service", "`target: 8080`");
    }
    Some(Port {
        target: target?,
        is_tcp,
    })
}

/// Reads `networks` of a service.
pub(super) fn networks(at: &At<'_>) {
    if let Value::List(_) = at.value {
        // All services of an environment see each other, whichever networks a file makes.
        return at.items().iter().for_each(At::take);
    }
    for (_, at) in at.entries() {
        for (key, at) in at.entries() {
            match key {
                "priority" | "gw_priority" => at.take(),
                _ => at.left(
                    "an environment has one network, and its services their own names in it",
                    "name others by their services: docs/private-network.md",
                ),
            }
        }
    }
}

/// Reads `hostname` or `container_name`.
pub(super) fn name(draft: &mut Draft<'_>, at: &At<'_>) {
    let Some(text) = at.text().filter(|text| !text.is_empty()) else {
        return;
    };
    if text != draft.name {
        at.left(
            format!(
                "services are reached by their own names: this one as `{}`",
                draft.name
            ),
            format!(
                "say `{}` wherever `{}` is said",
                draft.name,
                text.escape_debug()
            ),
        );
        draft.other_names.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ports_are_those_of_compose() {
        for (text, wanted) in [
            ("80", Some((80, true))),
            ("8080:80", Some((80, true))),
            ("127.0.0.1:8080:80/tcp", Some((80, true))),
            ("[::1]:8080:80", Some((80, true))),
            ("127.0.0.1::80", Some((80, true))),
            ("53:53/udp", Some((53, false))),
            ("3000-3005", None),
            ("0", None),
            ("65536", None),
            ("web", None),
            ("", None),
        ] {
            let port = short(text).map(|port| (port.target, port.is_tcp));
            assert_eq!(port, wanted, "{text}");
        }
    }
}
