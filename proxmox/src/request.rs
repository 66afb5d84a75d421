//! What is asked of Proxmox, before it is put on a wire: pure. The rules of its HTTP server are kept here: parameters of GET
//! and DELETE are in the query and such a request has no body, everything else is a form, an array is a key said again, a
//! boolean is 0 or 1.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::ids::At;

/// What stays as it is in a part of a path: UPIDs have `:`, `@` and `!`.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// Everything is below it; answers are JSON.
const BASE: &str = "/api2/json";
/// Largest form that hosts before 8.4 take, with room for their own count.
const FORM_MAX_BYTES: usize = 60 << 10;

/// How a path is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Makes or does.
    Post,
    /// Changes.
    Put,
    /// Removes.
    Delete,
}

/// A file that goes with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name there.
    pub name: String,
    /// All of it: Proxmox wants its length first.
    pub content: Bytes,
}

/// Parameters whose values nobody prints: what is written into a guest, variables of its first process, passwords.
const HIDDEN: [&str; 4] = ["content", "env", "password", "cipassword"];

/// One request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// How.
    pub method: Method,
    /// The path below `/api2/json`, encoded, from its slash.
    pub path: String,
    /// Names and values, in order.
    pub parameters: Vec<(String, String)>,
    /// A file beside them.
    pub file: Option<File>,
}

/// A request, and how its answer is read.
#[derive(Debug, Clone)]
pub struct Call<T> {
    /// What is asked.
    pub request: Request,
    pub(crate) read: fn(Value) -> Result<T, String>,
}

impl Method {
    /// Its name in HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    /// Whether asking twice is as asking once.
    pub const fn is_read(self) -> bool {
        matches!(self, Self::Get)
    }

    const fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put)
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.parameters.iter().map(|(name, value)| {
            let is_hidden = HIDDEN.contains(&name.as_str());
            (name, if is_hidden { "..." } else { value })
        });
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("parameters", &shown.collect::<Vec<_>>())
            .field("file", &self.file.as_ref().map(|file| &file.name))
            .finish()
    }
}

impl Request {
    /// A request of the path that these parts make.
    pub(crate) fn new(method: Method, parts: &[&str]) -> Self {
        let mut path = String::new();
        for part in parts {
            path.push('/');
            path.extend(utf8_percent_encode(part, SEGMENT));
        }
        Self {
            method,
            path,
            parameters: Vec::new(),
            file: None,
        }
    }

    /// A request about a guest, and what of it.
    pub(crate) fn of_guest(method: Method, at: At<'_>, parts: &[&str]) -> Self {
        let vmid = at.vmid.to_string();
        let guest = ["nodes", at.host, at.kind.as_str(), &vmid];
        Self::new(method, &[&guest, parts].concat())
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.parameters.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// A boolean that is said only where it is true: the default of each of them is false.
    pub(crate) fn with_flag(self, name: &str, is_set: bool) -> Self {
        match is_set {
            true => self.with(name, 1),
            false => self,
        }
    }

    /// The parameters as a form.
    fn form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(&self.parameters);
        form.finish()
    }

    /// As it goes over the wire, but for who asks and whom.
    ///
    /// # Errors
    /// It is larger than a host takes, or a host's name makes no path.
    pub(crate) fn encode(&self) -> Result<http::Request<Bytes>, Error> {
        let form = self.form();
        let is_query = !self.method.has_body() && !form.is_empty();
        let target = match is_query {
            true => format!("{BASE}{}?{form}", self.path),
            false => format!("{BASE}{}", self.path),
        };
        let target = target.parse::<Uri>();
        let target = target.map_err(|error| Error::invalid(format!("the path: {error}")))?;
        let (kind, body) = match &self.file {
            Some(file) => multipart(&self.parameters, file),
            None => (
                "application/x-www-form-urlencoded".to_owned(),
                Bytes::from(if is_query { String::new() } else { form }),
            ),
        };
        if self.file.is_none() && body.len() > FORM_MAX_BYTES {
            let text = format!(
                "the parameters take {} bytes, and hosts take {FORM_MAX_BYTES}",
                body.len()
            );
            return Err(Error::invalid(text));
        }
        let mut request = http::Request::new(body);
        *request.uri_mut() = target;
        *request.method_mut() = match self.method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
            Method::Delete => http::Method::DELETE,
        };
        if self.method.has_body() {
            let length = HeaderValue::from(request.body().len());
            let kind = HeaderValue::from_str(&kind);
            let kind = kind.map_err(|error| Error::invalid(format!("the form: {error}")))?;
            request.headers_mut().insert(CONTENT_LENGTH, length);
            request.headers_mut().insert(CONTENT_TYPE, kind);
        }
        Ok(request)
    }
}

