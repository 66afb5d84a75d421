//! Why an order failed, in words that say what to do. Pure.

use instant_acme::{Error, Problem};

/// Prefix of the types of problems (RFC 8555, 6.7).
const URN: &str = "urn:ietf:params:acme:error:";

/// What an issuer's kind of refusal asks of people.
fn hint(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "dns" => "let the host's DNS records lead to this cluster's ingress nodes",
        "connection" | "unauthorized" | "tls" | "incorrectResponse" => {
            "the issuer must reach an ingress node at every address that DNS has for the host (port 80 for http-01, 443 for tls-alpn-01), or find the record in its zone (dns-01)"
        }
        "caa" => "a CAA record of the domain forbids this issuer: add it there, or choose another",
        "rateLimited" => {
            "the issuer's limit is reached: it is tried again by itself when the issuer allows it"
        }
        "rejectedIdentifier" => {
            "the issuer does not issue for this host: upload a certificate, or give the service another host"
        }
        "externalAccountRequired" => {
            "the issuer wants a key of an account there: `skep certificates issuer set --eab-key-id`"
        }
        "userActionRequired" => {
            "the issuer has new terms: read them, then `skep certificates issuer set` again"
        }
        "invalidContact" | "unsupportedContact" => {
            "the issuer does not take the contact: `skep certificates issuer set --contact`"
        }
        _ => return None,
    })
}

/// A refusal's kind, without its prefix.
fn kind_of(problem: &Problem) -> Option<&str> {
    problem.r#type.as_deref()?.strip_prefix(URN)
}

/// Whether the issuer does not know the account any more: another one is to be made.
pub(super) fn is_without_account(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if kind_of(problem) == Some("accountDoesNotExist"))
}

/// An issuer's refusal for people.
pub(super) fn refusal(problem: &Problem) -> String {
    let inner = problem.subproblems.iter();
    let first = inner
        .clone()
        .find_map(|it| it.r#type.as_deref()?.strip_prefix(URN));
    let kind = kind_of(problem);
    let said = problem
        .detail
        .iter()
        .chain(inner.filter_map(|it| it.detail.as_ref()));
    let said: Vec<&str> = said.map(String::as_str).collect();
    let said = match said.is_empty() {
        true => kind.unwrap_or("no reason").to_owned(),
        false => said.join("; "),
    };
    let hint = kind.and_then(hint).or_else(|| first.and_then(hint));
    match hint {
        Some(hint) => format!("the issuer says: {said} ({hint})"),
        None => format!("the issuer says: {said}"),
    }
}

/// Any failure for people.
pub(super) fn failure(error: &Error) -> String {
    match error {
        Error::Api(problem) => refusal(problem),
        Error::Timeout(_) => "the issuer took too long; it is tried again by itself".to_owned(),
        Error::Json(_) => {
            "the issuer's answer is not ACME: is the directory's address right?".to_owned()
        }
        error => {
            let mut text = format!("the issuer cannot be asked: {error}");
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: serde_json::Value) -> Problem {
        serde_json::from_value(json).expect("a problem")
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let told = refusal(&problem(serde_json::json!({
            "type": "urn:ietf:params:acme:error:connection", "detail": "timeout"
        })));
        assert!(
            told.contains("timeout") && told.contains("port 80"),
            "{told}"
        );
        let within = refusal(&problem(serde_json::json!({
            "type": "urn:ietf:params:acme:error:malformed", "detail": "several",
            "subproblems": [{"type": "urn:ietf:params:acme:error:caa", "detail": "no"}]
        })));
        assert!(
            within.contains("several; no") && within.contains("CAA"),
            "{within}"
        );
        let bare =
            problem(serde_json::json!({"type": "urn:ietf:params:acme:error:accountDoesNotExist"}));
        assert!(refusal(&bare).contains("accountDoesNotExist"));
        assert!(is_without_account(&Error::Api(bare)));
        assert!(failure(&Error::Timeout(None)).contains("by itself"));
    }
}
