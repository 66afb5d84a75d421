//! From the node's Docker into its store, so that other nodes can have it: a push to the loopback.

use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{PushImageOptions, RemoveImageOptions, TagImageOptions};
use futures_util::StreamExt as _;
use skep_model::problem::{Code, Problem};
use tokio::time::timeout;

use super::Images;
use super::digest::Digest;

/// One word to the daemon about a name.
const NAME_LIMIT: Duration = Duration::from_secs(30);
/// Docker says all the time how far it is; compressing one large layer is the longest silence.
const SILENCE: Duration = Duration::from_secs(120);

/// Why an image stays where it is.
#[derive(Debug)]
pub(crate) enum Unshared {
    /// Docker cannot reach this process: it runs elsewhere than its socket.
    Unreachable(String),
    /// Something that has to be put right.
    Failed(Problem),
}

impl Images {
    /// Takes Docker's image `id` into the store as `name:tag`; gives the digest of its manifest, which is
    /// what it is called everywhere.
    ///
    /// # Errors
    /// The disk is full, or Docker does not do it.
    pub(crate) async fn share(&self, id: &str, name: &str, tag: &str) -> Result<String, Unshared> {
        let docker = &self.inner.docker;
        let repository = self.repository(name);
        let as_name = TagImageOptions {
            repo: Some(repository.clone()),
            tag: Some(tag.to_owned()),
        };
        let tagged = timeout(NAME_LIMIT, docker.tag_image(id, Some(as_name))).await;
        tagged
            .unwrap_or(Err(Error::RequestTimeoutError))
            .map_err(|error| Unshared::Failed(failed(name, &error)))?;
        let pushed = self.push(&repository, name, tag).await;
        // The name has done its work, and would keep the image for ever.
        let full = format!("{repository}:{tag}");
        let gone = docker.remove_image(&full, None::<RemoveImageOptions>, None);
        let _ = timeout(NAME_LIMIT, gone).await;
        pushed?;
        self.inner.grown.notify_one();
        let digest: Option<Digest> = self.inner.store.tagged(name, tag);
        digest.map(|digest| digest.to_string()).ok_or_else(|| {
            let text =
                format!("Docker pushed `{name}:{tag}`, and the node's store has no manifest of it");
            Unshared::Failed(Problem::new(Code::Runtime, text))
        })
    }

    async fn push(&self, repository: &str, name: &str, tag: &str) -> Result<(), Unshared> {
        let options = PushImageOptions {
            tag: Some(tag.to_owned()),
            ..Default::default()
        };
        let credentials = Some(self.credentials());
        let docker = &self.inner.docker;
        let mut said = std::pin::pin!(docker.push_image(repository, Some(options), credentials));
        loop {
            let error = match timeout(SILENCE, said.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(line))) => match line.error_detail.and_then(|detail| detail.message) {
                    None => continue,
                    Some(error) => Error::DockerStreamError { error },
                },
                Ok(Some(Err(error))) => error,
                Err(_) => Error::RequestTimeoutError,
            };
            let text = words(&error);
            return Err(match text.contains("connection refused") {
                true => Unshared::Unreachable(text),
                false => Unshared::Failed(failed(name, &error)),
            });
        }
    }
}

/// What Docker said.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::DockerStreamError { error } => error.clone(),
        Error::DockerResponseServerError { message, .. } => message.clone(),
        other => crate::error_chain(other),
    }
}

/// A disk that is full is said so, in whatever words it was said.
pub(crate) fn says_full(text: &str) -> bool {
    [
        "no space left",
        "disk is full",
        // Not the number alone: digests are full of numbers.
        "507 insufficient storage",
        "disk quota exceeded",
    ]
    .iter()
    .any(|words| text.to_ascii_lowercase().contains(words))
}

/// The problem of a disk without room.
pub(crate) fn full(reference: &str) -> Problem {
    let text = format!("image `{reference}`: this node's disk is full");
    Problem::new(Code::ImageFailed, text).hint(
        "what runs there runs on; free space on the node (docker system df), or give its agent a \
         smaller --image-budget",
    )
}

fn failed(name: &str, error: &Error) -> Problem {
    let said = words(error);
    if says_full(&said) {
        return full(name);
    }
    let text = format!("image `{name}` was made, and cannot be kept for other nodes: {said}");
    Problem::new(Code::Runtime, text).hint("the agent's log on the node says more")
}

#[cfg(test)]
mod tests {
    use super::says_full;

    #[test]
    fn a_disk_is_full_where_it_is_said_and_no_digest_says_it() {
        for said in [
            "write /var/lib/docker/x: no space left on device",
            "received unexpected HTTP status: 507 Insufficient Storage",
            "denied: the node's disk is full",
        ] {
            assert!(says_full(said), "{said}");
        }
        let digest =
            "no node that could be asked has sha256:7611a25076a6b0979664f554aba4683f3c1bec99";
        assert!(!says_full(digest));
    }
}
