//! What deliveries to an App say beside what those to repositories do: of which installation they are, and what became of
//! it.

use serde_json::Value;
use skep_model::forge::{MAX_WORD, Renamed};

use super::answers::one;

/// What a delivery says of an App's installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Of which installation; none: of the App itself.
    pub installation: Option<u64>,
    /// The repository that it is about, `owner/name`.
    pub repository: Option<String>,
    /// What became of the installation.
    pub what: Option<What>,
}

/// What became of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It is gone.
    Gone,
    /// It gives no tokens, or does again.
    Suspended(bool),
    /// It may something else; what it lacks now.
    Permissions(Vec<String>),
    /// It has other repositories.
    Repositories,
    /// One of its repositories has another name.
    Renamed(Renamed),
    /// It is there: who made it proves that by coming back in the browser.
    Made,
}

/// What a delivery of this event says.
pub fn heard(event: &str, body: &[u8]) -> Heard {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let action = said["action"].as_str().unwrap_or_default();
    let repository = said["repository"]["full_name"].as_str();
    let repository = repository.filter(|it| it.len() <= MAX_WORD);
    let what = match (event, action) {
        ("installation", "deleted") => Some(What::Gone),
        ("installation", "suspend") => Some(What::Suspended(true)),
        ("installation", "unsuspend") => Some(What::Suspended(false)),
        ("installation", "new_permissions_accepted") => {
            one(&said["installation"]).map(|it| What::Permissions(it.missing))
        }
        ("installation", "created") => Some(What::Made),
        ("installation_repositories", _) => Some(What::Repositories),
        ("repository", "renamed") => renamed(&said).map(What::Renamed),
        _ => None,
    };
    Heard {
        installation: said["installation"]["id"].as_u64(),
        repository: repository.map(str::to_owned),
        what,
    }
}

fn renamed(said: &Value) -> Option<Renamed> {
    let to = said["repository"]["full_name"].as_str()?;
    let (owner, _) = to.split_once('/')?;
    let from = said["changes"]["repository"]["name"]["from"].as_str()?;
    let from = format!("{owner}/{from}");
    (from.len() <= MAX_WORD && to.len() <= MAX_WORD).then(|| Renamed {
        from,
        to: to.to_owned(),
    })
}
