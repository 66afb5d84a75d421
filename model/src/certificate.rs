//! Certificates that apps are shown with, who issues them, and what proves to an issuer whose a host is. Owns
//! when one is due and how long is waited after a failure; never talks to anybody.

mod dns;
mod due;
mod wildcard;

pub use dns::{
    DnsAccess, DnsProvider, DnsRecord, MAX_DNS_BYTES, MAX_DNS_RECORDS, MAX_DNS_SECRET_BYTES,
    TsigAlgorithm, check_access,
};
pub(crate) use due::hash;
pub use due::{
    Due, Entry, LOCAL_DOMAINS, Wanted, backoff_ms, decide, is_certifiable, is_local, renew_ms,
    settled_ms,
};
pub use wildcard::by_wildcards;

use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::variable::Sealed;

/// Most certificates of a cluster, those that could not be had yet included.
pub const MAX_CERTIFICATES: usize = 1_000;
/// Most bytes of chains and sealed keys of a cluster: every ingress holds all, and is sent all at once.
pub const MAX_TOTAL_BYTES: usize = 8 << 20;
/// Longest chain, in bytes of PEM; a tenth of it is usual.
pub const MAX_CHAIN_BYTES: usize = 64 << 10;
/// Longest key, in bytes of PEM.
pub const MAX_KEY_BYTES: usize = 16 << 10;
/// Most names of one certificate.
pub const MAX_NAMES: usize = 100;
/// Longest name of a certificate, in bytes.
pub const MAX_NAME_BYTES: usize = 253;
/// Longest problem that is kept, in bytes.
pub const MAX_PROBLEM_BYTES: usize = 1_000;
/// Most challenges at a time; far above the orders that are under way at once.
pub const MAX_CHALLENGES: usize = 64;
/// Longest of each text of a challenge, in bytes.
pub const MAX_CHALLENGE_BYTES: usize = 1_000;
/// Longest of each text of an issuer, its root certificates included.
pub const MAX_ISSUER_BYTES: usize = 32 << 10;

/// One with less than this part of its life left is ending: a renewal has failed for a fifth of it by then.
const ENDING_PART: u64 = 8;

/// How it is proved whose a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ChallengeKind {
    /// A file at a path of the host, in clear on port 80 (RFC 8555, 8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// A certificate shown on port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A record in the host's zone (RFC 8555, 8.4): proves wildcards, too.
    #[serde(rename = "dns-01")]
    Dns01,
}

impl ChallengeKind {
    /// Each of them, in the order of their stored numbers.
    pub const ALL: [Self; 3] = [Self::Http01, Self::TlsAlpn01, Self::Dns01];

    /// As protocols and people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// A binding to an account that somebody has at the issuer already (RFC 8555, 7.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Names the key.
    pub key_id: String,
    /// The key, base64url, sealed.
    pub hmac: Sealed,
}

/// Who issues certificates for the cluster's apps. Written by operators; its account by the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// URL of the ACME directory.
    pub directory: String,
    /// Mail address that the issuer writes to; empty: none.
    pub contact: String,
    /// Certificates that prove who answers at the directory, PEM; empty: those that the servers' systems trust.
    pub root_pem: String,
    /// A binding to an account elsewhere, where the issuer wants one.
    pub binding: Option<Binding>,
    /// How hosts are proved.
    pub challenge: ChallengeKind,
    /// Who writes the records of proofs in DNS; there where that is how.
    pub dns: Option<DnsAccess>,
    /// The account, with its key, sealed; none: there is none yet.
    pub account: Option<Sealed>,
    /// Cluster time at which it was set, ms since the epoch: what is made for it says so.
    pub changed_ms: u64,
}

/// The cluster's authority for private names: a root of its own, which people trust by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCa {
    /// Its root, PEM.
    pub cert_pem: String,
    /// Its key, sealed.
    pub key: Sealed,
    /// Cluster time at which it was made, ms since the epoch: what it issued says so.
    pub made_ms: u64,
}

