//! What is signed right passes, everything else is told apart.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

const SECRET: &str = "It's a Secret to Everybody";
const BODY: &[u8] = b"Hello, World!";
/// Of GitHub's documentation ("Validating webhook deliveries").
const DIGITS: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
const NOW: Clock = Clock {
    now_s: 1_700_000_000,
    tolerance_s: 300,
};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        let value = HeaderValue::from_str(value).expect("a header");
        (HeaderName::from_static(name), value)
    };
    pairs.iter().map(pair).collect()
}

fn ask(forge: Forge, pairs: &[(&'static str, &str)], secret: &str) -> Result<(), Refusal> {
    verify(forge, &headers(pairs), BODY, secret, NOW)
}

#[test]
fn each_forge_signs_in_its_own_header() {
    let prefixed = format!("sha256={DIGITS}");
    let cases = [
        (Forge::GitHub, "x-hub-signature-256", &prefixed),
        (Forge::Gitea, "x-hub-signature-256", &prefixed),
        (Forge::Gitea, "x-gitea-signature", &DIGITS.to_owned()),
        (Forge::Forgejo, "x-forgejo-signature", &DIGITS.to_owned()),
        (Forge::Forgejo, "x-gitea-signature", &DIGITS.to_owned()),
        (Forge::Gogs, "x-gogs-signature", &DIGITS.to_owned()),
        (Forge::BitbucketCloud, "x-hub-signature", &prefixed),
        (Forge::BitbucketDataCenter, "x-hub-signature", &prefixed),
        (Forge::Generic, "x-skep-signature", &prefixed),
    ];
    for (forge, name, value) in cases {
        assert_eq!(ask(forge, &[(name, value)], SECRET), Ok(()), "{forge}");
        let upper = value.replace(DIGITS, &DIGITS.to_uppercase());
        assert_eq!(ask(forge, &[(name, &upper)], SECRET), Ok(()), "{forge}");
        let refusals = [
            (value.replace("757107", "757108"), Refusal::Mismatch),
            (String::new(), Refusal::Empty),
            ("sha256=".to_owned(), Refusal::Empty),
        ];
        for (odd, refusal) in refusals {
            assert_eq!(
                ask(forge, &[(name, &odd)], SECRET),
                Err(refusal),
                "{forge} {odd}"
            );
        }
        for odd in [&value[..value.len() - 2], "sha256=zz", "sha1=00", "v1,xx"] {
            let refused = ask(forge, &[(name, odd)], SECRET);
            assert!(
                matches!(refused, Err(Refusal::Malformed(..))),
                "{forge} {odd}"
            );
        }
        assert!(
            matches!(ask(forge, &[], SECRET), Err(Refusal::Missing(_))),
            "{forge}"
        );
        assert_eq!(
            ask(forge, &[(name, value)], "other"),
            Err(Refusal::Mismatch)
        );
        let cut = verify(
            forge,
            &headers(&[(name, value)]),
            b"Hello, World",
            SECRET,
            NOW,
        );
        assert_eq!(cut, Err(Refusal::Mismatch), "{forge}");
    }
    let bare = ask(Forge::GitHub, &[("x-hub-signature-256", DIGITS)], SECRET);
    assert!(matches!(bare, Err(Refusal::Malformed(..))), "no scheme");
    // Another's header proves nothing.
    let foreign = ask(Forge::GitLab, &[("x-hub-signature-256", &prefixed)], SECRET);
    assert!(foreign.is_err());
}

#[test]
fn an_empty_secret_is_refused_even_with_its_right_signature() {
    let tag = |key: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
        mac.update(BODY);
        hex::encode(mac.finalize().into_bytes())
    };
    let prefixed = format!("sha256={}", tag(b""));
    for forge in Forge::ALL {
        let name = forge.signature_headers()[0];
        let sent = [(name, prefixed.as_str()), ("x-gitlab-token", "")];
        assert_eq!(ask(forge, &sent, ""), Err(Refusal::NoSecret), "{forge}");
    }
    // An empty key behind the prefix is none either.
    let mut mac = Hmac::<Sha256>::new_from_slice(b"").expect("any key");
    mac.update(b"id.1700000000.");
    mac.update(BODY);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let sent = gitlab_headers(&signature, "1700000000");
    let refused = verify(Forge::GitLab, &sent, BODY, KEY_PREFIX, NOW);
    assert_eq!(refused, Err(Refusal::Mismatch));
}

#[test]
fn gitlabs_token_is_the_secret_itself() {
    let token = |text: &str| ask(Forge::GitLab, &[("x-gitlab-token", text)], SECRET);
    assert_eq!(token(SECRET), Ok(()));
    assert_eq!(token("other"), Err(Refusal::WrongToken));
    assert_eq!(token(&SECRET[1..]), Err(Refusal::WrongToken));
    assert_eq!(token(""), Err(Refusal::Empty));
    let none = ask(Forge::GitLab, &[], SECRET);
    assert_eq!(none, Err(Refusal::Missing("X-Gitlab-Token".to_owned())));
}

fn gitlab_headers(signature: &str, time: &str) -> HeaderMap {
    headers(&[
        ("webhook-id", "id"),
        ("webhook-timestamp", time),
        ("webhook-signature", signature),
    ])
}

fn signature(key: &[u8], time: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    mac.update(format!("id.{time}.").as_bytes());
    mac.update(BODY);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[test]
fn gitlabs_signed_form_holds_for_its_time_and_no_longer() {
    let key = [7_u8; 32];
    let secret = format!("{KEY_PREFIX}{}", STANDARD.encode(key));
    let own = hex::encode(key);
    assert_eq!(signing_key(&own).as_deref(), Some(secret.as_str()));
    let check = |signature: &str, time: &str, secret: &str| {
        verify(
            Forge::GitLab,
            &gitlab_headers(signature, time),
            BODY,
            secret,
            NOW,
        )
    };
    let good = signature(&key, "1700000000");
    for secret in [&secret, &own] {
        assert_eq!(check(&good, "1700000000", secret), Ok(()));
    }
    let rotated = format!("{} {good}", signature(b"older", "1700000000"));
    assert_eq!(check(&rotated, "1700000000", &secret), Ok(()));
    assert_eq!(check(&good, "1700000001", &secret), Err(Refusal::Mismatch));
    for (time, away) in [("1700000301", 301), ("1699999699", 301)] {
        let late = check(&signature(&key, time), time, &secret);
        assert_eq!(late, Err(Refusal::Stale(away, 300)));
    }
    assert_eq!(
        check(&signature(&key, "1700000300"), "1700000300", &secret),
        Ok(())
    );
    assert!(matches!(
        check(&good, "soon", &secret),
        Err(Refusal::Malformed(..))
    ));
    assert!(matches!(
        check("v2,AAAA", "1700000000", &secret),
        Err(Refusal::Malformed(..))
    ));
    assert_eq!(check("", "1700000000", &secret), Err(Refusal::Empty));
}

#[test]
fn a_token_is_enough_where_a_key_of_the_forges_own_signs_too() {
    let mut sent = gitlab_headers(&signature(b"theirs", "1700000000"), "1700000000");
    let refused = verify(Forge::GitLab, &sent, BODY, SECRET, NOW);
    assert_eq!(refused, Err(Refusal::Mismatch));
    sent.insert("x-gitlab-token", HeaderValue::from_static(SECRET));
    assert_eq!(verify(Forge::GitLab, &sent, BODY, SECRET, NOW), Ok(()));
}

#[test]
fn gitea_signs_the_json_of_a_form_and_github_the_form() {
    let form = b"payload=Hello%2C+World%21";
    let sent = |name| headers(&[(name, format!("sha256={DIGITS}").as_str())]);
    let of_json = |forge, name| verify(forge, &sent(name), form, SECRET, NOW);
    assert_eq!(of_json(Forge::Gitea, "x-gitea-signature"), Ok(()));
    let github = of_json(Forge::GitHub, "x-hub-signature-256");
    assert_eq!(github, Err(Refusal::Mismatch));
}
