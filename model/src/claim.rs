//! Whose a host is. A project claims a host with the first route on it, and nobody else gets it while it
//! has one; for a time after the last is gone only that project may take it again. Owns what may be
//! claimed at all; who claimed what is in the replicated state.

use crate::id::ProjectId;
use crate::problem::{Code, Problem};

/// How long a host that was given up stays its project's, in ms: long enough to notice that it was a
/// mistake, and for what others have of it (bookmarks, certificates, DNS) not to be taken over at once.
pub const GRACE_MS: u64 = 24 * 3_600_000;
/// Most hosts of one project, those that it gave up within [`GRACE_MS`] included.
pub const MAX_PER_PROJECT: usize = 5_000;
/// Labels that mean the platform itself under its own domain: nobody may answer there in its name.
pub const RESERVED: [&str; 30] = [
    "account",
    "admin",
    "api",
    "auth",
    "autoconfig",
    "autodiscover",
    "console",
    "dashboard",
    "ftp",
    "git",
    "imap",
    "login",
    "mail",
    "mta-sts",
    "mx",
    "ns",
    "ns1",
    "ns2",
    "ns3",
    "ns4",
    "pop",
    "registry",
    "root",
    "skep",
    "smtp",
    "sso",
    "status",
    "traefik",
    "webmail",
    "www",
];

/// A host that a project has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Exact, or `*.` and a domain: that is a host of its own, and does not own what is below it.
    pub host: String,
    /// Whose it is.
    pub project: ProjectId,
    /// Since when, cluster time in ms since the epoch.
    pub since_ms: u64,
    /// When its last route went; none: it has one.
    pub released_ms: Option<u64>,
}

impl Claim {
    /// Until when it is kept for its project, where it has no route.
    pub fn free_ms(&self) -> Option<u64> {
        self.released_ms.map(|at_ms| at_ms.saturating_add(GRACE_MS))
    }

    /// Whether anybody may take it.
    pub fn is_free(&self, now_ms: u64) -> bool {
        self.free_ms().is_some_and(|free_ms| free_ms <= now_ms)
    }
}

/// Begins the name of the record in DNS that proves a domain to be a project's.
const PROOF_LABEL: &str = "_skep";

/// Names in DNS of which one has to name the project that claims `host`: the host's own, and those of the domains
/// above it but for the top one. Whoever writes there owns what is below.
pub fn proof_names(host: &str) -> Vec<String> {
    let host = host.strip_prefix("*.").unwrap_or(host);
    let mut names = vec![format!("{PROOF_LABEL}.{host}")];
    let mut at = host;
    while let Some((_, parent)) = at.split_once('.')
        && parent.contains('.')
    {
        names.push(format!("{PROOF_LABEL}.{parent}"));
        at = parent;
    }
    names
}

/// Text of the record that proves a domain to be a project's. It is no secret.
pub fn proof_of(project: ProjectId) -> String {
    format!("skep-project={project}")
}

/// Whether a host may be claimed at all where generated names end in `base`.
///
/// # Errors
/// It would stand for the platform, or for names that the platform gives.
pub fn check_claimable(host: &str, base: &str) -> Result<(), Problem> {
    let refused = |text: String, hint: String| Err(Problem::new(Code::Conflict, text).hint(hint));
    let Some(label) = host
        .strip_suffix(base)
        .and_then(|rest| rest.strip_suffix('.'))
    else {
        return Ok(());
    };
    if label == "*" {
        let text = format!("`{host}` would take every name that this cluster gives");
        return refused(
            text,
            format!("one name: NAME.{base}, or a domain of your own"),
        );
    }
    if label.contains('.') {
        let text = format!("`{host}` is more than one label below `{base}`");
        return refused(
            text,
            format!("one label: NAME.{base}, or a domain of your own"),
        );
    }
    if RESERVED.contains(&label) {
        let text = format!("`{label}` is kept for the platform under `{base}`");
        return refused(
            text,
            format!("another name below {base}, or a domain of your own"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_the_base_domain_any_free_label_but_those_of_the_platform() {
        for host in [
            "shop.apps.test",
            "apps.test",
            "www.example.com",
            "*.example.com",
            "www.myapps.test",
            "a.b.example.com",
        ] {
            assert_eq!(check_claimable(host, "apps.test"), Ok(()), "{host}");
        }
        for host in [
            "www.apps.test",
            "*.apps.test",
            "a.b.apps.test",
            "*.a.apps.test",
        ] {
            let problem = check_claimable(host, "apps.test").expect_err(host);
            assert_eq!(problem.code, Code::Conflict);
            assert!(problem.hint.is_some());
        }
        let mut sorted = RESERVED;
        sorted.sort_unstable();
        assert_eq!(sorted, RESERVED);
    }

    #[test]
    fn a_domain_is_proved_at_the_host_or_above_it_but_not_at_the_top() {
        let names = |host| proof_names(host).join(" ");
        assert_eq!(
            names("a.shop.example.com"),
            "_skep.a.shop.example.com _skep.shop.example.com _skep.example.com"
        );
        assert_eq!(names("*.example.com"), "_skep.example.com");
        assert_eq!(names("localhost"), "_skep.localhost");
    }

    #[test]
    fn a_claim_is_free_when_its_grace_is_over() {
        let claim = |released_ms| Claim {
            host: "a".into(),
            project: ProjectId::from_u128(1),
            since_ms: 1,
            released_ms,
        };
        assert!(!claim(None).is_free(u64::MAX));
        assert!(!claim(Some(5)).is_free(GRACE_MS + 4));
        assert!(claim(Some(5)).is_free(GRACE_MS + 5));
    }
}
