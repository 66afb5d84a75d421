//! The leader's questions to the repositories and registries of services, by nodes that build: what nobody has told of
//! is found and deployed. What is asked when and what an answer means is `polling`'s to say.

use std::time::Duration;

use skep_identity::random;
use skep_model::assignment::BuildVariable;
use skep_model::build::Fetch;
use skep_model::deployment::Trigger;
use skep_model::id::{DeploymentId, NodeId};
use skep_model::polling::{Ask, Found, MAX_WANTS, Want};
use skep_model::problem::Problem;
use skep_model::registry;
use skep_model::service::Service;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::v1::take_delivery::Wanted;
use skep_state::{Change, State};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::api::queued;
use crate::forges::{AppLogin, app_login};
use crate::logins;
use crate::polling::images::{self, Look};
use crate::polling::{Book, Question, Step, meaning, node_for};
use crate::secrets::Secrets;
use crate::store::now_ms;
use crate::variables::Environment;

/// Questions under way: nodes take a few at a time, and the rest is asked as they end.
const ASKS_MAX: usize = 32;
/// Longest sleep: what a missed change costs.
const PERIOD: Duration = Duration::from_secs(30);
/// Least time from one look at all services to the next.
const GAP: Duration = Duration::from_millis(500);

/// One question to one repository for all services that have the same login there.
struct Round {
    node: NodeId,
    ask: Ask,
    /// Whose each of the question's wants is.
    questions: Vec<Question>,
    /// As whom, where a GitHub App of the workspace sees the repository.
    login: Option<AppLogin>,
}

/// What came of a question.
enum Answer {
    /// Of a repository.
    Round(Vec<Question>, Option<Found>),
    /// Of an image's registry.
    Look(Look, Option<registry::Found>),
}

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut changes = parts.store.consensus().changes();
    let mut book = Book::new(now_ms(), parts.asked.clone());
    let mut asks: JoinSet<Answer> = JoinSet::new();
    let mut wake_at = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(wake_at) => wake_at = begin(parts, &mut book, &mut asks),
            Some(done) = asks.join_next() => {
                // There is room for another one.
                wake_at = wake_at.min(Instant::now() + GAP);
                match done {
                    Ok(Answer::Round(questions, Some(found))) => take(parts, &questions, &found).await,
                    Ok(Answer::Look(look, Some(found))) => take_image(parts, &look, &found).await,
                    // It is asked again after its pause.
                    _ => {}
                }
            }
            batch = changes.recv() => match batch {
                Ok(batch) if !batch.changes.iter().any(|it| matches!(it, Change::Service(_))) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => wake_at = wake_at.min(Instant::now() + GAP),
                Err(RecvError::Closed) => return,
            },
            () = token.cancelled() => return,
        }
    }
}

/// Asks for whoever is due; answers when to look again.
fn begin(parts: &Parts, book: &mut Book, asks: &mut JoinSet<Answer>) -> Instant {
    let view = parts.store.view();
    let now = now_ms();
    let (due, next_ms) = book.due(&view, now);
    parts.tokens.learn(&view);
    for round in rounds(&view, &parts.secrets, due) {
        if asks.len() >= ASKS_MAX {
            // The end of one wakes it.
            return Instant::now() + PERIOD;
        }
        for question in &round.questions {
            book.ask(question.service, now);
        }
        let (relay, tokens) = (parts.relay.clone(), parts.tokens.clone());
        asks.spawn(async move {
            let mut ask = round.ask;
            if let Some(login) = round.login {
                match login.token(&tokens).await {
                    Ok(token) => AppLogin::put(&token, &mut ask.fetch, &mut ask.variables),
                    // It may be anybody's to read.
                    Err(why) => tracing::warn!(
                        repository = ask.repository,
                        why,
                        "a repository is asked as nobody"
                    ),
                }
            }
            let found = relay.ask_source(round.node, ask).await;
            Answer::Round(round.questions, found)
        });
    }
    let (due, next_image_ms) = book.due_images(&view, now);
    for look in due {
        if asks.len() >= ASKS_MAX {
            return Instant::now() + PERIOD;
        }
        // Nobody to ask: it is due again at the next look.
        let Some(node) = node_for(&view, (look.service, &look.image)) else {
            continue;
        };
        book.ask(look.service, now);
        let ask = question(&view, &parts.secrets, &look);
        let relay = parts.relay.clone();
        asks.spawn(async move {
            let found = relay.ask_registry(node, ask).await;
            Answer::Look(look, found)
        });
    }
    let next_ms = next_ms.into_iter().chain(next_image_ms).min();
    let pause = next_ms.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now)));
    Instant::now() + pause.unwrap_or(PERIOD).clamp(GAP, PERIOD)
}

