//! What an event at a forge means for a service. Pure: a view, a service and an event in, one effect out.
//! Makes nothing; what does is `api::hooks`.

use skep_forge::{Action, Asked, Change, Commit, Event, Rules, Tag, Verdict, clean};
use skep_model::deployment::{Deployment, Origin, Status};
use skep_model::id::DeploymentId;
use skep_model::problem::Problem;
use skep_model::service::Service;
use skep_model::spec::{self, Source};
use skep_state::State;

use crate::deploy::gate::waits_for_checks;

/// What is to be done about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The forge wants to know whether anybody is there.
    Pong,
    /// A deployment of this, and why.
    Deploy(Origin, String),
    /// Nothing, and why.
    Nothing(String),
    /// Nothing, and whoever sent it is to change it.
    Refuse(Problem),
}

/// A service's git source.
#[derive(Debug, Clone, Copy)]
struct Git<'a> {
    repository: &'a str,
    branch: &'a str,
    directory: &'a str,
}

impl Git<'_> {
    /// The service's own repository, never one that a payload names.
    fn at(self, commit: Option<&Commit>) -> Origin {
        Origin::Git {
            repository: self.repository.to_owned(),
            branch: self.branch.to_owned(),
            commit: commit.map(|commit| commit.as_str().to_owned()),
            directory: self.directory.to_owned(),
        }
    }
}

/// What this event means for this service.
pub(crate) fn effects(view: &State, service: &Service, event: &Event) -> Effect {
    let git = match &service.spec.source {
        Some(Source::Git {
            repository,
            branch,
            directory,
        }) => Some(Git {
            repository,
            branch,
            directory,
        }),
        _ => None,
    };
    match (event, git) {
        (Event::Ping, _) => Effect::Pong,
        (Event::Other(_), _) => Effect::Nothing(format!("nothing is done about {}", event.shown())),
        // Whoever waits for them is looked at: `waiting_for`.
        (Event::Checks(_), _) => Effect::Nothing("no deployment waits for it".to_owned()),
        (Event::Push(_) | Event::Tag(_) | Event::Asked(_), _)
            if view.stack_around(service).is_some() =>
        {
            Effect::Nothing("its stack decides: the Compose file is read again".to_owned())
        }
        (Event::Asked(asked), git) => of_request(service, git, asked),
        (_, None) => Effect::Nothing("the service has no git source".to_owned()),
        (Event::Push(push), Some(git)) => {
            let found = match rules(service, git).of_push(push) {
                Verdict::Untouched(why) => unless_behind(view, service, why),
                verdict => verdict,
            };
            carried_out(found, git, &push.after)
        }
        (Event::Tag(tag), Some(git)) => {
            carried_out(rules(service, git).of_tag(tag), git, &tag.commit)
        }
        // What a pull request means for an environment that has previews, `crate::previews` says.
        (Event::Change(_) | Event::BranchDeleted(_) | Event::TagDeleted(_), Some(_)) => {
            Effect::Nothing(not_yet(event))
        }
    }
}

/// The deployments of a service that wait for the checks of this commit.
pub(crate) fn waiting_for(view: &State, service: &Service, commit: &Commit) -> Vec<DeploymentId> {
    let is_meant = |deployment: &Deployment| {
        deployment.commit() == Some(commit.as_str()) && waits_for_checks(service, deployment)
    };
    let all = view.deployments_of(service.id).filter(|it| is_meant(it));
    all.map(|deployment| deployment.id).collect()
}

fn rules<'a>(service: &'a Service, git: Git<'a>) -> Rules<'a> {
    Rules {
        branch: git.branch,
        directory: git.directory,
        pushes: &service.spec.pushes,
    }
}

fn carried_out(verdict: Verdict, git: Git<'_>, commit: &Commit) -> Effect {
    match verdict {
        Verdict::Deploy(why) => Effect::Deploy(git.at(Some(commit)), why),
        Verdict::Skip(why) | Verdict::Untouched(why) => Effect::Nothing(why),
    }
}

