//! `skep tcp-ports`: the ports that services may have for connections of their own.

use http::Method;
use skep_control_plane::api::types::{TcpPortView, TcpPortsRequest, TcpPortsView};
use skep_model::tcp::Ports;

use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;

const PATH: &str = "/v1/tcp-ports";

/// Ports of the nodes that services may have for TCP connections
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep tcp-ports                     the ports that are offered, and who has which
  skep tcp-ports set 15000-15999     services may have these as `entry` of their [[tcp]] routes
  skep tcp-ports set none            and none any more

Every node that serves apps listens on the ports that services have, and on no others: open the range in your
firewall. Routes by the name in the TLS handshake (`sni`) need none of this.")]
pub(crate) struct Args {
    /// What to do; nothing: show them
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Show the ports that are offered, and who has which
    #[command(visible_alias = "list")]
    Ls,
    /// Say which ports services may have
    Set {
        /// FIRST-LAST, at most 1000 ports; or `none`
        #[arg(value_name = "PORTS")]
        ports: String,
    },
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let view: TcpPortsView = match args.command {
        None | Some(Command::Ls) => client.get(PATH).await?,
        Some(Command::Set { ports }) => {
            let request = TcpPortsRequest {
                ports: read(&ports)?,
            };
            client.send(Method::PUT, PATH, &request).await?
        }
    };
    session.out.result(&view, || text(&view));
    Ok(())
}

fn read(text: &str) -> Result<Option<Ports>, Failure> {
    match text {
        "none" => Ok(None),
        text => Ok(Some(text.parse::<Ports>()?)),
    }
}

fn text(view: &TcpPortsView) -> String {
    let offered = match view.ports {
        Some(ports) => format!("services may have the ports {ports}"),
        None => "no ports are offered: `skep tcp-ports set 15000-15999` offers some".to_owned(),
    };
    if view.entries.is_empty() {
        return offered;
    }
    let row = |one: &TcpPortView| {
        vec![
            one.port.to_string(),
            one.project.clone(),
            format!("{}/{}", one.environment, one.service),
        ]
    };
    let rows = view.entries.iter().map(row).collect();
    let taken = table::render(&["PORT", "PROJECT", "SERVICE"], rows, "");
    format!("{offered}\n{taken}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_and_what_is_taken() {
        let mut view = TcpPortsView {
            ports: None,
            entries: Vec::new(),
        };
        assert!(
            text(&view).contains("skep tcp-ports set"),
            "{}",
            text(&view)
        );
        view.ports = read("15000-15009").expect("a range");
        assert_eq!(text(&view), "services may have the ports 15000-15009");
        view.entries.push(TcpPortView {
            port: 15_001,
            project: "shop".into(),
            environment: "production".into(),
            service: "db".into(),
        });
        let shown = text(&view);
        let row = shown.lines().last().expect("a row");
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells, ["15001", "shop", "production/db"]);
        assert!(matches!(read("none"), Ok(None)));
        assert!(read("many").is_err());
    }
}
