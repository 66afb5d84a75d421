//! Which builder the daemon offers, and why it is taken. Asks the daemon, builds nothing.

use std::time::Duration;

use bollard::BollardRequest;
use bollard::errors::Error;
use bytes::Bytes;
use hyper::{HeaderMap, Request};
use skep_model::problem::Problem;
use tokio::time::timeout;

use super::super::{Env, image};

/// One question to the daemon on this machine.
const PING_LIMIT: Duration = Duration::from_secs(30);
/// The first API of which BuildKit is a part that nobody has to switch on (Docker 18.09).
const FIRST_WITH_BUILDKIT: (usize, usize) = (1, 39);

/// Who carries a Dockerfile out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Builder {
    /// Parallel stages, mounts, secrets, a cache that knows contents.
    BuildKit,
    /// One step after the other.
    Classic,
}

/// The builder that is taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Daemon {
    pub(super) builder: Builder,
    why: String,
}

impl Daemon {
    /// One line that tells it.
    pub(super) fn line(&self) -> String {
        let name = match self.builder {
            Builder::BuildKit => "BuildKit",
            Builder::Classic => "the classic builder",
        };
        format!("docker: {name} ({})", self.why)
    }
}

/// Asks the daemon. It is asked for each build: an upgrade or its configuration may change it.
pub(super) async fn ask(env: &Env) -> Result<Daemon, Problem> {
    let request: BollardRequest = Request::get("/_ping")
        .body(bollard::body_full(Bytes::new()))
        .expect("a constant path and no headers");
    let answered = match timeout(PING_LIMIT, env.socket.send(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(image::unreachable(&error)),
        Err(_) => return Err(image::unreachable(&Error::RequestTimeoutError)),
    };
    Ok(choose(answered.headers()))
}

/// As Docker's own client does: what the daemon's configuration says, else BuildKit where it is.
fn choose(headers: &HeaderMap) -> Daemon {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let api = header("api-version").unwrap_or_default();
    let (builder, why) = match header("builder-version") {
        Some("2") => (Builder::BuildKit, "the daemon's own choice".to_owned()),
        Some("1") => (
            Builder::Classic,
            "the daemon's configuration asks for it".to_owned(),
        ),
        // Engines that only speak Docker's language send it empty.
        Some(_) => (Builder::Classic, "the daemon offers no BuildKit".to_owned()),
        None if version(api) >= Some(FIRST_WITH_BUILDKIT) => {
            (Builder::BuildKit, format!("the daemon has it: API {api}"))
        }
        None => (
            Builder::Classic,
            format!("the daemon is older than BuildKit: API {api}"),
        ),
    };
    Daemon { builder, why }
}

fn version(text: &str) -> Option<(usize, usize)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(pairs: &[(&'static str, &'static str)]) -> Daemon {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().expect("a value"));
        }
        choose(&headers)
    }

    #[test]
    fn the_daemons_word_then_its_age() {
        use Builder::{BuildKit, Classic};
        let cases = [
            (
                &[("api-version", "1.51"), ("builder-version", "2")][..],
                BuildKit,
                "own choice",
            ),
            (
                &[("api-version", "1.41"), ("builder-version", "1")],
                Classic,
                "configuration",
            ),
            (
                &[("api-version", "1.41"), ("builder-version", "")],
                Classic,
                "no BuildKit",
            ),
            (&[("api-version", "1.41")], BuildKit, "API 1.41"),
            (&[("api-version", "1.39")], BuildKit, "API 1.39"),
            (&[("api-version", "1.38")], Classic, "older"),
            (&[], Classic, "older"),
        ];
        for (headers, builder, why) in cases {
            let daemon = chosen(headers);
            assert_eq!(daemon.builder, builder, "{headers:?}");
            assert!(daemon.line().contains(why), "{}", daemon.line());
        }
    }
}
