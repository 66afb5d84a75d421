//! What a registry is shown: a password, or a token that somebody gives for one. Challenges are read by the
//! `http-auth` crate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_auth::ChallengeRef;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode, Uri};
use serde::Deserialize;
use skep_model::registry::RegistryAccess;

use super::Error;
use super::http::{Http, Payload};

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    /// User and password.
    Basic,
    /// A token of this place, for this service and scope.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What answers the challenge of a refusal.
///
/// # Errors
/// The registry wants what nobody has, or whoever gives tokens does not give one.
pub(super) async fn answer(
    http: &Http,
    headers: &HeaderMap,
    access: Option<&RegistryAccess>,
) -> Result<HeaderValue, Error> {
    match challenge(headers) {
        None => Err(Error::Odd(
            "it refuses and does not say what it wants".into(),
        )),
        Some(Challenge::Basic) => {
            let access = access.ok_or_else(|| Error::Refused("it asks for a login".into()))?;
            sensitive(&basic(access))
        }
        Some(Challenge::Bearer {
            realm,
            service,
            scope,
        }) => {
            let uri = token_uri(
                http.scheme,
                &realm,
                &[("service", service), ("scope", scope)],
            )?;
            let mut request = Request::builder().method(Method::GET).uri(uri);
            if let Some(access) = access {
                request = request.header(AUTHORIZATION, sensitive(&basic(access))?);
            }
            let answer = http.send(request, Payload::None).await?;
            let status = answer.status();
            let body = http.read(answer).await?;
            match status {
                StatusCode::OK => {}
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(Error::Refused(format!("{realm} gives no token: {status}")));
                }
                _ => return Err(Error::Odd(format!("{realm} answers {status}"))),
            }
            let token: Token = serde_json::from_slice(&body)
                .map_err(|error| Error::Odd(format!("the token of {realm}: {error}")))?;
            let token = token.token.or(token.access_token);
            let token = token.ok_or_else(|| Error::Odd(format!("{realm} gave no token")))?;
            sensitive(&format!("Bearer {token}"))
        }
    }
}

fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter();
    let mut all = Vec::new();
    for text in texts {
        let read = text.to_str().ok().map(http_auth::parse_challenges);
        all.extend(read.and_then(Result::ok).into_iter().flatten());
    }
    let is = |one: &&ChallengeRef<'_>, scheme: &str| one.scheme.eq_ignore_ascii_case(scheme);
    if let Some(bearer) = all.iter().find(|one| is(one, "bearer")) {
        let param = |name: &str| {
            let mut all = bearer.params.iter();
            let found = all.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        return Some(Challenge::Bearer {
            realm: param("realm")?,
            service: param("service"),
            scope: param("scope"),
        });
    }
    all.iter()
        .find(|one| is(one, "basic"))
        .map(|_| Challenge::Basic)
}

/// A registry under TLS must not send passwords anywhere without it.
fn token_uri(scheme: &str, realm: &str, params: &[(&str, Option<String>)]) -> Result<Uri, Error> {
    let odd = |why: &dyn std::fmt::Display| Error::Odd(format!("its tokens are at {realm}: {why}"));
    let mut url = url::Url::parse(realm).map_err(|error| odd(&error))?;
    if url.scheme() != "https" && (url.scheme(), scheme) != ("http", "http") {
        return Err(odd(&"no password is sent there without TLS"));
    }
    for (name, value) in params {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    url.as_str().parse().map_err(|error| odd(&error))
}

fn basic(access: &RegistryAccess) -> String {
    let both = format!("{}:{}", access.user, access.password);
    format!("Basic {}", STANDARD.encode(both))
}

fn sensitive(text: &str) -> Result<HeaderValue, Error> {
    let value = HeaderValue::from_str(text);
    let mut value = value.map_err(|_| Error::Odd("the login is no text of a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_asks_for_is_read() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(WWW_AUTHENTICATE, text.parse().expect("a header"));
            challenge(&headers)
        };
        assert_eq!(of("Basic realm=\"lab\""), Some(Challenge::Basic));
        let bearer = of(
            "Bearer realm=\"https://a.example/token\",service=\"r\",scope=\"repository:a/b:pull,push\"",
        );
        assert_eq!(
            bearer,
            Some(Challenge::Bearer {
                realm: "https://a.example/token".into(),
                service: Some("r".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(of("Negotiate"), None);
        assert_eq!(of("Bearer service=\"r\""), None);
    }

    #[test]
    fn no_password_leaves_tls() {
        let params = [("service", Some("r x".to_owned())), ("scope", None)];
        let uri = token_uri("https", "https://a.example/t?a=b", &params).expect("fine");
        assert_eq!(uri, "https://a.example/t?a=b&service=r+x");
        assert!(token_uri("http", "http://127.0.0.1:1/t", &[]).is_ok());
        for (scheme, realm) in [
            ("https", "http://a.example/t"),
            ("http", "ftp://a/t"),
            ("https", "x"),
        ] {
            assert!(token_uri(scheme, realm, &[]).is_err(), "{scheme} {realm}");
        }
    }
}
