//! WebSockets of the API, over the same pinned TLS and with the same token as every other call.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use skep_control_plane::api::types::shell::MESSAGE_MAX_BYTES;
use skep_model::problem::{Code, Problem};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{ANSWER_DEADLINE, Client, Error, empty, refusal};

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

impl Client {
    /// Opens a WebSocket; asks the next server where one cannot be reached or says that it cannot serve.
    /// Never asks twice for what may have begun.
    ///
    /// # Errors
    /// Not reachable, or refused.
    pub(crate) async fn socket(&self, path: &str) -> Result<Socket, Error> {
        let mut left = self.bases.count();
        loop {
            left -= 1;
            let server = self.server().to_owned();
            match self.socket_at(&server, path).await {
                Err(error) if left > 0 && has_not_begun(&error) => self.bases.move_on(&server),
                other => return other,
            }
        }
    }

    async fn socket_at(&self, server: &str, path: &str) -> Result<Socket, Error> {
        let key = STANDARD.encode(skep_identity::random::bytes::<16>());
        let request = self
            .request(Method::GET, path)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        let request = request.body(empty()).map_err(Error::Request)?;
        let answer = tokio::time::timeout(ANSWER_DEADLINE, self.http.request(request)).await;
        let silent = |_| Error::Silent {
            server: server.to_owned(),
            deadline: ANSWER_DEADLINE,
        };
        let response = answer
            .map_err(silent)?
            .map_err(|error| Error::lost(server.to_owned(), error))?;
        self.bases.heard(response.headers());
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let bytes = self.whole(response).await?;
            return Err(Error::Refused(refusal(status, &bytes)));
        }
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accepted
            .is_none_or(|value| value.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes())
        {
            let text = "the server's answer is no WebSocket: is a proxy in between?";
            return Err(Error::Refused(Problem::new(Code::Internal, text)));
        }
        let broken = |source: hyper::Error| Error::Broken {
            server: server.to_owned(),
            source: Box::new(source),
        };
        let stream = hyper::upgrade::on(response).await.map_err(broken)?;
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX_BYTES))
            .max_frame_size(Some(MESSAGE_MAX_BYTES));
        let stream = TokioIo::new(stream);
        Ok(WebSocketStream::from_raw_socket(stream, Role::Client, Some(limits)).await)
    }
}

fn has_not_begun(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Refused(problem) => matches!(problem.code, Code::Unavailable | Code::Busy),
        _ => false,
    }
}
