//! What a service asks to be done to requests of one route, made ready: who may ask and how often, where
//! they are sent instead, what becomes of their heads. Lives as long as tables name the same route with
//! the same words, so that what was counted goes on counting.

mod breaker;
mod cors;
mod forward;
mod location;
mod rate;
mod users;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};
use skep_model::routing::{Cidr, HeaderChanges, RouteSpec};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::asker::Asker;
use crate::body::ReplyBody;
use crate::edge::Asked;
use crate::origin::{Origin, X_FORWARDED_PREFIX};
use crate::reply::{Redirected, Refusal};
use breaker::Breaker;
pub(crate) use cors::Marks;
use cors::Policy;
use forward::Question;
use rate::Limiter;
use users::Users;

/// The rules of one route.
#[derive(Debug)]
pub(crate) struct Rules {
    spec: Arc<RouteSpec>,
    allowed: Vec<Cidr>,
    limiter: Option<Limiter>,
    places: Option<Arc<Semaphore>>,
    cors: Option<Arc<Policy>>,
    users: Option<Users>,
    question: Option<Question>,
    breaker: Option<Breaker>,
    request: Changes,
    response: Changes,
}

/// What happens to a request.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// It goes on to a backend, holding a place among those in flight where they are counted.
    Through(Option<OwnedSemaphorePermit>),
    /// It is answered already.
    Answered(Box<Response<ReplyBody>>),
}

/// Where a request was looked up, when the backend sees another path.
#[derive(Debug, Clone)]
pub(crate) struct Sought(pub(crate) Uri);

impl Rules {
    /// Rules that were checked; what cannot be read all the same is as if it were not there only where
    /// that lets nobody in.
    pub(crate) fn new(spec: &Arc<RouteSpec>) -> Self {
        let networks = spec.allow_ips.iter();
        let in_flight = spec.in_flight.map(|count| count as usize);
        Self {
            allowed: networks.filter_map(|text| text.parse().ok()).collect(),
            limiter: spec.rate_limit.map(Limiter::new),
            places: in_flight.map(|count| Arc::new(Semaphore::new(count))),
            cors: spec.cors.as_ref().map(Policy::new),
            users: Users::new(&spec.basic_auth),
            question: spec.forward_auth.as_ref().and_then(Question::new),
            breaker: (spec.circuit_breaker).map(|says| Breaker::new(says, Instant::now())),
            request: Changes::new(&spec.headers.request),
            response: Changes::new(&spec.headers.response),
            spec: Arc::clone(spec),
        }
    }

    /// Whether these are the rules of `spec`.
    pub(crate) fn are_of(&self, spec: &RouteSpec) -> bool {
        *self.spec == *spec
    }

    /// Largest body of a request, in bytes, where `own` is the ingress' limit.
    pub(crate) fn body_limit(&self, own: Option<u64>) -> Option<u64> {
        let limits = [self.spec.body_limit_bytes, own];
        limits.into_iter().flatten().min()
    }

    /// Lets a request through, answers or refuses it: the cheap questions first, and nobody is asked for a
    /// password at an address that is about to change. Browsers ask without one whether they may ask.
    pub(crate) async fn admit(
        &self,
        parts: &mut Parts,
        asked: &mut Asked<'_>,
        asker: &Asker,
    ) -> Result<Admitted, Refusal> {
        let place = self.has_room(asked.origin.client)?;
        if let Some(policy) = &self.cors {
            asked.marks = Some(policy.marks(&parts.headers));
            if let Some(answer) = policy.preflight(parts) {
                return Ok(Admitted::Answered(Box::new(answer)));
            }
        }
        if let Some(elsewhere) = self.elsewhere(parts, asked.origin) {
            return Ok(Admitted::Answered(Box::new(elsewhere.response()?)));
        }
        if let Some(users) = &self.users {
            users.check(&mut parts.headers).await?;
        }
        if let Some(question) = &self.question
            && let Some(answer) = question.ask(asker, parts).await?
        {
            return Ok(Admitted::Answered(Box::new(answer)));
        }
        if let Some(breaker) = &self.breaker {
            breaker.enter(Instant::now()).map_err(|after| {
                asked.retry_after = Some(after);
                Refusal::CircuitOpen
            })?;
        }
        self.request.apply(&mut parts.headers);
        if self.spec.strip_prefix {
            self.strip(parts);
        }
        Ok(Admitted::Through(place))
    }

    /// Whether a client may ask at all, and now; with its place among those in flight.
    fn has_room(&self, client: IpAddr) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        if !self.allows(client) {
            return Err(Refusal::AddressNotAllowed);
        }
        if let Some(limiter) = &self.limiter
            && !limiter.take(client, Instant::now())
        {
            return Err(Refusal::RateLimited);
        }
        let place = self.places.as_ref().map(|places| {
            let place = Arc::clone(places).try_acquire_owned();
            place.map_err(|_| Refusal::TooManyInFlight)
        });
        place.transpose()
    }

    fn elsewhere(&self, parts: &Parts, origin: &Origin) -> Option<Redirected> {
        let redirect = self.spec.redirect.as_ref()?;
        let to = location::of(redirect, self.spec.prefix(), parts, origin)?;
        Some(Redirected::new(to, redirect.permanent, &parts.method))
    }

    /// What became of a request that was let through.
    pub(crate) fn saw(&self, status: StatusCode) {
        if let Some(breaker) = &self.breaker {
            breaker.saw(status, Instant::now());
        }
    }

    /// Changes the head of a backend's answer.
    pub(crate) fn answered(&self, headers: &mut HeaderMap) {
        self.response.apply(headers);
    }

    fn allows(&self, client: IpAddr) -> bool {
        if self.spec.allow_ips.is_empty() {
            return true;
        }
        self.allowed.iter().any(|network| network.contains(client))
    }

    fn strip(&self, parts: &mut Parts) {
        let prefix = self.spec.prefix();
        let target = parts.uri.path_and_query().map(|target| target.as_str());
        let rest = target.and_then(|target| target.strip_prefix(prefix));
        let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?'])) else {
            return;
        };
        let stripped = match rest.starts_with('/') {
            true => Uri::try_from(rest),
            false => Uri::try_from(format!("/{rest}")),
        };
        let said = HeaderValue::from_str(prefix);
        if let (Ok(stripped), Ok(said)) = (stripped, said) {
            let sought = std::mem::replace(&mut parts.uri, stripped);
            parts.extensions.insert(Sought(sought));
            parts.headers.insert(&X_FORWARDED_PREFIX, said);
        }
    }
}

/// Headers set and removed.
#[derive(Debug, Default)]
struct Changes {
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl Changes {
    fn new(changes: &HeaderChanges) -> Self {
        let set = changes.set.iter();
        let set = set.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        let remove = changes.remove.iter();
        Self {
            set: set.collect(),
            remove: remove.filter_map(|name| name.parse().ok()).collect(),
        }
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}
