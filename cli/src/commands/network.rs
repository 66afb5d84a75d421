//! `skep network`: whether nodes reach one another, who has which private address, and out of which pool.

use std::time::Duration;

use http::Method;
use serde_json::json;
use skep_control_plane::api::types::{
    NetworkCheckView, NetworkNodeView, NetworkView, PrivateEnvironmentView, PrivatePoolRequest,
    PrivatePoolView, PrivateServiceView,
};

use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;

/// Every node dials every other one: the server gives up after 45 s.
const DEADLINE: Duration = Duration::from_secs(55);

/// Private networks, and the network between nodes
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Show which environments and services have which private addresses
    #[command(visible_alias = "list")]
    Ls,
    /// Let every node dial every other one, and say what is in the way
    #[command(after_help = "\
Examples:
  skep network check           what is blocked, between whom, and what to open
  skep network check --json    the same for programs

Each node dials the data planes of all others as it would for traffic, and looks at its own private network:
bridges, firewall, and routes that share addresses with the pool. Exit code 1: something is wrong.")]
    Check,
    /// From where private addresses are given
    #[command(subcommand)]
    Pool(Pool),
}

/// From where private addresses are given
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Pool {
    /// Give new blocks out of another network; addresses that services have stay
    #[command(after_help = "\
Examples:
  skep network pool set 10.201.0.0/16

A private IPv4 network of 10 to 27 bits. Refused where it cannot hold the blocks that environments have, or
where a node has a route, a Docker network or bridges in it.")]
    Set {
        /// The network, with its leading bits
        #[arg(value_name = "NETWORK")]
        pool: String,
    },
}

/// Runs the command.
///
/// # Errors
/// Not reachable, refused, or something is wrong with the network.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Ls => {
            let view: NetworkView = client.get("/v1/network").await?;
            session.out.result(&view, || text(&view));
            Ok(())
        }
        Command::Check => {
            let path = (Method::POST, "/v1/network/check");
            let view: NetworkCheckView = client.send_for(path, &json!({}), DEADLINE).await?;
            session.out.result(&view, || check_text(&view));
            verdict(&view)
        }
        Command::Pool(Pool::Set { pool }) => {
            let path = (Method::PUT, "/v1/network/pool");
            let request = PrivatePoolRequest { pool };
            let view: PrivatePoolView = client.send_for(path, &request, DEADLINE).await?;
            session.out.result(&view, || pool_text(&view));
            Ok(())
        }
    }
}

fn text(view: &NetworkView) -> String {
    let columns = [
        "ENVIRONMENT",
        "BLOCKS",
        "NAME",
        "ADDRESS",
        "HEALTHY",
        "NODES",
    ];
    let rows = view.environments.iter().flat_map(rows).collect();
    let empty = "no service has a private address";
    format!(
        "{}\n\npool {}: {} of {} blocks of 32 addresses are in use",
        table::render(&columns, rows, empty),
        view.pool,
        view.blocks_used,
        view.blocks
    )
}

/// A row for each service; for an environment without any its blocks alone.
fn rows(one: &PrivateEnvironmentView) -> Vec<Vec<String>> {
    let blocks = one.blocks.join(" ");
    if one.services.is_empty() {
        let resting = format!("{} addresses rest for an hour", one.resting);
        let cells = [&*one.environment, &*blocks, &*resting, "-", "-", "-"];
        return vec![cells.map(str::to_owned).to_vec()];
    }
    let row = |service: &PrivateServiceView| {
        let nodes = service.nodes.join(" ");
        let nodes = if nodes.is_empty() {
            "-".to_owned()
        } else {
            nodes
        };
        vec![
            one.environment.clone(),
            blocks.clone(),
            service.name.clone(),
            service.address.clone(),
            service.healthy.to_string(),
            nodes,
        ]
    };
    one.services.iter().map(row).collect()
}

