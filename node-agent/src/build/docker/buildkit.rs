//! BuildKit inside the Docker daemon: the same request as for the classic builder, marked as version
//! 2 and with a session beside it; the progress comes as messages of its own. Bollard has words for
//! it only in a feature whose sessions outlive their builds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::BollardRequest;
use bollard::errors::Error;
use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, Uri};
use prost::Message as _;
use serde::Deserialize;
use skep_identity::random;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::{image, say};
use super::explain::explain;
use super::session::Session;
use super::trace::{StatusResponse, Trace};
use super::{Build, Context, cache};

/// One message of the daemon: BuildKit's own limit is 16 MiB, and it comes as base64.
const MESSAGE_MAX: usize = 24 << 20;
/// A refusal that is told; more of it is left out.
const REFUSAL_MAX: usize = 64 << 10;
/// Ids of messages that carry something.
const TRACE: &str = "moby.buildkit.trace";
const IMAGE: &str = "moby.image.id";

/// Builds; gives the image's id.
pub(super) async fn build(
    build: &Build<'_>,
    context: Context,
    lines: &mpsc::Sender<String>,
) -> Result<String, Problem> {
    let env = build.job.env;
    let version = env.docker.client_version();
    let base = format!("/v{}.{}", version.major_version, version.minor_version);
    let id = format!("{:032x}", random::new_id());
    let session = Session::open(&env.socket, &base, &id, &build.recipe.secrets)
        .await
        .map_err(|error| image::unreachable(&error))?;
    // Both in this task: what drops the build drops its session.
    let built = tokio::select! {
        biased;
        built = carry_out(build, context, (&base, &id), lines) => built,
        never = session.serve() => match never {},
    };
    cache::trim(env, &base);
    built
}

async fn carry_out(
    build: &Build<'_>,
    context: Context,
    (base, session): (&str, &str),
    lines: &mpsc::Sender<String>,
) -> Result<String, Problem> {
    let request = request(build, context, base, session)?;
    let mut trace = Trace::default();
    let answered = match build.job.env.socket.send(request).await {
        Ok(answer) if answer.status().is_success() => read(answer, &mut trace, lines).await,
        Ok(answer) => Err(refusal(answer).await),
        Err(error) => Err(error),
    };
    for line in trace.finish() {
        say(lines, line).await;
    }
    match answered {
        Ok(image) => Ok(image),
        Err(error) => Err(explain(&error, trace.failed())),
    }
}

fn request(
    build: &Build<'_>,
    context: Context,
    base: &str,
    session: &str,
) -> Result<BollardRequest, Problem> {
    let labels = serde_json::to_string(&build.labels()).expect("a map of texts");
    let args = serde_json::to_string(&build.recipe.args).expect("a map of texts");
    let query = [
        ("version", "2"),
        ("session", session),
        ("dockerfile", &build.recipe.dockerfile),
        ("t", &build.job.name.full()),
        ("labels", &labels),
        ("buildargs", &args),
        ("target", build.recipe.target.as_deref().unwrap_or_default()),
        ("nocache", if build.job.order.no_cache { "1" } else { "0" }),
    ];
    let query: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", escaped(value)))
        .collect();
    let uri: Uri = format!("{base}/build?{}", query.join("&"))
        .parse()
        .map_err(|error| {
            Problem::new(
                Code::Internal,
                format!("the build cannot be asked for: {error}"),
            )
        })?;
    let body = bollard::body_try_stream(ReceiverStream::new(context));
    Ok(Request::post(uri)
        .header(CONTENT_TYPE, "application/x-tar")
        .body(body)
        .expect("a URI and a constant header"))
}

/// As a value in a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// A message of the daemon.
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    id: String,
    aux: Option<serde_json::Value>,
    stream: Option<String>,
    error: Option<String>,
}

