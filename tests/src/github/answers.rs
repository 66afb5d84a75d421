//! What it answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{
    APP, CLIENT, CLIENT_SECRET, Given, INSTALLATION, Known, OTHERS, SLUG, Shared, backend,
};
use crate::place;

type Answer = Response<Full<Bytes>>;

pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let body = body.unwrap_or_default();
    let path = parts.uri.path().to_owned();
    if path.contains(".git/") {
        return Ok(backend::answer(&shared, &parts, body).await);
    }
    let line = format!("{} {path}", parts.method);
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let asked = Asked {
        method: &parts.method,
        headers: &parts.headers,
        query: &query,
        body: &body,
    };
    let answer = match path.strip_prefix("/api/v3/") {
        Some(rest) => api(&shared, rest, &asked),
        None => web(&shared, path.trim_start_matches('/'), &asked),
    };
    let mut known = shared.known();
    if answer.status().is_client_error() {
        let said = String::from_utf8_lossy(answer.body_bytes()).into_owned();
        known
            .refused
            .push(format!("{line}: {} {said}", answer.status()));
    }
    Ok(answer.into_response())
}

struct Asked<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
    query: &'a str,
    body: &'a [u8],
}

impl Asked<'_> {
    fn json(&self) -> Value {
        serde_json::from_slice(self.body).unwrap_or_default()
    }

    fn bearer(&self) -> &str {
        let header = self.headers.get("authorization");
        let text = header.and_then(|it| it.to_str().ok()).unwrap_or_default();
        text.strip_prefix("Bearer ").unwrap_or_default()
    }
}

/// An answer with its body at hand.
struct Said {
    status: StatusCode,
    body: Bytes,
    location: Option<String>,
}

impl Said {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    fn into_response(self) -> Answer {
        let mut answer = Response::new(Full::from(self.body));
        *answer.status_mut() = self.status;
        if let Some(location) = self.location {
            let location = location.parse().expect("a header's value");
            answer.headers_mut().insert("location", location);
        }
        answer
    }
}

fn said(status: u16, body: Value) -> Said {
    Said {
        status: StatusCode::from_u16(status).expect("a status"),
        body: body.to_string().into(),
        location: None,
    }
}

fn to(location: String) -> Said {
    Said {
        status: StatusCode::FOUND,
        body: Bytes::new(),
        location: Some(location),
    }
}

fn no(status: u16, why: &str) -> Said {
    said(status, json!({ "message": why }))
}

