//! Routes of connections: whose the ports are, and the part of the route table.

use skep_model::problem::{Code, Problem};
use skep_model::route::{Backend, TcpRoute};
use skep_model::service::Service;
use skep_model::tcp::{Ports, both};

use crate::state::State;

impl State {
    /// The ports that services may have as entries; none: they may not.
    pub fn tcp_ports(&self) -> Option<Ports> {
        self.tcp_ports
    }

    /// The entries that services have, by port.
    pub fn entries(&self) -> impl Iterator<Item = (u16, &Service)> {
        let all = self.entries.iter();
        all.filter_map(|(port, id)| Some((*port, &**self.service(*id)?)))
    }

    /// Whether a service may have its entries; those that it has in the state, it keeps.
    ///
    /// # Errors
    /// No operator offers the port, or another service has it.
    pub(crate) fn check_entries(&self, wanted: &Service) -> Result<(), Problem> {
        for (number, tcp) in wanted.spec.tcp.iter().enumerate() {
            let Some(port) = tcp.entry else { continue };
            let owner = self.entries.get(&port);
            if owner == Some(&wanted.id) {
                continue;
            }
            let field = format!("tcp[{number}].entry");
            let has = |ports: Ports| ports.has(port);
            if !self.tcp_ports.is_some_and(has) {
                return Err(self.not_offered(port).at(field));
            }
            if let Some(owner) = owner.and_then(|id| self.service(*id)) {
                let text = format!("the port {port} is {}'s", self.owner_name(owner));
                return Err(Problem::new(Code::Conflict, text)
                    .at(field)
                    .hint("another port, or take the route away there first; `skep tcp-ports` lists those that are taken"));
            }
        }
        Ok(())
    }

    fn not_offered(&self, port: u16) -> Problem {
        match self.tcp_ports {
            Some(ports) => {
                let text = format!("the port {port} is not one of {ports}");
                Problem::new(Code::Conflict, text).hint(format!(
                    "a port of {ports}, or ask an operator for others: `skep tcp-ports set FIRST-LAST`"
                ))
            }
            None => {
                let text =
                    format!("the port {port} is not offered: this cluster gives none to services");
                Problem::new(Code::Conflict, text).hint(
                    "an operator offers some with `skep tcp-ports set 15000-15999`; `sni` needs none",
                )
            }
        }
    }

    /// Whether nobody has an entry outside of `ports`.
    ///
    /// # Errors
    /// Names who has.
    pub(crate) fn check_ports(&self, ports: Option<Ports>) -> Result<(), Problem> {
        let is_outside = |port: u16| !ports.is_some_and(|ports| ports.has(port));
        let Some((port, owner)) = self.entries().find(|(port, _)| is_outside(*port)) else {
            return Ok(());
        };
        let text = format!("the port {port} is {}'s", self.owner_name(owner));
        Err(Problem::new(Code::Conflict, text)
            .at("ports")
            .hint("take its route away first, or keep the port in the range"))
    }

    /// The name that a service of HTTP gets is never a name of its connections.
    ///
    /// # Errors
    /// It is.
    pub(crate) fn check_own_name(&self, service: &Service) -> Result<(), Problem> {
        let own = self.host_of(service);
        let is_own = |host: &Option<String>| host.as_deref() == Some(&*own);
        let mut all = service.spec.tcp.iter();
        match all.position(|tcp| service.spec.is_routed() && is_own(&tcp.sni)) {
            Some(number) => Err(both(&own).at(format!("tcp[{number}].sni"))),
            None => Ok(()),
        }
    }

    /// What of the table is about connections, sorted by where they come in.
    pub(crate) fn tcp_routes(&self) -> Vec<TcpRoute> {
        let served = self.services.values();
        let served = served.filter(|it| !it.spec.tcp.is_empty() && !it.removing);
        let served = served.filter(|it| it.target().is_some());
        let mut routes: Vec<TcpRoute> = served.flat_map(|it| self.tcp_routes_of(it)).collect();
        routes.sort_by(|a, b| a.door.cmp(&b.door));
        routes
    }

    fn tcp_routes_of(&self, service: &Service) -> Vec<TcpRoute> {
        let name = self.label_of(service);
        let fit = |port: u16| {
            self.allocations_of(service.id)
                .filter(|it| it.is_routable() && service.serves(it.target))
                .map(move |it| Backend {
                    node: it.node,
                    allocation: it.id,
                    port,
                })
        };
        let route = |tcp: &skep_model::tcp::TcpSpec| {
            Some(TcpRoute {
                door: tcp.door()?,
                proxy_protocol: tcp.proxy_protocol,
                service: service.id,
                name: name.clone(),
                backends: fit(tcp.port).collect(),
            })
        };
        service.spec.tcp.iter().filter_map(route).collect()
    }
}
