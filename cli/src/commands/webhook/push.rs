//! `skep webhook push`: a push event in GitHub's form, signed as GitHub signs it
//! (`X-Hub-Signature-256`: HMAC-SHA-256 of the body under the secret). For a `post-receive` hook of
//! a plain git server, and to try a webhook out.

use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, Uri};
use serde_json::{Value, json};
use skep_control_plane::api::types::HookReply;
use skep_identity::digest::hmac_sha256;
use skep_identity::fingerprint::Fingerprint;
use skep_identity::{random, secret_file};
use skep_model::problem::Problem;

use crate::client;
use crate::context::Contexts;
use crate::failure::{Failure, chain};
use crate::session::Session;

/// Random bytes in the id of a delivery.
const DELIVERY_BYTES: usize = 16;

/// Deliver a push, as a git server would
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example, as hooks/post-receive of a bare repository:
  while read -r before after ref; do
    skep webhook push --url URL --secret-file FILE --repo \"$PWD\" \\
      --ref \"$ref\" --before \"$before\" --after \"$after\"
  done

Over https only servers of a context's cluster are spoken to, or the one of --fingerprint.")]
pub(crate) struct Args {
    /// Where to send it: `skep webhook show` tells
    #[arg(long, value_name = "URL")]
    url: Uri,
    /// File that holds the secret (mode 0600)
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// What was pushed: refs/heads/BRANCH
    #[arg(long = "ref", value_name = "REF")]
    reference: String,
    /// The commit before
    #[arg(long, value_name = "SHA")]
    before: String,
    /// The commit now
    #[arg(long, value_name = "SHA")]
    after: String,
    /// The repository: URL or path
    #[arg(long, value_name = "REPO")]
    repo: String,
    /// Where it is cloned from, if elsewhere
    #[arg(long, value_name = "URL")]
    clone_url: Option<String>,
    /// Id of the delivery; the same one is taken once [default: a new one]
    #[arg(long, value_name = "ID")]
    delivery: Option<String>,
    /// Fingerprint of the cluster's CA, for https
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<Fingerprint>,
}

/// Runs the command.
///
/// # Errors
/// Bad input, not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let body = payload(&args).to_string();
    let path = args.secret_file.clone();
    let read = tokio::task::spawn_blocking(move || secret_file::read_private(&path));
    let secret = read.await.expect("reading a file does not panic");
    let secret = secret.map_err(|error| Failure::usage(chain(&error)))?;
    let secret = secret.trim_ascii();
    if secret.is_empty() {
        return Err(Problem::invalid("--secret-file", "the file is empty").into());
    }
    let fingerprint = fingerprint(&args)?;
    let delivery = args.delivery.unwrap_or_else(|| random::hex(DELIVERY_BYTES));
    let request = Request::post(&args.url)
        .header("content-type", "application/json")
        .header("user-agent", concat!("skep/", env!("CARGO_PKG_VERSION")))
        .header("x-github-event", "push")
        .header("x-github-delivery", delivery)
        .header("x-hub-signature-256", signature(secret, body.as_bytes()))
        .body(Bytes::from(body))
        .map_err(|error| Failure::usage(chain(&error)))?;
    let answer = client::deliver(request, fingerprint).await?;
    let reply: HookReply = serde_json::from_slice(&answer).map_err(|error| {
        Failure::failed(format!("the answer is not understood: {error}"))
            .hint("is it the URL of a webhook?")
    })?;
    session.out.result(&reply, || describe(&reply));
    Ok(())
}

fn signature(secret: &[u8], body: &[u8]) -> String {
    format!("sha256={}", hex::encode(hmac_sha256(secret, body)))
}

fn payload(args: &Args) -> Value {
    let is_none = |commit: &str| !commit.is_empty() && commit.bytes().all(|b| b == b'0');
    let name = args.repo.trim_end_matches('/');
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.strip_suffix(".git").unwrap_or(name);
    let is_deleted = is_none(&args.after);
    json!({
        "ref": args.reference,
        "before": args.before,
        "after": args.after,
        "created": is_none(&args.before),
        "deleted": is_deleted,
        "forced": false,
        "head_commit": (!is_deleted).then(|| json!({ "id": args.after })),
        "repository": {
            "name": name,
            "full_name": name,
            "clone_url": args.clone_url.as_ref().unwrap_or(&args.repo),
            "html_url": args.repo,
        },
        "pusher": { "name": "skep webhook push" },
    })
}

/// Which cluster may receive it. Plain http proves nothing, and the signature is what counts there.
fn fingerprint(args: &Args) -> Result<Fingerprint, Failure> {
    if let Some(given) = args.fingerprint {
        return Ok(given);
    }
    if args.url.scheme_str() == Some("http") {
        return Ok(Fingerprint::of_der(&[]));
    }
    let known = Contexts::load()?;
    let same_server = known.contexts.values().find(|context| {
        let server: Option<Uri> = context.server.parse().ok();
        server.as_ref().and_then(Uri::authority) == args.url.authority()
    });
    match same_server {
        Some(context) => Ok(context.check()?),
        None => Err(
            Problem::invalid("--url", "no context knows that server's certificate")
                .hint("--fingerprint HEX, or an http:// URL")
                .into(),
        ),
    }
}

fn describe(reply: &HookReply) -> String {
    match (&reply.deployment, &reply.ignored) {
        (Some(id), _) if reply.replayed => format!("taken before: deployment {id}"),
        (Some(id), _) => format!("deployment {id} is on its way"),
        (None, Some(why)) => format!("nothing to do: {why}"),
        (None, None) => "taken".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(before: &str, after: &str) -> Args {
        let line = [
            "push",
            "--url",
            "http://127.0.0.1:1/v1/hooks/x",
            "--secret-file",
            "f",
            "--ref",
            "refs/heads/main",
            "--before",
            before,
            "--after",
            after,
            "--repo",
            "/srv/git/shop.git",
        ];
        Line::try_parse_from(line).expect("accepted").args
    }

    /// The example of GitHub's documentation ("Validating webhook deliveries").
    #[test]
    fn the_signature_is_the_one_that_github_documents() {
        assert_eq!(
            signature(b"It's a Secret to Everybody", b"Hello, World!"),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }

    #[test]
    fn the_event_says_what_a_forge_would() {
        let (old, new, none) = ("1".repeat(40), "2".repeat(40), "0".repeat(40));
        let event = payload(&args(&old, &new));
        assert_eq!(event["ref"], "refs/heads/main");
        assert_eq!(event["after"], new);
        assert_eq!(event["repository"]["clone_url"], "/srv/git/shop.git");
        assert_eq!(event["repository"]["full_name"], "shop");
        assert_eq!(
            (&event["created"], &event["deleted"]),
            (&json!(false), &json!(false))
        );
        assert_eq!(payload(&args(&none, &new))["created"], json!(true));
        let deleted = payload(&args(&old, &none));
        assert_eq!(
            (&deleted["deleted"], &deleted["head_commit"]),
            (&json!(true), &json!(null))
        );
    }

    #[test]
    fn an_unknown_https_server_is_not_spoken_to_blindly() {
        let mut unknown = args(&"1".repeat(40), &"2".repeat(40));
        assert!(fingerprint(&unknown).is_ok());
        unknown.fingerprint = Some(Fingerprint::of_der(b"x"));
        unknown.url = Uri::from_static("https://10.9.8.7:1/v1/hooks/x");
        assert_eq!(
            fingerprint(&unknown).expect("given"),
            Fingerprint::of_der(b"x")
        );
    }
}