/// A field of a query or form.
fn field(text: &str, name: &str) -> String {
    let mut pairs = form_urlencoded::parse(text.as_bytes());
    let found = pairs.find(|(key, _)| key == name);
    found
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// What people see.
fn web(shared: &Shared, path: &str, asked: &Asked<'_>) -> Said {
    let mut known = shared.known();
    let state = field(asked.query, "state");
    match (asked.method, path) {
        (&Method::POST, "settings/apps/new" | "organizations/acme/settings/apps/new") => {
            let form = String::from_utf8_lossy(asked.body).into_owned();
            let Ok(manifest) = serde_json::from_str::<Value>(&field(&form, "manifest")) else {
                return no(422, "no manifest");
            };
            let back = manifest["redirect_url"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            known.manifest = Some(manifest);
            let code = known.code("app");
            to(format!("{back}?code={code}&state={state}"))
        }
        (&Method::GET, "github-apps/skep-test/installations/new") => {
            let manifest = known.manifest.clone().unwrap_or_default();
            let back = manifest["callback_urls"][0].as_str().unwrap_or_default();
            let code = known.code("person");
            to(format!(
                "{back}?code={code}&installation_id={INSTALLATION}&setup_action=install&state={state}"
            ))
        }
        (&Method::POST, "login/oauth/access_token") => {
            let body = asked.json();
            let code = body["code"].as_str().unwrap_or_default();
            let is_app = body["client_id"] == CLIENT && body["client_secret"] == CLIENT_SECRET;
            let of = known.codes.remove(code);
            if !is_app || of.as_deref() != Some("person") {
                return said(200, json!({ "error": "bad_verification_code" }));
            }
            known.counted += 1;
            let token = format!("ghu_{}", known.counted);
            known.people.insert(token.clone(), "ada".to_owned());
            said(
                200,
                json!({ "access_token": token, "token_type": "bearer" }),
            )
        }
        _ => no(404, "Not Found"),
    }
}

fn api(shared: &Shared, path: &str, asked: &Asked<'_>) -> Said {
    let parts: Vec<&str> = path.split('/').collect();
    let mut known = shared.known();
    match (asked.method.as_str(), &parts[..]) {
        ("POST", ["app-manifests", code, "conversions"]) => converted(shared, &mut known, code),
        ("DELETE", ["applications", CLIENT, "token"]) => {
            let token = asked.json()["access_token"].as_str().map(str::to_owned);
            match token.and_then(|it| known.people.remove(&it)) {
                Some(_) => said(204, Value::Null),
                None => no(404, "Not Found"),
            }
        }
        ("GET" | "PATCH" | "POST", ["app", rest @ ..]) => match proved(asked.bearer()) {
            Ok(()) => as_app(&mut known, rest, asked),
            Err(why) => no(401, &why),
        },
        ("GET", ["user", rest @ ..]) => match known.people.get(asked.bearer()) {
            Some(login) => of_person(&known, login, rest),
            None if known.given.iter().any(|it| it.token == asked.bearer()) => {
                no(403, "Resource not accessible by integration")
            }
            None => no(401, "Bad credentials"),
        },
        (method, ["repos", "acme", _, rest @ ..]) => {
            let token = known.given.iter().find(|it| it.token == asked.bearer());
            match token {
                Some(it) if it.ends > SystemTime::now() && it.contents_of.is_none() => {}
                Some(it) if it.contents_of.is_some() => return no(403, "it may read contents"),
                _ => return no(401, "Bad credentials"),
            }
            if method == "GET" {
                return said(200, json!([]));
            }
            if rest.first() == Some(&"statuses") {
                known.statuses.push((path.to_owned(), asked.json()));
            }
            said(201, json!({ "id": 1 }))
        }
        _ => no(404, "Not Found"),
    }
}

fn converted(shared: &Shared, known: &mut Known, code: &str) -> Said {
    if known.codes.remove(code).as_deref() != Some("app") {
        return no(404, "Not Found");
    }
    let key = std::fs::read_to_string(place::fixture("github-app/key.pem"));
    said(
        201,
        json!({
            "id": APP, "slug": SLUG, "owner": { "login": "acme", "type": "Organization" },
            "client_id": CLIENT, "client_secret": CLIENT_SECRET,
            "webhook_secret": known.hook_secret, "pem": key.expect("the fixture"),
            "html_url": format!("http://{}/github-apps/{SLUG}", shared.address),
        }),
    )
}

/// Whether this was signed by the App a moment ago, for some minutes.
fn proved(proof: &str) -> Result<(), String> {
    let pem = std::fs::read_to_string(place::fixture("github-app/public.pem"));
    let pem = pem.map_err(|it| it.to_string())?;
    let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(lines).map_err(|it| it.to_string())?;
    let key = DecodingKey::from_rsa_der(&der);
    let mut wanted = Validation::new(Algorithm::RS256);
    wanted.leeway = 0;
    wanted.set_issuer(&[APP.to_string()]);
    let read = jsonwebtoken::decode::<Value>(proof, &key, &wanted);
    let claims = read
        .map_err(|it| format!("the proof is none: {it}"))?
        .claims;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let (from, until) = (claims["iat"].as_u64(), claims["exp"].as_u64());
    match (from, until) {
        (Some(from), Some(until)) if from <= now && until <= now + 600 => Ok(()),
        _ => Err(format!(
            "the proof is for {from:?} to {until:?}, and it is {now}"
        )),
    }
}

fn as_app(known: &mut Known, rest: &[&str], asked: &Asked<'_>) -> Said {
    match rest {
        [] => said(200, json!({ "id": APP, "slug": SLUG })),
        ["hook", "config"] => {
            let secret = asked.json()["secret"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            known.hook_secret = secret;
            said(200, json!({ "content_type": "json" }))
        }
        ["installations", number, "access_tokens"] if *number == INSTALLATION.to_string() => {
            let body = asked.json();
            let contents_of = body["repositories"][0]
                .as_str()
                .map(|name| format!("acme/{name}"));
            if contents_of.is_some() && body["permissions"] != json!({ "contents": "read" }) {
                return no(422, "more than is needed");
            }
            known.counted += 1;
            let token = format!("ghs_{}", known.counted);
            let ends = SystemTime::now() + known.lasts;
            let given = Given {
                token: token.clone(),
                contents_of,
                ends,
            };
            known.given.push(given);
            let ends = OffsetDateTime::from(ends).format(&Rfc3339).expect("a time");
            said(
                201,
                json!({ "token": token, "expires_at": ends, "permissions": {} }),
            )
        }
        _ => no(404, "Not Found"),
    }
}

fn of_person(known: &Known, login: &str, rest: &[&str]) -> Said {
    let granted = json!({
        "checks": "read", "contents": "read", "deployments": "write", "members": "read",
        "metadata": "read", "pull_requests": "write", "statuses": "read",
    });
    match rest {
        [] => said(200, json!({ "login": login })),
        ["installations"] => said(
            200,
            json!({ "total_count": 1, "installations": [{
                "id": INSTALLATION, "app_id": APP, "permissions": granted, "suspended_at": null,
                "account": { "login": "acme", "type": "Organization" },
            }, {
                "id": OTHERS, "app_id": APP + 1, "permissions": {}, "suspended_at": null,
                "account": { "login": "others", "type": "Organization" },
            }] }),
        ),
        ["memberships", "orgs", "acme"] => said(
            200,
            json!({ "state": "active", "role": known.role, "organization": { "login": "acme" } }),
        ),
        _ => no(404, "Not Found"),
    }
}