impl LocalCa {
    /// What stands for a directory in what it issued.
    pub fn directory(&self) -> String {
        format!("local:{}", self.made_ms)
    }
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// From the issuer or the local CA; renewed by itself.
    Acme,
    /// From an operator, who renews it.
    Uploaded,
}

impl Source {
    /// Each of them, in the order of their stored numbers.
    pub const ALL: [Self; 2] = [Self::Acme, Self::Uploaded];
}

/// A chain with its key, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// The leaf and what links it to its root, PEM.
    pub chain_pem: String,
    /// The leaf's key, PEM, sealed.
    pub key: Sealed,
    /// Hosts that it stands for, in lower case; some may begin with `*.`.
    pub names: Vec<String>,
    /// Holds from then on, ms since the epoch.
    pub not_before_ms: u64,
    /// And until then.
    pub not_after_ms: u64,
    /// In hexadecimal, as people compare it.
    pub serial: String,
    /// Who signed it.
    pub issuer: String,
}

/// One certificate, or one that is wanted and could not be had yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What it is called: the host of one that is issued, any word for one that is uploaded.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// What is shown; none: nothing yet.
    pub material: Option<Material>,
    /// Directory of who issued it; empty: nobody yet, or it was uploaded.
    pub directory: String,
    /// Why the last attempt failed; empty: it did not.
    pub problem: String,
    /// Attempts that failed since one did not.
    pub failures: u32,
    /// No attempt before this, ms since the epoch.
    pub next_ms: u64,
    /// Somebody wants another one now.
    pub is_asked: bool,
}

impl Certificate {
    /// One that is wanted, and nothing more.
    pub fn wanted(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            source: Source::Acme,
            material: None,
            directory: String::new(),
            problem: String::new(),
            failures: 0,
            next_ms: 0,
            is_asked: false,
        }
    }

    /// Whether people should look: it should have been renewed some time ago, or nobody renews it.
    pub fn is_ending(&self, now_ms: u64) -> bool {
        self.material.as_ref().is_some_and(|it| {
            let life = it.not_after_ms.saturating_sub(it.not_before_ms);
            it.not_after_ms.saturating_sub(now_ms) < life / ENDING_PART
        })
    }

    /// An operator's that has not run out.
    pub fn is_held_upload(&self, now_ms: u64) -> bool {
        let material = self.material.as_ref();
        self.source == Source::Uploaded && material.is_some_and(|it| it.not_after_ms > now_ms)
    }

    /// Bytes that count for [`MAX_TOTAL_BYTES`].
    pub fn bytes(&self) -> usize {
        let material = self.material.as_ref();
        material.map_or(0, |it| it.chain_pem.len() + it.key.0.len())
    }
}

/// What is to be shown to an issuer for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// How.
    pub kind: ChallengeKind,
    /// Where.
    pub host: String,
    /// Names it among those of the host.
    pub token: String,
    /// What is expected: no secret, it proves only who asks.
    pub key_authorization: String,
    /// Nobody waits for it after this, ms since the epoch.
    pub expires_ms: u64,
}

/// An issuer as people see it: without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IssuerShown {
    /// URL of the ACME directory.
    pub directory: String,
    /// Mail address that it writes to; empty: none.
    pub contact: String,
    /// How hosts are proved.
    pub challenge: ChallengeKind,
    /// Who writes the records of proofs in DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsProvider>,
    /// Certificates of its own prove who answers at the directory.
    pub has_root: bool,
    /// The key of a binding to an account there; empty: none.
    pub binding: String,
    /// There is an account already.
    pub has_account: bool,
    /// When it was set, ms since the epoch.
    pub changed_ms: u64,
}

impl From<&Issuer> for IssuerShown {
    fn from(issuer: &Issuer) -> Self {
        let binding = issuer.binding.as_ref();
        Self {
            directory: issuer.directory.clone(),
            contact: issuer.contact.clone(),
            challenge: issuer.challenge,
            dns: issuer.dns.as_ref().map(|it| it.provider.clone()),
            has_root: !issuer.root_pem.is_empty(),
            binding: binding.map_or_else(String::new, |it| it.key_id.clone()),
            has_account: issuer.account.is_some(),
            changed_ms: issuer.changed_ms,
        }
    }
}

