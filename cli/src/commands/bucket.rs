//! `skep bucket`: the bucket of an object store that a workspace's images and sites are put into, in a push registry's
//! place.

use std::net::IpAddr;

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{PushRegistryRequest, PushRegistryView};
use skep_model::registry::Bucket;

use super::registry::{PUSH_PATH, password, push_text};
use crate::failure::Failure;
use crate::session::Session;

/// The bucket that keeps what is built, so that sites and images come back where no node has them
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Put everything that is built into a bucket, too; the secret of its key is read from stdin
    Set(Set),
    /// Show the bucket, and what is not there yet
    #[command(visible_alias = "ls")]
    Show,
    /// Put nothing there any more; what is in the bucket stays
    Rm,
}

/// Which bucket, and with which key.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  pass show s3 | skep bucket set --endpoint https://s3.eu-central-1.amazonaws.com \\
    --region eu-central-1 --bucket acme-sites --access-key-id AKIA... --secret-stdin
  skep bucket set --endpoint https://minio.lan:9000 --path-style --bucket sites \\
    --access-key-id skep --secret-stdin --required < secret.txt

From the next deployment on a node that has what was built puts it there, by digest: what is there already is
not sent again. A bucket that is away keeps nothing from going live, unless --required says so. Where no node
has a site or an image any more, it comes back from there without a build. A workspace has one bucket or one
push registry. What the key must be allowed to do is in docs/registry.md.")]
pub(crate) struct Set {
    /// Where the object store is; without TLS only on the loopback, and where Docker on the nodes does without
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// The bucket's name; it has to be there
    #[arg(long, value_name = "NAME")]
    bucket: String,
    /// Where the bucket is
    #[arg(long, value_name = "REGION", default_value = "us-east-1")]
    region: String,
    /// Folders in the bucket before everything that is put there
    #[arg(
        long,
        value_name = "FOLDERS",
        default_value = "",
        hide_default_value = true
    )]
    prefix: String,
    /// The id of the access key
    #[arg(long, value_name = "ID")]
    access_key_id: String,
    /// Read the key's secret from stdin: the one way, so that no shell remembers it
    #[arg(long, required = true)]
    secret_stdin: bool,
    /// Name the bucket in the path of URLs, not before the host
    #[arg(long)]
    path_style: bool,
    /// Let nothing that is built go live before the bucket has it
    #[arg(long)]
    required: bool,
}

impl Set {
    fn request(self, secret: String) -> Result<PushRegistryRequest, Failure> {
        Ok(PushRegistryRequest {
            host: host(&self.endpoint)?,
            prefix: self.prefix.trim_matches('/').to_owned(),
            user: self.access_key_id,
            password: secret,
            pull: None,
            bucket: Some(Bucket {
                name: self.bucket,
                region: self.region,
                path_style: self.path_style,
            }),
            required: self.required,
        })
    }
}

/// The host of an endpoint. Nodes themselves decide where they do without TLS: none that they would not.
fn host(endpoint: &str) -> Result<String, Failure> {
    let wrong = |why: String| {
        Failure::usage(why).hint("--endpoint https://s3.example.com, or https://minio.lan:9000")
    };
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    if !matches!(scheme, "https" | "http") {
        return Err(wrong(format!("`{scheme}` is no way to speak to a bucket")));
    }
    let host = rest.trim_end_matches('/');
    if host.contains(['/', '?', '#', '@']) {
        let text = format!("`{endpoint}` has more than a host");
        return Err(wrong(text)
            .hint("the bucket goes to --bucket, folders to --prefix, the key to --access-key-id"));
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_loopback =
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if scheme == "http" && !is_loopback {
        let text = format!("`{endpoint}` is without TLS, which is for the loopback alone");
        return Err(Failure::usage(text).hint(
            "https://...; a host under `insecure-registries` of the nodes' Docker is named without a scheme",
        ));
    }
    Ok(host.to_owned())
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Set(set) => {
            // Before anything is read from stdin.
            host(&set.endpoint)?;
            let secret = password("skep bucket set ... --secret-stdin")?;
            let request = set.request(secret)?;
            let view: PushRegistryView = client.send(Method::PUT, PUSH_PATH, &request).await?;
            session.out.result(&view, || text(&view));
        }
        Command::Show => {
            let view: PushRegistryView = client.get(PUSH_PATH).await?;
            session.out.result(&view, || text(&view));
        }
        Command::Rm => {
            let view: PushRegistryView = client.get(PUSH_PATH).await?;
            if view.registry.is_none_or(|it| it.bucket.is_none()) {
                return Err(Failure::usage("the workspace has no bucket").hint(
                    "`skep registry show` shows a push registry, `skep registry push-stop` removes it",
                ));
            }
            let _: Value = client.send(Method::DELETE, PUSH_PATH, &json!({})).await?;
            session.out.result(&json!({ "removed": true }), || {
                "nothing is put into a bucket; what is there stays".to_owned()
            });
        }
    }
    Ok(())
}

fn text(view: &PushRegistryView) -> String {
    match &view.registry {
        None => "there is no bucket: `skep bucket set --help` says how there is one".to_owned(),
        Some(_) => push_text(view),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_under_tls_or_on_the_loopback() {
        for (endpoint, expected) in [
            ("https://s3.example.com", Some("s3.example.com")),
            ("https://s3.example.com:9000/", Some("s3.example.com:9000")),
            ("s3.example.com", Some("s3.example.com")),
            ("http://127.0.0.1:9000", Some("127.0.0.1:9000")),
            ("http://localhost:9000", Some("localhost:9000")),
            ("http://s3.example.com", None),
            ("http://127.evil.example", None),
            ("https://s3.example.com/sites", None),
            ("https://key:secret@s3.example.com", None),
            ("s3://sites", None),
        ] {
            assert_eq!(host(endpoint).ok().as_deref(), expected, "{endpoint}");
        }
    }
}
