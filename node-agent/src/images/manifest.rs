//! What a manifest says: which blobs an image is made of, and for which machines. Pure.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use skep_model::problem::{Code, Problem};

use super::digest::Digest;

/// Longest manifest or configuration that is read: what registries take.
pub(crate) const MANIFEST_MAX_BYTES: u64 = 4 << 20;
/// Blobs that one manifest may name.
const PARTS_MAX: usize = 1_000;

/// A blob, as a manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its name.
    pub(crate) digest: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
}

/// One manifest that can be made sense of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// How it is called when it is served.
    pub(crate) media_type: String,
    /// What it names.
    pub(crate) content: Content,
}

/// An image, or a list of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// One image.
    Image {
        /// Its configuration: its digest is Docker's classic id of the image.
        config: Part,
        /// Its layers, lowest first.
        layers: Vec<Part>,
    },
    /// One image for each of some machines; `os/architecture`.
    Index(Vec<(Option<String>, Part)>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<serde_json::Value>,
}

impl Manifest {
    /// Reads one.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bad = |error: &dyn std::fmt::Display| format!("the manifest cannot be read: {error}");
        let shape: Shape = serde_json::from_slice(bytes).map_err(|error| bad(&error))?;
        if shape.schema_version != 2 {
            return Err(bad(&"its schema is not version 2"));
        }
        let is_index = shape.manifests.is_some();
        let media_type = shape.media_type.unwrap_or_else(|| {
            let known = match is_index {
                true => MediaType::ImageIndex,
                false => MediaType::ImageManifest,
            };
            known.to_string()
        });
        let content = if is_index {
            let index: ImageIndex = serde_json::from_slice(bytes).map_err(|error| bad(&error))?;
            let images = index.manifests().iter().map(|descriptor| {
                let platform = descriptor.platform().as_ref();
                let platform = platform.map(|it| format!("{}/{}", it.os(), it.architecture()));
                Ok((platform, part(descriptor)?))
            });
            Content::Index(images.collect::<Result<_, String>>()?)
        } else {
            let image: ImageManifest =
                serde_json::from_slice(bytes).map_err(|error| bad(&error))?;
            let layers = image.layers().iter().map(part);
            Content::Image {
                config: part(image.config())?,
                layers: layers.collect::<Result<_, String>>()?,
            }
        };
        let manifest = Self {
            media_type,
            content,
        };
        match manifest.parts().count() {
            0..=PARTS_MAX => Ok(manifest),
            _ => Err(bad(&format!("it names more than {PARTS_MAX} blobs"))),
        }
    }

    /// All that it names.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> {
        let (config, layers, images) = match &self.content {
            Content::Image { config, layers } => (Some(*config), &layers[..], &[][..]),
            Content::Index(images) => (None, &[][..], &images[..]),
        };
        let images = images.iter().map(|(_, part)| *part);
        config
            .into_iter()
            .chain(layers.iter().copied())
            .chain(images)
    }
}

fn part(descriptor: &Descriptor) -> Result<Part, String> {
    Ok(Part {
        digest: descriptor
            .digest()
            .try_into()
            .map_err(|error: super::digest::NotADigest| error.to_string())?,
        size: descriptor.size(),
    })
}

/// The machine that this agent runs on, as OCI spells it.
pub(crate) fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    format!("linux/{architecture}")
}

/// The image of a list that is for `platform`.
///
/// # Errors
/// There is none: says for which there are.
pub(crate) fn choose(
    images: &[(Option<String>, Part)],
    platform: &str,
    reference: &str,
) -> Result<Part, Problem> {
    let mut fitting = images
        .iter()
        .filter(|(of, _)| of.as_deref() == Some(platform));
    if let Some((_, part)) = fitting.next() {
        return Ok(*part);
    }
    let others: Vec<&str> = images.iter().filter_map(|(of, _)| of.as_deref()).collect();
    Err(wrong_platform(reference, platform, &others.join(", ")))
}

/// Whether an image with this configuration runs on `platform`.
///
/// # Errors
/// It is for another one, or cannot be read.
pub(crate) fn check_platform(
    config: &[u8],
    platform: &str,
    reference: &str,
) -> Result<(), Problem> {
    let config: ImageConfiguration = serde_json::from_slice(config).map_err(|error| {
        let text = format!("image `{reference}`: its configuration cannot be read: {error}");
        Problem::new(Code::ImageFailed, text)
    })?;
    let made_for = format!("{}/{}", config.os(), config.architecture());
    match made_for == platform {
        true => Ok(()),
        false => Err(wrong_platform(reference, platform, &made_for)),
    }
}

fn wrong_platform(reference: &str, platform: &str, made_for: &str) -> Problem {
    let text = format!("image `{reference}` is made for {made_for}, and this node is {platform}");
    Problem::new(Code::ImageFailed, text).hint(format!(
        "build it for {platform}, or say which nodes may run it: architectures in [placement]"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> String {
        Digest::of(&[n]).to_string()
    }

    #[test]
    fn docker_and_oci_manifests_are_read() {
        let docker = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
            "config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":7,"digest":"{}"}},
            "layers":[{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":9,"digest":"{}"}}]}}"#,
            digest(1),
            digest(2)
        );
        let manifest = Manifest::parse(docker.as_bytes()).expect("a manifest");
        assert!(manifest.media_type.contains("docker"));
        let first = manifest.parts().next().map(|part| part.digest);
        assert_eq!(first, Some(Digest::of(&[1])));
        let sizes: Vec<u64> = manifest.parts().map(|part| part.size).collect();
        assert_eq!(sizes, [7, 9]);
        let oci = docker.replace(
            r#""mediaType":"application/vnd.docker.distribution.manifest.v2+json","#,
            "",
        );
        let manifest = Manifest::parse(oci.as_bytes()).expect("a manifest");
        assert_eq!(
            manifest.media_type,
            "application/vnd.oci.image.manifest.v1+json"
        );
    }

    #[test]
    fn nonsense_and_old_schemas_are_refused() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion":1,"config":{}}"#,
            r#"{"schemaVersion":2,"config":{"mediaType":"a","size":1,"digest":"sha256:../x"},"layers":[]}"#,
        ] {
            assert!(Manifest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_image_for_another_machine_is_refused_with_what_it_is_for() {
        let config = |arch: &str| {
            format!(
                r#"{{"architecture":"{arch}","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}}}}"#
            )
        };
        assert_eq!(
            check_platform(config("amd64").as_bytes(), "linux/amd64", "a:1"),
            Ok(())
        );
        let wrong = check_platform(config("arm64").as_bytes(), "linux/amd64", "a:1");
        let wrong = wrong.expect_err("another machine's");
        assert!(
            wrong.message.contains("linux/arm64") && wrong.hint.is_some(),
            "{wrong}"
        );
        let part = Part {
            digest: Digest::of(b"x"),
            size: 1,
        };
        let list = [(Some("linux/arm64".to_owned()), part), (None, part)];
        assert_eq!(choose(&list, "linux/arm64", "a:1"), Ok(part));
        assert!(choose(&list, "linux/amd64", "a:1").is_err());
    }
}