fn check_text(view: &NetworkCheckView) -> String {
    let columns = [
        "NODE",
        "SESSION",
        "REACHED AT",
        "REACHES",
        "PRIVATE NETWORK",
    ];
    let rows = view.nodes.iter().map(|node| node_row(view, node)).collect();
    let mut text = table::render(&columns, rows, "there are no nodes");
    let pairs = view.failing.iter().map(|it| (&it.text, &it.fix));
    let problems = view.problems.iter().map(|it| (&it.text, &it.fix));
    for (wrong, fix) in pairs.chain(problems) {
        text.push_str(&format!("\n\n{wrong}\n  {fix}"));
    }
    text
}

fn node_row(view: &NetworkCheckView, node: &NetworkNodeView) -> Vec<String> {
    let name = &node.node;
    let failing = view.failing.iter().filter(|it| it.from == *name).count();
    let problems = view.problems.iter().any(|it| it.node == *name);
    let doors = view
        .nodes
        .iter()
        .filter(|it| it.node != *name && it.address.is_some());
    let doors = doors.count();
    let reaches = match node.answered {
        true => format!("{} of {doors}", doors - failing.min(doors)),
        false => "not known".to_owned(),
    };
    let private = match (&node.private_pool, node.answered) {
        (_, false) => "not known".to_owned(),
        (None, true) => "off: its agent has no --private-network".to_owned(),
        (Some(pool), true) => {
            let state = if problems { "see below" } else { "on" };
            format!("{state}: {pool}, {} bridges", node.bridges)
        }
    };
    vec![
        name.clone(),
        if node.connected { "yes" } else { "no" }.to_owned(),
        node.address.clone().unwrap_or_else(|| "-".to_owned()),
        reaches,
        private,
    ]
}

/// What the command exits with.
fn verdict(view: &NetworkCheckView) -> Result<(), Failure> {
    if view.ok {
        return Ok(());
    }
    let text = format!(
        "{} of {} pairs of nodes do not reach one another, {} problems of single nodes",
        view.failing.len(),
        view.checked,
        view.problems.len()
    );
    Err(Failure::failed(text).hint("docs/private-network.md says which ports nodes need"))
}

fn pool_text(view: &PrivatePoolView) -> String {
    let mut text = format!(
        "new blocks are given out of {}; addresses that services have stay",
        view.pool
    );
    if !view.unheard.is_empty() {
        text.push_str(&format!(
            "\nnot heard, and maybe in the way: {}; `skep network check` tells later",
            view.unheard.join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_control_plane::api::types::NetworkPairView;

    fn node(name: &str) -> NetworkNodeView {
        NetworkNodeView {
            node: name.into(),
            connected: true,
            answered: true,
            address: Some(format!("{name}:7075")),
            private_pool: None,
            bridges: 0,
        }
    }

    #[test]
    fn who_does_not_reach_whom_is_told_and_fails_the_command() {
        let mut view = NetworkCheckView {
            ok: true,
            nodes: vec![node("a"), node("b")],
            checked: 2,
            ..NetworkCheckView::default()
        };
        assert!(verdict(&view).is_ok());
        view.nodes[1].private_pool = Some("10.202.0.0/16".into());
        assert!(
            check_text(&view).contains("1 of 1"),
            "{}",
            check_text(&view)
        );
        view.ok = false;
        view.failing.push(NetworkPairView {
            from: "b".into(),
            to: "a".into(),
            address: "a:7075".into(),
            found: "timed out".into(),
            text: "node b cannot reach a:7075 of node a: timed out".into(),
            fix: "open TCP 7075 from b to a".into(),
        });
        let text = check_text(&view);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1][..6], ["a", "yes", "a:7075", "1", "of", "1"]);
        assert_eq!(lines[2][..6], ["b", "yes", "b:7075", "0", "of", "1"]);
        assert_eq!(lines[2][6..9], ["on:", "10.202.0.0/16,", "0"]);
        assert!(
            text.ends_with("timed out\n  open TCP 7075 from b to a"),
            "{text}"
        );
        let failure = verdict(&view).expect_err("it fails");
        assert_eq!(failure.exit as u8, 1);
    }
}
