//! GitHub Apps: who may have which installation, and steps of a browser that are taken once.

use skep_model::forge::{
    AppSecrets, AppSite, Draft, ForgeApp, Installation, MAX_SETUPS, SETUP_MS, Setup, SetupStep,
};
use skep_model::id::ForgeAppId;
use skep_model::tenancy::Workspace;
use skep_model::variable::Sealed;

use super::*;

const APP: ForgeAppId = ForgeAppId::from_u128(70);
const HOST: &str = "github.com";

fn site() -> AppSite {
    AppSite {
        host: HOST.into(),
        api_url: "https://api.github.com".into(),
        web_url: "https://github.com".into(),
        ca_pem: None,
    }
}

fn app(id: ForgeAppId, workspace: WorkspaceId) -> ForgeApp {
    let sealed = |byte: u8| Sealed(vec![byte]);
    ForgeApp {
        id,
        workspace,
        number: 42,
        slug: "skep-1".into(),
        owner: "acme".into(),
        client_id: "Iv1.x".into(),
        site: site(),
        secrets: AppSecrets {
            private_key: sealed(1),
            webhook: sealed(2),
            client: sealed(3),
        },
        made_ms: 0,
        changed_ms: 0,
    }
}

fn put(app: &ForgeApp, expected_changed_ms: u64) -> Kind {
    Kind::PutForgeApp(v1::PutForgeApp {
        app: Some(app.into()),
        expected_changed_ms,
    })
}

fn installation(app: ForgeAppId, number: u64, account: &str) -> Installation {
    Installation {
        app,
        number,
        account: account.into(),
        is_organization: true,
        is_suspended: false,
        missing: Vec::new(),
        renamed: Vec::new(),
    }
}

fn set(installation: &Installation, binds: bool, removes: bool) -> Kind {
    Kind::SetForgeInstallation(v1::SetForgeInstallation {
        installation: Some(installation.into()),
        binds,
        removes,
    })
}

fn setup(byte: u8, step: SetupStep) -> Kind {
    let setup = Setup {
        digest: vec![byte; 32],
        workspace: WORKSPACE,
        by: vec![9; 32],
        step,
        expires_ms: 0,
    };
    Kind::BeginForgeSetup(v1::BeginForgeSetup {
        setup: Some((&setup).into()),
    })
}

fn create() -> SetupStep {
    SetupStep::Create(Box::new(Draft {
        app: APP,
        site: site(),
        name: "skep-1".into(),
        organization: None,
        cluster_url: "https://skep.example.com".into(),
    }))
}

fn take(byte: u8) -> Kind {
    Kind::TakeForgeSetup(v1::TakeForgeSetup {
        digest: vec![byte; 32],
    })
}

fn round_trip(world: &World) {
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
}

#[test]
fn a_step_is_taken_once_and_not_after_an_hour() {
    let mut world = World::with_service();
    world.ok(setup(1, create()));
    let known = world
        .state
        .forge_setup(&[1; 32])
        .expect("waited for")
        .clone();
    assert_eq!(known.expires_ms, world.state.time_ms() + SETUP_MS);
    round_trip(&world);
    world.ok(take(1));
    assert_eq!(world.refused(take(1)), Code::NotFound);
    assert_eq!(world.refused(take(2)), Code::NotFound);

    world.ok(setup(3, create()));
    let end_ms = world
        .state
        .forge_setup(&[3; 32])
        .expect("waited for")
        .expires_ms;
    let late = world.raw(command(end_ms + 1, take(3)));
    assert_eq!(late.outcome.expect_err("too late").code, Code::NotFound);
    // An App that there is not is installed by nobody.
    assert_eq!(
        world.refused(setup(4, SetupStep::Install(APP))),
        Code::NotFound
    );
}

