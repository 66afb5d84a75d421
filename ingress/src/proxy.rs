//! One request: found a route, sent to a backend, answered. Retries only what no backend can
//! have acted upon.

mod outcome;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::backend::{InFlight, LiveBackend};
use crate::body::{Came, Lease, Progress, ReplyBody, RequestBody};
use crate::compress;
use crate::edge::{Asked, Client};
use crate::endpoint::Endpoint;
use crate::files::Bundle;
use crate::headers;
use crate::ingress::Shared;
use crate::link::Link;
use crate::metrics::Meter;
use crate::reach::Far;
use crate::reply::Refusal;
use crate::rules::{Admitted, Sought};
use crate::table::{Backend, Place};
use crate::tunnel::Ends;
use outcome::{Answer, Ended, Failure, Undialed, is_backends_fault};

/// Connections tried for one request, the first included: enough for a stale one and two dead
/// backends, few enough that a client is told within a second.
const MAX_ATTEMPTS: usize = 4;
/// A request that must not be sent twice goes on a used connection only if that was idle for
/// less: servers close idle connections after seconds, and the closing might cross the request.
const SURELY_OPEN: Duration = Duration::from_secs(1);

/// Answers a request, always; `asked` learns whose it was and why it was refused.
pub(crate) async fn handle(
    client: &Client,
    request: Request<Incoming>,
    asked: &mut Asked<'_>,
) -> Response<ReplyBody> {
    let mut response = match try_handle(client, request, asked).await {
        Ok(response) => response,
        Err(refusal) => refused(client, refusal, asked),
    };
    if let Some(marks) = asked.marks.take() {
        marks.apply(response.headers_mut());
    }
    response
}

fn refused(client: &Client, refusal: Refusal, asked: &mut Asked<'_>) -> Response<ReplyBody> {
    client.shared.registry.refused(refusal);
    asked.refusal = Some(refusal);
    let mut response = refusal.response();
    if let Some(after) = asked.retry_after {
        let seconds = after.as_secs_f64().ceil() as u64;
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

async fn try_handle(
    client: &Client,
    mut request: Request<Incoming>,
    asked: &mut Asked<'_>,
) -> Result<Response<ReplyBody>, Refusal> {
    let active = client.activity.begin(request.version() == Version::HTTP_2);
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let (mut head, upgrade) = made_ours(parts, asked)?;
    let choice = client
        .shared
        .choose(&head, client.endpoint.as_deref(), &[])?;
    asked.service = Some(choice.name);
    let mut place = None;
    if let Some(rules) = &choice.rules {
        let (mut parts, ()) = head.into_parts();
        match rules.admit(&mut parts, asked, &client.shared.asker).await? {
            Admitted::Through(taken) => place = taken,
            Admitted::Answered(answer) => return Ok(*answer),
        }
        head = Request::from_parts(parts, ());
    }
    let compresses = match client.endpoint {
        Some(_) => compress::is_asked(head.headers_mut()),
        None => choice.compress,
    };
    let is_gzip_taken = compresses && compress::is_taken(&head);
    let mut meter = Meter::new(choice.metrics);
    let own = client.shared.options.max_request_body_bytes;
    let limit = (choice.rules.as_ref()).map_or(own, |rules| rules.body_limit(own));
    let way = Way {
        client,
        limit,
        meter: &meter,
    };
    let request = head.map(|()| body);
    let outcome = way.send(request, choice.in_flight, choice.sleeps).await;
    if let Some(rules) = &choice.rules {
        rules.saw(
            outcome
                .as_ref()
                .map_or_else(|it| it.refusal.status(), Answer::status),
        );
    }
    let answer = match outcome {
        Ok(answer) => answer,
        Err(Ended { refusal, tried }) => {
            meter.answered(refusal.status(), tried.as_deref());
            return Err(refusal);
        }
    };
    let tried = answer.in_flight.backend().tried();
    if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS && upgrade.is_none() {
        meter.answered(StatusCode::BAD_GATEWAY, tried.as_deref());
        return Err(Refusal::BackendClosed);
    }
    meter.answered(answer.response.status(), tried.as_deref());
    let chosen = answer.in_flight.backend().backend.allocation;
    let lease = Lease {
        link: answer.link,
        max_idle_per_backend: client.shared.options.max_idle_per_backend,
        meter,
        in_flight: answer.in_flight,
        active: Some(active),
        place,
    };
    let mut response = pass_on(client, answer.response, on_upgrade, lease);
    let is_answer = response.status() != StatusCode::SWITCHING_PROTOCOLS;
    if let Some(rules) = choice.rules.filter(|_| is_answer) {
        rules.answered(response.headers_mut());
    }
    if let Some(sticky) = choice.sticky {
        sticky.keep(chosen, asked.origin.scheme, response.headers_mut());
    }
    Ok(match compresses && is_answer {
        true => compress::compress(is_gzip_taken, response),
        false => response,
    })
}

/// A head that may be passed on, and the protocol that the client wants to change to.
fn made_ours(
    mut parts: Parts,
    asked: &Asked<'_>,
) -> Result<(Request<()>, Option<HeaderValue>), Refusal> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::MethodNotAllowed);
    }
    headers::ensure_host(&mut parts)?;
    headers::ensure_framing(&parts.headers)?;
    let upgrade = headers::wanted_upgrade(&parts);
    headers::prepare_request(&mut parts, asked, upgrade.clone());
    Ok((Request::from_parts(parts, ()), upgrade))
}

