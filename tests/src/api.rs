//! The HTTP API as a program uses it: bearer token, JSON, streams of events. Plain HTTP on the
//! server's loopback listener, or TLS where a configuration is given.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::Full;
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::http::{Answer, Events, send_over};
use crate::wait;

/// Longer than any deployment of a test takes, failures included.
const DEPLOYMENT_DEADLINE: Duration = Duration::from_secs(120);

/// Where a service is.
#[derive(Debug, Clone)]
pub struct Name {
    /// Its project: in these tests one for each service.
    pub project: String,
    /// Its name.
    pub service: String,
}

impl Name {
    /// A service of this name in a project of the same name.
    pub fn of(name: &str) -> Self {
        Self {
            project: name.to_owned(),
            service: name.to_owned(),
        }
    }

    /// Its path in the API, and what follows it.
    pub fn path(&self, rest: &str) -> String {
        format!(
            "/v1/projects/{}/environments/production/services/{}{rest}",
            self.project, self.service
        )
    }
}

/// A deployment, as far as tests look.
#[derive(Debug, Clone, Deserialize)]
pub struct Deployment {
    /// Identity.
    pub id: String,
    /// Where it is.
    pub status: String,
    /// It goes no further.
    pub ended: bool,
    /// Why it failed.
    pub problem: Option<Problem>,
    /// The commit that was built.
    pub commit: Option<String>,
    /// The release that it brings.
    pub release: Option<u64>,
    /// Where the service answers.
    pub urls: Vec<String>,
    /// The timeline.
    pub steps: Vec<Step>,
    /// What it starts from.
    pub origin: Value,
}

impl Deployment {
    /// The whole timeline as text.
    pub fn told(&self) -> String {
        self.steps
            .iter()
            .map(|step| format!("{}\n", step.text))
            .collect()
    }
}

/// A line of a timeline.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// What happened.
    pub text: String,
}

/// A refusal or a reason.
#[derive(Debug, Clone, Deserialize)]
pub struct Problem {
    /// The class.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// The field at fault.
    #[serde(default)]
    pub field: Option<String>,
    /// What to do.
    #[serde(default)]
    pub hint: Option<String>,
}

impl Problem {
    /// Wants advice in it, as every refusal has.
    ///
    /// # Errors
    /// There is none.
    pub fn with_hint(self) -> Result<Self> {
        if self.hint.as_deref().is_none_or(str::is_empty) {
            bail!("no hint: {self:?}");
        }
        Ok(self)
    }

    /// All of it as text.
    pub fn told(&self) -> String {
        format!(
            "{} {}",
            self.message,
            self.hint.as_deref().unwrap_or_default()
        )
    }
}

/// An allocation, as far as tests look.
#[derive(Debug, Clone, Deserialize)]
pub struct Allocation {
    /// Identity.
    pub id: String,
    /// Name of its service.
    pub service: String,
    /// The release that it runs.
    pub release: u64,
    /// What the leader wants.
    pub desired: String,
    /// What the agent sees.
    pub state: String,
    /// Containers begun after the first.
    pub restarts: u32,
    /// Why.
    pub problem: Option<Problem>,
    /// Last lines of the container.
    pub log_tail: String,
}

