//! That something is new about the checks of a commit. What they say now the forge is asked: here it is only heard which commit
//! to ask for. So that nothing of it is an error: what is not understood is what nobody has to act upon.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::event::{Commit, Event, Reported, Repository};

/// Where each forge has the commit, by the name of its event.
const PLACES: [(&str, &str); 10] = [
    ("status", "/sha"),
    ("check_run", "/check_run/head_sha"),
    ("check_suite", "/check_suite/head_sha"),
    ("workflow_run", "/workflow_run/head_sha"),
    ("workflow_job", "/workflow_job/head_sha"),
    ("pipeline", "/object_attributes/sha"),
    ("Pipeline Hook", "/object_attributes/sha"),
    ("Job Hook", "/sha"),
    (
        "repo:commit_status_created",
        "/commit_status/links/commit/href",
    ),
    (
        "repo:commit_status_updated",
        "/commit_status/links/commit/href",
    ),
];
/// Forgejo has a name for each end of a run.
const RUN: &str = "action_run_";

/// What an event of this name says; none: nothing of checks. `repository` is the name of its repository in the body.
pub(super) fn event<R>(name: &str, body: &[u8], repository: &str) -> Option<Event>
where
    R: DeserializeOwned + Into<Repository>,
{
    let place = match PLACES.iter().find(|(known, _)| *known == name) {
        Some((_, place)) => place,
        None if name.starts_with(RUN) => "/run/commit_sha",
        None => return None,
    };
    let mut body: Value = serde_json::from_slice(body).ok()?;
    let commit = body.pointer(place)?.as_str()?;
    // Bitbucket says it as an address.
    let commit = Commit::new(commit.rsplit('/').next()?).filter(Commit::is_whole)?;
    let repository = body.get_mut(repository).map(Value::take)?;
    let repository: R = serde_json::from_value(repository).ok()?;
    Some(Event::Checks(Reported {
        repository: repository.into(),
        commit,
    }))
}