/// A form with a file in it (RFC 7578). Proxmox reads the file last.
fn multipart(parameters: &[(String, String)], file: &File) -> (String, Bytes) {
    let boundary = boundary(&file.content);
    let mut body = Vec::with_capacity(file.content.len() + 1024);
    for (name, value) in parameters {
        let part = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
        body.extend_from_slice(part.as_bytes());
    }
    let name = file.name.replace(['"', '\r', '\n'], "_");
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(&file.content);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let kind = format!("multipart/form-data; boundary={boundary}");
    (kind, body.into())
}

/// Text that is not in the file: the hash of the file is not, but by an accident that nobody can bring about.
fn boundary(content: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let digest = hex::encode(Sha256::digest(content));
    format!("skep-{}", &digest[..32])
}

impl<T: DeserializeOwned> Call<T> {
    pub(crate) fn new(request: Request) -> Self {
        Self {
            request,
            read: |value| serde_json::from_value(value).map_err(|error| error.to_string()),
        }
    }
}

impl<T> Call<T> {
    pub(crate) fn reading(request: Request, read: fn(Value) -> Result<T, String>) -> Self {
        Self { request, read }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_path_are_parts_and_nothing_else() {
        for (part, path) in [
            ("pve-1", "/nodes/pve-1"),
            ("../../access", "/nodes/..%2F..%2Faccess"),
            ("a b?c#d%", "/nodes/a%20b%3Fc%23d%25"),
            (
                "UPID:pve:0:0:0:qmstart:1:root@pam!t:",
                "/nodes/UPID:pve:0:0:0:qmstart:1:root@pam!t:",
            ),
        ] {
            assert_eq!(Request::new(Method::Get, &["nodes", part]).path, path);
        }
    }

    #[test]
    fn only_what_makes_or_changes_has_a_body() {
        for method in [Method::Get, Method::Delete] {
            let request = Request::new(method, &["x"]).with("a", "1 2").with("a", "&");
            let sent = request.encode().expect("small");
            assert_eq!(sent.uri(), "/api2/json/x?a=1+2&a=%26");
            assert!(sent.body().is_empty() && sent.headers().is_empty());
        }
        for method in [Method::Post, Method::Put] {
            let request = Request::new(method, &["x"]).with("a", "1 2").with("a", "&");
            let sent = request.encode().expect("small");
            assert_eq!(sent.uri(), "/api2/json/x");
            assert_eq!(sent.body(), "a=1+2&a=%26");
            assert_eq!(sent.headers()[CONTENT_LENGTH], "11");
            let empty = Request::new(method, &["x"]).encode().expect("small");
            assert_eq!(empty.headers()[CONTENT_LENGTH], "0");
        }
    }

    #[test]
    fn a_form_that_no_host_takes_is_refused_here() {
        let large = Request::new(Method::Post, &["x"]).with("a", "x".repeat(FORM_MAX_BYTES));
        let error = large.encode().expect_err("too large");
        assert!(error.to_string().contains("hosts take"), "{error}");
    }

    #[test]
    fn what_is_secret_is_sent_and_not_printed() {
        let request = Request::new(Method::Post, &["x"]).with("file", "/a");
        let request = request.with("content", "hush").with("env", "A=hush");
        let printed = format!("{request:?}");
        assert!(
            printed.contains("/a") && !printed.contains("hush"),
            "{printed}"
        );
        let sent = request.encode().expect("small");
        assert_eq!(sent.body(), "file=%2Fa&content=hush&env=A%3Dhush");
    }

    #[test]
    fn a_file_comes_last_and_whole() {
        let mut request = Request::new(Method::Post, &["upload"]).with("content", "iso");
        request.file = Some(File {
            name: "seed\".iso".to_owned(),
            content: Bytes::from_static(b"\x00\r\n--x"),
        });
        let sent = request.encode().expect("small");
        let kind = sent.headers()[CONTENT_TYPE].to_str().expect("text");
        let boundary = kind.split_once("boundary=").expect("one").1;
        let expected = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\niso\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"seed_.iso\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n\u{0}\r\n--x\r\n--{boundary}--\r\n"
        );
        assert_eq!(sent.body(), &expected);
        assert_eq!(
            sent.headers()[CONTENT_LENGTH],
            expected.len().to_string().as_str()
        );
    }
}
