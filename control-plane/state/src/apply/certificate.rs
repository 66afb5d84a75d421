//! Certificates of apps: who issues them, what there is, and what is being proved. Never opens what is sealed.

use std::sync::Arc;

use skep_model::certificate::{
    Certificate, Challenge, DnsRecord, Issuer, LocalCa, MAX_CERTIFICATES, MAX_CHAIN_BYTES,
    MAX_CHALLENGE_BYTES, MAX_CHALLENGES, MAX_DNS_RECORDS, MAX_KEY_BYTES, MAX_NAMES,
    MAX_PROBLEM_BYTES, MAX_TOTAL_BYTES, Source, check_access, check_issuer, check_name,
};
use skep_model::problem::{Code, Problem};
use skep_model::variable::Sealed;
use skep_proto::v1;

use super::{Context, Outcome, Reply, changed_meanwhile, missing, understood};
use crate::change::Change;

/// What sealing adds is far below this, in bytes.
const SEALING_BYTES: usize = 1_024;

impl Context<'_> {
    pub(super) fn set_issuer(&mut self, message: v1::SetIssuer) -> Outcome {
        let issuer: Option<Issuer> = message.issuer.map(understood).transpose()?;
        if let Some(issuer) = &issuer {
            check_issuer(issuer)?;
        }
        let old = self.state.issuer.take();
        self.state.issuer = issuer.map(|issuer| {
            // An account stays good for its directory, whatever else is said anew.
            let same = old.filter(|old| old.directory == issuer.directory);
            let account = same.and_then(|old| match old.binding == issuer.binding {
                true => old.account.clone(),
                false => None,
            });
            Arc::new(Issuer {
                account,
                changed_ms: self.state.time_ms,
                ..issuer
            })
        });
        self.forget_failures();
        self.changes.push(Change::Certificates);
        self.changes.push(Change::Challenges);
        Ok(Reply::Done)
    }

    /// They were of another issuer, or of the same before something was set right.
    fn forget_failures(&mut self) {
        let failed = self.state.certificates.values();
        let failed = failed.filter(|it| it.source == Source::Acme && it.next_ms > 0);
        let failed: Vec<Arc<Certificate>> = failed.cloned().collect();
        for certificate in failed {
            let anew = Certificate {
                failures: 0,
                next_ms: 0,
                ..(*certificate).clone()
            };
            self.state
                .certificates
                .insert(anew.name.clone(), Arc::new(anew));
        }
    }

    pub(super) fn set_acme_account(&mut self, message: v1::SetAcmeAccount) -> Outcome {
        if message.sealed_account.is_empty() || message.sealed_account.len() > MAX_KEY_BYTES {
            return Err(missing("sealed_account"));
        }
        let account = Some(Sealed(message.sealed_account));
        self.change_account(message.issuer_changed_ms, account)
    }

    pub(super) fn forget_acme_account(&mut self, message: &v1::ForgetAcmeAccount) -> Outcome {
        self.change_account(message.issuer_changed_ms, None)
    }

    fn change_account(&mut self, issuer_changed_ms: u64, account: Option<Sealed>) -> Outcome {
        let issuer = self.state.issuer.as_ref();
        let issuer = issuer.filter(|it| it.changed_ms == issuer_changed_ms);
        let issuer = issuer.ok_or_else(|| changed_meanwhile("issuer"))?;
        let with = Issuer {
            account,
            ..(**issuer).clone()
        };
        self.state.issuer = Some(Arc::new(with));
        self.changes.push(Change::Certificates);
        Ok(Reply::Done)
    }

    pub(super) fn put_certificate(&mut self, message: v1::PutCertificate) -> Outcome {
        let certificate = message.certificate.ok_or_else(|| missing("certificate"))?;
        let certificate: Certificate = understood(certificate)?;
        check_name(&certificate.name)?;
        check_material(&certificate)?;
        let old = self.state.certificates.get(&certificate.name);
        let now_ms = self.state.time_ms;
        let takes_upload =
            certificate.source == Source::Acme && old.is_some_and(|old| old.is_held_upload(now_ms));
        if takes_upload {
            return Err(changed_meanwhile("certificate"));
        }
        self.check_room(&certificate)?;
        self.put(certificate);
        Ok(Reply::Done)
    }

    pub(super) fn note_certificate(&mut self, message: v1::NoteCertificate) -> Outcome {
        check_name(&message.name)?;
        let old = self.state.certificates.get(&message.name);
        if old.is_some_and(|old| old.is_held_upload(self.state.time_ms)) {
            return Err(changed_meanwhile("certificate"));
        }
        let old = old.map_or_else(|| Certificate::wanted(&message.name), |old| (**old).clone());
        let certificate = Certificate {
            source: Source::Acme,
            problem: cut(message.problem, MAX_PROBLEM_BYTES),
            failures: old.failures.saturating_add(1),
            next_ms: message.next_ms,
            ..old
        };
        self.check_room(&certificate)?;
        self.put(certificate);
        Ok(Reply::Done)
    }

    pub(super) fn renew_certificate(&mut self, message: &v1::RenewCertificate) -> Outcome {
        let old = self.state.certificates.get(&message.name);
        let old = old.ok_or_else(|| unknown(&message.name))?;
        if old.source == Source::Uploaded {
            let text = format!("`{}` was uploaded: it is renewed by hand", old.name);
            return Err(Problem::new(Code::Conflict, text)
                .at("name")
                .hint("`skep certificates add` replaces it"));
        }
        let certificate = Certificate {
            is_asked: true,
            failures: 0,
            next_ms: 0,
            ..(**old).clone()
        };
        self.put(certificate);
        Ok(Reply::Done)
    }

    pub(super) fn remove_certificate(&mut self, message: &v1::RemoveCertificate) -> Outcome {
        let old = self.state.certificates.get(&message.name);
        let is_kept =
            |old: &Arc<Certificate>| message.only_issued && old.source == Source::Uploaded;
        match old {
            None if message.only_issued => Ok(Reply::Done),
            None => Err(unknown(&message.name)),
            Some(old) if is_kept(old) => Ok(Reply::Done),
            Some(_) => {
                self.state.certificates.remove(&message.name);
                self.changes.push(Change::Certificates);
                Ok(Reply::Done)
            }
        }
    }

    pub(super) fn put_challenges(&mut self, message: v1::PutChallenges) -> Outcome {
        let challenges = message.challenges.into_iter().map(understood);
        let challenges: Vec<Challenge> = challenges.collect::<Result<_, _>>()?;
        let is_long = |it: &Challenge| {
            let texts = [&it.host, &it.token, &it.key_authorization];
            texts
                .iter()
                .any(|text| text.is_empty() || text.len() > MAX_CHALLENGE_BYTES)
        };
        if challenges.iter().any(is_long) {
            return Err(missing("challenges"));
        }
        self.forget_challenges(&[]);
        if self.state.challenges.len() + challenges.len() > MAX_CHALLENGES {
            let text = format!(
                "there are {} challenges already",
                self.state.challenges.len()
            );
            return Err(
                Problem::new(Code::TooLarge, text).hint("they end by themselves in minutes")
            );
        }
        for challenge in challenges {
            let token = challenge.token.clone();
            self.state.challenges.insert(token, Arc::new(challenge));
        }
        self.changes.push(Change::Challenges);
        Ok(Reply::Done)
    }

    pub(super) fn remove_challenges(&mut self, message: &v1::RemoveChallenges) -> Outcome {
        self.forget_challenges(&message.tokens);
        self.changes.push(Change::Challenges);
        Ok(Reply::Done)
    }

    pub(super) fn set_local_ca(&mut self, message: v1::SetLocalCa) -> Outcome {
        let ca: Option<LocalCa> = message.ca.map(understood).transpose()?;
        if let Some(ca) = &ca {
            let is_odd = ca.cert_pem.is_empty()
                || ca.cert_pem.len() > MAX_CHAIN_BYTES
                || ca.key.0.is_empty()
                || ca.key.0.len() > MAX_KEY_BYTES;
            if is_odd {
                return Err(missing("ca"));
            }
            if self.state.local_ca.is_some() {
                return Err(Problem::new(Code::Conflict, "there is a local CA already")
                    .hint("`skep certificates ca` shows it"));
            }
        }
        let made_ms = self.state.time_ms;
        self.state.local_ca = ca.map(|ca| Arc::new(LocalCa { made_ms, ..ca }));
        self.changes.push(Change::Certificates);
        Ok(Reply::Done)
    }

    pub(super) fn put_dns_record(&mut self, message: v1::PutDnsRecord) -> Outcome {
        let record = message.record.ok_or_else(|| missing("record"))?;
        let record: DnsRecord = understood(record)?;
        let texts = [&record.name, &record.value];
        if texts
            .iter()
            .any(|it| it.is_empty() || it.len() > MAX_CHALLENGE_BYTES)
        {
            return Err(missing("record"));
        }
        check_access(&record.access)?;
        let key = record.key();
        let is_new = !self.state.dns_records.contains_key(&key);
        if is_new && self.state.dns_records.len() >= MAX_DNS_RECORDS {
            let text = format!("{MAX_DNS_RECORDS} records in DNS are to be taken away first");
            return Err(Problem::new(Code::TooLarge, text)
                .hint("the leader's log says why they are still there"));
        }
        self.state.dns_records.insert(key, Arc::new(record));
        self.changes.push(Change::Certificates);
        Ok(Reply::Done)
    }

    pub(super) fn remove_dns_record(&mut self, message: v1::RemoveDnsRecord) -> Outcome {
        let key = (message.name, message.value);
        if self.state.dns_records.remove(&key).is_some() {
            self.changes.push(Change::Certificates);
        }
        Ok(Reply::Done)
    }

    /// These, and those whose time is over.
    fn forget_challenges(&mut self, tokens: &[String]) {
        let now_ms = self.state.time_ms;
        let all = self.state.challenges.values();
        let over = all.filter(|it| it.expires_ms <= now_ms || tokens.contains(&it.token));
        let over: Vec<String> = over.map(|it| it.token.clone()).collect();
        for token in over {
            self.state.challenges.remove(&token);
        }
    }

    fn check_room(&self, certificate: &Certificate) -> Result<(), Problem> {
        let all = self.state.certificates.values();
        let others = all.filter(|it| it.name != certificate.name);
        let (count, bytes) =
            others.fold((0, 0), |(count, bytes), it| (count + 1, bytes + it.bytes()));
        if count < MAX_CERTIFICATES && bytes + certificate.bytes() <= MAX_TOTAL_BYTES {
            return Ok(());
        }
        let text = format!("there are {count} certificates of {bytes} bytes already");
        let hint = format!(
            "at most {MAX_CERTIFICATES}, and {MAX_TOTAL_BYTES} bytes; a wildcard stands for many hosts"
        );
        Err(Problem::new(Code::TooLarge, text).hint(hint))
    }

    fn put(&mut self, certificate: Certificate) {
        let name = certificate.name.clone();
        self.state.certificates.insert(name, Arc::new(certificate));
        self.changes.push(Change::Certificates);
    }
}