#[test]
fn as_many_steps_are_waited_for_as_may_be_and_older_ones_make_room() {
    let mut world = World::with_service();
    for byte in 0..MAX_SETUPS {
        world.ok(setup(byte as u8, create()));
    }
    assert_eq!(world.refused(setup(200, create())), Code::TooLarge);
    let later_ms = world.state.time_ms() + SETUP_MS + 10;
    let later = world.raw(command(later_ms, setup(201, create())));
    later.outcome.expect("there is room");
    assert!(world.state.forge_setup(&[0; 32]).is_none());
}

#[test]
fn an_installation_is_of_one_workspace() {
    let mut world = World::with_service();
    world.ok(put(&app(APP, WORKSPACE), 0));
    let at = installation(APP, 7, "acme");
    // What nobody has proved is not changed into something that is bound.
    assert_eq!(world.refused(set(&at, false, false)), Code::NotFound);
    world.ok(set(&at, true, false));
    let connection = world.state.forge(WORKSPACE, HOST).expect("connected");
    assert_eq!(connection.installations(), std::slice::from_ref(&at));
    round_trip(&world);

    let other = WorkspaceId::from_u128(2);
    let workspace = Workspace {
        id: other,
        name: "other".into(),
    };
    world
        .state
        .workspaces
        .insert(other, std::sync::Arc::new(workspace));
    let theirs = ForgeAppId::from_u128(71);
    world.ok(put(&app(theirs, other), 0));
    assert_eq!(
        world.refused(set(&installation(theirs, 7, "acme"), true, false)),
        Code::Conflict
    );
    world.ok(set(&installation(theirs, 8, "acme"), true, false));

    // It is free again when it is gone.
    world.ok(set(&at, false, true));
    assert_eq!(
        world
            .state
            .forge(WORKSPACE, HOST)
            .expect("there")
            .installations(),
        []
    );
    world.ok(set(&installation(theirs, 7, "acme"), true, false));
    assert_eq!(world.refused(set(&at, true, false)), Code::Conflict);
}

#[test]
fn an_app_takes_the_place_of_a_token_and_no_token_that_of_an_app() {
    let mut world = World::with_service();
    let mut token = super::forges::connection(1);
    token.host = HOST.into();
    world.ok(super::forges::put(&token));
    let made_ms = world.state.forge(WORKSPACE, HOST).expect("there").made_ms;
    world.ok(put(&app(APP, WORKSPACE), 0));
    world.ok(set(&installation(APP, 7, "acme"), true, false));
    let connection = world.state.forge(WORKSPACE, HOST).expect("there").clone();
    assert!(connection.is_app() && connection.made_ms == made_ms);
    assert_eq!(world.refused(super::forges::put(&token)), Code::Conflict);
    // Nobody puts installations in that nobody has proved.
    assert_eq!(
        world.refused(super::forges::put(&connection)),
        Code::Internal
    );

    let remove = Kind::RemoveForgeApp(v1::RemoveForgeApp {
        id: id_bytes(APP.as_u128()),
    });
    world.ok(setup(1, SetupStep::Install(APP)));
    world.ok(remove.clone());
    assert!(world.state.forge(WORKSPACE, HOST).is_none());
    assert!(world.state.forge_setup(&[1; 32]).is_none());
    assert_eq!(world.refused(remove), Code::NotFound);
}

#[test]
fn an_app_is_changed_by_whoever_has_read_it() {
    let mut world = World::with_service();
    world.ok(put(&app(APP, WORKSPACE), 0));
    let first = world.state.forge_app(APP).expect("made").clone();
    assert_eq!(world.refused(put(&app(APP, WORKSPACE), 0)), Code::Conflict);
    let mut next = (*first).clone();
    next.secrets.webhook = Sealed(vec![9]);
    world.ok(put(&next, first.changed_ms));
    let second = world.state.forge_app(APP).expect("there");
    assert!(second.changed_ms > first.changed_ms && second.made_ms == first.made_ms);
    next.secrets.client = Sealed(Vec::new());
    let changed_ms = second.changed_ms;
    assert_eq!(world.refused(put(&next, changed_ms)), Code::Internal);
}
