//! Where services answer, as people and apps are told. Pure: follows from the state.

use std::collections::BTreeSet;

use skep_model::node::NodeStatus;
use skep_model::service::Service;
use skep_state::State;

/// Port that URLs leave out.
const HTTP_PORT: u16 = 80;

/// Port of the ingress that URLs name: a ready node's, else any node's.
pub(crate) fn ingress_port(view: &State) -> Option<u16> {
    let port = |only_ready: bool| {
        view.nodes()
            .filter(|node| !only_ready || node.status == NodeStatus::Ready)
            .find_map(|node| node.facts.ingress_port)
    };
    port(true).or_else(|| port(false))
}

/// Where a service answers, the generated host name first.
pub(crate) fn urls(view: &State, service: &Service) -> Vec<String> {
    let Some(port) = ingress_port(view).filter(|_| service.spec.is_routed()) else {
        return Vec::new();
    };
    let generated = view.host_of(service);
    let whole = |host: &String| (host.clone(), String::new());
    let mut places = vec![whole(&generated)];
    places.extend(service.spec.domains.iter().map(whole));
    // What is sent elsewhere is no address of it.
    let routes = service.spec.routes.iter();
    for route in routes.filter(|route| route.redirect.is_none()) {
        let host = route.host.as_ref().unwrap_or(&generated);
        places.push((host.clone(), route.prefix().to_owned()));
    }
    let mut seen = BTreeSet::new();
    places.retain(|place| !place.0.starts_with("*.") && seen.insert(place.clone()));
    let url = |(host, path): (String, String)| match port {
        HTTP_PORT => format!("http://{host}{path}"),
        port => format!("http://{host}:{port}{path}"),
    };
    places.into_iter().map(url).collect()
}
