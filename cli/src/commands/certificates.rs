//! `skep certificates`: what apps are shown with, and who issues it.

mod dns;

use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    CertificateRequest, CertificatesView, IssuerRequest, LocalCaView,
};
use skep_model::certificate::{
    CertificateShown, ChallengeKind, IssuerShown, MAX_CHAIN_BYTES, MAX_ISSUER_BYTES, MAX_KEY_BYTES,
    Source,
};

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::{table, time};
use crate::session::Session;

/// What most people use.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The same for trying things out: its limits are high, and no browser trusts what it issues.
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Certificates that apps are shown with under TLS
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them, and those that could not be had yet
    #[command(visible_alias = "list")]
    Ls,
    /// Upload a certificate, or replace one that was uploaded
    #[command(after_help = "\
Examples:
  skep certificates add fullchain.pem privkey.pem
  skep certificates add wild.crt wild.key --name wild

It stands for the hosts that are in it, on every node, before any that is issued; it is renewed by hand.")]
    Add {
        /// File of the certificate, the leaf first, PEM
        #[arg(value_name = "CHAIN")]
        chain: PathBuf,
        /// File of its key, unencrypted, PEM
        #[arg(value_name = "KEY")]
        key: PathBuf,
        /// What it is called; by default the first host in it
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Take a certificate away; one that is still wanted is asked for anew
    Rm {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Ask the issuer for another one now, whenever the last attempt was
    Renew {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Who issues certificates
    #[command(subcommand)]
    Issuer(Issuer),
    /// The cluster's own authority for private names: print its root, to be trusted by hand
    #[command(after_help = "\
Examples:
  skep certificates ca --make
  skep certificates ca > skep-local-ca.crt

It issues for names under localhost, local, internal and home.arpa, and its root says that nobody need believe it for others.")]
    Ca(Ca),
}

/// The authority for private names.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Ca {
    /// Make it, where there is none: private hosts of routes get certificates from then on
    #[arg(long)]
    make: bool,
    /// End it; certificates stay until they run out
    #[arg(long, conflicts_with = "make")]
    rm: bool,
}

/// Who issues certificates
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Issuer {
    /// Say who does: every host of a route that can have a certificate gets one
    #[command(after_help = "\
Examples:
  skep certificates issuer set --staging --contact ops@example.com --agree-terms
  skep certificates issuer set --contact ops@example.com --agree-terms
  skep certificates issuer set --directory https://ca.internal/acme/directory --root ca.pem --agree-terms
  skep certificates issuer set --challenge dns-01 --dns cloudflare --dns-token-file token --agree-terms
  skep certificates issuer set --challenge dns-01 --dns rfc2136 --dns-server ns1.example.com:53 \\
    --dns-key-name skep --dns-key-file skep.key --agree-terms

What is not said is as by default, not as it was before. The same directory keeps its account.")]
    Set(Box<SetIssuer>),
    /// Show who does
    Show,
    /// Nobody any more; certificates stay until they run out
    Rm,
}

/// Who is to issue.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SetIssuer {
    /// Address of its ACME directory; by default Let's Encrypt's
    #[arg(long, value_name = "URL")]
    directory: Option<String>,
    /// Let's Encrypt's staging: to try things out
    #[arg(long, conflicts_with = "directory")]
    staging: bool,
    /// Mail address that the issuer may write to
    #[arg(long, value_name = "MAIL")]
    contact: Option<String>,
    /// I have read the issuer's terms and agree to them
    #[arg(long)]
    agree_terms: bool,
    /// How hosts are proved: http-01 (port 80), tls-alpn-01 (port 443, not with Traefik) or dns-01 (a
    /// record in the zone; wildcards, too)
    #[arg(long, value_name = "KIND", default_value = "http-01", value_parser = ["http-01", "tls-alpn-01", "dns-01"])]
    challenge: String,
    #[command(flatten)]
    dns: dns::Args,
    /// File of certificates that prove who answers at the directory, PEM; by default those that the servers trust
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Name of a key that binds to an account at the issuer
    #[arg(long, value_name = "ID", requires = "eab_key_file")]
    eab_key_id: Option<String>,
    /// File of that key, base64url
    #[arg(long, value_name = "FILE", requires = "eab_key_id")]
    eab_key_file: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Ls => {
            let view: CertificatesView = client.get("/v1/certificates").await?;
            session.out.result(&view, || text(&view, time::now_ms()));
        }
        Command::Add { chain, key, name } => {
            let request = CertificateRequest {
                chain: read(&chain, MAX_CHAIN_BYTES)?,
                key: read(&key, MAX_KEY_BYTES)?,
            };
            let name = match name {
                Some(name) => name,
                None => first_name(&request)?,
            };
            let path = format!("/v1/certificates/{}", escape(&name));
            let shown: CertificateShown = client.send(Method::PUT, &path, &request).await?;
            session.out.result(&shown, || {
                format!("{} stands for {}", shown.name, shown.names.join(", "))
            });
        }
        Command::Rm { name } => {
            let path = format!("/v1/certificates/{}", escape(&name));
            let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
            session
                .out
                .result(&json!({ "removed": name }), || format!("{name} is gone"));
        }
        Command::Renew { name } => {
            let path = format!("/v1/certificates/{}/renew", escape(&name));
            let _: Value = client.send(Method::POST, &path, &json!({})).await?;
            session.out.result(&json!({ "asked": name }), || {
                format!("another certificate for {name} is asked for: `skep certificates ls`")
            });
        }
        Command::Ca(command) => ca(&command, &client, session).await?,
        Command::Issuer(command) => issuer(command, &client, session).await?,
    }
    Ok(())
}

