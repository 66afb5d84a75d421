//! Where a smoke test asks for its app: at the ingress of each ready node, which must all answer alike. Decides
//! where that is, and goes there.

use std::fmt;

use futures_util::future::join_all;
use skep_control_plane::api::types::NodeView;
use skep_model::problem::{Code, Problem};

use crate::address;
use crate::failure::{Exit, Failure};
use crate::probe;

/// A place where the ingress is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Door {
    /// Whose it is: a node's name, or the address as it was typed.
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Doors {
    /// To each of these.
    These(Vec<Door>),
    /// Where the name of the service leads: no node is reached from here.
    ByName,
}

impl fmt::Display for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::These(doors) => {
                let names: Vec<_> = doors.iter().map(|door| &*door.name).collect();
                write!(f, "reached at {}", names.join(", "))
            }
            Self::ByName => f.write_str("no node is reached from here: by the service's name"),
        }
    }
}

/// `HOST:PORT`, of an IPv6 address in brackets.
///
/// # Errors
/// It is not.
pub(super) fn parse(text: &str) -> Result<Door, String> {
    let (host, port) = address::split(text).ok_or("HOST:PORT is expected, as 203.0.113.10:80")?;
    Ok(Door {
        name: text.to_owned(),
        host,
        port,
    })
}

/// The ingress of each of these nodes that has one and says where it is.
fn of_nodes(nodes: &[NodeView]) -> Vec<Door> {
    let door = |node: &NodeView| {
        Some(Door {
            name: node.name.clone(),
            host: address::of_node(node)?,
            port: node.facts.ingress_port?,
        })
    };
    nodes.iter().filter_map(door).collect()
}

/// The places to ask at: those that were said, else the nodes', as far as any of them opens from here.
///
/// # Errors
/// One that was said does not open, or some nodes' do and others' do not.
pub(super) async fn find(said: &[Door], nodes: &[NodeView]) -> Result<Doors, Failure> {
    let doors = match said {
        [] => of_nodes(nodes),
        said => said.to_vec(),
    };
    let opened = join_all(doors.iter().map(|door| probe::opens(&door.host, door.port))).await;
    let shut: Vec<_> = doors
        .iter()
        .zip(opened)
        .filter_map(|(door, opened)| Some((door, opened.err()?)))
        .collect();
    if said.is_empty() && shut.len() == doors.len() {
        return Ok(Doors::ByName);
    }
    match shut.first() {
        None => Ok(Doors::These(doors)),
        Some((door, why)) => {
            let Door { name, host, port } = door;
            let text = format!("the ingress of {name} is not reached at {host}:{port}: {why}");
            let hint = "does `skep net` run there, and does a firewall let this machine through?";
            let problem = Problem::new(Code::Unavailable, text).hint(hint);
            Err(Failure::with(Exit::Failed, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn doors_are_all_open_or_it_is_said() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let open = parse(&listener.local_addr().expect("bound").to_string()).expect("read");
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let shut = parse(&gone.local_addr().expect("bound").to_string()).expect("read");
        drop(gone);
        let found = find(std::slice::from_ref(&open), &[]).await;
        assert_eq!(found, Ok(Doors::These(vec![open.clone()])));
        let failure = find(&[open, shut.clone()], &[])
            .await
            .expect_err("one is shut");
        assert!(failure.problem.message.contains(&shut.name), "{failure}");
        // No node says where it is.
        assert_eq!(find(&[], &[]).await, Ok(Doors::ByName));
    }
}