/// A request's way from its client to the backends.
struct Way<'a> {
    client: &'a Client,
    /// Largest body, in bytes.
    limit: Option<u64>,
    meter: &'a Meter,
}

impl Way<'_> {
    /// To the backend that was chosen, or to the first one that there is once the service is awake.
    async fn send(
        &self,
        request: Request<Incoming>,
        chosen: Option<InFlight>,
        sleeps: bool,
    ) -> Result<Answer, Ended> {
        let (parts, body) = request.into_parts();
        let head = Request::from_parts(parts, ());
        let shared = &*self.client.shared;
        let endpoint = self.client.endpoint.as_deref();
        let in_flight = match chosen {
            // Counted as in flight already: that is what wakes it.
            None if sleeps => shared.awake(&head, endpoint).await,
            found => found,
        };
        let in_flight = in_flight.ok_or(Refusal::NoBackend)?;
        if declared_length(&head) > self.limit.unwrap_or(u64::MAX) {
            return Err(Refusal::BodyTooLarge.into());
        }
        let (body, progress) = RequestBody::new(body, self.limit, self.meter.service());
        let exchange = Exchange {
            shared,
            endpoint,
            progress,
        };
        exchange.run(head.map(|()| body), in_flight).await
    }
}

fn declared_length<B>(request: &Request<B>) -> u64 {
    let text = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Hands a backend's answer to the client, or ties the two together if they agreed to upgrade.
fn pass_on(
    client: &Client,
    mut response: Response<Came>,
    on_upgrade: OnUpgrade,
    mut lease: Lease,
) -> Response<ReplyBody> {
    *response.version_mut() = Version::HTTP_11;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        headers::prepare_response(response.headers_mut(), None);
        return response.map(|body| ReplyBody::stream(body, lease));
    }
    let protocol: Option<HeaderValue> = response.headers().get(http::header::UPGRADE).cloned();
    headers::prepare_response(response.headers_mut(), protocol);
    if let Some(mut link) = lease.link.take() {
        link.detach();
    }
    lease.active = None;
    let present = client.shared.registry.tunnels.enter();
    client.tunnels.spawn(Ends {
        client: on_upgrade,
        backend: hyper::upgrade::on(&mut response),
        lease,
        present,
    });
    response.map(|_| ReplyBody::text(""))
}

/// A request on its way through backends.
struct Exchange<'a> {
    shared: &'a Shared,
    endpoint: Option<&'a Endpoint>,
    progress: Option<Arc<Progress>>,
}

