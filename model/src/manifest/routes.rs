//! `[[routes]]` in the units that people write.

use serde::{Deserialize, Serialize};

use super::Size;
use crate::routing::{
    CircuitBreaker, Cors, ForwardAuth, Headers, RateLimit, Redirect, RouteSpec, Split,
};

/// One of `[[routes]]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RouteTable {
    /// Exact, or `*.` and a domain; none: the generated name.
    pub host: Option<String>,
    /// Whole segments that paths begin with; none: `/`, every path.
    pub path: Option<String>,
    /// The service sees the path without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strip_prefix: bool,
    /// Of the routes of one host: the highest first.
    pub priority: Option<u32>,
    /// Answers in the service's place.
    pub redirect: Option<Redirect>,
    /// Headers set and removed.
    #[serde(skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
    /// Networks that may ask.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_ips: Vec<String>,
    /// Lines of an htpasswd file with bcrypt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub basic_auth: Vec<String>,
    /// Most requests of one client's address.
    pub rate_limit: Option<RateLimit>,
    /// Largest body of a request: `"10MiB"`.
    pub body_limit: Option<Size>,
    /// Most requests at the same time.
    pub in_flight: Option<u32>,
    /// A browser's requests go to one replica.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
    /// Answers of text are compressed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
    /// Pages of other origins that may use it.
    pub cors: Option<Cors>,
    /// Who is asked first.
    pub forward_auth: Option<ForwardAuth>,
    /// When a service that fails is left alone.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Services that share its requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<Split>,
}

impl RouteTable {
    /// As people write what the specification has.
    pub(super) fn of(route: &RouteSpec) -> Self {
        Self {
            host: route.host.clone(),
            path: (route.path != RouteSpec::default().path).then(|| route.path.clone()),
            strip_prefix: route.strip_prefix,
            priority: route.priority,
            redirect: route.redirect.clone(),
            headers: route.headers.clone(),
            allow_ips: route.allow_ips.clone(),
            basic_auth: route.basic_auth.clone(),
            rate_limit: route.rate_limit,
            body_limit: route.body_limit_bytes.map(Size::from),
            in_flight: route.in_flight,
            sticky: route.sticky,
            compress: route.compress,
            cors: route.cors.clone(),
            forward_auth: route.forward_auth.clone(),
            circuit_breaker: route.circuit_breaker,
            split: route.split.clone(),
        }
    }

    /// As the specification has it.
    pub(super) fn read(&self) -> RouteSpec {
        let path = self.path.clone();
        RouteSpec {
            host: self.host.clone(),
            path: path.unwrap_or_else(|| RouteSpec::default().path),
            strip_prefix: self.strip_prefix,
            priority: self.priority,
            redirect: self.redirect.clone(),
            headers: self.headers.clone(),
            allow_ips: self.allow_ips.clone(),
            basic_auth: self.basic_auth.clone(),
            rate_limit: self.rate_limit,
            body_limit_bytes: self.body_limit.map(|size| size.as_u64()),
            in_flight: self.in_flight,
            sticky: self.sticky,
            compress: self.compress,
            cors: self.cors.clone(),
            forward_auth: self.forward_auth.clone(),
            circuit_breaker: self.circuit_breaker,
            split: self.split.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::Manifest;
    use crate::routing::Scheme;
    use crate::spec::ServiceSpec;

    #[test]
    fn routes_are_written_as_people_say_them() {
        let text = r#"
            domains = ["shop.example.com"]

            [[routes]]
            host = "shop.example.com"
            path = "/api"
            strip_prefix = true
            body_limit = "10MiB"
            headers.response.set = { Cache-Control = "no-store" }
            headers.response.remove = ["Server"]
            rate_limit = { per_second = 10, burst = 20 }

            [[routes]]
            host = "www.shop.example.com"
            redirect = { host = "shop.example.com", scheme = "https", permanent = true }
        "#;
        let manifest = Manifest::parse(text).expect("accepted");
        let spec = manifest.apply(&ServiceSpec::default()).expect("units");
        let [api, www] = &spec.routes[..] else {
            panic!("{:?}", spec.routes)
        };
        assert_eq!((&*api.path, api.body_limit_bytes), ("/api", Some(10 << 20)));
        assert_eq!(api.headers.response.set["Cache-Control"], "no-store");
        let redirect = www.redirect.as_ref().expect("a redirect");
        assert_eq!((&*www.path, redirect.scheme), ("/", Some(Scheme::Https)));
        // A file that says nothing of them leaves them; an empty list takes them away.
        let silent = Manifest::parse("replicas = 2").expect("accepted");
        assert_eq!(silent.apply(&spec).expect("units").routes, spec.routes);
        let none = Manifest::parse("routes = []").expect("accepted");
        assert_eq!(none.apply(&spec).expect("units").routes, []);
        let labelled = Manifest::parse(
            r#"
            labels = { "traefik.http.routers.a.rule" = "Host(`a.example`)", "traefik.http.services.a.loadbalancer.server.port" = "3000" }
            routes = [{ path = "/b" }]
        "#,
        );
        let found = labelled.expect("accepted").apply(&spec).expect("units");
        let hosts: Vec<_> = found.routes.iter().map(|it| it.host.as_deref()).collect();
        assert_eq!(
            (hosts, found.port),
            (vec![Some("a.example"), None], Some(3_000))
        );
        let wrong = Manifest::parse("[labels]\n\"traefik.enable\" = \"no\"").expect_err("a label");
        assert_eq!(wrong.field.as_deref(), Some("labels.traefik.enable"));
        let wrong = Manifest::parse("[[routes]]\npath = \"api\"").expect_err("no path");
        assert_eq!(wrong.field.as_deref(), Some("routes[0].path"));
    }

    #[test]
    fn shares_are_tables_in_a_line() {
        let text = r#"
            [[routes]]
            split = [{ service = "web", weight = 90 }, { service = "web-next", weight = 10 }]
        "#;
        let manifest = Manifest::parse(text).expect("parses");
        let spec = manifest.apply(&ServiceSpec::default()).expect("units");
        let shares: Vec<_> = spec.routes[0]
            .split
            .iter()
            .map(|it| (&*it.service, it.weight))
            .collect();
        assert_eq!(shares, [("web", 90), ("web-next", 10)]);
        assert!(!spec.routes[0].is_plain());
    }
}
