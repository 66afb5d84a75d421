//! A request for a file, answered.

use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use headers::{ETag, HeaderMapExt as _};
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::{Body, SMALL_BYTES, open};
use super::bundle::{Bundle, Served};
use super::conditions::{self, Part};
use super::find::Found;
use super::index::{content_name, gzip_name};
use super::keep::Keep;
use crate::compress::accepts_gzip;

/// What is understood.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");
const NOT_FOUND: &str = "There is no such file on this site.\n";
const NOT_ALLOWED: &str = "A file can be read (GET, HEAD) and nothing else.\n";
const BEYOND: &str = "The file does not have these bytes.\n";
const UNREADABLE: &str = "The file cannot be read. See the log of `skep net`.\n";

/// A file that is in the index cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("content {content} of the bundle cannot be read")]
pub(crate) struct Unreadable {
    content: u32,
    #[source]
    source: io::Error,
}

/// One of the two forms of a file's contents.
struct Form<'a> {
    tag: &'a ETag,
    size: u64,
    is_gzip: bool,
}

impl Bundle {
    /// The answer to `request`, whose body means nothing.
    ///
    /// # Errors
    /// The folder does not have what its index says; that is logged, once.
    pub(crate) async fn answer<B>(
        &self,
        request: &Request<B>,
    ) -> Result<Response<Body>, Unreadable> {
        let (method, asked) = (request.method(), request.headers());
        let mut response = match self.0.find(request.uri().path()) {
            _ if !matches!(*method, Method::GET | Method::HEAD) => {
                let mut response = said(StatusCode::METHOD_NOT_ALLOWED, NOT_ALLOWED);
                response.headers_mut().insert(ALLOW, METHODS);
                response
            }
            Found::File(file) => self.file(file, (method, asked)).await?,
            Found::Lost(page) => self.lost(page, (method, asked)).await?,
            Found::Nothing => said(StatusCode::NOT_FOUND, NOT_FOUND),
        };
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        for (name, value) in &self.0.headers {
            // What caches are to tell apart stays told.
            match *name == VARY {
                true => drop(headers.append(VARY, value.clone())),
                false => drop(headers.insert(name, value.clone())),
            }
        }
        Ok(response)
    }