/// A certificate as people see it: without its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CertificateShown {
    /// What it is called.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// Hosts that it stands for; none: it could not be had yet.
    pub names: Vec<String>,
    /// Who signed it; empty as above.
    pub issuer: String,
    /// In hexadecimal; empty as above.
    pub serial: String,
    /// Holds from then on, ms since the epoch; 0 as above.
    pub not_before_ms: u64,
    /// And until then.
    pub not_after_ms: u64,
    /// When another one is asked for; absent: never by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_ms: Option<u64>,
    /// Why the last attempt failed, and what to do; empty: it did not.
    pub problem: String,
}

impl From<&Certificate> for CertificateShown {
    fn from(certificate: &Certificate) -> Self {
        let material = certificate.material.as_ref();
        let text =
            |of: fn(&Material) -> &String| material.map_or_else(String::new, |it| of(it).clone());
        let is_issued = certificate.source == Source::Acme;
        Self {
            name: certificate.name.clone(),
            source: certificate.source,
            names: material.map_or_else(Vec::new, |it| it.names.clone()),
            issuer: text(|it| &it.issuer),
            serial: text(|it| &it.serial),
            not_before_ms: material.map_or(0, |it| it.not_before_ms),
            not_after_ms: material.map_or(0, |it| it.not_after_ms),
            renew_ms: is_issued.then(|| due::attempt_ms(certificate)),
            problem: certificate.problem.clone(),
        }
    }
}

/// Checks what a certificate is to be called.
///
/// # Errors
/// Says what is accepted.
pub fn check_name(name: &str) -> Result<(), Problem> {
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"*.-_".contains(&b);
    if !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_name) {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    let text = format!("`{}` is not a name of a certificate", shown.escape_debug());
    Err(Problem::invalid("name", text)
        .hint("lower-case letters, digits, `.`, `-`, `_` and `*`, as hosts are written"))
}

/// Checks what an operator says of an issuer.
///
/// # Errors
/// Says which field is not accepted.
pub fn check_issuer(issuer: &Issuer) -> Result<(), Problem> {
    let is_line =
        |text: &str| text.len() <= MAX_ISSUER_BYTES && !text.chars().any(char::is_control);
    let rest = issuer.directory.strip_prefix("https://");
    if !is_line(&issuer.directory) || rest.is_none_or(|rest| rest.is_empty() || rest.contains(' '))
    {
        let text = "the directory is the https:// address of an ACME directory";
        return Err(Problem::invalid("directory", text)
            .hint("for example https://acme-v02.api.letsencrypt.org/directory"));
    }
    if !is_line(&issuer.contact) || !(issuer.contact.is_empty() || issuer.contact.contains('@')) {
        return Err(Problem::invalid("contact", "the contact is a mail address"));
    }
    if issuer.root_pem.len() > MAX_ISSUER_BYTES {
        let text = format!("the root certificates have at most {MAX_ISSUER_BYTES} bytes");
        return Err(Problem::invalid("root", text));
    }
    let key_id = issuer.binding.as_ref().map(|it| it.key_id.as_str());
    if key_id.is_some_and(|id| id.is_empty() || !is_line(id)) {
        return Err(Problem::invalid(
            "eab_key_id",
            "the key of the binding has no name",
        ));
    }
    match (issuer.challenge, &issuer.dns) {
        (ChallengeKind::Dns01, Some(access)) => check_access(access),
        (ChallengeKind::Dns01, None) => {
            let text = "dns-01 needs to know who writes the records";
            Err(Problem::invalid("dns", text)
                .hint("`--dns rfc2136`, `cloudflare`, `webhook` or `exec`"))
        }
        (_, Some(_)) => {
            let text = "who writes records in DNS is said for dns-01 alone";
            Err(Problem::invalid("dns", text).hint("`--challenge dns-01`"))
        }
        (_, None) => Ok(()),
    }
}
