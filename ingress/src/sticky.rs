//! A client that comes back to the replica that it had: a cookie that names it. Pure.

use std::sync::Arc;

use cookie::{Cookie, SameSite};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use skep_model::id::{AllocationId, ServiceId};

use crate::ingress::mix;
use crate::origin::Scheme;

/// The cookie of the routes of a service below one path: services that share a host do not take each other's.
pub(crate) fn cookie_name(service: ServiceId, prefix: &str) -> String {
    let id = service.as_u128();
    let seed = mix(mix(id as u64) ^ (id >> 64) as u64);
    let hash = prefix
        .bytes()
        .fold(seed, |hash, byte| mix(hash ^ u64::from(byte)));
    format!("skep-{:08x}", hash as u32)
}

/// What names an allocation to clients: not its id, which is of no use to them.
pub(crate) fn token(allocation: AllocationId) -> u64 {
    let id = allocation.as_u128();
    mix(mix(id as u64) ^ (id >> 64) as u64)
}

/// A route whose clients stay where they are.
#[derive(Debug)]
pub(crate) struct Sticky {
    name: Arc<str>,
    /// What the client brought.
    had: Option<u64>,
}

impl Sticky {
    pub(crate) fn of(name: &Arc<str>, headers: &HeaderMap) -> Self {
        let lines = headers.get_all(COOKIE).into_iter();
        let lines = lines.filter_map(|line| line.to_str().ok());
        let all = lines.flat_map(Cookie::split_parse).filter_map(Result::ok);
        let mut own = all.filter(|cookie| cookie.name() == &**name);
        let had = own.find_map(|cookie| u64::from_str_radix(cookie.value(), 16).ok());
        Self {
            name: Arc::clone(name),
            had,
        }
    }

    pub(crate) fn had(&self) -> Option<u64> {
        self.had
    }

    /// Has the client come back to `allocation`, if it does not already. Until it is closed: a browser that
    /// is opened again may as well begin anew.
    pub(crate) fn keep(&self, allocation: AllocationId, scheme: Scheme, headers: &mut HeaderMap) {
        let token = token(allocation);
        if self.had == Some(token) {
            return;
        }
        let cookie = Cookie::build((&*self.name, format!("{token:016x}")))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(scheme == Scheme::Https);
        if let Ok(line) = HeaderValue::try_from(cookie.to_string()) {
            headers.append(SET_COOKIE, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_cookie_of_a_replica_keeps_it() {
        let name: Arc<str> = cookie_name(ServiceId::from_u128(1), "/a").into();
        assert_ne!(*name, *cookie_name(ServiceId::from_u128(1), "/b"));
        assert_ne!(*name, *cookie_name(ServiceId::from_u128(2), "/a"));
        let allocation = AllocationId::from_u128(7);
        let mut headers = HeaderMap::new();
        let sticky = Sticky::of(&name, &headers);
        assert_eq!(sticky.had(), None);
        sticky.keep(allocation, Scheme::Https, &mut headers);
        let set = headers[SET_COOKIE].to_str().expect("text").to_owned();
        assert!(set.starts_with(&format!("{name}=")), "{set}");
        for part in ["HttpOnly", "SameSite=Lax", "Secure", "Path=/"] {
            assert!(set.contains(part), "{part} in {set}");
        }
        let (pair, _) = set.split_once(';').expect("attributes");
        let brought = format!("a=b; {pair}; {name}-other=ff; c");
        headers.clear();
        headers.insert(COOKIE, HeaderValue::try_from(brought).expect("a value"));
        let sticky = Sticky::of(&name, &headers);
        assert_eq!(sticky.had(), Some(token(allocation)));
        sticky.keep(allocation, Scheme::Http, &mut headers);
        assert!(!headers.contains_key(SET_COOKIE), "said once");
        sticky.keep(AllocationId::from_u128(8), Scheme::Http, &mut headers);
        let set = headers[SET_COOKIE].to_str().expect("text");
        assert!(!set.contains("Secure"), "{set}");
    }

    #[test]
    fn what_is_no_token_is_none() {
        let name: Arc<str> = "n".into();
        for value in ["n=", "n=xyz", "n", "m=1", "=1", ";;", "n=-1"] {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, HeaderValue::from_static(value));
            assert_eq!(Sticky::of(&name, &headers).had(), None, "{value}");
        }
    }
}
