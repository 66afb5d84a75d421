//! The static configuration of a Traefik that `skep net` runs: what examples/traefik.yml advises, with this node's
//! addresses, and as strict with clients as the ingress is. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

/// The entry points, which their sockets are named after.
pub(super) const WEB: &str = "web";
pub(super) const HTTPS: &str = "websecure";
pub(super) const API: &str = "traefik";
/// After it was asked to end Traefik takes what waits on its socket for so long. That somebody else asked it to is seen
/// within it, also on a machine whose processors are all taken: what comes as it shuts its socket is cut off.
pub(super) const ACCEPTS: &str = "5s";

/// What it is made of.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) web: SocketAddr,
    pub(super) https: Option<SocketAddr>,
    pub(super) api: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) token: Option<String>,
    /// Networks whose word about clients is believed.
    pub(super) trusted: Vec<String>,
    pub(super) proxy_protocol: bool,
    pub(super) https_redirect: Option<u16>,
}

/// JSON, which is YAML.
pub(super) fn render(told: &Told) -> Vec<u8> {
    let mut entry_points = serde_json::Map::new();
    entry_points.insert(WEB.into(), entry_point(told, told.web, told.https_redirect));
    if let Some(address) = told.https {
        entry_points.insert(HTTPS.into(), entry_point(told, address, None));
    }
    let api = json!({ "address": told.api.to_string() });
    entry_points.insert(API.into(), api);
    let mut provider = json!({
        "endpoint": format!("http://{}/v1/traefik", dialed(told.admin)),
        "pollInterval": "200ms",
        "pollTimeout": "5s",
    });
    if let Some(token) = &told.token {
        provider["headers"] = json!({ "Authorization": format!("Bearer {token}") });
    }
    let all = json!({
        "entryPoints": entry_points,
        "api": { "insecure": true },
        "ping": {},
        "providers": { "providersThrottleDuration": "50ms", "http": provider },
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "log": { "level": "INFO", "format": "json" },
    });
    serde_json::to_vec_pretty(&all).expect("maps with string keys are JSON")
}

fn entry_point(told: &Told, address: SocketAddr, redirect: Option<u16>) -> Value {
    let mut http = json!({ "aliasHeadersStrategy": "keep" });
    if let Some(port) = redirect {
        // Below the routers of certificate authorities' challenges.
        let to = json!({ "to": format!(":{port}"), "scheme": "https", "priority": 10 });
        http["redirections"] = json!({ "entryPoint": to });
    }
    let mut entry_point = json!({
        "address": address.to_string(),
        "http": http,
        "transport": {
            "respondingTimeouts": { "readTimeout": "600s" },
            // What is open has as long as with a data plane that was taken over from; who supervises asks for less.
            "lifeCycle": { "requestAcceptGraceTimeout": ACCEPTS, "graceTimeOut": "600s" },
        },
    });
    if !told.trusted.is_empty() {
        entry_point["forwardedHeaders"] = json!({ "trustedIPs": told.trusted });
        if told.proxy_protocol {
            entry_point["proxyProtocol"] = json!({ "trustedIPs": told.trusted });
        }
    }
    entry_point
}

/// An address of all is dialed on this machine.
fn dialed(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, address.port()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn plain() -> Told {
        Told {
            web: at("0.0.0.0:80"),
            https: None,
            api: at("127.0.0.1:4000"),
            admin: at("127.0.0.1:7073"),
            token: None,
            trusted: Vec::new(),
            proxy_protocol: false,
            https_redirect: None,
        }
    }

    fn read(told: &Told) -> Value {
        serde_json::from_slice(&render(told)).expect("JSON")
    }

    #[test]
    fn without_more_it_has_one_entrance_and_an_api_for_this_machine() {
        let all = read(&plain());
        let points = all["entryPoints"].as_object().expect("a map");
        assert_eq!(points.keys().collect::<Vec<_>>(), [API, WEB]);
        assert_eq!(points[API]["address"], "127.0.0.1:4000");
        let web = &points[WEB];
        assert_eq!(web["http"], json!({ "aliasHeadersStrategy": "keep" }));
        assert!(web.get("forwardedHeaders").is_none() && web.get("proxyProtocol").is_none());
        assert!(all["providers"]["http"].get("headers").is_none());
    }

    #[test]
    fn what_the_ingress_is_told_of_proxies_and_https_is_told_to_traefik() {
        let all = read(&Told {
            https: Some(at("[::]:443")),
            admin: at("0.0.0.0:7073"),
            token: Some("a\"{{b".into()),
            trusted: vec!["10.0.0.0/8".into()],
            proxy_protocol: true,
            https_redirect: Some(443),
            ..plain()
        });
        let (web, https) = (&all["entryPoints"][WEB], &all["entryPoints"][HTTPS]);
        for point in [web, https] {
            assert_eq!(point["forwardedHeaders"]["trustedIPs"][0], "10.0.0.0/8");
            assert_eq!(point["proxyProtocol"]["trustedIPs"][0], "10.0.0.0/8");
        }
        assert_eq!(web["http"]["redirections"]["entryPoint"]["to"], ":443");
        assert!(https["http"].get("redirections").is_none());
        let provider = &all["providers"]["http"];
        assert_eq!(provider["endpoint"], "http://127.0.0.1:7073/v1/traefik");
        assert_eq!(provider["headers"]["Authorization"], "Bearer a\"{{b");
    }
}