/// Passes the progress on; gives the image's id where it says one.
async fn read(
    answer: Response<Incoming>,
    trace: &mut Trace,
    lines: &mpsc::Sender<String>,
) -> Result<String, Error> {
    let mut body = answer.into_body();
    let mut buffer = BytesMut::new();
    let mut image = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let mut seen = buffer.len();
        buffer.extend_from_slice(&data);
        while let Some(at) = buffer[seen..].iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(seen + at);
            buffer.advance(1);
            seen = 0;
            for line in take(&line, trace, &mut image)? {
                say(lines, line).await;
            }
        }
        if buffer.len() > MESSAGE_MAX {
            return Err(broken("the daemon's message has no end"));
        }
    }
    for line in take(&buffer, trace, &mut image)? {
        say(lines, line).await;
    }
    // A daemon that is stopped ends its answer as if all were well.
    image.ok_or_else(|| broken("the daemon ended the build without an image"))
}

fn take(line: &[u8], trace: &mut Trace, image: &mut Option<String>) -> Result<Vec<String>, Error> {
    if line.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let message: Message = serde_json::from_slice(line)
        .map_err(|error| broken(&format!("the daemon's message is not understood: {error}")))?;
    if let Some(error) = message.error {
        return Err(Error::DockerStreamError { error });
    }
    match (message.id.as_str(), message.aux) {
        (TRACE, Some(aux)) => {
            let bytes = aux.as_str().and_then(|text| STANDARD.decode(text).ok());
            let status = bytes.and_then(|bytes| StatusResponse::decode(&*bytes).ok());
            // A newer daemon's way to tell its progress is no reason to fail a build.
            Ok(status.map_or_else(Vec::new, |status| trace.take(status)))
        }
        (IMAGE, Some(aux)) => {
            *image = aux["ID"].as_str().map(str::to_owned);
            Ok(Vec::new())
        }
        _ => Ok(message
            .stream
            .iter()
            .flat_map(|text| text.lines())
            .map(str::to_owned)
            .collect()),
    }
}

fn broken(what: &str) -> Error {
    Error::IOError {
        err: std::io::Error::new(std::io::ErrorKind::InvalidData, what),
    }
}

async fn refusal(answer: Response<Incoming>) -> Error {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    let status_code = answer.status().as_u16();
    let body = http_body_util::Limited::new(answer.into_body(), REFUSAL_MAX);
    let bytes = body.collect().await.map(|body| body.to_bytes());
    let text = bytes.unwrap_or_default();
    let message = serde_json::from_slice(&text).map_or_else(
        |_| String::from_utf8_lossy(&text).trim().to_owned(),
        |refusal: Refusal| refusal.message,
    );
    Error::DockerResponseServerError {
        status_code,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_bring_lines_an_image_or_an_error() {
        let (mut trace, mut image) = (Trace::default(), None);
        let mut take = |text: &str| take(text.as_bytes(), &mut trace, &mut image);
        // `vertexes { digest: "d" name: "RUN x" started {} }`
        let begins = STANDARD.encode(b"\x0a\x0c\x0a\x01d\x1a\x05RUN x\x2a\x00");
        let lines = take(&format!(r#"{{"id":"{TRACE}","aux":"{begins}"}}"#));
        assert_eq!(lines.expect("understood"), ["#1 RUN x"]);
        for unknown in [
            r#"{"id":"moby.buildkit.trace","aux":"not base64"}"#,
            r#"{"id":"moby.buildkit.trace","aux":{"of":"later"}}"#,
            r#"{"id":"moby.later","aux":7}"#,
            "\r",
        ] {
            assert_eq!(take(unknown).expect("left out"), [""; 0], "{unknown}");
        }
        let said = take(r#"{"stream":"Successfully tagged x\n"}"#).expect("understood");
        assert_eq!(said, ["Successfully tagged x"]);
        take(r#"{"id":"moby.image.id","aux":{"ID":"sha256:1"}}"#).expect("understood");
        let failed = take(r#"{"errorDetail":{"message":"no"},"error":"no"}"#);
        assert!(matches!(failed, Err(Error::DockerStreamError { error }) if error == "no"));
        assert!(take("{").is_err());
        assert_eq!(image.as_deref(), Some("sha256:1"));
    }

    #[test]
    fn what_is_asked_for_survives_the_query() {
        assert_eq!(escaped("a b/ü&{\"=.df"), "a%20b%2F%C3%BC%26%7B%22%3D.df");
    }
}