    /// Serves HTTP/1.1 on `stream`, whose other end is a proxy or an app of the cluster, until one of them has
    /// had enough.
    pub async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let answer = service_fn(|request| {
            let bundle = self.clone();
            async move {
                let answer = bundle.answer(&request).await;
                let unreadable = |_| said(StatusCode::INTERNAL_SERVER_ERROR, UNREADABLE);
                Ok::<_, Infallible>(answer.unwrap_or_else(unreadable))
            }
        });
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        if let Err(error) = served.await {
            let folder = self.folder().display();
            tracing::debug!(%folder, %error, "a connection that files went out on broke");
        }
    }

    async fn file(
        &self,
        file: &Served,
        (method, asked): (&Method, &HeaderMap),
    ) -> Result<Response<Body>, Unreadable> {
        // Parts are of the contents as they are: two ways of gzipping them would not fit together.
        let part = conditions::part(method, asked, &file.tag, file.size);
        let form = match part {
            Part::Whole => file.form(asked),
            Part::Of(_) | Part::Beyond => file.plain(),
        };
        if conditions::is_known(asked, form.tag) {
            let mut response = empty();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            file.tell(&form, response.headers_mut());
            return Ok(response);
        }
        let (status, range) = match part {
            Part::Whole => (StatusCode::OK, 0..form.size),
            Part::Of(range) => (StatusCode::PARTIAL_CONTENT, range),
            Part::Beyond => {
                let mut response = said(StatusCode::RANGE_NOT_SATISFIABLE, BEYOND);
                let size = content_range(&format!("*/{}", file.size));
                response.headers_mut().insert(CONTENT_RANGE, size);
                return Ok(response);
            }
        };
        let mut response = self.contents(file, &form, (method, range.clone())).await?;
        *response.status_mut() = status;
        let headers = response.headers_mut();
        file.tell(&form, headers);
        if status == StatusCode::PARTIAL_CONTENT {
            let Range { start, end } = range;
            let said = format!("{start}-{}/{}", end - 1, file.size);
            headers.insert(CONTENT_RANGE, content_range(&said));
        }
        if !form.is_gzip {
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        Ok(response)
    }

    /// The page that goes with a 404: whole, and asked for each time.
    async fn lost(
        &self,
        page: &Served,
        (method, asked): (&Method, &HeaderMap),
    ) -> Result<Response<Body>, Unreadable> {
        let form = page.form(asked);
        let whole = 0..form.size;
        let mut response = self.contents(page, &form, (method, whole)).await?;
        *response.status_mut() = StatusCode::NOT_FOUND;
        page.tell_variants(response.headers_mut());
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, Keep::Page.header());
        Ok(response)
    }

    /// An answer with these contents, and what it has to say of them alone.
    async fn contents(
        &self,
        file: &Served,
        form: &Form<'_>,
        (method, range): (&Method, Range<u64>),
    ) -> Result<Response<Body>, Unreadable> {
        let length = range.end - range.start;
        let body = match *method == Method::HEAD {
            true => Ok(Body::whole(Bytes::new())),
            false => self.read(file.content, form, range).await,
        };
        let body = body.map_err(|source| self.unreadable(file.content, source))?;
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, file.kind.clone());
        headers.insert(CONTENT_LENGTH, length.into());
        if form.is_gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }

    async fn read(&self, content: u32, form: &Form<'_>, range: Range<u64>) -> io::Result<Body> {
        let name = match form.is_gzip {
            true => gzip_name(content),
            false => content_name(content),
        };
        let path = || self.0.folder.join(&name);
        if form.size > SMALL_BYTES {
            let file = open(path(), form.size).await?;
            return Ok(Body::part(file, range));
        }
        let key = (self.0.number, content, form.is_gzip);
        let contents = self.0.memory.contents(key, path, form.size).await?;
        let [start, end] = [range.start, range.end].map(|it| it as usize);
        Ok(Body::whole(contents.slice(start..end)))
    }

    fn unreadable(&self, content: u32, source: io::Error) -> Unreadable {
        if !self.0.is_told.swap(true, Ordering::Relaxed) {
            let folder = self.folder().display();
            tracing::error!(
                %folder, content, error = %source,
                "a file of a static site cannot be read: its clients get errors until it is deployed anew"
            );
        }
        Unreadable { content, source }
    }
}

impl Served {
    fn plain(&self) -> Form<'_> {
        Form {
            tag: &self.tag,
            size: self.size,
            is_gzip: false,
        }
    }

    /// The smaller one that the client takes.
    fn form(&self, asked: &HeaderMap) -> Form<'_> {
        let gzip = self.gzip.as_ref().filter(|_| accepts_gzip(asked));
        gzip.map_or_else(
            || self.plain(),
            |gzip| Form {
                tag: &gzip.tag,
                size: gzip.size,
                is_gzip: true,
            },
        )
    }

    /// What is said of a file with its contents and without.
    fn tell(&self, form: &Form<'_>, headers: &mut HeaderMap) {
        headers.typed_insert(form.tag.clone());
        headers.insert(CACHE_CONTROL, self.keep.header());
        self.tell_variants(headers);
    }

    fn tell_variants(&self, headers: &mut HeaderMap) {
        if self.gzip.is_some() {
            headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
    }
}

fn empty() -> Response<Body> {
    Response::new(Body::whole(Bytes::new()))
}

/// Words of ours.
fn said(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, Keep::Page.header());
    response
}

fn content_range(said: &str) -> HeaderValue {
    HeaderValue::try_from(format!("bytes {said}")).expect("digits are visible ASCII")
}
