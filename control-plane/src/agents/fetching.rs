//! As whom a node fetches what it builds, where a GitHub App of the service's workspace sees the repository: by a token
//! that reads this one repository and ends by itself. An order waits until its token is there; where there is none, it
//! goes out without one, and its log says why: the repository may be anybody's to read.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use skep_model::assignment::BuildOrder;
use skep_model::deployment::Origin;
use skep_model::id::DeploymentId;
use skep_state::State;
use zeroize::Zeroizing;

use super::service::Shared;
use crate::forges::{AppLogin, app_login};

/// A token, or why there is none; empty until somebody knows.
type Answer = Arc<OnceLock<Result<Zeroizing<String>, String>>>;

/// What a session knows of the logins of builds. Owned by one session.
#[derive(Default)]
pub(super) struct BuildLogins {
    answers: BTreeMap<DeploymentId, Answer>,
}

/// A token that is to be asked for.
pub(super) struct Wanting {
    deployment: DeploymentId,
    login: AppLogin,
    answer: Answer,
}

impl BuildLogins {
    /// What is to be asked for these orders that has not been.
    pub(super) fn wanting<'a>(
        &mut self,
        view: &State,
        orders: impl Iterator<Item = &'a BuildOrder>,
    ) -> Vec<Wanting> {
        let mut answers = BTreeMap::new();
        let mut wanting = Vec::new();
        for order in orders {
            let Some(login) = login_of(view, order) else {
                continue;
            };
            let known = self.answers.remove(&order.deployment);
            let answer = known.unwrap_or_else(|| {
                let answer = Answer::default();
                wanting.push(Wanting {
                    deployment: order.deployment,
                    login,
                    answer: Arc::clone(&answer),
                });
                answer
            });
            answers.insert(order.deployment, answer);
        }
        // Of builds that are no more nothing is remembered.
        self.answers = answers;
        wanting
    }

    /// Puts into an order what is known; false: it has to wait.
    pub(super) fn complete(&self, order: &mut BuildOrder) -> bool {
        match self.answers.get(&order.deployment).map(|it| it.get()) {
            None | Some(Some(Err(_))) => true,
            Some(None) => false,
            Some(Some(Ok(token))) => {
                AppLogin::put(token, &mut order.fetch, &mut order.variables);
                true
            }
        }
    }
}

fn login_of(view: &State, order: &BuildOrder) -> Option<AppLogin> {
    let Origin::Git { repository, .. } = &order.origin else {
        return None;
    };
    app_login(view, (order.workspace?, repository), &order.fetch)
}

impl Wanting {
    /// Asks, and says so in the build's log where there is no answer.
    pub(super) async fn settle(self, shared: &Shared) {
        shared.tokens.learn(&shared.store.view());
        let outcome = self.login.fresh(&shared.tokens).await;
        if let Err(why) = &outcome {
            tracing::warn!(deployment = %self.deployment, why, "a build has no token of its GitHub App");
            let line = format!("{why}; the repository is fetched as anybody can");
            let run = skep_identity::random::new_id();
            let kept = shared
                .history
                .build_lines(self.deployment, run, 0, vec![line]);
            // A history that cannot be written never holds the cluster up.
            let _ = kept.await;
        }
        let _ = self.answer.set(outcome);
    }
}