/// One round for each repository, login and node. Who has no node to ask, or a login that cannot be opened, is due
/// again at the next look.
fn rounds(view: &State, secrets: &Secrets, due: Vec<Question>) -> Vec<Round> {
    let mut rounds: Vec<Round> = Vec::new();
    for question in due {
        let Some(service) = view.service(question.service) else {
            continue;
        };
        let Some(node) = node_for(view, (question.service, &question.repository)) else {
            continue;
        };
        let (fetch, variables) = match login(view, secrets, service) {
            Ok(login) => login,
            Err(problem) => {
                tracing::warn!(service = service.name, %problem, "its repository cannot be asked");
                continue;
            }
        };
        let want: Want = question.want.clone();
        let workspace = view.workspace_of(service.environment);
        let repository = question.repository.as_str();
        let login = workspace.and_then(|it| app_login(view, (it, repository), &fetch));
        let same = rounds.iter_mut().find(|it| {
            let ask = &it.ask;
            it.node == node
                && it.login == login
                && ask.wants.len() < MAX_WANTS
                && (&ask.repository, &ask.fetch, &ask.variables)
                    == (&question.repository, &fetch, &variables)
        });
        match same {
            Some(round) => {
                round.ask.wants.push(want);
                round.questions.push(question);
            }
            None => rounds.push(Round {
                node,
                ask: Ask {
                    repository: question.repository.clone(),
                    fetch,
                    variables,
                    wants: vec![want],
                    read: None,
                },
                questions: vec![question],
                login,
            }),
        }
    }
    rounds
}

/// As whom a service's repository is asked: its login, and the variables that this names and no others.
fn login(
    view: &State,
    secrets: &Secrets,
    service: &Service,
) -> Result<(Fetch, Vec<BuildVariable>), Problem> {
    let fetch = Fetch {
        submodules: false,
        lfs: false,
        ..service.spec.fetch.clone()
    };
    let around = Environment::around(view, secrets, (service, None));
    let resolved = around.resolve(service);
    let all = resolved.as_ref().unwrap_or(&service.variables).iter();
    let named =
        all.filter(|(name, _)| [&fetch.ssh_key, &fetch.token].contains(&&Some((*name).clone())));
    let opened = named.map(|(name, variable)| {
        Ok(BuildVariable {
            name: name.clone(),
            value: secrets.open_variable(service.id, name, variable)?,
            secret: variable.secret,
        })
    });
    let variables = opened.collect::<Result<_, Problem>>()?;
    Ok((fetch, variables))
}

/// Remembers what was found, and deploys what calls for it, each in one command.
async fn take(parts: &Parts, questions: &[Question], found: &Found) {
    for (at, question) in questions.iter().enumerate() {
        let view = parts.store.view();
        let Some(step) = meaning(&view, question, (at, found)) else {
            continue;
        };
        let service = question.service;
        match (&step.polled.problem, &step.deploy) {
            (Some(problem), _) => {
                tracing::warn!(%service, %problem, "a service's repository cannot be asked for what is new");
            }
            (None, Some((_, why))) => tracing::info!(%service, why, "a push that no forge told of"),
            (None, None) => {}
        }
        // What is not taken now is found again at the next look.
        if let Err(problem) = parts.store.propose(command(step)).await {
            tracing::warn!(%service, %problem, "what was found in a repository was not taken");
        }
    }
}

/// What a node is asked of an image, as whom the service's workspace pulls it.
fn question(view: &State, secrets: &Secrets, look: &Look) -> registry::Ask {
    let service = view.service(look.service);
    let workspace = service.and_then(|it| view.workspace_of(it.environment));
    registry::Ask {
        host: look.host.clone(),
        repository: look.repository.clone(),
        access: logins::pull(view, secrets, (workspace, &look.host)),
        wanted: registry::Wanted::Digest {
            tag: look.tag.clone(),
        },
    }
}

/// The same of an image.
async fn take_image(parts: &Parts, look: &Look, found: &registry::Found) {
    let Some(step) = images::meaning(&parts.store.view(), look, found) else {
        return;
    };
    let (service, image) = (look.service, &look.image);
    match (&step.polled.problem, &step.deploy) {
        (Some(problem), _) => {
            tracing::warn!(%service, image, %problem, "a registry cannot be asked for what is new");
        }
        (None, Some((_, why))) => tracing::info!(%service, why, "a tag has moved"),
        (None, None) => {}
    }
    // What is not taken now is found again at the next look.
    if let Err(problem) = parts.store.propose(command(step)).await {
        tracing::warn!(%service, %problem, "what was found at a registry was not taken");
    }
}

fn command(step: Step) -> Kind {
    let service = step.polled.service;
    let wanted = step.deploy.map(|(origin, _)| {
        let id = DeploymentId::from_u128(random::new_id());
        Wanted {
            deployment: Some((&queued(id, service, (Trigger::Poll, origin))).into()),
            delivery: None,
            once_per_commit: true,
        }
    });
    Kind::TakePolled(v1::TakePolled {
        polled: Some((&step.polled).into()),
        wanted,
    })
}
