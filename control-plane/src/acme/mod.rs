//! Orders certificates from an issuer (RFC 8555): the account, the proof of a host, the request, the chain. Proposes what
//! others have to know meanwhile; what is due, and what becomes of it, the leader's duty decides.

mod dns;
mod explain;
mod http;
mod local;
mod records;
mod shown;
mod tally;

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use skep_identity::leaf;
use skep_model::certificate::{
    Certificate, Challenge, ChallengeKind, DnsAccess, Issuer, Material, settled_ms,
};
use skep_model::problem::Problem;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

pub(crate) use dns::Lookup;
pub use dns::Means;
pub(crate) use dns::check_key;
pub(crate) use http::check_roots;
use http::{Http, Patience};
pub(crate) use local::{issue as issue_locally, make as make_local_ca};
use records::Held;
pub(crate) use records::Records;
pub use tally::Tally;

use crate::agents::fleet::Fleet;
use crate::secrets::{Acme, Secrets};
use crate::store::{Store, now_ms};

/// How long a challenge is answered: above all that an order takes.
const CHALLENGE_LIFE_MS: u64 = 10 * 60_000;
/// All of one order.
const ORDER_LIMIT: Duration = Duration::from_secs(420);
/// How long an issuer may take to look at the proof, and then to sign.
const POLLING: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(100));
/// Longest patience that an issuer is given.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For people, with what to do.
    pub(crate) why: String,
    /// When the issuer wants to be asked again, ms since the epoch; 0: it did not say.
    pub(crate) not_before_ms: u64,
}

impl Failure {
    /// One after which nobody asks to be left alone.
    pub(crate) fn now(why: String) -> Self {
        Self {
            why,
            not_before_ms: 0,
        }
    }
}

/// The account in use, and whose it is.
struct Known {
    issuer_changed_ms: u64,
    account: Account,
}

/// Orders for one cluster while this server leads it.
pub(crate) struct Orders {
    store: Store,
    /// Which ingresses have which challenges.
    fleet: Fleet,
    secrets: Secrets,
    patience: Patience,
    records: Records,
    /// Held while an account is made: never two.
    known: Mutex<Option<Known>>,
}

/// What went wrong on the way.
enum Trouble {
    Acme(Error),
    Other(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Acme(error)
    }
}

impl From<dns::Error> for Trouble {
    fn from(error: dns::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self::Other(problem.to_string())
    }
}

impl Orders {
    /// None yet.
    pub(crate) fn new(store: Store, fleet: Fleet, secrets: Secrets, means: Means) -> Self {
        Self {
            fleet,
            records: Records::new(store.clone(), secrets.clone(), means),
            store,
            secrets,
            patience: Patience::default(),
            known: Mutex::default(),
        }
    }

    /// Records in DNS.
    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    /// A certificate for `host`, from `issuer`. Dropped, it leaves challenges that end by themselves, and records in
    /// DNS that nobody holds.
    pub(crate) async fn order(&self, issuer: &Issuer, host: &str) -> Result<Certificate, Failure> {
        let ordered = tokio::time::timeout(ORDER_LIMIT, self.try_order(issuer, host)).await;
        let trouble = match ordered {
            Ok(Ok(certificate)) => return Ok(certificate),
            Ok(Err(trouble)) => trouble,
            Err(_) => Trouble::Acme(Error::Timeout(None)),
        };
        let why = match &trouble {
            Trouble::Acme(error) => {
                if explain::is_without_account(error) {
                    self.forget_account(issuer).await;
                }
                explain::failure(error)
            }
            Trouble::Other(why) => why.clone(),
        };
        let latest = SystemTime::now() + MAX_RETRY_AFTER;
        let said = self.patience.take().map(|at| at.min(latest));
        let since = said.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let not_before_ms = since.and_then(|it| u64::try_from(it.as_millis()).ok());
        Err(Failure {
            why,
            not_before_ms: not_before_ms.unwrap_or(0),
        })
    }

