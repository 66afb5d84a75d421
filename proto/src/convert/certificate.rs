//! Certificates of apps, their issuer, and what proves to it whose hosts are.

use skep_model::certificate::{
    Binding, Certificate, Challenge, ChallengeKind, DnsAccess, DnsProvider, DnsRecord, Issuer,
    LocalCa, Material, Source, TsigAlgorithm,
};
use skep_model::variable::Sealed;

use super::{Error, enum_number, enum_value};
use crate::v1;

impl From<&Issuer> for v1::Issuer {
    fn from(issuer: &Issuer) -> Self {
        let binding = issuer.binding.clone();
        let (binding_key_id, hmac) = binding.map(|it| (it.key_id, it.hmac.0)).unwrap_or_default();
        Self {
            directory: issuer.directory.clone(),
            contact: issuer.contact.clone(),
            root_pem: issuer.root_pem.clone(),
            binding_key_id,
            binding_sealed_hmac: hmac,
            challenge: enum_number(&ChallengeKind::ALL, &issuer.challenge),
            sealed_account: issuer.account.clone().map(|it| it.0).unwrap_or_default(),
            changed_ms: issuer.changed_ms,
            dns: issuer.dns.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::Issuer> for Issuer {
    type Error = Error;

    fn try_from(message: v1::Issuer) -> Result<Self, Error> {
        let has_binding = !message.binding_key_id.is_empty();
        let has_account = !message.sealed_account.is_empty();
        Ok(Self {
            directory: message.directory,
            contact: message.contact,
            root_pem: message.root_pem,
            binding: has_binding.then_some(Binding {
                key_id: message.binding_key_id,
                hmac: Sealed(message.binding_sealed_hmac),
            }),
            challenge: enum_value("challenge", &ChallengeKind::ALL, message.challenge)?,
            dns: message.dns.map(TryInto::try_into).transpose()?,
            account: has_account.then_some(Sealed(message.sealed_account)),
            changed_ms: message.changed_ms,
        })
    }
}

impl From<&Certificate> for v1::Certificate {
    fn from(certificate: &Certificate) -> Self {
        let shown = certificate.material.as_ref().map(|it| Self {
            chain_pem: it.chain_pem.clone(),
            sealed_key: it.key.0.clone(),
            names: it.names.clone(),
            not_before_ms: it.not_before_ms,
            not_after_ms: it.not_after_ms,
            serial: it.serial.clone(),
            issuer: it.issuer.clone(),
            ..Self::default()
        });
        Self {
            name: certificate.name.clone(),
            source: enum_number(&Source::ALL, &certificate.source),
            directory: certificate.directory.clone(),
            problem: certificate.problem.clone(),
            failures: certificate.failures,
            next_ms: certificate.next_ms,
            is_asked: certificate.is_asked,
            ..shown.unwrap_or_default()
        }
    }
}

impl TryFrom<v1::Certificate> for Certificate {
    type Error = Error;

    fn try_from(message: v1::Certificate) -> Result<Self, Error> {
        let has_material = !message.chain_pem.is_empty();
        Ok(Self {
            name: message.name,
            source: enum_value("source", &Source::ALL, message.source)?,
            material: has_material.then_some(Material {
                chain_pem: message.chain_pem,
                key: Sealed(message.sealed_key),
                names: message.names,
                not_before_ms: message.not_before_ms,
                not_after_ms: message.not_after_ms,
                serial: message.serial,
                issuer: message.issuer,
            }),
            directory: message.directory,
            problem: message.problem,
            failures: message.failures,
            next_ms: message.next_ms,
            is_asked: message.is_asked,
        })
    }
}

impl From<&Challenge> for v1::Challenge {
    fn from(challenge: &Challenge) -> Self {
        Self {
            kind: enum_number(&ChallengeKind::ALL, &challenge.kind),
            host: challenge.host.clone(),
            token: challenge.token.clone(),
            key_authorization: challenge.key_authorization.clone(),
            expires_ms: challenge.expires_ms,
        }
    }
}

impl TryFrom<v1::Challenge> for Challenge {
    type Error = Error;

    fn try_from(message: v1::Challenge) -> Result<Self, Error> {
        Ok(Self {
            kind: enum_value("kind", &ChallengeKind::ALL, message.kind)?,
            host: message.host,
            token: message.token,
            key_authorization: message.key_authorization,
            expires_ms: message.expires_ms,
        })
    }
}

impl From<&DnsAccess> for v1::DnsAccess {
    fn from(access: &DnsAccess) -> Self {
        use v1::dns_access::Provider;
        let provider = match &access.provider {
            DnsProvider::Rfc2136 {
                server,
                key_name,
                algorithm,
            } => Provider::Rfc2136(v1::Rfc2136 {
                server: server.clone(),
                key_name: key_name.clone(),
                algorithm: enum_number(&TsigAlgorithm::ALL, algorithm),
            }),
            DnsProvider::Cloudflare => Provider::Cloudflare(true),
            DnsProvider::Webhook { url } => Provider::Webhook(url.clone()),
            DnsProvider::Exec => Provider::Exec(true),
        };
        Self {
            provider: Some(provider),
            sealed_secret: access
                .secret
                .as_ref()
                .map_or_else(Vec::new, |it| it.0.clone()),
        }
    }
}

impl TryFrom<v1::DnsAccess> for DnsAccess {
    type Error = Error;

    fn try_from(message: v1::DnsAccess) -> Result<Self, Error> {
        use v1::dns_access::Provider;
        let missing = Error { field: "provider" };
        let provider = match message.provider.ok_or(missing)? {
            Provider::Rfc2136(it) => DnsProvider::Rfc2136 {
                server: it.server,
                key_name: it.key_name,
                algorithm: enum_value("algorithm", &TsigAlgorithm::ALL, it.algorithm)?,
            },
            Provider::Cloudflare(_) => DnsProvider::Cloudflare,
            Provider::Webhook(url) => DnsProvider::Webhook { url },
            Provider::Exec(_) => DnsProvider::Exec,
        };
        let has_secret = !message.sealed_secret.is_empty();
        Ok(Self {
            provider,
            secret: has_secret.then_some(Sealed(message.sealed_secret)),
        })
    }
}

impl From<&DnsRecord> for v1::DnsRecord {
    fn from(record: &DnsRecord) -> Self {
        Self {
            name: record.name.clone(),
            value: record.value.clone(),
            access: Some((&record.access).into()),
            until_ms: record.until_ms,
        }
    }
}

impl TryFrom<v1::DnsRecord> for DnsRecord {
    type Error = Error;

    fn try_from(message: v1::DnsRecord) -> Result<Self, Error> {
        let access = message.access.ok_or(Error { field: "access" })?;
        Ok(Self {
            name: message.name,
            value: message.value,
            access: access.try_into()?,
            until_ms: message.until_ms,
        })
    }
}

impl From<&LocalCa> for v1::LocalCa {
    fn from(ca: &LocalCa) -> Self {
        Self {
            cert_pem: ca.cert_pem.clone(),
            sealed_key: ca.key.0.clone(),
            made_ms: ca.made_ms,
        }
    }
}

impl TryFrom<v1::LocalCa> for LocalCa {
    type Error = Error;

    fn try_from(message: v1::LocalCa) -> Result<Self, Error> {
        Ok(Self {
            cert_pem: message.cert_pem,
            key: Sealed(message.sealed_key),
            made_ms: message.made_ms,
        })
    }
}
