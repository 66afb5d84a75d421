//! Where a redirect leads. Pure.

use http::header::HOST;
use http::request::Parts;
use skep_model::routing::Redirect;

use crate::origin::Origin;

/// The address that a request for a route with this prefix is sent to; none: it is there already.
pub(super) fn of(
    redirect: &Redirect,
    prefix: &str,
    parts: &Parts,
    origin: &Origin,
) -> Option<String> {
    let scheme = origin.scheme.as_str();
    // A trusted proxy may say what its client asked for.
    let asked = origin.host.as_ref().or_else(|| parts.headers.get(HOST));
    let asked = asked?.to_str().ok()?;
    let target = parts.uri.path_and_query()?.as_str();
    let rest = target.strip_prefix(prefix)?;
    let (host, port) = split(asked);
    let to_scheme = redirect.scheme.map_or(scheme, |scheme| scheme.as_str());
    let to_host = redirect.host.as_deref().unwrap_or(host);
    // Another scheme has a port of its own.
    let to_port = if redirect.scheme.is_some() { "" } else { port };
    let to_prefix = match &redirect.path {
        Some(path) => path.trim_end_matches('/'),
        None => prefix,
    };
    let location = format!("{to_scheme}://{to_host}{to_port}{to_prefix}{rest}");
    (location != format!("{scheme}://{asked}{target}")).then_some(location)
}

/// A host and its `:port`, where it says one.
fn split(authority: &str) -> (&str, &str) {
    match authority.rfind(':') {
        Some(at)
            if authority[at + 1..]
                .bytes()
                .all(|byte| byte.is_ascii_digit()) =>
        {
            authority.split_at(at)
        }
        _ => (authority, ""),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};
    use skep_model::routing::Scheme;

    use super::*;

    fn location(redirect: &Redirect, prefix: &str, host: &str, target: &str) -> Option<String> {
        let request = Request::get(target).header("host", host).body(());
        let parts = request.expect("a request").into_parts().0;
        let origin = Origin {
            client: [10, 0, 0, 9].into(),
            address: HeaderValue::from_static("10.0.0.9"),
            scheme: crate::origin::Scheme::Http,
            host: None,
            port: None,
        };
        of(redirect, prefix, &parts, &origin)
    }

    #[test]
    fn what_is_not_said_stays() {
        let to = |host: Option<&str>, scheme, path: Option<&str>| Redirect {
            host: host.map(str::to_owned),
            scheme,
            path: path.map(str::to_owned),
            permanent: false,
        };
        let https = Some(Scheme::Https);
        for (redirect, prefix, host, target, expected) in [
            (
                to(Some("b.c"), None, None),
                "",
                "a.b",
                "/x?y=1",
                Some("http://b.c/x?y=1"),
            ),
            (
                to(Some("b.c"), None, None),
                "",
                "a.b:8080",
                "/",
                Some("http://b.c:8080/"),
            ),
            (
                to(None, https, None),
                "",
                "a.b:8080",
                "/x",
                Some("https://a.b/x"),
            ),
            (
                to(None, None, Some("/new")),
                "/old",
                "a.b",
                "/old/x",
                Some("http://a.b/new/x"),
            ),
            (
                to(None, None, Some("/new/")),
                "/old",
                "a.b",
                "/old?q",
                Some("http://a.b/new?q"),
            ),
            (
                to(None, None, Some("/")),
                "/old",
                "a.b",
                "/old/x",
                Some("http://a.b/x"),
            ),
            // It is there already.
            (to(Some("a.b"), None, None), "", "a.b", "/x", None),
            (to(None, Some(Scheme::Http), None), "", "a.b", "/x", None),
        ] {
            let found = location(&redirect, prefix, host, target);
            assert_eq!(found.as_deref(), expected, "{redirect:?} {host}{target}");
        }
    }
}