impl Allocation {
    /// Not over.
    pub fn is_live(&self) -> bool {
        !matches!(self.state.as_str(), "stopped" | "failed" | "lost")
    }
}

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Api {
    address: SocketAddr,
    token: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Api {
    /// A client with this token; empty: with none.
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self {
            address,
            token: token.to_owned(),
            tls: None,
        }
    }

    /// The same on TLS.
    #[must_use]
    pub fn over(mut self, tls: Arc<ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Whom it trusts; none: it speaks plainly.
    pub fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.clone()
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string());
        if self.token.is_empty() {
            return request;
        }
        request.header(AUTHORIZATION, format!("Bearer {}", self.token))
    }

    /// One request, whatever the answer.
    ///
    /// # Errors
    /// No answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let request = self.request(method, path);
        let request = match body {
            Some(json) => request
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(serde_json::to_vec(json)?)))?,
            None => request.body(Full::default())?,
        };
        send_over(self.address, self.tls.clone(), request).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// No answer.
    pub async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let request = self
            .request(method, path)
            .header(CONTENT_TYPE, "application/json");
        send_over(
            self.address,
            self.tls.clone(),
            request.body(Full::new(body.into()))?,
        )
        .await
    }

    /// Begins an upload with these bytes and leaves it open, as a slow client does; it breaks off
    /// when the connection is dropped.
    ///
    /// # Errors
    /// No connection.
    pub async fn begin_upload(&self, upload: &str, bytes: &[u8]) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await?;
        let head = format!(
            "PUT /v1/uploads/{upload} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/gzip\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            self.address,
            self.token,
            bytes.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(bytes).await?;
        stream.write_all(b"\r\n").await?;
        Ok(stream)
    }

    async fn wanted(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let shown = format!("{method} {path}");
        let answer = self.call(method, path, body).await?;
        if !(200..300).contains(&answer.status) {
            bail!("{shown}: {} {}", answer.status, answer.text());
        }
        Ok(answer)
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// Refused, or not JSON.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.wanted(Method::GET, path, None).await?.json()
    }

    /// Makes something.
    ///
    /// # Errors
    /// Refused, or not JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.wanted(Method::POST, path, Some(body)).await?.json()
    }

    /// Puts something.
    ///
    /// # Errors
    /// Refused, or not JSON.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.wanted(Method::PUT, path, Some(body)).await?.json()
    }

    /// Wants a refusal with this status.
    ///
    /// # Errors
    /// Accepted, another status, or no JSON error.
    pub async fn refused(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        status: u16,
    ) -> Result<Problem> {
        let shown = format!("{method} {path}");
        let answer = self.call(method, path, body).await?;
        if answer.status != status {
            bail!(
                "{shown}: wanted {status}, got {}: {}",
                answer.status,
                answer.text()
            );
        }
        answer.json()
    }

    /// Opens a stream of events, after the event with this id.
    ///
    /// # Errors
    /// Refused, or no stream.
    pub async fn events(&self, path: &str, last: Option<&str>) -> Result<Events> {
        let mut request = self
            .request(Method::GET, path)
            .header(ACCEPT, "text/event-stream");
        if let Some(id) = last {
            request = request.header("Last-Event-ID", id);
        }
        Events::open(
            self.address,
            self.tls.clone(),
            request.body(Full::default())?,
        )
        .await
    }

    /// Makes a deployment.
    ///
    /// # Errors
    /// Refused.
    pub async fn deploy(&self, name: &Name, request: &Value) -> Result<Deployment> {
        let made = self.post(&name.path("/deployments"), request).await?;
        Ok(serde_json::from_value(made)?)
    }

    /// A deployment.
    ///
    /// # Errors
    /// Refused.
    pub async fn deployment(&self, id: &str) -> Result<Deployment> {
        Ok(serde_json::from_value(
            self.get(&format!("/v1/deployments/{id}")).await?,
        )?)
    }

    /// A deployment, once it goes no further.
    ///
    /// # Errors
    /// It does not end.
    pub async fn ended(&self, id: &str) -> Result<Deployment> {
        let what = format!("the end of deployment {id}");
        wait::until(&what, DEPLOYMENT_DEADLINE, async || {
            let deployment = self.deployment(id).await?;
            Ok(deployment.ended.then_some(deployment))
        })
        .await
    }

    /// Deploys and wants it live.
    ///
    /// # Errors
    /// It ended otherwise; tells its timeline.
    pub async fn live(&self, name: &Name, request: &Value) -> Result<Deployment> {
        let made = self.deploy(name, request).await?;
        let ended = self.ended(&made.id).await?;
        if ended.status != "live" {
            bail!("wanted live: {:?}\n{}", ended.problem, ended.told());
        }
        Ok(ended)
    }

    /// Deploys and wants it to fail with advice; answers why.
    ///
    /// # Errors
    /// It ended otherwise, or without advice.
    pub async fn fails(&self, name: &Name, request: &Value) -> Result<(Problem, Deployment)> {
        let made = self.deploy(name, request).await?;
        let ended = self.ended(&made.id).await?;
        if ended.status != "failed" {
            bail!("wanted failed, it is {}\n{}", ended.status, ended.told());
        }
        let problem = ended
            .problem
            .clone()
            .context("a failed deployment without a problem")?;
        Ok((problem.with_hint()?, ended))
    }

    /// Makes or changes a service.
    ///
    /// # Errors
    /// Refused.
    pub async fn put_service(&self, name: &Name, spec: Value) -> Result<Value> {
        self.put(&name.path(""), &json!({ "spec": spec })).await
    }

    /// The allocations of all services.
    ///
    /// # Errors
    /// Refused.
    pub async fn allocations(&self) -> Result<Vec<Allocation>> {
        let answer = self.get("/v1/allocations").await?;
        Ok(serde_json::from_value(answer["allocations"].clone())?)
    }

    /// The allocations of a service that are not over.
    ///
    /// # Errors
    /// Refused.
    pub async fn live_allocations(&self, name: &Name) -> Result<Vec<Allocation>> {
        let all = self.allocations().await?;
        Ok(all
            .into_iter()
            .filter(|one| one.service == name.service && one.is_live())
            .collect())
    }
}
