//! Which certificates there are, and for which hosts some are wanted: everything follows from the state.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_model::certificate::{
    Certificate, Challenge, Due, Issuer, MAX_CERTIFICATES, MAX_TOTAL_BYTES, decide, is_certifiable,
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

    /// Hosts at which services answer, and that an issuer can be asked for.
    pub fn certifiable_hosts(&self) -> BTreeSet<String> {
        let served = self.services.values();
        let served =
            served.filter(|it| it.spec.takes_traffic() && !it.removing && it.target().is_some());
        let hosts = served.flat_map(|service| {
            let own = service.spec.shown_hosts().into_iter().map(str::to_owned);
            let generated = service.spec.is_routed().then(|| self.host_of(service));
            own.chain(generated)
        });
        hosts.filter(|host| is_certifiable(host)).collect()
    }

    /// What is to be ordered and forgotten at `now_ms`; nothing while nobody issues.
    pub fn due_certificates(&self, now_ms: u64) -> Due {
        let Some(issuer) = &self.issuer else {
            return Due::default();
        };
        let wanted = self.certifiable_hosts();
        // A host that was given up may come back within its time.
        let kept = self.claims.keys().cloned().collect();
        let have = self
            .certificates
            .iter()
            .map(|(name, it)| (name.as_str(), &**it));
        let mut due = decide(&wanted, &kept, have, (&issuer.directory, now_ms));
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
