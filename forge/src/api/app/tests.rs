//! The manifest and requests as a file that a person has read against GitHub's manual; answers as tables; who may bind
//! what as laws.

use std::fmt::Write as _;

use proptest::prelude::*;
use skep_model::forge::{AppSecrets, ForgeApp, Renamed};
use skep_model::id::{ForgeAppId, WorkspaceId};
use skep_model::variable::Sealed;

use super::*;

fn site(host: &str) -> AppSite {
    AppSite {
        host: host.into(),
        api_url: Kind::GitHub.api_url(host),
        web_url: format!("https://{host}"),
        ca_pem: None,
    }
}

fn draft(host: &str, organization: Option<&str>) -> Draft {
    Draft {
        app: ForgeAppId::from_u128(7),
        site: site(host),
        name: "skep-4f2a".into(),
        organization: organization.map(str::to_owned),
        cluster_url: "https://skep.example.com".into(),
    }
}

fn app() -> ForgeApp {
    let sealed = || Sealed(vec![1]);
    ForgeApp {
        id: ForgeAppId::from_u128(7),
        workspace: WorkspaceId::from_u128(1),
        number: 42,
        slug: "skep-4f2a".into(),
        owner: "acme".into(),
        client_id: "Iv1.x".into(),
        site: site("github.com"),
        secrets: AppSecrets {
            private_key: sealed(),
            webhook: sealed(),
            client: sealed(),
        },
        made_ms: 0,
        changed_ms: 0,
    }
}

fn shown(request: Option<Request>) -> String {
    let request = request.expect("made");
    let mut text = format!("{} {}\n", request.method, request.url);
    for (name, value) in &request.headers {
        writeln!(text, "{name}: {value}").expect("text");
    }
    if let Some(body) = &request.body {
        writeln!(text, "{body}").expect("text");
    }
    text
}

#[test]
fn the_manifest_and_the_requests_are_github_s() {
    let mut text = format!("{:#}\n\n", manifest(&draft("github.com", None)));
    for draft in [
        draft("github.com", None),
        draft("ghe.example.com", Some("acme")),
    ] {
        let (url, install) = (
            manifest_url(&draft, "s3cret").expect("a URL"),
            install_url(&draft.site, "skep-4f2a", "s3cret").expect("a URL"),
        );
        writeln!(text, "{url}\n{install}\n").expect("text");
    }
    let (hub, own) = (site("github.com"), site("ghe.example.com"));
    let client = Client {
        id: "Iv1.x",
        secret: "cl1ent",
    };
    let api = Site {
        kind: Kind::GitHub,
        api_url: &own.api_url,
        token: "pr00f",
    };
    for request in [
        convert(&own, "c0de"),
        exchange(&hub, client, "c0de"),
        revoke(&hub, client, "ghu_1"),
        api.access_token(9, &Scope::All),
        api.access_token(9, &Scope::Contents("acme/shop".into())),
        api.app(),
        api.hook_secret("n3w"),
        api.installations(2),
        api.membership("acme"),
    ] {
        writeln!(text, "{}", shown(request)).expect("text");
    }
    assert_eq!(text, include_str!("../golden/app.txt"), "{text}");
}

#[test]
fn a_proof_begins_a_minute_ago_and_ends_within_ten_of_now() {
    let said = claims(42, 1_000_000);
    assert_eq!((said.iat, said.exp), (999_940, 1_000_540));
    assert_eq!(said.iss, "42");
    assert!(said.exp - 1_000_000 <= 600);
}

#[test]
fn a_made_app_is_whole_or_none() {
    let whole = json!({
        "id": 42, "slug": "skep-4f2a", "owner": { "login": "acme" }, "client_id": "Iv1.x",
        "client_secret": "c", "webhook_secret": "w", "pem": "p",
    });
    let read = |body: &Value| converted(body.to_string().as_bytes());
    let made = read(&whole).expect("whole");
    assert_eq!((made.number, made.owner()), (42, "acme"));
    for field in [
        "id",
        "slug",
        "owner",
        "client_id",
        "client_secret",
        "webhook_secret",
        "pem",
    ] {
        let mut odd = whole.clone();
        odd[field] = Value::Null;
        assert!(read(&odd).is_none(), "{field}");
        odd[field] = "".into();
        assert!(read(&odd).is_none(), "{field}");
    }
}