async fn ca(command: &Ca, client: &Client, session: &Session) -> Result<(), Failure> {
    const PATH: &str = "/v1/local-ca";
    if command.rm {
        let _: Value = client.send(Method::DELETE, PATH, &json!({})).await?;
        session.out.result(&json!({ "local_ca": null }), || {
            "nobody issues for private names".to_owned()
        });
        return Ok(());
    }
    let view: LocalCaView = match command.make {
        true => client.send(Method::PUT, PATH, &json!({})).await?,
        false => client.get(PATH).await?,
    };
    session
        .out
        .result(&view, || view.root.trim_end().to_owned());
    Ok(())
}

async fn issuer(command: Issuer, client: &Client, session: &Session) -> Result<(), Failure> {
    match command {
        Issuer::Show => {
            let view: CertificatesView = client.get("/v1/certificates").await?;
            session
                .out
                .result(&view.issuer, || issuer_text(view.issuer.as_ref()));
        }
        Issuer::Rm => {
            let _: Value = client
                .send(Method::DELETE, "/v1/issuer", &json!({}))
                .await?;
            session.out.result(&json!({ "issuer": null }), || {
                "nobody issues certificates".to_owned()
            });
        }
        Issuer::Set(set) => {
            let request = request(*set)?;
            let shown: IssuerShown = client.send(Method::PUT, "/v1/issuer", &request).await?;
            session.out.result(&shown, || issuer_text(Some(&shown)));
        }
    }
    Ok(())
}

fn request(set: SetIssuer) -> Result<IssuerRequest, Failure> {
    let directory = match (set.directory, set.staging) {
        (Some(directory), _) => directory,
        (None, true) => LETS_ENCRYPT_STAGING.to_owned(),
        (None, false) => LETS_ENCRYPT.to_owned(),
    };
    let whole = |path: Option<PathBuf>| path.map(|path| read(&path, MAX_ISSUER_BYTES)).transpose();
    let challenge = match set.challenge.as_str() {
        "tls-alpn-01" => ChallengeKind::TlsAlpn01,
        "dns-01" => ChallengeKind::Dns01,
        _ => ChallengeKind::Http01,
    };
    Ok(IssuerRequest {
        directory,
        contact: set.contact.unwrap_or_default(),
        terms_agreed: set.agree_terms,
        challenge,
        dns: set.dns.request()?,
        root: whole(set.root)?.unwrap_or_default(),
        eab_key_id: set.eab_key_id,
        eab_hmac: whole(set.eab_key_file)?.map(|key| key.trim().to_owned()),
    })
}

/// A whole file of text, up to a size.
fn read(path: &Path, max_bytes: usize) -> Result<String, Failure> {
    use std::io::Read as _;
    let mut text = String::new();
    let limit = max_bytes as u64 + 1;
    let read = std::fs::File::open(path).and_then(|it| it.take(limit).read_to_string(&mut text));
    let shown = path.display();
    match read {
        Ok(_) if text.len() <= max_bytes => Ok(text),
        Ok(_) => Err(Failure::usage(format!(
            "{shown} has more than {max_bytes} bytes"
        ))),
        Err(error) => Err(Failure::usage(format!("{shown} cannot be read: {error}"))),
    }
}

/// The first host in a certificate.
fn first_name(request: &CertificateRequest) -> Result<String, Failure> {
    let leaf = skep_identity::leaf::inspect(&request.chain, &request.key)
        .map_err(|error| Failure::usage(error.to_string()))?;
    // One always has a name.
    Ok(leaf.names.into_iter().next().unwrap_or_default())
}

fn issuer_text(issuer: Option<&IssuerShown>) -> String {
    let Some(issuer) = issuer else {
        return "nobody issues certificates: `skep certificates issuer set`".to_owned();
    };
    let account = match issuer.has_account {
        true => "an account is there",
        false => "an account is made with the first order",
    };
    let contact = match issuer.contact.as_str() {
        "" => "no contact",
        contact => contact,
    };
    let kind = match &issuer.dns {
        Some(provider) => format!("dns-01 by {}", provider.kind()),
        None => issuer.challenge.as_str().to_owned(),
    };
    format!("{} ({kind}, {contact}): {account}", issuer.directory)
}

fn text(view: &CertificatesView, now_ms: u64) -> String {
    let row = |it: &CertificateShown| {
        let source = match it.source {
            Source::Acme => "issued",
            Source::Uploaded => "uploaded",
        };
        let days = it.not_after_ms.saturating_sub(now_ms) / 86_400_000;
        let ends = match it.names.is_empty() {
            true => "none yet".to_owned(),
            false if it.not_after_ms <= now_ms => "run out".to_owned(),
            false => format!("{days} days left"),
        };
        let names = match it.names.as_slice() {
            [only] if *only == it.name => String::new(),
            names => names.join(", "),
        };
        vec![
            it.name.clone(),
            source.to_owned(),
            ends,
            names,
            it.problem.clone(),
        ]
    };
    let rows = view.certificates.iter().map(row).collect();
    let empty = "no certificates: a host of a route gets one once there is an issuer";
    let headers = ["CERTIFICATE", "SOURCE", "ENDS", "ALSO FOR", "PROBLEM"];
    let list = table::render(&headers, rows, empty);
    format!("{list}\n\nissuer: {}", issuer_text(view.issuer.as_ref()))
}
