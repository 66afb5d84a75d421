//! Images that exist: looking one up on this node, pulling it from its registry.

use std::time::Duration;

use bollard::errors::Error;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;
use skep_model::assignment::BuildOrder;
use skep_model::deployment::Built;
use skep_model::id::WorkspaceId;
use skep_model::problem::{Code, Problem};
use skep_model::service::Image;
use skep_model::spec::{Pull, check_image};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::folder::chain;
use super::progress::Progress;
use super::{Env, LABEL_CLUSTER, say, with_room};
use crate::backoff::Backoff;
use crate::bundles;
use crate::images::{Unshared, full, says_full};
use crate::runtime::image::{PULLS_MAX, RETRY, is_passing};

/// One question to the daemon on this machine.
pub(super) const INSPECT_LIMIT: Duration = Duration::from_secs(30);
/// How long a registry may say nothing: layers report their progress all the time.
const PULL_PAUSE: Duration = Duration::from_secs(120);

/// Names in Docker of what is built here begin so.
const OWN_FOLDER: &str = "skep/";

/// What an image that is made here is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) repository: String,
    pub(super) tag: String,
}

impl Name {
    /// After the service and the deployment.
    pub(super) fn of(order: &BuildOrder) -> Self {
        Self {
            repository: format!("{OWN_FOLDER}{}", order.service_label),
            tag: order.deployment.short(),
        }
    }

