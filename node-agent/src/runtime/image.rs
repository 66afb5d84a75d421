//! Images: what runs is the digest, whatever its reference means by now.

use std::time::Duration;

use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;
use skep_model::id::WorkspaceId;
use skep_model::problem::{Code, Problem};
use skep_model::service::Image;
use tokio::time::{sleep, timeout};

use super::{Error, READ_TIMEOUT, Runtime};
use crate::backoff::Backoff;
use crate::images::{full, says_full};

/// A pull that makes no progress for this long has failed; progress itself has no limit.
const PULL_SILENCE: Duration = Duration::from_secs(120);

impl Runtime {
    /// Whether the image is here; its id then.
    pub(crate) async fn find_image(&self, image: &Image) -> Result<Option<String>, Error> {
        if let Some(id) = self.image_id(&image.digest).await? {
            return Ok(Some(id));
        }
        // A manifest's digest is known to Docker only together with the repository.
        self.image_id(&by_digest(image)).await
    }

    /// The id of an image that is here under this name or id.
    pub(crate) async fn image_id(&self, name: &str) -> Result<Option<String>, Error> {
        let asked = self.docker.inspect_image(name);
        match self.call("inspect an image", READ_TIMEOUT, asked).await {
            Ok(found) => Ok(found.id),
            Err(error) if matches!(error.status(), Some(400 | 404)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches the image; its id then.
    ///
    /// # Errors
    /// Says what is wrong with the reference, or that the registry does not answer; `retryable`
    /// problems are nobody's fault here.
    pub(crate) async fn pull_image(
        &self,
        image: &Image,
        workspace: Option<WorkspaceId>,
    ) -> Result<String, Problem> {
        let reference = &image.reference;
        if image.node.is_some() {
            return Err(Problem::new(
                Code::ImageFailed,
                format!(
                    "image `{reference}` ({}) is gone from this node",
                    image.digest
                ),
            )
            .hint("it was built here and exists nowhere else: deploy again"));
        }
        let failed = |why: String| {
            Problem::new(Code::ImageFailed, format!("image `{reference}`: {why}")).hint(
                "check its name and tag; if it needs a login: skep registry login HOST --user USER",
            )
        };
        // The id of a local image is no name in a registry: then the tag is asked for, and its
        // content judged.
        for name in [by_digest(image), reference.clone()] {
            match self.pull(&name, workspace).await {
                Ok(()) => {}
                Err(error) if error.status().is_some_and(|status| status < 500) => continue,
                Err(error) if says_full(&error.message()) => return Err(full(reference)),
                Err(error) => return Err(failed(error.message())),
            }
            let found = self
                .find_image(image)
                .await
                .map_err(|error| failed(error.message()))?;
            if let Some(id) = found {
                return Ok(id);
            }
        }
        Err(failed(format!(
            "{} cannot be pulled: it does not exist, or needs a login",
            image.digest
        )))
    }

    /// Docker goes on with the layers that it has.
    async fn pull(&self, name: &str, workspace: Option<WorkspaceId>) -> Result<(), Error> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        for _ in 1..PULLS_MAX {
            match self.pull_once(name, workspace).await {
                Err(error) if is_passing(&error.message()) => {
                    let why = error.message();
                    tracing::info!(image = %name, %why, "a registry is asked again");
                }
                ended => return ended,
            }
            sleep(backoff.next()).await;
        }
        self.pull_once(name, workspace).await
    }

    async fn pull_once(&self, name: &str, workspace: Option<WorkspaceId>) -> Result<(), Error> {
        let action = "pull an image";
        let login = self.logins.of(name, workspace);
        let options = CreateImageOptions {
            from_image: Some(name.to_owned()),
            ..Default::default()
        };
        let mut progress = std::pin::pin!(self.docker.create_image(Some(options), None, login));
        loop {
            match timeout(PULL_SILENCE, progress.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(source))) => {
                    self.metrics.docker_failure(action);
                    return Err(Error::Docker { action, source });
                }
                Err(_) => {
                    self.metrics.docker_failure(action);
                    return Err(Error::Timeout {
                        action,
                        limit: PULL_SILENCE,
                    });
                }
            }
        }
    }
}

/// How often a registry that is busy or silent is asked.
pub(crate) const PULLS_MAX: u32 = 4;
/// First and longest pause between.
pub(crate) const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

/// Whether a pull that failed with these words of Docker's may well work in a moment: the registry is busy,
/// or broke off. That it does not exist, refuses, or has no such image does not pass.
pub(crate) fn is_passing(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    let words = [
        "toomanyrequests",
        "too many requests",
        "timeout",
        "timed out",
        "did not pull",
        "connection reset",
        "unexpected eof",
        "bad gateway",
        "service unavailable",
    ];
    words.iter().any(|words| said.contains(words))
}

/// `repository@digest`.
fn by_digest(image: &Image) -> String {
    let name = image.reference.split('@').next().unwrap_or_default();
    let repository = match name.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    format!("{repository}@{}", image.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_is_tried_again() {
        for passing in [
            "toomanyrequests: You have reached your pull rate limit",
            "error pulling image configuration: 429 Too Many Requests",
            "Get \"https://r/v2/\": net/http: TLS handshake timeout",
            "received unexpected HTTP status: 503 Service Unavailable",
            "unexpected EOF",
            "docker did not pull an image within 120 s",
        ] {
            assert!(is_passing(passing), "{passing}");
        }
        for lasting in [
            "manifest for a:1 not found: manifest unknown",
            "pull access denied for a",
            "dial tcp 127.0.0.1:1: connect: connection refused",
            "filesystem layer verification failed for digest sha256:00",
            "no space left on device",
        ] {
            assert!(!is_passing(lasting), "{lasting}");
        }
    }

    #[test]
    fn repositories_keep_their_port() {
        let cases = [
            ("nginx:1.27", "nginx@sha256:x"),
            ("host:5000/a/b", "host:5000/a/b@sha256:x"),
            ("host:5000/a:v1", "host:5000/a@sha256:x"),
            ("a@sha256:y", "a@sha256:x"),
        ];
        for (reference, expected) in cases {
            let image = Image {
                reference: reference.into(),
                digest: "sha256:x".into(),
                node: None,
                shared: false,
                bundle: false,
                pushed: None,
            };
            assert_eq!(by_digest(&image), expected);
        }
    }
}
