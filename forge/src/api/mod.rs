//! What is asked of a forge's API, and what its answers mean. Pure: a request is a value, an answer is bytes. Who sends
//! it, and again, is not said here.

mod answer;
pub mod app;
mod checks;
mod comments;
mod notice;
mod request;
mod shown;
mod talk;

use skep_model::deployment::{Deployment, Status};
use skep_model::forge::shown_status;
use skep_model::problem::Code;

pub use answer::{About, Answered, Verdict, judge, who};
pub use checks::{Checks, Colour, Part};
pub use notice::{Life, Line, Notice, digest};
pub use request::{Request, Site};
pub use shown::{Showing, Shown};
pub use talk::{Left, Talk};

/// How a commit stands, in one form for every forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is done yet.
    Pending,
    /// It is on its way.
    Running,
    /// It serves.
    Success,
    /// It does not: something is wrong with it.
    Failure,
    /// Nobody can tell: something is wrong with the cluster.
    Error,
    /// Nobody wants to know any more.
    Canceled,
}

/// What a forge is told of one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `owner/name`, as the service's source writes it.
    pub repository: String,
    /// All digits of it.
    pub commit: String,
    /// How it stands.
    pub state: State,
    /// Names what stands so; a newer report under the same name takes the place of an older one.
    pub context: String,
    /// Why, for a person.
    pub description: String,
    /// Where the service answers.
    pub url: Option<String>,
}

/// What the forge is told of a deployment: how it stands, and why.
pub fn standing(deployment: &Deployment) -> (State, String) {
    let status = shown_status(deployment);
    let problem = deployment.problem.as_ref();
    let why = |usual: &str| {
        let text = problem.map_or(usual, |problem| problem.message.as_str());
        let line = text.lines().find(|line| !line.trim().is_empty());
        line.unwrap_or(usual).trim().to_owned()
    };
    match status {
        Status::Queued => (State::Pending, "queued".to_owned()),
        Status::AwaitingApproval => (State::Pending, "waits for an approval".to_owned()),
        Status::Building => (State::Running, "building".to_owned()),
        Status::Pushing | Status::Deploying => (State::Running, "rolling out".to_owned()),
        Status::Live => (State::Success, "live".to_owned()),
        // What the app cannot help.
        Status::Failed
            if problem.is_some_and(|it| matches!(it.code, Code::Internal | Code::Unavailable)) =>
        {
            (State::Error, why("failed"))
        }
        Status::Failed => (State::Failure, why("failed")),
        Status::RolledBack => (State::Failure, why("rolled back to an older release")),
        Status::Canceled => (State::Canceled, why("canceled")),
        Status::Superseded => (State::Canceled, why("superseded by a newer deployment")),
    }
}

#[cfg(test)]
mod tests;
