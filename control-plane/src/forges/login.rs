//! As whom a repository is fetched where its service names nobody: by a token of the GitHub App that the workspace has
//! there. The token goes to where the App is and nowhere else.

use std::sync::Arc;

use skep_forge::api::app::Scope;
use skep_model::assignment::BuildVariable;
use skep_model::build::{APP_TOKEN, Fetch};
use skep_model::forge::{ForgeApp, Installation};
use skep_model::id::WorkspaceId;
use skep_state::State;
use zeroize::Zeroizing;

use super::tokens::{As, Tokens};

/// GitHub's name for whoever has a token of an installation.
const USER: &str = "x-access-token";

/// An App that sees a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppLogin {
    app: Arc<ForgeApp>,
    at: Installation,
    /// `owner/name`.
    repository: String,
}

/// As which App a repository is fetched; none: as the service says, or as anybody. Asks nobody.
pub(crate) fn app_login(
    view: &State,
    (workspace, url): (WorkspaceId, &str),
    fetch: &Fetch,
) -> Option<AppLogin> {
    if fetch.token.is_some() || fetch.ssh_key.is_some() {
        return None;
    }
    let (host, repository) = skep_forge::place(url)?;
    let connection = view.forge(workspace, &host)?;
    // Another account's may be anybody's to read.
    let mut all = connection.installations().iter();
    let at = all.find(|it| it.has(&repository) && !it.is_suspended)?;
    let app = view.forge_app(at.app)?;
    is_at(url, &app.site.web_url).then(|| AppLogin {
        app: Arc::clone(app),
        at: at.clone(),
        repository,
    })
}

/// Whether a repository's URL leads to this very place: same scheme, host and port, and as nobody else.
fn is_at(url: &str, web_url: &str) -> bool {
    let rest = url.trim().strip_prefix(web_url);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

impl AppLogin {
    /// A token that reads the repository, and nothing else.
    ///
    /// # Errors
    /// There is none; for a person.
    pub(crate) async fn token(&self, tokens: &Tokens) -> Result<Zeroizing<String>, String> {
        let who = As::App(Arc::clone(&self.app), self.at.clone());
        let scope = Scope::Contents(self.repository.to_lowercase());
        tokens.token(&who, &scope).await
    }

    /// The same with all of its time before it: for what may have to wait.
    ///
    /// # Errors
    /// As of `token`.
    pub(crate) async fn fresh(&self, tokens: &Tokens) -> Result<Zeroizing<String>, String> {
        let scope = Scope::Contents(self.repository.to_lowercase());
        tokens.fresh((&self.app, &self.at), &scope).await
    }

    /// Has a token used where a repository is fetched.
    pub(crate) fn put(token: &str, fetch: &mut Fetch, variables: &mut Vec<BuildVariable>) {
        fetch.user = Some(USER.to_owned());
        fetch.token = Some(APP_TOKEN.to_owned());
        variables.push(BuildVariable {
            name: APP_TOKEN.to_owned(),
            value: token.to_owned(),
            secret: true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_the_very_place_of_its_app() {
        let web = "https://github.com";
        assert!(is_at("https://github.com/acme/shop.git", web));
        for other in [
            "http://github.com/acme/shop",
            "https://github.com:8443/acme/shop",
            "https://github.com.evil.test/acme/shop",
            "https://me@github.com/acme/shop",
            "git@github.com:acme/shop.git",
            "ssh://git@github.com/acme/shop.git",
        ] {
            assert!(!is_at(other, web), "{other}");
        }
    }

    #[test]
    fn no_variable_of_a_service_is_named_as_the_token_is() {
        assert!(skep_model::variable::check_name(APP_TOKEN).is_err());
        let (mut fetch, mut variables) = (Fetch::default(), Vec::new());
        AppLogin::put("ghs_1", &mut fetch, &mut variables);
        assert_eq!(fetch.check(), Ok(()), "a node takes it");
        let asked = skep_model::build::Build {
            secrets: [APP_TOKEN.to_owned()].into(),
            ..Default::default()
        };
        assert!(asked.check().is_err(), "no build gets it");
    }
}