    async fn try_order(&self, issuer: &Issuer, host: &str) -> Result<Certificate, Trouble> {
        let account = self.account(issuer).await?;
        let identifiers = [Identifier::Dns(host.to_owned())];
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
        let (mut tokens, mut held) = (Vec::new(), Vec::new());
        let proved = match &issuer.dns {
            Some(access) => self.prove_in_zone(&mut order, access, &mut held).await,
            None => self.prove(&mut order, issuer, &mut tokens).await,
        };
        drop(held);
        if !tokens.is_empty() {
            let command = Kind::RemoveChallenges(v1::RemoveChallenges { tokens });
            if let Err(problem) = self.store.propose(command).await {
                tracing::debug!(%problem, "challenges stay until their time is over");
            }
        }
        proved?;
        let key = KeyPair::generate().map_err(|error| Trouble::Other(error.to_string()))?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        order.finalize_csr(&request(&key, host)?).await?;
        let chain_pem = order.poll_certificate(&POLLING).await?;
        let leaf = leaf::inspect(&chain_pem, &key_pem).map_err(|error| {
            Trouble::Other(format!("what the issuer sent is of no use: {error}"))
        })?;
        let next_ms = settled_ms(leaf.not_before_ms, leaf.not_after_ms, now_ms());
        Ok(Certificate {
            material: Some(Material {
                chain_pem,
                key: self.secrets.seal_certificate(host, &key_pem),
                names: leaf.names,
                not_before_ms: leaf.not_before_ms,
                not_after_ms: leaf.not_after_ms,
                serial: leaf.serial,
                issuer: leaf.issuer,
            }),
            directory: issuer.directory.clone(),
            next_ms,
            ..Certificate::wanted(host)
        })
    }