impl Exchange<'_> {
    async fn run(
        &self,
        request: Request<RequestBody>,
        in_flight: InFlight,
    ) -> Result<Answer, Ended> {
        let mut last = Arc::clone(in_flight.backend());
        let outcome = self.run_on(request, in_flight, &mut last).await;
        outcome.map_err(|refusal| Ended {
            refusal,
            tried: last.tried().filter(|_| is_backends_fault(refusal)),
        })
    }

    /// `last` is where the request was sent last.
    async fn run_on(
        &self,
        mut request: Request<RequestBody>,
        mut in_flight: InFlight,
        last: &mut Arc<LiveBackend>,
    ) -> Result<Answer, Refusal> {
        let mut tried: Vec<Arc<LiveBackend>> = Vec::new();
        let replayable = request.body().is_empty() && request.method().is_idempotent();
        let max_idle = if replayable {
            self.shared.options.backend_idle_timeout
        } else {
            SURELY_OPEN
        };
        let mut may_reuse = true;
        for _ in 0..MAX_ATTEMPTS {
            let backend = Arc::clone(in_flight.backend());
            *last = Arc::clone(&backend);
            if let Place::Files(bundle) = &backend.backend.place {
                return hand_out(bundle, &request, in_flight).await;
            }
            let pooled = if may_reuse {
                backend.pool.take(max_idle)
            } else {
                None
            };
            let reused = pooled.is_some();
            let dialed = match pooled {
                Some(link) => Ok(link),
                None => self.dial(&backend, self.shared.options.dial_timeout).await,
            };
            let mut link = match dialed {
                Ok(link) => link,
                Err(why) => match (
                    self.move_on(&request, Arc::clone(&backend), &mut tried),
                    why,
                ) {
                    (Ok(other), _) => {
                        in_flight = other;
                        may_reuse = true;
                        continue;
                    }
                    (Err(_), Undialed::Silent) => self
                        .dial(&backend, self.shared.options.last_dial_timeout)
                        .await
                        .map_err(|_| Refusal::ConnectFailed)?,
                    (Err(refusal), Undialed::Refused) => return Err(refusal),
                },
            };
            let spare = (reused && replayable).then(|| copy_of(&request));
            request = match self.send(&mut link, request).await {
                Ok(response) => return Ok(Answer::over(link, response, in_flight)),
                Err(Failure::Refused(refusal)) => return Err(refusal),
                Err(Failure::Unsent(request)) => *request,
                Err(Failure::Broken(error)) => spare.ok_or_else(|| {
                    tracing::debug!(place = %backend.backend.place, %error, "a backend closed without an answer");
                    Refusal::BackendClosed
                })?,
            };
            if reused {
                // The connection had been closed meanwhile; that says nothing about the backend.
                may_reuse = false;
            } else {
                backend.failed(self.shared.options.failure_pause);
                in_flight = self.move_on(&request, backend, &mut tried)?;
                may_reuse = true;
            }
        }
        Err(Refusal::ConnectFailed)
    }

    /// Another backend than those tried, of the table as it is now.
    fn move_on(
        &self,
        request: &Request<RequestBody>,
        failed: Arc<LiveBackend>,
        tried: &mut Vec<Arc<LiveBackend>>,
    ) -> Result<InFlight, Refusal> {
        let counted = failed.tried();
        tried.push(failed);
        let other = self.shared.choose_another(request, self.endpoint, tried);
        if let (Some(counted), Some(_)) = (counted, &other) {
            counted.moved_on();
        }
        other.ok_or(Refusal::ConnectFailed)
    }

    async fn dial(&self, backend: &LiveBackend, limit: Duration) -> Result<Link, Undialed> {
        let place = &backend.backend.place;
        let why = match timeout(limit, self.connect(&backend.backend)).await {
            Ok(Ok(link)) => {
                backend.connected();
                return Ok(link);
            }
            Ok(Err(error)) => {
                tracing::debug!(%place, %error, "a backend refused a connection");
                Undialed::Refused
            }
            Err(_) => {
                tracing::debug!(%place, "a backend did not answer a connection in time");
                Undialed::Silent
            }
        };
        backend.failed(self.shared.options.failure_pause);
        Err(why)
    }

    async fn connect(&self, backend: &Backend) -> Result<Link, Unreached> {
        let place = backend.place.clone();
        match backend.place {
            Place::Here(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Link::new(stream, place, None).await?)
            }
            Place::There { node, port } => {
                let far = Far {
                    node,
                    allocation: backend.allocation,
                    port,
                };
                let reached = self.shared.reach.reach(far).await?;
                let leaving = Some(reached.leaving);
                Ok(Link::new(reached.stream, place, leaving).await?)
            }
            Place::Files(_) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        }
    }

    async fn send(
        &self,
        link: &mut Link,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Failure> {
        let limit = self.shared.options.response_timeout;
        let mut patience = limit;
        let response = {
            let mut answer = pin!(link.send(request));
            loop {
                match timeout(patience, &mut answer).await {
                    Ok(Ok(response)) => break response,
                    Ok(Err(mut error)) => {
                        if let Some(request) = error.take_message() {
                            return Err(Failure::Unsent(Box::new(request)));
                        }
                        return Err(self.why(error.into_error()));
                    }
                    Err(_) => {
                        // The time counts from the last move of the upload.
                        let stalled = self
                            .progress
                            .as_ref()
                            .map_or(limit, |progress| progress.stalled_for());
                        patience = limit.saturating_sub(stalled);
                        if patience.is_zero() {
                            let by_client = self
                                .progress
                                .as_ref()
                                .is_some_and(|progress| progress.waits_for_client());
                            return Err(Failure::Refused(if by_client {
                                Refusal::RequestTimeout
                            } else {
                                Refusal::Timeout
                            }));
                        }
                    }
                }
            }
        };
        // The client may take none of the answer before it has sent everything.
        if (self.progress.as_ref()).is_some_and(|progress| !progress.has_ended()) {
            link.detach();
        }
        Ok(response)
    }

    fn why(&self, error: hyper::Error) -> Failure {
        match &self.progress {
            Some(progress) if progress.is_too_large() => Failure::Refused(Refusal::BodyTooLarge),
            _ => Failure::Broken(error),
        }
    }
}

type Unreached = Box<dyn std::error::Error + Send + Sync>;

/// From this node's disk: nothing is dialed, so nothing is tried again.
async fn hand_out(
    bundle: &Bundle,
    request: &Request<RequestBody>,
    in_flight: InFlight,
) -> Result<Answer, Refusal> {
    let answer = bundle.answer(request).await;
    let response = answer.map_err(|_| Refusal::FilesUnreadable)?;
    Ok(Answer {
        response: response.map(Came::Disk),
        link: None,
        in_flight,
    })
}

fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    if let Some(sought) = request.extensions().get::<Sought>() {
        copy.extensions_mut().insert(sought.clone());
    }
    copy
}
