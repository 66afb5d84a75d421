//! What a request of the OCI distribution API is about, by its path. Names and references are checked by
//! the OCI library's grammar. Pure.

use oci_spec::distribution::{ErrorCode, Reference};

use super::super::digest::Digest;

/// Longest id of an upload: this registry makes them.
const UPLOAD_MAX: usize = 64;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Whether this is a registry.
    Base,
    /// A manifest, by tag or digest.
    Manifest(String, Name),
    /// A blob.
    Blob(String, Digest),
    /// Where uploads are begun.
    Uploads(String),
    /// One upload.
    Upload(String, String),
    /// The tags of a repository.
    Tags(String),
    /// What refers to a manifest: nothing is kept of that.
    Referrers(String, Digest),
}

/// How a manifest is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// By a tag.
    Tag(String),
    /// By its content.
    Digest(Digest),
}

/// Reads a path.
///
/// # Errors
/// What of it is wrong; none: there is no such path.
pub(super) fn parse(path: &str) -> Result<Target, Option<ErrorCode>> {
    let rest = path.strip_prefix("/v2").ok_or(None)?;
    if rest.is_empty() || rest == "/" {
        return Ok(Target::Base);
    }
    let rest = rest.strip_prefix('/').ok_or(None)?;
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Ok(Target::Tags(repository(name)?));
    }
    for end in ["/blobs/uploads/", "/blobs/uploads"] {
        if let Some(name) = rest.strip_suffix(end) {
            return Ok(Target::Uploads(repository(name)?));
        }
    }
    let (head, last) = rest.rsplit_once('/').ok_or(None)?;
    if let Some(name) = head.strip_suffix("/blobs/uploads") {
        let is_id = !last.is_empty()
            && last.len() <= UPLOAD_MAX
            && last.bytes().all(|byte| byte.is_ascii_alphanumeric());
        return match is_id {
            true => Ok(Target::Upload(repository(name)?, last.to_owned())),
            false => Err(Some(ErrorCode::BlobUploadUnknown)),
        };
    }
    if let Some(name) = head.strip_suffix("/blobs") {
        let digest = last.parse().map_err(|_| Some(ErrorCode::DigestInvalid))?;
        return Ok(Target::Blob(repository(name)?, digest));
    }
    if let Some(name) = head.strip_suffix("/referrers") {
        let digest = last.parse().map_err(|_| Some(ErrorCode::DigestInvalid))?;
        return Ok(Target::Referrers(repository(name)?, digest));
    }
    if let Some(name) = head.strip_suffix("/manifests") {
        let name = repository(name)?;
        let reference = match last.contains(':') {
            true => Name::Digest(last.parse().map_err(|_| Some(ErrorCode::DigestInvalid))?),
            false => Name::Tag(tag(&name, last)?),
        };
        return Ok(Target::Manifest(name, reference));
    }
    Err(None)
}

/// A repository's name.
///
/// # Errors
/// It is none.
fn repository(name: &str) -> Result<String, Option<ErrorCode>> {
    let parsed = Reference::try_from(format!("localhost/{name}:tag"));
    match parsed {
        Ok(parsed) if parsed.repository() == name => Ok(name.to_owned()),
        _ => Err(Some(ErrorCode::NameInvalid)),
    }
}

fn tag(name: &str, tag: &str) -> Result<String, Option<ErrorCode>> {
    let parsed = Reference::try_from(format!("localhost/{name}:{tag}"));
    match parsed {
        Ok(parsed) if parsed.tag() == Some(tag) => Ok(tag.to_owned()),
        _ => Err(Some(ErrorCode::ManifestUnknown)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_distribution_api() {
        let digest = Digest::of(b"x");
        let name = || "skep/web-production-shop".to_owned();
        let cases = [
            ("/v2/".to_owned(), Target::Base),
            (
                format!("/v2/{}/manifests/one", name()),
                Target::Manifest(name(), Name::Tag("one".into())),
            ),
            (
                format!("/v2/{}/manifests/{digest}", name()),
                Target::Manifest(name(), Name::Digest(digest)),
            ),
            (
                format!("/v2/{}/blobs/{digest}", name()),
                Target::Blob(name(), digest),
            ),
            (
                format!("/v2/{}/blobs/uploads/", name()),
                Target::Uploads(name()),
            ),
            (
                format!("/v2/{}/blobs/uploads/01ab", name()),
                Target::Upload(name(), "01ab".into()),
            ),
            (format!("/v2/{}/tags/list", name()), Target::Tags(name())),
            (
                format!("/v2/{}/referrers/{digest}", name()),
                Target::Referrers(name(), digest),
            ),
        ];
        for (path, target) in cases {
            assert_eq!(parse(&path), Ok(target), "{path}");
        }
    }

    #[test]
    fn nothing_else_is_one() {
        use ErrorCode::{BlobUploadUnknown, DigestInvalid, ManifestUnknown, NameInvalid};
        let cases = [
            ("/", None),
            ("/v1/", None),
            ("/v2/a", None),
            ("/v2/a/b", None),
            ("/v2/A/tags/list", Some(NameInvalid)),
            ("/v2/a/../b/tags/list", Some(NameInvalid)),
            ("/v2/a//b/blobs/uploads/", Some(NameInvalid)),
            ("/v2/a/blobs/uploads/..", Some(BlobUploadUnknown)),
            ("/v2/a/blobs/uploads/a%2fb", Some(BlobUploadUnknown)),
            ("/v2/a/blobs/sha256:../x", None),
            ("/v2/a/blobs/sha256:x", Some(DigestInvalid)),
            ("/v2/a/manifests/sha256:x", Some(DigestInvalid)),
            ("/v2/a/manifests/.hidden", Some(ManifestUnknown)),
        ];
        for (path, code) in cases {
            assert_eq!(parse(path), Err(code), "{path}");
        }
    }
}
