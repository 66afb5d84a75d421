//! Previews: made of pull requests and by hand, with what is theirs and nothing else.

use skep_model::settings::Scope;
use skep_model::spec::Source;
use skep_state::State;

use super::hooks::Hook;
use super::*;

const RULES: &str = "/v1/preview-rules/shop/production";
const DB: &str = "/v1/projects/shop/environments/production/services/db";

/// A service from git with a webhook, one from an image beside it, and rules.
async fn start(rules: Value) -> Hook {
    let hook = Hook::start().await;
    let spec = json!({"type": "worker", "source": {"type": "image", "reference": "postgres:17"},
        "storage": {"volumes": [{"name": "data", "path": "/data"}]}});
    let put = hook.server.put(DB, json!({"spec": spec})).await;
    assert_eq!(put.status, 201, "{}", put.body);
    let set = json!({"set": [
        {"name": "TOKEN", "value": "hush", "secret": true},
        {"name": "DATABASE", "value": "db:${{db.PORT}}"}]});
    let set = hook
        .server
        .call(Method::PATCH, &format!("{WEB}/variables"), set)
        .await;
    assert_eq!(set.status, 200, "{}", set.body);
    let put = hook.server.put(RULES, rules).await;
    assert_eq!(put.status, 200, "{}", put.body);
    hook
}

fn request(action: &str, commit: &str, minute: u32) -> Value {
    json!({"action": action, "number": 7, "repository": {"full_name": "team/shop"},
        "pull_request": {"title": "More", "updated_at": format!("2026-01-02T03:{minute:02}:00Z"),
            "html_url": "https://forge.test/team/shop/pulls/7",
            "head": {"ref": "more", "sha": commit.repeat(40), "repo": {"full_name": "team/shop"}},
            "base": {"ref": "main", "repo": {"full_name": "team/shop"}}}})
}

impl Hook {
    async fn change(&self, id: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let signature = self.sign(&body);
        let headers = [
            ("x-hub-signature-256", signature.as_str()),
            ("x-github-event", "pull_request"),
            ("x-github-delivery", id),
        ];
        self.deliver(&headers, &body).await
    }

    fn view(&self) -> State {
        self.server.context.store.view()
    }
}

/// Services of an environment as `name`, and what each is deployed from.
fn services(view: &State, environment: &str) -> Vec<String> {
    let found = view.environments().find(|it| it.name == environment);
    let Some(found) = found else {
        return Vec::new();
    };
    view.services_in(Scope::Environment(found.id))
        .map(|service| match &service.spec.source {
            Some(Source::Git {
                repository, branch, ..
            }) => format!("{} {repository} {branch}", service.name),
            Some(Source::Image { reference }) => format!("{} {reference}", service.name),
            Some(Source::Pushed { branch, .. }) => format!("{} pushed {branch}", service.name),
            None => service.name.clone(),
        })
        .collect()
}

fn decision(answer: &Answer) -> &str {
    let text = answer.body["events"][0]["decision"].as_str();
    text.unwrap_or_else(|| panic!("{}", answer.body))
}