fn check_material(certificate: &Certificate) -> Result<(), Problem> {
    let material = certificate.material.as_ref();
    let material = material.ok_or_else(|| missing("chain_pem"))?;
    let name_bytes: usize = material.names.iter().map(String::len).sum();
    let is_fit = material.chain_pem.len() <= MAX_CHAIN_BYTES
        && material.key.0.len() <= MAX_KEY_BYTES + SEALING_BYTES
        && (1..=MAX_NAMES).contains(&material.names.len())
        && name_bytes <= MAX_CHAIN_BYTES;
    if is_fit {
        return Ok(());
    }
    let text = "the certificate, its key or its list of names is too long";
    let hint =
        format!("at most {MAX_CHAIN_BYTES} bytes, {MAX_KEY_BYTES} bytes and {MAX_NAMES} names");
    Err(Problem::new(Code::TooLarge, text).hint(hint))
}

fn unknown(name: &str) -> Problem {
    let text = format!("there is no certificate `{}`", name.escape_debug());
    Problem::new(Code::NotFound, text)
        .at("name")
        .hint("`skep certificates ls` lists those that there are")
}

/// The beginning of a text, whole characters.
fn cut(mut text: String, max_bytes: usize) -> String {
    while text.len() > max_bytes {
        text.pop();
    }
    text
}