    /// `repository:tag`.
    pub(super) fn full(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

/// Finds the image on this node or pulls it, as the service's pull policy says.
///
/// # Errors
/// [`Code::ImageFailed`] where the image is at fault, [`Code::Runtime`] where Docker is.
pub(super) async fn resolve(
    env: &Env,
    (order, name): (&BuildOrder, &Name),
    (reference, lines): (&str, &mpsc::Sender<String>),
) -> Result<Built, Problem> {
    check_image("image", reference)?;
    if reference.contains("..") {
        return Err(Problem::invalid(
            "image",
            format!("`{reference}` is not an image"),
        ));
    }
    let here = inspect(env, reference).await?;
    check_own(env, reference, here.as_ref())?;
    if order.ask_registry && order.pull == Pull::Never {
        return Err(not_asked(reference));
    }
    // What is here may be here for others.
    let policy = match order.ask_registry {
        true => Pull::Always,
        false => order.pull,
    };
    match (policy, here) {
        (Pull::Missing | Pull::Never, Some(found)) => {
            say(lines, format!("image: {reference} is on this node")).await;
            describe(env, (reference, name, order.pull), found, lines).await
        }
        (Pull::Never, None) => Err(not_pulled(reference)),
        (Pull::Missing | Pull::Always, here) => {
            let what = format!("image `{reference}`");
            let pulled = pull((env, order.workspace), reference, lines);
            with_room(env, (&what, Code::ImageFailed), pulled).await?;
            let found = there(env, reference).await?;
            // What was here before is whoever's it was.
            let id = found.id.as_deref().unwrap_or_default();
            let is_new = here.is_none_or(|here| here.id != found.id);
            if let Some(images) = env.images.as_ref().filter(|_| is_new) {
                images.note((id, order.service), Some(reference)).await;
            }
            describe(env, (reference, name, order.pull), found, lines).await
        }
    }
}

/// What was built here goes by names of this folder in Docker, for people who look at the node. They say nothing of
/// whose it is, so nobody deploys by them.
fn check_own(env: &Env, reference: &str, here: Option<&ImageInspect>) -> Result<(), Problem> {
    let labels = here.and_then(|found| found.config.as_ref()?.labels.as_ref());
    let of = labels.and_then(|labels| labels.get(LABEL_CLUSTER));
    let is_built_here = of.is_some_and(|cluster| *cluster == env.cluster.to_string());
    if !is_built_here || !repository(reference).starts_with(OWN_FOLDER) {
        return Ok(());
    }
    let text = format!("image `{reference}` was built for a service of this cluster");
    Err(Problem::new(Code::ImageFailed, text).at("image").hint(
        "`skep promote` takes it to another environment, `skep registry push-to` to a registry",
    ))
}

fn not_asked(reference: &str) -> Problem {
    let text = format!(
        "image `{reference}` is of a registry where workspaces keep their images: whether this one may have it \
         the registry has to say, and `image.pull = \"never\"` forbids to ask it"
    );
    Problem::new(Code::ImageFailed, text)
        .at("image.pull")
        .hint("say `image.pull = \"missing\"`")
}

fn not_pulled(reference: &str) -> Problem {
    let text = format!(
        "image `{reference}` is not on this node, and `image.pull = \"never\"` forbids to pull it"
    );
    Problem::new(Code::ImageFailed, text)
        .at("image.pull")
        .hint("load it into the node's Docker (docker load), or say `image.pull = \"missing\"`")
}

/// The image that is there now under `id`, called `reference` by people, or after its service.
pub(super) async fn built(
    env: &Env,
    (id, reference): (&str, Option<&str>),
    name: &Name,
    lines: &mpsc::Sender<String>,
) -> Result<Built, Problem> {
    let found = there(env, id).await?;
    let full = name.full();
    let reference = reference.unwrap_or(&full);
    describe(env, (reference, name, Pull::Missing), found, lines).await
}

/// An image that has just come.
async fn there(env: &Env, id: &str) -> Result<ImageInspect, Problem> {
    inspect(env, id).await?.ok_or_else(|| {
        Problem::new(Code::Runtime, format!("Docker has lost the image `{id}`"))
            .hint("does something on this node remove images? deploy again")
    })
}

async fn inspect(env: &Env, name: &str) -> Result<Option<ImageInspect>, Problem> {
    match timeout(INSPECT_LIMIT, env.docker.inspect_image(name)).await {
        Ok(Ok(found)) => Ok(Some(found)),
        Ok(Err(Error::DockerResponseServerError {
            status_code: 404, ..
        })) => Ok(None),
        Ok(Err(Error::DockerResponseServerError { message, .. })) => {
            Err(Problem::new(Code::ImageFailed, format!("image `{name}`: {message}")).at("image"))
        }
        Ok(Err(error)) => Err(unreachable(&error)),
        Err(_) => Err(unreachable(&Error::RequestTimeoutError)),
    }
}

async fn describe(
    env: &Env,
    (reference, name, pull): (&str, &Name, Pull),
    found: ImageInspect,
    lines: &mpsc::Sender<String>,
) -> Result<Built, Problem> {
    let id = found.id.filter(|id| id.starts_with("sha256:"));
    let id = id.ok_or_else(|| {
        Problem::new(
            Code::Runtime,
            format!("Docker names no digest for `{reference}`"),
        )
    })?;
    // Only what its registry has can be pulled by other nodes, and they ask for it by the digest of
    // its manifest: Docker's own id of an image means nothing elsewhere.
    let of_registry = manifest_digest(reference, &found.repo_digests.unwrap_or_default());
    // Nobody asks a registry: the others get it from this node.
    let of_registry = of_registry.filter(|_| pull != Pull::Never);
    let node = of_registry.is_none().then_some(env.node);
    let (exposed, labels) = found
        .config
        .map(|config| (config.exposed_ports, config.labels))
        .unwrap_or_default();
    let is_bundle = labels.is_some_and(|labels| labels.contains_key(bundles::LABEL));
    let (digest, shared) = match of_registry {
        Some(digest) => (digest, false),
        None => match share(env, &id, name, lines).await? {
            Some(digest) => (digest, true),
            None => (id, false),
        },
    };
    if is_bundle && !shared {
        return Err(no_store());
    }
    Ok(Built {
        image: Image {
            reference: reference.to_owned(),
            digest,
            node,
            shared,
            bundle: is_bundle,
            pushed: None,
        },
        exposed: tcp_ports(exposed.unwrap_or_default()),
        commit: None,
        manifest: None,
    })
}

fn no_store() -> Problem {
    let text = "a static site is handed out of the image stores of the nodes, and this image is not in one";
    Problem::new(Code::BuildFailed, text)
        .at("static.server")
        .hint("let Docker reach the agent on 127.0.0.1, or name a web server: [static] server = \"nginx:1.27-alpine\"")
}

/// Keeps an image that no registry has for other nodes; gives the digest of its manifest. None: it stays
/// here.
async fn share(
    env: &Env,
    id: &str,
    name: &Name,
    lines: &mpsc::Sender<String>,
) -> Result<Option<String>, Problem> {
    let Some(images) = &env.images else {
        return Ok(None);
    };
    match images.share(id, &name.repository, &name.tag).await {
        Ok(digest) => {
            say(lines, format!("image: kept for every node as {digest}")).await;
            Ok(Some(digest))
        }
        Err(Unshared::Unreachable(why)) => {
            let line = format!(
                "image: it stays on this node: its Docker cannot reach the agent on 127.0.0.1 ({why})"
            );
            say(lines, line).await;
            Ok(None)
        }
        Err(Unshared::Failed(problem)) => Err(problem),
    }
}

/// The digest under which the reference's own repository has the image.
fn manifest_digest(reference: &str, known: &[String]) -> Option<String> {
    let wanted = repository(reference);
    known.iter().find_map(|entry| {
        let (name, digest) = entry.split_once('@')?;
        (repository(name) == wanted).then(|| digest.to_owned())
    })
}

/// Without tag and digest, and without what Docker adds to names of its own registry.
pub(crate) fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

fn tcp_ports(exposed: Vec<String>) -> Vec<u16> {
    let tcp = |text: &String| match text.split_once('/') {
        None => text.parse().ok(),
        Some((port, "tcp")) => port.parse().ok(),
        Some(_) => None,
    };
    let mut ports: Vec<u16> = exposed.iter().filter_map(tcp).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

async fn pull(
    (env, workspace): (&Env, Option<WorkspaceId>),
    reference: &str,
    lines: &mpsc::Sender<String>,
) -> Result<(), Problem> {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    for _ in 1..PULLS_MAX {
        match pull_once((env, workspace), reference, lines).await {
            Err(problem) if is_passing(&problem.to_string()) => {
                say(lines, format!("image: asking again: {}", problem.message)).await;
            }
            ended => return ended,
        }
        sleep(backoff.next()).await;
    }
    pull_once((env, workspace), reference, lines).await
}

async fn pull_once(
    (env, workspace): (&Env, Option<WorkspaceId>),
    reference: &str,
    lines: &mpsc::Sender<String>,
) -> Result<(), Problem> {
    if reference.starts_with("sha256:") {
        return Err(Problem::new(
            Code::ImageFailed,
            format!("image `{reference}` is not on this node"),
        )
        .at("image")
        .hint("an image id can only be found where the image is: name it by name[:tag]"));
    }
    let login = env.logins.of(reference, workspace);
    say(lines, format!("image: pulling {reference}")).await;
    let options = CreateImageOptions {
        from_image: Some(reference.to_owned()),
        // Without a tag Docker would pull every tag that there is.
        tag: (!is_exact(reference)).then(|| "latest".to_owned()),
        ..Default::default()
    };
    let mut answers = std::pin::pin!(env.docker.create_image(Some(options), None, login));
    let mut progress = Progress::default();
    loop {
        let answer = match timeout(PULL_PAUSE, answers.next()).await {
            Ok(Some(Ok(answer))) => answer,
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => return Err(explain(reference, &error)),
            Err(_) => return Err(explain(reference, &Error::RequestTimeoutError)),
        };
        let status = answer.status.unwrap_or_default();
        if let Some(line) = progress.status(answer.id.as_deref(), &status) {
            say(lines, line).await;
        }
    }
}

/// Whether a reference has a tag or digest.
fn is_exact(reference: &str) -> bool {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    name.contains([':', '@'])
}

fn explain(reference: &str, error: &Error) -> Problem {
    let failed = |message: String| Problem::new(Code::ImageFailed, message).at("image");
    let said = match error {
        Error::DockerStreamError { error } => error,
        Error::DockerResponseServerError { message, .. } => message,
        Error::RequestTimeoutError => "its registry does not answer: timeout",
        other => return unreachable(other),
    };
    let said = said.trim();
    if says_full(said) {
        return full(reference);
    }
    let is_refusal = [
        "not found",
        "does not exist",
        "manifest unknown",
        "denied",
        "unauthorized",
        "no basic auth credentials",
        "manifest for",
    ]
    .iter()
    .any(|part| said.contains(part));
    if is_refusal {
        return failed(format!(
            "image `{reference}` does not exist, or needs a login"
        ))
        .hint(format!(
            "check its name and tag, or `skep registry login HOST --user USER`; Docker says: {said}"
        ));
    }
    failed(format!(
        "image `{reference}` is not on this node and cannot be pulled: {said}"
    ))
    .hint("can this node reach the registry?")
}

/// Docker itself did not do its part.
pub(super) fn unreachable(error: &Error) -> Problem {
    Problem::new(
        Code::Runtime,
        format!("Docker did not answer: {}", chain(error)),
    )
    .hint("is the daemon running on the node? systemctl status docker")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_nodes_pull_by_the_manifest_of_the_repository_that_was_named() {
        let known = ["a@sha256:1", "host:5000/x/a@sha256:2"].map(str::to_owned);
        let cases = [
            ("a:1", Some("sha256:1")),
            ("docker.io/library/a", Some("sha256:1")),
            ("host:5000/x/a:v1", Some("sha256:2")),
            ("host:5000/x/a@sha256:2", Some("sha256:2")),
            ("mine:latest", None),
            ("host:5000/a", None),
        ];
        for (reference, digest) in cases {
            let found = manifest_digest(reference, &known);
            assert_eq!(found.as_deref(), digest, "{reference}");
        }
        assert_eq!(manifest_digest("a:1", &[]), None);
    }

    #[test]
    fn ports_are_tcp_sorted_and_numbers() {
        let exposed = [
            "8080/tcp",
            "53/udp",
            "80",
            "443/tcp",
            "80/tcp",
            "x/tcp",
            "70000/tcp",
        ];
        assert_eq!(
            tcp_ports(exposed.map(str::to_owned).to_vec()),
            [80, 443, 8080]
        );
    }

    #[test]
    fn references_without_tag_are_known() {
        for exact in ["a:1", "h:5000/a:1", "a@sha256:00", "h/a/b:x"] {
            assert!(is_exact(exact), "{exact}");
        }
        for loose in ["a", "h:5000/a", "h/a/b"] {
            assert!(!is_exact(loose), "{loose}");
        }
    }

    #[test]
    fn a_missing_image_and_a_missing_registry_are_told_apart() {
        let said = |text: &str| Error::DockerResponseServerError {
            status_code: 404,
            message: text.to_owned(),
        };
        let missing = explain(
            "a:1",
            &said(
                "pull access denied for a, repository does not exist or may require 'docker login'",
            ),
        );
        assert_eq!(
            missing.message,
            "image `a:1` does not exist, or needs a login"
        );
        let closed = explain(
            "a:1",
            &said("Head \"http://r/v2/\": no basic auth credentials"),
        );
        assert!(
            closed.to_string().contains("skep registry login"),
            "{closed}"
        );
        let away = explain(
            "a:1",
            &said("Get \"https://registry-1.docker.io/v2/\": dial tcp: i/o timeout"),
        );
        assert!(
            away.message.contains("cannot be pulled") && away.code == Code::ImageFailed,
            "{away}"
        );
        let gone = explain("a:1", &Error::APIVersionParseError {});
        assert_eq!(gone.code, Code::Runtime);
    }
}
