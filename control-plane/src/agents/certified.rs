//! What a node was told of certificates and challenges, and what it has to be told next: each list whole, where it is
//! another one than before.

use std::sync::Arc;

use skep_model::certificate::{Certificate, Challenge};
use skep_proto::v1;
use skep_proto::v1::to_agent::Kind;
use skep_state::{Cluster, State};

use crate::secrets::Secrets;

/// What one node was told last; none: nothing in this session. Its data plane may hold more than there is now, so that
/// an empty list is news, too.
#[derive(Default)]
pub(super) struct Certified {
    /// Those that can be shown.
    certificates: Option<Vec<Arc<Certificate>>>,
    /// And whether there is an issuer.
    challenges: Option<(Vec<Arc<Challenge>>, bool)>,
}

impl Certified {
    /// What to say now; afterwards it counts as told. Challenges first: somebody waits for them.
    pub(super) fn tell(&mut self, view: &State, cluster: &Cluster, secrets: &Secrets) -> Vec<Kind> {
        let challenges = self.tell_challenges(view, cluster);
        challenges
            .into_iter()
            .chain(self.tell_certificates(view, secrets))
            .collect()
    }

    fn tell_challenges(&mut self, view: &State, cluster: &Cluster) -> Option<Kind> {
        let now = (
            view.challenges().cloned().collect::<Vec<_>>(),
            view.issuer().is_some(),
        );
        if self.challenges.as_ref() == Some(&now) {
            return None;
        }
        let list = v1::ChallengeList {
            challenges: now.0.iter().map(|it| (&**it).into()).collect(),
            has_issuer: now.1,
            // What is acknowledged is all of this view.
            revision: view.index(),
            incarnation: cluster.incarnation,
        };
        self.challenges = Some(now);
        Some(Kind::Challenges(list))
    }

    /// One whose key cannot be opened is left out: the ingress then shows what it shows for unknown names.
    fn tell_certificates(&mut self, view: &State, secrets: &Secrets) -> Option<Kind> {
        let shown = view.certificates().filter(|it| it.material.is_some());
        let now: Vec<_> = shown.cloned().collect();
        let is_same = self.certificates.as_ref().is_some_and(|told| {
            told.len() == now.len()
                && told
                    .iter()
                    .zip(&now)
                    .all(|(told, now)| is_shown_alike(told, now))
        });
        if is_same {
            return None;
        }
        let opened = now.iter().filter_map(|it| {
            let material = it.material.as_ref()?;
            let key = secrets.open_certificate(&it.name, &material.key);
            let key = key.inspect_err(|problem| {
                tracing::error!(name = %it.name, %problem, "a certificate cannot be sent to a node");
            });
            Some(v1::CertificateWithKey {
                chain: material.chain_pem.clone(),
                key: key.ok()?,
            })
        });
        let list = v1::CertificateList {
            certificates: opened.collect(),
        };
        self.certificates = Some(now);
        Some(Kind::Certificates(list))
    }
}

/// A failed attempt changes nothing of what is shown.
fn is_shown_alike(told: &Arc<Certificate>, now: &Arc<Certificate>) -> bool {
    Arc::ptr_eq(told, now) || (told.name == now.name && told.material == now.material)
}
