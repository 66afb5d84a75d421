//! What a pull request means for an environment that has previews. Pure: a view and what was heard in, one meaning out.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_forge::{Action, Change, Commit, canonical, clean, skips_preview};
use skep_model::id::EnvironmentId;
use skep_model::preview::{Preview, Request, Rules, Why};
use skep_model::service::Service;
use skep_model::spec::Source;
use skep_state::State;

use super::make::{Head, Wish};
use crate::hooks;

/// A pull request, as an environment hears of it.
pub(crate) struct Heard<'a> {
    /// The environment.
    pub(crate) base: EnvironmentId,
    /// Its services that come from the repository.
    pub(crate) services: &'a [Arc<Service>],
    /// What happened.
    pub(crate) change: &'a Change,
}

/// What is to be done about it.
#[derive(Debug, PartialEq)]
pub(crate) enum Meaning {
    /// Nothing, and why.
    Nothing(String),
    /// A preview is made.
    Make(Box<Wish>),
    /// Its preview deploys this, and lives on.
    Push(Arc<Preview>, Head),
    /// Its preview ends.
    End(Arc<Preview>, Why),
}

/// What a pull request means.
pub(crate) fn meaning(view: &State, heard: &Heard<'_>) -> Meaning {
    let change = heard.change;
    let nothing = |why: &str| {
        let done = hooks::done(change);
        Meaning::Nothing(format!("pull request {} was {done}: {why}", change.number))
    };
    let Some(repository) = heard.services.iter().find_map(|it| repository(it)) else {
        return nothing("no service comes from git");
    };
    let known = view.preview_for(heard.base, (&repository, change.number));
    let request = known.and_then(|it| it.request.as_ref());
    if request.is_some_and(|it| it.is_stale(change.updated_ms)) {
        return nothing("that is older than what was heard of it before");
    }
    let living = known.filter(|it| it.ended.is_none());
    let was_closed = known.is_some_and(|it| it.ended.is_some_and(|ended| ended.why == Why::Closed));
    match (&change.action, living) {
        (Action::Closed { .. }, Some(preview)) => {
            return Meaning::End(Arc::clone(preview), Why::Closed);
        }
        (Action::Closed { .. }, None) => return nothing("it has no preview"),
        // Those that there are go on also where the rules are gone.
        (_, None) if view.preview_rules(heard.base).is_none() => {
            return nothing("its environment says nothing of previews");
        }
        // It may have been sent before the end, and arrive behind it.
        (Action::Opened | Action::Synchronized, None) if was_closed => {
            return nothing("it was closed before; when it is opened again it gets a preview");
        }
        (Action::Opened | Action::Synchronized | Action::Reopened, _) => {}
        _ => return nothing("that changes nothing about its preview"),
    }
    let said = view.preview_rules(heard.base);
    let rules = said.map_or_else(|| Rules::new(heard.base), |rules| (**rules).clone());
    let of = ours(&rules, heard);
    if of.is_empty() {
        return nothing("no service that previews have deploys the branch that it is for");
    }
    if let Some(marker) = skips_preview(&change.title) {
        return nothing(&format!("its title says {marker}"));
    }
    let was_trusted = living.is_some_and(|preview| !preview.is_fork());
    if change.is_fork && (was_trusted || !rules.forks) {
        return nothing(
            "it comes from another repository, and those get none (`skep preview rules set --forks`)",
        );
    }
    let Some(head) = head(change, of) else {
        return nothing("its branch is gone, or nobody can tell where it is");
    };
    match living {
        Some(preview) if head.commit.is_some() && preview.commit == head.commit => {
            nothing("its preview has that commit")
        }
        Some(preview) => Meaning::Push(Arc::clone(preview), head),
        None => Meaning::Make(Box::new(wish(view, heard, (repository, head)))),
    }
}

/// Names of the services that a request is about.
fn ours(rules: &Rules, heard: &Heard<'_>) -> BTreeSet<String> {
    let is_meant = |service: &Service| match &service.spec.source {
        Some(Source::Git { branch, .. }) => {
            *branch == heard.change.base_branch && rules.takes(&service.name) && !service.removing
        }
        _ => false,
    };
    let meant = heard.services.iter().filter(|service| is_meant(service));
    meant.map(|service| service.name.clone()).collect()
}

/// The repository of a service by its one name; none: it does not come from git.
pub(crate) fn repository(service: &Service) -> Option<String> {
    match &service.spec.source {
        Some(Source::Git { repository, .. }) => Some(one_name(repository)),
        _ => None,
    }
}

/// A repository by its one name, or as it was written where it has none.
fn one_name(repository: &str) -> String {
    canonical(repository).unwrap_or_else(|| repository.to_owned())
}

/// What is deployed of a request; none: it is nowhere any more.
fn head(change: &Change, of: BTreeSet<String>) -> Option<Head> {
    let commit = change.head.as_ref()?;
    let repository = match change.is_fork {
        true => Some(change.head_repository.as_ref()?.http_url.clone()?),
        false => None,
    };
    Some(Head {
        repository,
        of,
        branch: change.head_branch.clone(),
        // An abbreviated one cannot be fetched: then it is the branch's newest.
        commit: Some(commit)
            .filter(|commit| commit.is_whole())
            .map(Commit::as_str)
            .map(str::to_owned),
    })
}

fn wish(view: &State, heard: &Heard<'_>, (repository, head): (String, Head)) -> Wish {
    let change = heard.change;
    Wish {
        base: heard.base,
        name: free_name(view, heard.base, change.number),
        ttl_ms: None,
        request: Some(Request {
            repository,
            number: change.number,
            is_fork: change.is_fork,
            title: clean(&change.title),
            url: change.url.clone(),
            heard_ms: change.updated_ms,
        }),
        head: Some(head),
        images: Default::default(),
    }
}

/// `pr-7`; where another repository of the project has that number, or the last preview is still going: the next
/// that is free.
fn free_name(view: &State, base: EnvironmentId, number: u64) -> String {
    let project = view.environment(base).map(|base| base.project);
    let is_free = |name: &String| {
        project.is_none_or(|project| view.environment_named(project, name).is_none())
    };
    let first = std::iter::once(format!("pr-{number}"));
    let mut names = first.chain((2_u32..).map(|more| format!("pr-{number}-{more}")));
    names.find(is_free).expect("there are fewer environments")
}
