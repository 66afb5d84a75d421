//! What every request passes first and every answer last: who asks, under which id, whether it has to come
//! again under TLS, and the line in the log.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, Version};
use hyper::body::Incoming;

use crate::access::{Line, Logged};
use crate::body::ReplyBody;
use crate::connection::Activity;
use crate::endpoint::Endpoint;
use crate::ingress::Shared;
use crate::origin::{Origin, Peer};
use crate::proxy;
use crate::redirect;
use crate::reply::Refusal;
use crate::request_id::X_REQUEST_ID;
use crate::rules::Marks;
use crate::tunnel::Tunnels;

/// What the requests of one connection have in common.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) peer: Peer,
    pub(crate) tunnels: Tunnels,
    /// A proxy in front has chosen already.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
}

/// What is known of one request beside its head, and what becomes of it.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) request_id: &'a HeaderValue,
    /// Of this peer it is none.
    pub(crate) kept_claim: Option<&'static HeaderName>,
    /// Whose route was found.
    pub(crate) service: Option<Arc<str>>,
    /// The ingress itself answered.
    pub(crate) refusal: Option<Refusal>,
    /// What the answer gets, whatever it is.
    pub(crate) marks: Option<Marks>,
    /// When a refused client may come again, where that is known.
    pub(crate) retry_after: Option<Duration>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(
        origin: &'a Origin,
        request_id: &'a HeaderValue,
        kept_claim: Option<&'static HeaderName>,
    ) -> Self {
        Self {
            origin,
            request_id,
            kept_claim,
            service: None,
            refusal: None,
            marks: None,
            retry_after: None,
        }
    }
}

impl Shared {
    /// What is the ingress' own to answer, at every host.
    async fn answer_at_once(&self, request: &Request<Incoming>) -> Option<Response<ReplyBody>> {
        let path = request.uri().path();
        if !path.starts_with("/.well-known/") {
            return None;
        }
        match self.ready.answer(path) {
            None => self.challenges.answer(request).await,
            answer => answer,
        }
    }
}

/// Answers a request, always.
pub(crate) async fn handle(client: Arc<Client>, request: Request<Incoming>) -> Response<Logged> {
    let shared = &*client.shared;
    let options = &shared.options;
    let peer = &client.peer;
    let origin = peer.origin_of(request.headers(), &options.trusted_proxies);
    let id = shared.request_ids.of(request.headers(), peer.is_trusted());
    let mut line = shared
        .access_log
        .as_ref()
        .map(|log| Line::begin(log, &request, &origin, &id));
    let mut asked = Asked::new(&origin, &id, peer.kept_claim());
    let at_once = match shared.answer_at_once(&request).await {
        None => {
            let port = options.https_redirect.filter(|_| client.endpoint.is_none());
            redirect::to_https(&request, &origin, port)
        }
        own => own,
    };
    let mut answer = match at_once {
        Some(answer) => {
            drop(client.activity.begin(request.version() == Version::HTTP_2));
            answer
        }
        None => proxy::handle(&client, request, &mut asked).await,
    };
    if let Some(line) = &mut line {
        let error = asked.refusal.map(Refusal::code);
        line.answered(answer.status(), asked.service, error);
    }
    answer.headers_mut().insert(&X_REQUEST_ID, id);
    answer.map(|body| Logged::new(body, line))
}
