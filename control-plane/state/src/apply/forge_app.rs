//! GitHub Apps, and who may have which installation: one workspace has one. The steps in browsers that lead there are
//! taken once, by whoever has their secret, and not for ever. Asks nobody, and never opens what is sealed.

use std::sync::Arc;

use skep_model::forge::{
    Access, Connection, ForgeApp, Installation, Kind, MAX_APPS, MAX_CONNECTIONS, MAX_INSTALLATIONS,
    MAX_SETUPS, SETUP_MS, Setup, SetupStep, check_api_url, check_forge_host,
};
use skep_model::id::{ForgeAppId, WorkspaceId};
use skep_model::problem::{Code, Problem};
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;
use crate::state::State;

/// Bytes of SHA-256.
const DIGEST_BYTES: usize = 32;

impl Context<'_> {
    /// A step is waited for. Those that nobody takes any more make room.
    pub(super) fn begin_forge_setup(&mut self, message: v1::BeginForgeSetup) -> Outcome {
        let setup = message.setup.ok_or_else(|| missing("setup"))?;
        let mut setup: Setup = understood(setup)?;
        if setup.digest.len() != DIGEST_BYTES {
            return Err(missing("digest"));
        }
        if self.state.workspace(setup.workspace).is_none() {
            return Err(not_found("workspace", setup.workspace));
        }
        match &setup.step {
            SetupStep::Create(draft) => {
                check_forge_host(&draft.site.host)?;
                check_api_url(&draft.site.api_url)?;
            }
            SetupStep::Install(app) => {
                self.app_of(setup.workspace, *app)?;
            }
        }
        let now_ms = self.state.time_ms;
        let over = self.state.forge_setups.values();
        let over = over.filter(|it| it.expires_ms < now_ms);
        let over: Vec<_> = over.map(|it| it.digest.clone()).collect();
        for digest in over {
            self.state.forge_setups.remove(&digest);
        }
        if self.state.forge_setups.len() >= MAX_SETUPS {
            let text = format!("{MAX_SETUPS} Apps are being made or installed already");
            return Err(Problem::new(Code::TooLarge, text)
                .hint("nobody waits for longer than an hour: try again then"));
        }
        setup.expires_ms = now_ms.saturating_add(SETUP_MS);
        let digest = setup.digest.clone();
        self.state.forge_setups.insert(digest, Arc::new(setup));
        Ok(Reply::Done)
    }

    /// Once: whoever comes second finds nothing.
    pub(super) fn take_forge_setup(&mut self, message: &v1::TakeForgeSetup) -> Outcome {
        let now_ms = self.state.time_ms;
        let taken = self.state.forge_setups.remove(&message.digest);
        match taken.filter(|it| it.expires_ms >= now_ms) {
            Some(_) => Ok(Reply::Done),
            None => Err(Problem::new(
                Code::NotFound,
                "nobody waits for this step: it was taken before, or is more than an hour old",
            )
            .hint("`skep forge app create` and `skep forge app install` begin anew")),
        }
    }

    pub(super) fn put_forge_app(&mut self, message: v1::PutForgeApp) -> Outcome {
        let app = message.app.ok_or_else(|| missing("app"))?;
        let mut app: ForgeApp = understood(app)?;
        check_forge_host(&app.site.host)?;
        check_api_url(&app.site.api_url)?;
        if self.state.workspace(app.workspace).is_none() {
            return Err(not_found("workspace", app.workspace));
        }
        let sealed = [
            &app.secrets.private_key,
            &app.secrets.webhook,
            &app.secrets.client,
        ];
        if sealed.iter().any(|it| it.0.is_empty()) {
            return Err(missing("secrets"));
        }
        let known = self.state.forge_app(app.id);
        let changed_ms = known.map_or(0, |known| known.changed_ms);
        if changed_ms != message.expected_changed_ms {
            return Err(changed_meanwhile("GitHub App"));
        }
        if known.is_some_and(|known| known.workspace != app.workspace) {
            return Err(not_found("GitHub App", app.id));
        }
        if known.is_none() && self.state.forge_apps.len() >= MAX_APPS {
            let text = format!("there are {MAX_APPS} GitHub Apps already");
            return Err(Problem::new(Code::TooLarge, text).hint("`skep forge app rm` removes one"));
        }
        let now_ms = self.state.time_ms;
        app.made_ms = known.map_or(now_ms, |known| known.made_ms);
        // Two changes of one moment are two.
        app.changed_ms = now_ms.max(changed_ms + 1);
        self.changes.push(Change::Forges);
        self.state.forge_apps.insert(app.id, Arc::new(app));
        Ok(Reply::Done)
    }

    /// With where it is installed, and what is waited for.
    pub(super) fn remove_forge_app(&mut self, message: &v1::RemoveForgeApp) -> Outcome {
        let id = ForgeAppId::from_u128(bits("id", &message.id)?);
        if self.state.forge_apps.remove(&id).is_none() {
            return Err(no_app(id));
        }
        let is_its = |setup: &&Arc<Setup>| setup.step == SetupStep::Install(id);
        let waiting = self.state.forge_setups.values().filter(is_its);
        let waiting: Vec<_> = waiting.map(|it| it.digest.clone()).collect();
        for digest in waiting {
            self.state.forge_setups.remove(&digest);
        }
        let affected: Vec<_> = self.state.forges().cloned().collect();
        for connection in affected {
            let before = connection.installations();
            let left: Vec<_> = before.iter().filter(|it| it.app != id).cloned().collect();
            if left.len() == before.len() {
                continue;
            }
            match left.is_empty() {
                true => {
                    let key = (connection.workspace, connection.host.clone());
                    self.state.forges.remove(&key);
                }
                false => self.change_access(&connection, left),
            }
        }
        self.changes.push(Change::Forges);
        Ok(Reply::Done)
    }

    pub(super) fn set_forge_installation(&mut self, message: v1::SetForgeInstallation) -> Outcome {
        let its = message
            .installation
            .ok_or_else(|| missing("installation"))?;
        let installation: Installation = understood(its)?;
        installation.check()?;
        let app = self.state.forge_app(installation.app).cloned();
        let app = app.ok_or_else(|| no_app(installation.app))?;
        let known = self.state.forge(app.workspace, &app.site.host).cloned();
        let is_it = |it: &Installation| (it.app, it.number) == (app.id, installation.number);
        let bound = known.as_ref().map(|it| it.installations());
        if !message.binds && !bound.is_some_and(|all| all.iter().any(is_it)) {
            return Err(not_found("installation", installation.number)
                .hint("nobody has proved that it is theirs: `skep forge app install` does"));
        }
        if message.binds {
            self.is_free(&app, installation.number)?;
        }
        let mut all = bound.unwrap_or_default().to_vec();
        let at = all.iter().position(is_it);
        match (at, message.removes) {
            (Some(at), true) => drop(all.remove(at)),
            (Some(at), false) => all[at] = installation,
            (None, _) if all.len() >= MAX_INSTALLATIONS => {
                let text = format!("{} has {MAX_INSTALLATIONS} installations", app.site.host);
                return Err(Problem::new(Code::TooLarge, text));
            }
            (None, _) => all.push(installation),
        }
        match known {
            Some(known) => self.change_access(&known, all),
            None => self.connect(&app, all)?,
        }
        Ok(Reply::Done)
    }

    /// Nobody else has the installation.
    fn is_free(&self, app: &ForgeApp, number: u64) -> Result<(), Problem> {
        let others = self.state.forges().filter(|it| it.host == app.site.host);
        let has = |connection: &&Arc<Connection>| {
            connection.workspace != app.workspace
                && connection
                    .installations()
                    .iter()
                    .any(|it| it.number == number)
        };
        let Some(other) = others.into_iter().find(has) else {
            return Ok(());
        };
        let name = self.state.workspace(other.workspace);
        let name = name.map_or_else(|| other.workspace.to_string(), |it| it.name.clone());
        let text = format!("the installation {number} belongs to the workspace `{name}`");
        Err(Problem::new(Code::Conflict, text)
            .hint("an installation is of one workspace: `skep forge app rm` there gives it free"))
    }

    /// The first installation of a workspace at a host is its connection there.
    fn connect(&mut self, app: &ForgeApp, all: Vec<Installation>) -> Result<(), Problem> {
        if self.state.forges.len() >= MAX_CONNECTIONS {
            let text = format!("there are {MAX_CONNECTIONS} forge connections already");
            return Err(Problem::new(Code::TooLarge, text).hint("`skep forge rm` removes one"));
        }
        let now_ms = self.state.time_ms;
        self.put_connection(Connection {
            workspace: app.workspace,
            host: app.site.host.clone(),
            kind: Kind::GitHub,
            api_url: app.site.api_url.clone(),
            access: Access::App(all),
            ca_pem: app.site.ca_pem.clone(),
            made_ms: now_ms,
            changed_ms: now_ms,
            is_refused: false,
            resume_ms: 0,
            problem: None,
            asked_ms: 0,
        });
        Ok(())
    }

    /// What came of asking as before says nothing of asking as these.
    fn change_access(&mut self, known: &Connection, all: Vec<Installation>) {
        self.put_connection(Connection {
            access: Access::App(all),
            changed_ms: self.state.time_ms,
            is_refused: false,
            resume_ms: 0,
            problem: None,
            asked_ms: 0,
            ..known.clone()
        });
    }

    fn app_of(&self, workspace: WorkspaceId, id: ForgeAppId) -> Result<(), Problem> {
        let app = self.state.forge_app(id);
        match app.is_some_and(|app| app.workspace == workspace) {
            true => Ok(()),
            false => Err(no_app(id)),
        }
    }
}

impl State {
    /// Every GitHub App, in the order of their ids.
    pub fn forge_apps(&self) -> impl Iterator<Item = &Arc<ForgeApp>> {
        self.forge_apps.values()
    }

    /// A GitHub App.
    pub fn forge_app(&self, id: ForgeAppId) -> Option<&Arc<ForgeApp>> {
        self.forge_apps.get(&id)
    }

    /// A step in a browser, by the digest of its secret; also one that nobody may take any more.
    pub fn forge_setup(&self, digest: &[u8]) -> Option<&Arc<Setup>> {
        self.forge_setups.get(digest)
    }
}

fn no_app(id: ForgeAppId) -> Problem {
    not_found("GitHub App", id).hint("`skep forge app ls` lists those that there are")
}
