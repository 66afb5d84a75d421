//! References to images, as Docker reads them. One pattern in a small engine: that of the `oci-spec`
//! crate, in the large engine, keeps 8 MiB of an agent's memory for as long as it lives.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

/// What Docker calls the registry of references without a host.
pub(crate) const DOCKER_HUB: &str = "docker.io";
/// Where Docker Hub keeps the images without a folder.
const OFFICIAL: &str = "library";
/// Of the repository, with slashes: a limit of the distribution specification.
const NAME_LIMIT: usize = 255;

/// Names and tags as the OCI distribution specification has them, digests as the image specification has
/// them; the host as Docker tells it from a folder: by a dot, a port, or the name localhost.
static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)^
        (?:(?<host>localhost|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+|[a-zA-Z0-9.-]+:[0-9]+|\[[0-9a-fA-F:]+\](?::[0-9]+)?)/)?
        (?<name>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)
        (?::(?<tag>[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}))?
        (?:@(?<digest>[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{32,}))?
        $",
    )
    .unwrap_or_else(|error| unreachable!("a constant pattern: {error}"))
});

/// A reference, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// With its port, where the reference has one.
    pub(crate) host: String,
    /// With its folders.
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
}

impl Reference {
    /// None: Docker would refuse it too.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let found = PATTERN.captures(text)?;
        let part = |name| part(&found, name);
        let (host, name) = (part("host"), part("name")?);
        let is_official = host.as_deref().is_none_or(|host| host == DOCKER_HUB);
        let repository = match is_official && !name.contains('/') {
            true => format!("{OFFICIAL}/{name}"),
            false => name,
        };
        (repository.len() <= NAME_LIMIT).then(|| Self {
            host: host.unwrap_or_else(|| DOCKER_HUB.to_owned()),
            repository,
            tag: part("tag"),
        })
    }
}

fn part(found: &Captures<'_>, name: &str) -> Option<String> {
    found.name(name).map(|part| part.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside the crate's own reading, which is Docker's.
    #[test]
    fn references_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let long = format!("r:5000/{}", "a/".repeat(200));
        let cases = [
            "nginx",
            "nginx:1.27",
            "docker.io/nginx",
            "team/app",
            "r/a:b",
            "r:5000/a",
            "localhost/a:tag",
            "localhost/a/b_c__d-e.f:T_a-g.1",
            "ghcr.io/a/b:1",
            "ghcr.io.evil.com/a",
            "192.0.2.1:5000/a/b",
            &format!("nginx@{digest}"),
            &format!("ghcr.io/a/b:1@{digest}"),
            &long,
            "",
            "Nginx",
            "a//b",
            "a/",
            "/a",
            "a:",
            "a:b:c",
            "a..b",
            "a_-b",
            "nginx@sha256:short",
            "a b",
            "r:port/a",
            &format!("a:{}", "t".repeat(129)),
        ];
        for text in cases {
            let expected = oci_spec::distribution::Reference::try_from(text).ok();
            let expected = expected.map(|it| Reference {
                host: it.registry().to_owned(),
                repository: it.repository().to_owned(),
                tag: it.tag().map(str::to_owned),
            });
            let mut found = Reference::parse(text);
            // The crate adds the tag that Docker takes when there is none.
            if let Some(found) = &mut found
                && found.tag.is_none()
                && !text.contains('@')
            {
                found.tag = Some("latest".to_owned());
            }
            assert_eq!(found, expected, "{text}");
        }
    }
}
