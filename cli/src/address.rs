//! `host:port` as nodes and servers give it, and what of it is a way to the machine. Asks nobody.

use std::net::IpAddr;

use skep_control_plane::api::types::NodeView;

/// Host and port; an IPv6 address without its brackets. None: it is not of that form.
pub(crate) fn split(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let is_plain = inner.is_some() || !host.contains(':');
    let host = inner.unwrap_or(host);
    (is_plain && !host.is_empty()).then(|| (host.to_owned(), port))
}

/// The host of an address that leads to one machine; none: it stands for all addresses of whoever listens.
pub(crate) fn host(text: &str) -> Option<String> {
    let (host, _) = split(text)?;
    let is_any = (host.parse::<IpAddr>()).is_ok_and(|address| address.is_unspecified());
    (!is_any).then_some(host)
}

/// The host at which other nodes reach this one; none: it says none.
pub(crate) fn of_node(node: &NodeView) -> Option<String> {
    let facts = &node.facts;
    let said = [&facts.mesh_address, &facts.image_address];
    said.into_iter().flatten().find_map(|text| host(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        let some = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(split("203.0.113.10:80"), some("203.0.113.10", 80));
        assert_eq!(split("lb.example:8080"), some("lb.example", 8080));
        assert_eq!(split("[2001:db8::1]:443"), some("2001:db8::1", 443));
        for bad in [
            "",
            "host",
            "host:",
            "host:0",
            ":80",
            "2001:db8::1:80",
            "host:99999",
        ] {
            assert_eq!(split(bad), None, "{bad}");
        }
        assert_eq!(host("10.0.0.1:7072").as_deref(), Some("10.0.0.1"));
        assert_eq!(host("0.0.0.0:7072"), None);
        assert_eq!(host("[::]:7072"), None);
    }
}
