//! The ports that services may have for connections of their own: which there are, whose they are, and an
//! operator's word for it.

use axum::Json;
use skep_model::service::Service;
use skep_model::tcp::Ports;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State as View;

use super::error::Failure;
use super::extract::Body;
use super::types::{TcpPortView, TcpPortsRequest, TcpPortsView};
use super::{Here, views};

/// Shows the ports that services may have as entries of TCP routes, and who has which.
#[utoipa::path(get, path = "/v1/tcp-ports", tag = "cluster", operation_id = "get_tcp_ports",
    responses((status = 200, body = TcpPortsView)))]
pub(super) async fn get(Here(app): Here) -> Json<TcpPortsView> {
    Json(shown(&app.store.view()))
}

/// Says which ports services may have as entries of TCP routes. Refused while a service has one that is not
/// among them.
#[utoipa::path(put, path = "/v1/tcp-ports", tag = "cluster", operation_id = "set_tcp_ports",
    request_body = TcpPortsRequest, responses((status = 200, body = TcpPortsView)))]
pub(super) async fn put(
    Here(app): Here,
    Body(request): Body<TcpPortsRequest>,
) -> Result<Json<TcpPortsView>, Failure> {
    request.ports.map_or(Ok(()), Ports::check)?;
    let command = v1::SetTcpPorts {
        ports: request.ports.map(Into::into),
    };
    app.store.propose(Kind::SetTcpPorts(command)).await?;
    Ok(Json(shown(&app.store.view())))
}

fn shown(view: &View) -> TcpPortsView {
    let entry = |(port, service): (u16, &Service)| {
        let (project, environment) = views::owners(view, service);
        TcpPortView {
            port,
            project,
            environment,
            service: service.name.clone(),
        }
    };
    TcpPortsView {
        ports: view.tcp_ports(),
        entries: view.entries().map(entry).collect(),
    }
}
