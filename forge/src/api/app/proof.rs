//! Whether an installation is that of whoever says so. Its number alone proves nothing: numbers can be guessed, and
//! whoever gets one bound gets tokens for somebody else's repositories.

use skep_model::forge::{ForgeApp, Installation};

use super::{Found, Membership};

/// Why it is not proved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    /// The person does not see it, or it is of another App.
    #[error("the installation {0} is not among those that you can see of this App")]
    NotSeen(u64),
    /// The organization is somebody else's.
    #[error("you do not administer the organization {0}: one of its owners has to install the App")]
    NotAdmin(String),
    /// The account is somebody else's.
    #[error("the installation is at the account {0}, and you are {1}")]
    NotYou(String, String),
}

/// The installation that a person may bind. `seen` is what GitHub lists for them, `me` who they are, `of` what they are in
/// the organization that the installation is at.
///
/// # Errors
/// It is not theirs.
pub fn prove(
    app: &ForgeApp,
    number: u64,
    seen: &[Found],
    (me, of): (&str, Membership),
) -> Result<Installation, Unproved> {
    let is_it = |it: &&Found| it.number == number && it.app == app.number;
    let found = seen.iter().find(is_it).ok_or(Unproved::NotSeen(number))?;
    let account = || found.account.clone();
    match found.is_organization {
        true if of != Membership::Admin => return Err(Unproved::NotAdmin(account())),
        false if !me.eq_ignore_ascii_case(&found.account) => {
            return Err(Unproved::NotYou(account(), me.to_owned()));
        }
        _ => {}
    }
    Ok(Installation {
        app: app.id,
        number,
        account: account(),
        is_organization: found.is_organization,
        is_suspended: found.is_suspended,
        missing: found.missing.clone(),
        renamed: Vec::new(),
    })
}