#[tokio::test]
async fn a_pull_request_has_an_environment_until_it_is_closed() {
    let hook = start(json!({"set": [{"name": "MODE", "value": "preview"}]})).await;
    let production = hook.view().services().cloned().collect::<Vec<_>>();
    let opened = hook.change("d-1", &request("opened", "a", 1)).await;
    assert_eq!(opened.status, 202, "{}", opened.body);
    let view = hook.view();
    let made = services(&view, "pr-7");
    let wanted = ["db postgres:17", "web https://forge.test/shop.git more"];
    assert_eq!(made, wanted);
    assert_eq!(hook.deployments(), 2);
    let web = "/v1/projects/shop/environments/pr-7/services/web/variables";
    let variables = hook.server.get(web).await.body;
    let shown = variables["variables"].to_string();
    assert!(
        shown.contains("db:${{db.PORT}}") && shown.contains("TOKEN"),
        "{shown}"
    );
    assert!(!shown.contains("hush"), "{shown}");
    let shared = "/v1/projects/shop/environments/pr-7/variables";
    let shared = hook.server.get(shared).await.body;
    assert_eq!(shared["variables"][0]["value"], "preview", "{shared}");
    // The same again, by delivery and by commit.
    for id in ["d-1", "d-2"] {
        let again = hook.change(id, &request("opened", "a", 1)).await;
        assert_eq!(again.status, 200, "{}", again.body);
    }
    assert_eq!(hook.deployments(), 2);
    let pushed = hook.change("d-3", &request("synchronize", "b", 3)).await;
    assert_eq!(pushed.status, 202, "{}", pushed.body);
    assert_eq!(hook.deployments(), 3, "the database is not deployed again");
    let late = hook.change("d-4", &request("synchronize", "a", 2)).await;
    assert!(
        decision(&late).contains("older than what was heard"),
        "{}",
        late.body
    );
    let seen = hook.server.get("/v1/previews/shop/pr-7").await.body;
    assert_eq!(seen["commit"], "b".repeat(40), "{seen}");
    assert_eq!(seen["request"]["number"], 7);
    let closed = hook.change("d-5", &request("closed", "b", 4)).await;
    assert!(decision(&closed).contains("`pr-7` goes"), "{}", closed.body);
    let going = hook.view();
    let now: Vec<_> = going
        .services()
        .filter(|it| !it.removing)
        .cloned()
        .collect();
    assert_eq!(now, production, "nothing of production was touched");
    // What was pushed before the end and comes behind it, with and without a time.
    let mut late = request("synchronize", "c", 5);
    let answer = hook.change("d-6", &late).await;
    assert!(
        decision(&answer).contains("closed before"),
        "{}",
        answer.body
    );
    late["pull_request"]["updated_at"] = Value::Null;
    hook.change("d-7", &late).await;
    assert_eq!(hook.view().previews().count(), 1);
    let again = hook.change("d-8", &request("reopened", "c", 6)).await;
    assert_eq!(again.status, 202, "{}", again.body);
    assert_eq!(
        services(&hook.view(), "pr-7-2").len(),
        2,
        "the old one still goes"
    );
}

#[tokio::test]
async fn a_fork_gets_nothing_or_nothing_of_the_environment() {
    let fork = |id: u32| {
        let mut body = request("opened", "a", 1);
        body["number"] = json!(id);
        let repo = json!({"full_name": "stranger/shop", "clone_url": "https://forge.test/stranger/shop.git"});
        body["pull_request"]["head"]["repo"] = repo;
        body
    };
    let hook = start(json!({})).await;
    let refused = hook.change("d-1", &fork(7)).await;
    assert!(
        decision(&refused).contains("another repository"),
        "{}",
        refused.body
    );
    assert_eq!(hook.view().previews().count(), 0);
    let rules = json!({"forks": true, "set": [
        {"name": "OPEN", "value": "yes"}, {"name": "KEY", "value": "hush", "secret": true}]});
    assert_eq!(hook.server.put(RULES, rules).await.status, 200);
    let shared = "/v1/projects/shop/environments/production/variables";
    let secret = json!({"set": [{"name": "SHARED", "value": "hush"}]});
    assert_eq!(
        hook.server.call(Method::PATCH, shared, secret).await.status,
        200
    );
    assert_eq!(hook.change("d-2", &fork(8)).await.status, 202);
    let view = hook.view();
    let made = services(&view, "pr-8");
    assert!(
        made.contains(&"web https://forge.test/stranger/shop.git more".to_owned()),
        "{made:?}"
    );
    let environment = view
        .environments()
        .find(|it| it.name == "pr-8")
        .expect("made")
        .id;
    let mut copies = view.services_in(Scope::Environment(environment));
    assert!(copies.all(|it| it.variables.is_empty() && it.webhook_secret.is_none()));
    let shared = view.shared_variables(environment).variables;
    assert_eq!(shared.keys().collect::<Vec<_>>(), ["OPEN"]);
    // The same request of the repository itself has all of them.
    assert_eq!(
        hook.change("d-3", &request("opened", "a", 1)).await.status,
        202
    );
    let view = hook.view();
    let own = view
        .environments()
        .find(|it| it.name == "pr-7")
        .expect("made")
        .id;
    let shared = view.shared_variables(own).variables;
    assert_eq!(shared.keys().collect::<Vec<_>>(), ["KEY", "OPEN", "SHARED"]);
}