#[test]
fn a_token_without_an_end_is_none() {
    let read = |body: Value| minted(body.to_string().as_bytes()).map(|it| it.ends_ms);
    let token = json!({ "token": "ghs_1", "expires_at": "1970-01-01T01:00:00Z" });
    assert_eq!(read(token), Some(3_600_000));
    for odd in [
        json!({ "token": "ghs_1" }),
        json!({ "token": "", "expires_at": "1970-01-01T01:00:00Z" }),
        json!({ "token": "a b", "expires_at": "1970-01-01T01:00:00Z" }),
        json!({ "expires_at": "1970-01-01T01:00:00Z" }),
        json!([]),
    ] {
        assert_eq!(read(odd.clone()), None, "{odd}");
    }
    let why = user_token(br#"{"error":"bad_verification_code"}"#);
    assert_eq!(why, Err("bad_verification_code".to_owned()));
    assert_eq!(
        user_token(br#"{"access_token":"ghu_1"}"#),
        Ok("ghu_1".to_owned())
    );
}

#[test]
fn more_than_is_wanted_is_enough_and_less_is_told() {
    let lacks =
        |permissions: Value| granted(json!({ "permissions": permissions }).to_string().as_bytes());
    let mut all = json!({
        "checks": "write", "contents": "read", "deployments": "write", "members": "read",
        "metadata": "read", "pull_requests": "write", "statuses": "write",
    });
    assert_eq!(lacks(all.clone()), Some(Vec::new()));
    all["statuses"] = "read".into();
    all["checks"] = Value::Null;
    let missing = vec!["checks: read".to_owned(), "statuses: write".to_owned()];
    assert_eq!(lacks(all), Some(missing));
}

#[test]
fn deliveries_say_what_became_of_an_installation() {
    let repository = json!({ "full_name": "acme/store" });
    let told = |event: &str, action: &str| {
        let body = json!({
            "action": action, "installation": { "id": 9, "account": { "login": "acme" } },
            "repository": repository, "changes": { "repository": { "name": { "from": "shop" } } },
        });
        let heard = heard(event, body.to_string().as_bytes());
        assert_eq!(heard.installation, Some(9));
        assert_eq!(heard.repository.as_deref(), Some("acme/store"));
        heard.what
    };
    assert_eq!(told("installation", "deleted"), Some(What::Gone));
    assert_eq!(told("installation", "suspend"), Some(What::Suspended(true)));
    assert_eq!(
        told("installation", "unsuspend"),
        Some(What::Suspended(false))
    );
    assert_eq!(told("installation", "created"), Some(What::Made));
    assert_eq!(
        told("installation_repositories", "removed"),
        Some(What::Repositories)
    );
    let renamed = Renamed {
        from: "acme/shop".into(),
        to: "acme/store".into(),
    };
    assert_eq!(told("repository", "renamed"), Some(What::Renamed(renamed)));
    for (event, action) in [
        ("push", ""),
        ("pull_request", "deleted"),
        ("repository", "edited"),
    ] {
        assert_eq!(told(event, action), None, "{event}");
    }
    let nothing = heard("installation", b"[1");
    assert_eq!((nothing.installation, nothing.repository), (None, None));
}

fn entry() -> impl Strategy<Value = Found> {
    let account = prop::sample::select(vec!["acme", "Ada", "ada", "others"]);
    (1..4_u64, 41..44_u64, account, any::<bool>()).prop_map(
        |(number, app, account, is_organization)| Found {
            number,
            app,
            account: account.to_owned(),
            is_organization,
            is_suspended: false,
            missing: Vec::new(),
        },
    )
}

proptest! {
    /// Written without the function's own words: what is bound is listed, of this App, and administered.
    #[test]
    fn what_is_bound_is_the_app_s_and_administered_by_whoever_comes(
        seen in prop::collection::vec(entry(), 0..6),
        number in 1..4_u64,
        is_admin: bool,
    ) {
        let of = if is_admin { Membership::Admin } else { Membership::Other };
        let outcome = prove(&app(), number, &seen, ("ada", of));
        let listed = seen.iter().find(|it| it.number == number && it.app == 42);
        let may = listed.is_some_and(|it| match it.is_organization {
            true => is_admin,
            false => it.account.to_lowercase() == "ada",
        });
        prop_assert_eq!(outcome.is_ok(), may, "{:?}", outcome);
        if let Ok(bound) = outcome {
            prop_assert_eq!(bound.number, number);
            prop_assert_eq!(bound.app, app().id);
        }
    }
}

#[test]
fn a_member_is_no_owner_and_an_owner_of_another_is_neither() {
    let said = |role: &str, state: &str, of: &str| {
        let body = json!({ "role": role, "state": state, "organization": { "login": of } });
        membership(body.to_string().as_bytes(), "acme")
    };
    assert_eq!(said("admin", "active", "Acme"), Membership::Admin);
    for (role, state, of) in [
        ("member", "active", "acme"),
        ("admin", "pending", "acme"),
        ("admin", "active", "others"),
    ] {
        assert_eq!(
            said(role, state, of),
            Membership::Other,
            "{role} {state} {of}"
        );
    }
    assert_eq!(membership(b"", "acme"), Membership::Other);
}