    /// Shows the issuer whose the hosts of an order are; `tokens` are those that were given to the ingresses.
    async fn prove(
        &self,
        order: &mut Order,
        issuer: &Issuer,
        tokens: &mut Vec<String>,
    ) -> Result<(), Trouble> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let host = authorization.identifier().to_string();
            let kind = issuer.challenge;
            let asked = authorization.challenge(type_of(kind));
            let mut asked = asked.ok_or_else(|| not_offered(kind, &host))?;
            let challenge = Challenge {
                kind,
                host: host.clone(),
                token: asked.token.clone(),
                key_authorization: asked.key_authorization().as_str().to_owned(),
                expires_ms: now_ms() + CHALLENGE_LIFE_MS,
            };
            tokens.push(challenge.token.clone());
            let command = v1::PutChallenges {
                challenges: vec![(&challenge).into()],
            };
            let put = self.store.write(Kind::PutChallenges(command)).await?;
            shown::everywhere(&self.fleet, &self.store, (&host, put.index)).await;
            asked.set_ready().await?;
        }
        ready(order).await
    }

    /// The same by records in the zones of the hosts; `held` are those that were written.
    async fn prove_in_zone<'a>(
        &'a self,
        order: &mut Order,
        access: &DnsAccess,
        held: &mut Vec<Held<'a>>,
    ) -> Result<(), Trouble> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let shown = authorization.identifier().to_string();
            // A wildcard is proved where the name without it is.
            let host = shown.strip_prefix("*.").unwrap_or(&shown);
            let asked = authorization.challenge(ChallengeType::Dns01);
            let mut asked = asked.ok_or_else(|| not_offered(ChallengeKind::Dns01, &shown))?;
            let value = asked.key_authorization().dns_value();
            held.push(self.records.write(access, host, value).await?);
            asked.set_ready().await?;
        }
        ready(order).await
    }

    /// The account at the issuer; made where there is none.
    async fn account(&self, issuer: &Issuer) -> Result<Account, Trouble> {
        let mut known = self.known.lock().await;
        if let Some(known) = &*known
            && known.issuer_changed_ms == issuer.changed_ms
        {
            return Ok(known.account.clone());
        }
        let http = Http::new(&issuer.root_pem, self.patience.clone()).map_err(Trouble::Other)?;
        let builder = Account::builder_with_http(Box::new(http));
        // Another order may have made one since this one's view.
        let view = self.store.view();
        let now = view
            .issuer()
            .filter(|it| it.changed_ms == issuer.changed_ms);
        let sealed = now.and_then(|it| it.account.as_ref());
        let account = match sealed {
            Some(sealed) => {
                let text = self
                    .secrets
                    .open_acme(Acme::Account, &issuer.directory, sealed)?;
                let credentials: AccountCredentials =
                    serde_json::from_str(&text).map_err(Error::from)?;
                builder.from_credentials(credentials).await?
            }
            None => self.register(builder, issuer).await?,
        };
        *known = Some(Known {
            issuer_changed_ms: issuer.changed_ms,
            account: account.clone(),
        });
        Ok(account)
    }

    async fn register(
        &self,
        builder: instant_acme::AccountBuilder,
        issuer: &Issuer,
    ) -> Result<Account, Trouble> {
        let contact = format!("mailto:{}", issuer.contact);
        let contact = [contact.as_str()];
        let wanted = NewAccount {
            contact: match issuer.contact.is_empty() {
                true => &[],
                false => &contact,
            },
            // Whoever sets an issuer says so.
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let binding = match &issuer.binding {
            None => None,
            Some(binding) => {
                let directory = &issuer.directory;
                let hmac = self
                    .secrets
                    .open_acme(Acme::Binding, directory, &binding.hmac)?;
                let hmac = decode_hmac(&hmac).ok_or_else(|| {
                    Trouble::Other("the key of the binding is no base64".to_owned())
                })?;
                Some(ExternalAccountKey::new(binding.key_id.clone(), &hmac))
            }
        };
        let created = builder.create(&wanted, issuer.directory.clone(), binding.as_ref());
        let (account, credentials) = created.await?;
        let text = Zeroizing::new(serde_json::to_string(&credentials).map_err(Error::from)?);
        let sealed = self
            .secrets
            .seal_acme(Acme::Account, &issuer.directory, &text);
        let command = v1::SetAcmeAccount {
            issuer_changed_ms: issuer.changed_ms,
            sealed_account: sealed.0,
        };
        self.store.propose(Kind::SetAcmeAccount(command)).await?;
        tracing::info!(directory = %issuer.directory, account = account.id(), "an account at the issuer was made");
        Ok(account)
    }

    /// The next order makes another one.
    async fn forget_account(&self, issuer: &Issuer) {
        *self.known.lock().await = None;
        let command = v1::ForgetAcmeAccount {
            issuer_changed_ms: issuer.changed_ms,
        };
        if let Err(problem) = self.store.propose(Kind::ForgetAcmeAccount(command)).await {
            tracing::debug!(%problem, "the account that the issuer does not know is kept");
        }
    }
}

/// A binding's key as issuers write it: base64url, some with padding.
pub(crate) fn decode_hmac(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let decoded = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('='));
    decoded
        .ok()
        .filter(|key| !key.is_empty())
        .map(Zeroizing::new)
}

fn request(key: &KeyPair, host: &str) -> Result<Vec<u8>, Trouble> {
    let made = CertificateParams::new([host.to_owned()]).and_then(|mut params| {
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(key)
    });
    let made = made.map_err(|error| Trouble::Other(format!("no request can be made: {error}")))?;
    Ok(made.der().to_vec())
}

fn type_of(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Dns01 => ChallengeType::Dns01,
    }
}

fn not_offered(kind: ChallengeKind, host: &str) -> Trouble {
    let kind = kind.as_str();
    Trouble::Other(format!("the issuer does not offer {kind} for {host}"))
}

/// Until the issuer has looked.
async fn ready(order: &mut Order) -> Result<(), Trouble> {
    match order.poll_ready(&POLLING).await? {
        OrderStatus::Ready => Ok(()),
        _ => Err(refused(order).await),
    }
}

/// Why an order is invalid: its challenges say it.
async fn refused(order: &mut Order) -> Trouble {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let error = state.challenges.iter().find_map(|it| it.error.clone());
        if let Some(problem) = error {
            return Trouble::Acme(Error::Api(problem));
        }
    }
    Trouble::Other("the issuer refused the order, and does not say why".to_owned())
}
