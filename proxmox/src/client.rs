//! Sends calls: who asks is put on them, a ticket is renewed, a read whose line broke is repeated once, and everything else
//! never is.

use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::{AUTHORIZATION, COOKIE};
use tokio::sync::Mutex;

use crate::answer;
use crate::calls::access::{self, Ticket};
use crate::calls::tasks;
use crate::credentials::{Credentials, Secret};
use crate::error::{Error, Kind};
use crate::request::{Call, Method, Request};
use crate::task::{self, Outcome, Patience};
use crate::transport::{Failure, Reply, Transport};
use crate::upid::Upid;

/// Tickets end after two hours: half of that is left for clocks and for what is under way.
const TICKET_FOR: Duration = Duration::from_secs(60 * 60);

/// A client of one Proxmox cluster.
#[derive(Debug)]
pub struct Client<T> {
    transport: T,
    credentials: Credentials,
    ticket: Mutex<Option<Held>>,
}

/// A ticket, and since when.
#[derive(Debug, Clone)]
struct Held {
    ticket: Ticket,
    since: Instant,
}

impl<T: Transport> Client<T> {
    /// One that asks as somebody.
    pub fn new(transport: T, credentials: Credentials) -> Self {
        Self {
            transport,
            credentials,
            ticket: Mutex::new(None),
        }
    }

    /// Sends a call. It has succeeded when Proxmox says so; where the answer is a [`Upid`], the work has only begun.
    ///
    /// # Errors
    /// What Proxmox says, or that nobody answered. [`Kind::OutcomeUnknown`] is never to be taken for either.
    pub async fn send<A>(&self, call: &Call<A>) -> Result<A, Error> {
        let asked = || format!("{} {}", call.request.method.as_str(), call.request.path);
        let named = |error: Error| Error {
            asked: Some(asked()),
            ..error
        };
        let mut reply = self.ask(&call.request).await.map_err(named)?;
        if reply.status == 401 && self.drop_ticket().await {
            reply = self.ask(&call.request).await.map_err(named)?;
        }
        let data = answer::data(&reply).map_err(named)?;
        (call.read)(data).map_err(|why| {
            named(Error {
                status: Some(reply.status),
                ..Error::new(Kind::Odd, format!("the answer cannot be read: {why}"))
            })
        })
    }

    /// Sends a call that begins a task, and waits for its end.
    ///
    /// # Errors
    /// The call's own, or the task's.
    pub async fn run(&self, call: &Call<Upid>, patience: Patience) -> Result<Outcome, Error> {
        let upid = self.send(call).await?;
        self.wait(&upid, patience, |_| {}).await
    }

    /// Waits for a task. Dropping the future leaves the task alone: [`tasks::stop`] ends one.
    ///
    /// # Errors
    /// The task has failed, its host cannot be asked, or it took too long ([`Kind::TimedOut`]): then it goes on.
    pub async fn wait(
        &self,
        upid: &Upid,
        patience: Patience,
        mut observe: impl FnMut(&tasks::Status),
    ) -> Result<Outcome, Error> {
        let until = tokio::time::Instant::now() + patience.deadline;
        let mut pause = patience.first;
        loop {
            let status = match self.send(&tasks::status(upid)).await {
                Ok(status) => status,
                // Its host may be back in a moment, and the task has gone on.
                Err(error) if error.kind.is_passing() && tokio::time::Instant::now() < until => {
                    tracing::debug!(%error, %upid, "a task is asked about again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(patience.most);
                    continue;
                }
                Err(error) => return Err(error),
            };
            observe(&status);
            if let Some(outcome) = task::judge(upid, &status)? {
                return Ok(outcome);
            }
            if tokio::time::Instant::now() + pause > until {
                let text = format!("it still runs after {} s", patience.deadline.as_secs());
                return Err(Error {
                    asked: Some(task::asked(upid)),
                    ..Error::new(Kind::TimedOut, text)
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(patience.most);
        }
    }

    async fn ask(&self, request: &Request) -> Result<Reply, Error> {
        let mut sent = request.encode()?;
        match &self.credentials {
            Credentials::Token(token) => {
                let value = format!("PVEAPIToken={}", token.expose());
                sent.headers_mut().insert(AUTHORIZATION, hidden(&value)?);
            }
            Credentials::Password { user, password } => {
                let ticket = self.ticket(user, password).await?;
                let cookie = format!("PVEAuthCookie={}", ticket.ticket.expose());
                sent.headers_mut().insert(COOKIE, hidden(&cookie)?);
                if request.method != Method::Get {
                    let token = hidden(ticket.csrf_token.expose())?;
                    sent.headers_mut().insert("CSRFPreventionToken", token);
                }
            }
        }
        self.carry(request, sent).await
    }

    /// A read whose line broke is made once more: their servers close what is idle for 5 s.
    async fn carry(
        &self,
        request: &Request,
        sent: http::Request<bytes::Bytes>,
    ) -> Result<Reply, Error> {
        let failure = match self.transport.send(sent.clone()).await {
            Ok(reply) => return Ok(reply),
            Err(failure) => failure,
        };
        let failure = match (failure, request.method.is_read()) {
            (Failure::Unknown(_), true) => match self.transport.send(sent).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            },
            (failure, _) => failure,
        };
        let kind = match &failure {
            Failure::Unknown(_) if !request.method.is_read() => Kind::OutcomeUnknown,
            Failure::Unknown(_) | Failure::NotSent(_) => Kind::NotAnswered,
        };
        Err(Error::new(kind, failure.to_string()))
    }

    async fn ticket(&self, user: &str, password: &Secret) -> Result<Ticket, Error> {
        // Held all the time: of many who ask, one gets it.
        let mut held = self.ticket.lock().await;
        let now = Instant::now();
        if let Some(held) = &*held
            && now.duration_since(held.since) < TICKET_FOR
        {
            return Ok(held.ticket.clone());
        }
        // A ticket that is not over renews itself, so that a second factor is asked for once.
        let old = held.take().map(|held| held.ticket.ticket);
        for secret in old.iter().chain([password]) {
            let call = access::ticket(user, secret);
            let reply = self.carry(&call.request, call.request.encode()?).await?;
            if reply.status == 401 && secret != password {
                continue;
            }
            let data = answer::data(&reply)?;
            let ticket = (call.read)(data).map_err(|why| Error::new(Kind::Odd, why))?;
            *held = Some(Held {
                ticket: ticket.clone(),
                since: now,
            });
            return Ok(ticket);
        }
        Err(Error::new(Kind::Unauthenticated, "no ticket"))
    }

    /// Whether there was one, so that asking again may help.
    async fn drop_ticket(&self) -> bool {
        self.ticket.lock().await.take().is_some()
    }
}

/// A header that nothing prints.
fn hidden(text: &str) -> Result<HeaderValue, Error> {
    let value = HeaderValue::from_str(text);
    let mut value =
        value.map_err(|_| Error::invalid("the credentials are no text of one line".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