#[tokio::test]
async fn what_is_too_much_or_not_wanted_makes_nothing_and_says_why() {
    let hook = start(json!({"max": 1})).await;
    let mut marked = request("opened", "a", 1);
    marked["pull_request"]["title"] = json!("docs [Skip Preview]");
    let answer = hook.change("d-0", &marked).await;
    assert!(
        decision(&answer).contains("[skip preview]"),
        "{}",
        answer.body
    );
    let mut elsewhere = request("opened", "a", 1);
    elsewhere["pull_request"]["base"]["ref"] = json!("develop");
    let answer = hook.change("d-1", &elsewhere).await;
    assert!(
        decision(&answer).contains("deploys the branch"),
        "{}",
        answer.body
    );
    assert_eq!(
        hook.change("d-2", &request("opened", "a", 1)).await.status,
        202
    );
    let mut second = request("opened", "a", 1);
    second["number"] = json!(8);
    let answer = hook.change("d-3", &second).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        decision(&answer).contains("there are 1 previews"),
        "{}",
        answer.body
    );
    assert!(services(&hook.view(), "pr-8").is_empty());
    let removed = hook.server.call(Method::DELETE, RULES, Value::Null).await;
    assert_eq!(removed.status, 204);
    let mut third = request("opened", "a", 1);
    third["number"] = json!(9);
    let answer = hook.change("d-4", &third).await;
    assert!(
        decision(&answer).contains("says nothing of previews"),
        "{}",
        answer.body
    );
    // Those that there are go on to follow their request.
    let closed = hook.change("d-5", &request("closed", "a", 2)).await;
    assert!(decision(&closed).contains("goes"), "{}", closed.body);
}

#[tokio::test]
async fn one_is_made_by_hand_put_off_and_removed() {
    let hook = start(json!({})).await;
    let server = &hook.server;
    let path = "/v1/previews/shop/try-it";
    let wanted = json!({"branch": "next", "images": {"db": "postgres:18"}, "ttl_ms": 60_000});
    let made = server.post(path, wanted).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let copies = services(&hook.view(), "try-it");
    assert_eq!(
        copies,
        ["db postgres:18", "web https://forge.test/shop.git next"]
    );
    let ends = made.body["expires_ms"].as_u64().expect("a time");
    let later = server
        .post(&format!("{path}/extend"), json!({"ttl_ms": 120_000}))
        .await;
    assert!(
        later.body["expires_ms"].as_u64().expect("a time") > ends + 30_000,
        "{}",
        later.body
    );
    let listed = server.get("/v1/previews").await.body;
    assert_eq!(listed["previews"][0]["name"], "try-it", "{listed}");
    for (path, body, status, field) in [
        (path, json!({}), 409, Some("name")),
        ("/v1/previews/shop/A", json!({}), 400, Some("name")),
        (
            "/v1/previews/shop/b",
            json!({"ttl_ms": 1}),
            400,
            Some("ttl"),
        ),
        (
            "/v1/previews/shop/b",
            json!({"images": {"no": "x"}}),
            400,
            Some("images"),
        ),
        (
            "/v1/previews/shop/b",
            json!({"from": "no"}),
            404,
            Some("environment"),
        ),
        ("/v1/previews/shop/b", json!({"from": "try-it"}), 409, None),
    ] {
        let code = match status {
            409 => "conflict",
            404 => "not_found",
            _ => "invalid",
        };
        assert_problem(&server.post(path, body).await, status, code, field);
    }
    let removed = server.call(Method::DELETE, path, Value::Null).await;
    assert_eq!(
        (removed.status.as_u16(), &removed.body["ended"]),
        (202, &json!("removed"))
    );
    let odd = server.put(RULES, json!({"services": ["no"]})).await;
    assert_problem(&odd, 400, "invalid", Some("services"));
    let gone = server.get("/v1/previews/shop/none").await;
    assert_problem(&gone, 404, "not_found", Some("preview"));
}