/// A push that touches nothing says that what is deployed is up to date, where anything is: what came before
/// may have touched something and failed.
fn unless_behind(view: &State, service: &Service, why: String) -> Verdict {
    let newest = view
        .deployments_of(service.id)
        .filter(|of| matches!(of.origin, Origin::Git { .. }))
        .max_by_key(|of| (of.status.is_active(), of.created_ms, of.id));
    match newest.map(|of| of.status) {
        None => Verdict::Deploy(format!("{why}, but it was never deployed from git")),
        Some(Status::Failed | Status::Canceled) => Verdict::Deploy(format!(
            "{why}, but its last deployment from git did not end well"
        )),
        Some(_) => Verdict::Untouched(why),
    }
}

fn not_yet(event: &Event) -> String {
    match event {
        Event::BranchDeleted(_) | Event::TagDeleted(_) => {
            format!(
                "it was deleted: nothing is done about the {}",
                event.shown()
            )
        }
        Event::Change(change) => format!(
            "pull request {} was {}: its environment says nothing of previews",
            change.number,
            done(change)
        ),
        other => format!("nothing is done about {}", other.shown()),
    }
}

/// What was done to a pull request, in words.
pub(crate) fn done(change: &Change) -> String {
    match &change.action {
        Action::Opened => "opened".to_owned(),
        Action::Synchronized => "pushed to".to_owned(),
        Action::Reopened => "reopened".to_owned(),
        Action::Closed { merged: true } => "merged".to_owned(),
        Action::Closed { merged: false } => "closed".to_owned(),
        Action::Edited => "edited".to_owned(),
        Action::Labelled => "labelled".to_owned(),
        Action::Other(name) => clean(name),
    }
}

/// A signed request of no forge. It may choose among what the service deploys already, and nothing else.
fn of_request(service: &Service, git: Option<Git<'_>>, asked: &Asked) -> Effect {
    if let Some(image) = &asked.image {
        return of_image(service, image);
    }
    let Some(git) = git else {
        let text = "the service has no git source";
        return Effect::Refuse(Problem::invalid("ref", text).hint("send `image`, or nothing"));
    };
    let commit = asked.commit.as_ref();
    if commit.is_some_and(|commit| !commit.is_whole()) {
        let text = "the commit's id is abbreviated";
        return Effect::Refuse(Problem::invalid("commit", text).hint("all 40 (or 64) digits"));
    }
    let reference = asked.reference.as_deref().unwrap_or(git.branch);
    if let Some(name) = reference.strip_prefix("refs/tags/") {
        let Some(commit) = commit else {
            let text = "a tag is deployed by its commit";
            return Effect::Refuse(Problem::invalid("commit", text).hint("send `commit`, too"));
        };
        let tag = Tag {
            repository: skep_forge::Repository::default(),
            name: name.to_owned(),
            commit: commit.clone(),
            message: None,
        };
        return carried_out(rules(service, git).of_tag(&tag), git, commit);
    }
    let branch = reference.strip_prefix("refs/heads/").unwrap_or(reference);
    match branch == git.branch {
        true => Effect::Deploy(git.at(commit), "a signed request asks for it".to_owned()),
        false => Effect::Nothing(format!(
            "the service deploys `{}`, not `{}`",
            git.branch,
            clean(branch)
        )),
    }
}

/// Whoever has the secret could run anything otherwise: the image has to be of the name that the service has.
fn of_image(service: &Service, image: &str) -> Effect {
    if let Err(problem) = spec::check_image("image", image) {
        return Effect::Refuse(problem);
    }
    let Some(Source::Image { reference }) = &service.spec.source else {
        let text = "the service does not come from an image";
        return Effect::Refuse(Problem::invalid("image", text).hint("send `ref` and `commit`"));
    };
    let (its, given) = (image_name(reference), image_name(image));
    match its == given {
        true => Effect::Deploy(
            Origin::Image {
                reference: image.to_owned(),
            },
            "a signed request asks for it".to_owned(),
        ),
        false => Effect::Refuse(
            Problem::invalid("image", format!("the service runs `{its}`, not `{given}`"))
                .hint("another tag or digest of that image; `skep deploy --image` takes any other"),
        ),
    }
}

/// An image's name without tag and digest. The port of a registry is before the last `/`.
fn image_name(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    let last = name.rfind('/').map_or(0, |at| at + 1);
    match name[last..].find(':') {
        Some(colon) => &name[..last + colon],
        None => name,
    }
}

#[cfg(test)]
mod tests;
