//! The servers of one cluster, as base URLs: which one is spoken to, and which one is next.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::HeaderMap;
use skep_control_plane::api::SERVERS_HEADER;

/// The base URLs, and the one of the moment. Shared by all clones of a client.
#[derive(Debug)]
pub(super) struct Bases {
    urls: Vec<String>,
    at: AtomicUsize,
    known: usize,
    outdated: AtomicBool,
}

impl Bases {
    /// `first`, then the others that are known.
    pub(super) fn new(first: &str, others: &[String]) -> Self {
        let mut urls = vec![first.trim_end_matches('/').to_owned()];
        for url in others {
            let url = url.trim_end_matches('/');
            if !urls.iter().any(|it| it == url) {
                urls.push(url.to_owned());
            }
        }
        Self {
            urls,
            at: AtomicUsize::new(0),
            known: others.len(),
            outdated: AtomicBool::new(false),
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.urls.len()
    }

    /// The one of the moment.
    pub(super) fn current(&self) -> &str {
        &self.urls[self.at.load(Ordering::Relaxed) % self.urls.len()]
    }

    /// `base` did not serve: the next one is spoken to, unless that has been done already.
    pub(super) fn move_on(&self, base: &str) {
        if self.urls.len() > 1 && self.current() == base {
            self.at.fetch_add(1, Ordering::Relaxed);
            self.outdated.store(true, Ordering::Relaxed);
        }
    }

    /// A server answered: it says how many servers there are.
    pub(super) fn heard(&self, headers: &HeaderMap) {
        let count = headers.get(SERVERS_HEADER).and_then(|it| it.to_str().ok());
        if count
            .and_then(|it| it.parse().ok())
            .is_some_and(|it: usize| it != self.known)
        {
            self.outdated.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the list should be asked for again.
    pub(super) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_tried_once_however_many_requests_fail_at_once() {
        let others = ["https://a:1/".to_owned(), "https://b:1".to_owned()];
        let bases = Bases::new("https://a:1", &others);
        assert_eq!((bases.count(), bases.current()), (2, "https://a:1"));
        bases.move_on("https://a:1");
        bases.move_on("https://a:1");
        assert_eq!(bases.current(), "https://b:1");
        assert!(bases.is_outdated());
        bases.move_on("https://b:1");
        assert_eq!(bases.current(), "https://a:1");
    }

    #[test]
    fn a_list_of_another_length_is_outdated() {
        let bases = Bases::new("https://a:1", &["https://a:1".to_owned()]);
        let mut headers = HeaderMap::new();
        headers.insert(SERVERS_HEADER, "1".parse().expect("a value"));
        bases.heard(&headers);
        assert!(!bases.is_outdated());
        headers.insert(SERVERS_HEADER, "3".parse().expect("a value"));
        bases.heard(&headers);
        assert!(bases.is_outdated());
    }
}
