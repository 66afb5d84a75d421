//! Which certificates there are, and for which hosts some are wanted: everything follows from the state.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_model::certificate::{
    Certificate, Challenge, ChallengeKind, DnsRecord, Due, Issuer, LocalCa, MAX_CERTIFICATES,
    MAX_TOTAL_BYTES, Wanted, by_wildcards, decide, is_certifiable, is_local,
};

use crate::state::State;

/// What the orders under way may add, in bytes: issued chains have some KiB.
const RESERVE_BYTES: usize = 256 << 10;

impl State {
    /// Who issues certificates for apps; none: nobody.
    pub fn issuer(&self) -> Option<&Arc<Issuer>> {
        self.issuer.as_ref()
    }

    /// Every certificate, by name; those that could not be had yet included.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.certificates.values()
    }

    /// One of them.
    pub fn certificate(&self, name: &str) -> Option<&Arc<Certificate>> {
        self.certificates.get(name)
    }

    /// What is to be proved to the issuer just now.
    pub fn challenges(&self) -> impl Iterator<Item = &Arc<Challenge>> {
        self.challenges.values()
    }

    /// Records in other people's zones that are to be taken away once nobody needs them.
    pub fn dns_records(&self) -> impl Iterator<Item = &Arc<DnsRecord>> {
        self.dns_records.values()
    }

    /// Who issues for private names; none: nobody.
    pub fn local_ca(&self) -> Option<&Arc<LocalCa>> {
        self.local_ca.as_ref()
    }

    /// Hosts for which certificates are wanted, by whom: the issuer, where a zone proves by wildcards for those that
    /// these stand for, and the local CA.
    pub fn certifiable_hosts(&self) -> Wanted {
        let served = self.services.values();
        let served =
            served.filter(|it| it.spec.takes_traffic() && !it.removing && it.target().is_some());
        let hosts = served.flat_map(|service| {
            let own = service.spec.shown_hosts().into_iter().map(str::to_owned);
            let generated = service.spec.is_routed().then(|| self.host_of(service));
            own.chain(generated)
        });
        let hosts: BTreeSet<String> = hosts.collect();
        let mut wanted = Wanted::new();
        if let Some(issuer) = &self.issuer {
            let found = match issuer.challenge {
                ChallengeKind::Dns01 => by_wildcards(&hosts, self.base_domains()),
                ChallengeKind::Http01 | ChallengeKind::TlsAlpn01 => {
                    let single = hosts.iter().filter(|host| is_certifiable(host));
                    single.cloned().collect()
                }
            };
            let directory = |host| (host, issuer.directory.clone());
            wanted.extend(found.into_iter().map(directory));
        }
        if let Some(ca) = &self.local_ca {
            let local = hosts.into_iter().filter(|host| is_local(host));
            wanted.extend(local.map(|host| (host, ca.directory())));
        }
        wanted
    }

    /// What is to be ordered and forgotten at `now_ms`; nothing while nobody issues.
    pub fn due_certificates(&self, now_ms: u64) -> Due {
        if self.issuer.is_none() && self.local_ca.is_none() {
            return Due::default();
        }
        let wanted = self.certifiable_hosts();
        // A host that was given up may come back within its time. What nobody issues any more is shown to its end.
        let mut kept: BTreeSet<String> = self.claims.keys().cloned().collect();
        let is_left = |it: &&Arc<Certificate>| match is_local(&it.name) {
            true => self.local_ca.is_none(),
            false => self.issuer.is_none(),
        };
        let left = self.certificates.values().filter(is_left);
        kept.extend(left.map(|it| it.name.clone()));
        let have = self
            .certificates
            .iter()
            .map(|(name, it)| (name.as_str(), &**it));
        let mut due = decide(&wanted, &kept, have, now_ms);
        self.leave_out(&mut due);
        due
    }

    /// A certificate that cannot be kept is not ordered: the issuer would be asked for it for ever.
    fn leave_out(&self, due: &mut Due) {
        let bytes: usize = self.certificates.values().map(|it| it.bytes()).sum();
        let mut room = match bytes + RESERVE_BYTES <= MAX_TOTAL_BYTES {
            true => MAX_CERTIFICATES.saturating_sub(self.certificates.len()),
            false => 0,
        };
        let all = due.order.len();
        due.order.retain(|host| {
            let is_new = !self.certificates.contains_key(host);
            let has_place = !is_new || room > 0;
            room = room.saturating_sub(usize::from(is_new));
            has_place
        });
        due.without_room = all - due.order.len();
    }
}
