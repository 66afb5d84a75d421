//! What GitHub calls a deployment: it says in which environment a commit is and where that answers, beside the commit's
//! status. One is made for each deployment, and has statuses from then on. It has a mark, so that one that nobody took
//! down is found again.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::comments::made;
use super::request::cut;
use super::talk::Left;
use super::{Request, Site, State, Verdict};

/// GitHub takes so many characters of a description.
const MAX_DESCRIPTION: usize = 140;
/// Names ours among those of other programs.
const TASK: &str = "deploy:skep";

/// What is shown of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Names it among those of its commit.
    pub mark: String,
    /// `owner/name`, as the service's source writes it.
    pub repository: String,
    /// All digits of it.
    pub commit: String,
    /// As people see it.
    pub environment: String,
    /// It goes with a pull request.
    pub is_transient: bool,
    /// It is what users see.
    pub is_production: bool,
    /// How it stands; none: something else took its place, or nothing.
    pub state: Option<State>,
    /// Why, for a person.
    pub description: String,
    /// Where the service answers.
    pub url: Option<String>,
}

impl Shown {
    /// What it says of how it stands.
    fn status(&self) -> Value {
        let state = match self.state {
            None | Some(State::Canceled) => "inactive",
            Some(State::Pending) => "queued",
            Some(State::Running) => "in_progress",
            Some(State::Success) => "success",
            Some(State::Failure) => "failure",
            Some(State::Error) => "error",
        };
        json!({
            "state": state,
            "description": cut(&self.description, MAX_DESCRIPTION),
            "environment_url": self.url.as_deref().unwrap_or_default(),
            // Each of ours is told of itself.
            "auto_inactive": false,
        })
    }

    /// By which two of them are told apart.
    pub fn digest(&self) -> u64 {
        super::digest(&self.status().to_string())
    }

    fn made(&self) -> Value {
        json!({
            "ref": self.commit,
            "task": TASK,
            "environment": self.environment,
            "description": "by Skep",
            "payload": { "skep": self.mark },
            "transient_environment": self.is_transient,
            "production_environment": self.is_production,
            // It is deployed already: nothing is merged, and no check has a word in it.
            "auto_merge": false,
            "required_contexts": [],
        })
    }

    /// Of a list, the one that is ours.
    fn find(&self, list: &[u8]) -> Option<Option<u64>> {
        let list: Value = serde_json::from_slice(list).ok()?;
        let ours = list.as_array()?.iter().find(|one| {
            let payload = &one["payload"];
            // It is given back as it was sent, or as text.
            payload["skep"] == *self.mark
                || payload.as_str().is_some_and(|it| it.contains(&self.mark))
        });
        Some(ours.and_then(|one| one["id"].as_u64()))
    }
}

/// One deployment being shown.
#[derive(Debug)]
pub struct Showing<'a> {
    shown: &'a Shown,
    next: Step,
    is_looked_for: bool,
}

/// What is asked next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    List,
    Make,
    Status(u64),
}

impl<'a> Showing<'a> {
    /// Begins; `id` is what was taken down of it.
    pub fn new(shown: &'a Shown, id: Option<u64>) -> Self {
        Self {
            shown,
            next: id.map_or(Step::List, Step::Status),
            is_looked_for: id.is_none(),
        }
    }

    /// What is asked now. None: the API's address is none.
    pub fn request(&self, site: &Site<'_>) -> Option<Request> {
        let (owner, name) = self.shown.repository.split_once('/')?;
        let all = ["repos", owner, name, "deployments"];
        match self.next {
            Step::List => {
                let mut request = site.request(Method::GET, &all, None)?;
                let query = [
                    ("sha", &*self.shown.commit),
                    ("task", TASK),
                    ("per_page", "100"),
                ];
                let mut text = form_urlencoded::Serializer::new(String::new());
                request.url = format!("{}?{}", request.url, text.extend_pairs(query).finish());
                Some(request)
            }
            Step::Make => site.request(Method::POST, &all, Some(self.shown.made())),
            Step::Status(id) => {
                let id = id.to_string();
                let path = ["repos", owner, name, "deployments", &id, "statuses"];
                site.request(Method::POST, &path, Some(self.shown.status()))
            }
        }
    }

    /// Takes the answer to that: its status, if there was an answer, what it means, and what it says. None: there is more
    /// to ask.
    pub fn heard(
        &mut self,
        status: Option<StatusCode>,
        verdict: Verdict,
        body: &[u8],
    ) -> Option<Left> {
        let is_taken = verdict == Verdict::Taken;
        let again = |why: &str| Some(Verdict::Again(why.to_owned()));
        let (next, odd) = match self.next {
            Step::Status(_) if status == Some(StatusCode::NOT_FOUND) && !self.is_looked_for => {
                self.is_looked_for = true;
                (Some(Step::List), None)
            }
            Step::List if is_taken => match self.shown.find(body) {
                Some(Some(id)) => (Some(Step::Status(id)), None),
                Some(None) => (Some(Step::Make), None),
                None => (None, again("the list of deployments is too long, or none")),
            },
            Step::Make if is_taken => match made(body) {
                Some(id) => (Some(Step::Status(id)), None),
                None => (
                    None,
                    again("it says nothing of the deployment that was made"),
                ),
            },
            Step::Status(_) | Step::List | Step::Make => (None, None),
        };
        let id = match self.next {
            Step::Status(id) => Some(id),
            Step::List | Step::Make => None,
        };
        if let Some(next) = next {
            self.next = next;
            return None;
        }
        let verdict = odd.unwrap_or(verdict);
        Some(Left { id, verdict })
    }
}

#[cfg(test)]
mod tests;
