//! The folder that the agent unpacks a bundle into: `index.json` says which paths there are, the contents lie
//! beside it under numbers. No name of a site is ever a name on the disk, so no path of a request can leave the
//! folder.
//!
//! The agent writes it, the data plane reads it: one that knows an older format refuses a newer one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// The name of the index in the folder.
pub const INDEX: &str = "index.json";
/// The format that is written and read here.
pub const FORMAT: u32 = 1;
/// The longest index that is read: some 300,000 files.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;
/// A SHA-256 as text.
const SHA256_HEX_CHARS: usize = 64;

/// Why a folder's index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk does not give it.
    #[error("{path} cannot be read")]
    Disk {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is longer than any that is made.
    #[error("{INDEX} is longer than {MAX_INDEX_BYTES} bytes: unpack the bundle anew")]
    Long,
    /// It is no index.
    #[error("{INDEX} is not understood: unpack the bundle anew")]
    Text(#[from] serde_json::Error),
    /// A newer agent wrote it.
    #[error(
        "{INDEX} has format {0}, this data plane reads {FORMAT}: restart `skep net` with the agent's version"
    )]
    Format(u32),
    /// What it says does not fit together.
    #[error("{INDEX} is wrong: {0}; unpack the bundle anew")]
    Wrong(String),
}

/// What `index.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// [`FORMAT`].
    pub format: u32,
    /// How the files are handed out.
    #[serde(default)]
    pub site: Site,
    /// By path inside the site, without a leading `/`: `assets/app-1a2b3c4d.js`.
    pub files: BTreeMap<String, File>,
}

/// How the files of a site are handed out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Site {
    /// Pages that are not there are `index.html`: the app inside finds its own way.
    pub spa: bool,
    /// The page that goes with a 404: a path of `files`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_found: Option<String>,
    /// Go out with every answer.
    pub headers: BTreeMap<String, String>,
}

/// One file of a site. Files of the same contents may share a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// The contents are in the folder's file of this number: `17`.
    pub content: u32,
    /// Bytes of the contents.
    pub size: u64,
    /// Of the contents, in lower-case hex.
    pub sha256: String,
    /// Bytes of `17.gz`, where that is smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gzip: Option<u64>,
}

/// The name in the folder of the contents of this number.
#[must_use]
pub fn content_name(content: u32) -> String {
    content.to_string()
}

/// The name in the folder of the same, gzipped.
#[must_use]
pub fn gzip_name(content: u32) -> String {
    format!("{content}.gz")
}

impl Index {
    /// The index of a folder, checked in itself. Whether the contents are there is seen when they are asked for.
    ///
    /// # Errors
    /// It cannot be read, or is none that a folder can have.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(INDEX);
        let disk = |source| Error::Disk {
            path: path.display().to_string(),
            source,
        };
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).map_err(disk)?;
        file.take(MAX_INDEX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(disk)?;
        if bytes.len() as u64 > MAX_INDEX_BYTES {
            return Err(Error::Long);
        }
        Self::parse(&bytes)
    }

    /// What an index says, checked.
    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        /// A newer format may say everything else in another way.
        #[derive(Deserialize)]
        struct Said {
            format: u32,
        }
        let Said { format } = serde_json::from_slice(bytes)?;
        if format != FORMAT {
            return Err(Error::Format(format));
        }
        let index: Self = serde_json::from_slice(bytes)?;
        index.check().map_err(Error::Wrong)?;
        Ok(index)
    }

    fn check(&self) -> Result<(), String> {
        let mut sizes = BTreeMap::new();
        for (path, file) in &self.files {
            file.check().map_err(|why| format!("{path}: {why}"))?;
            let said = (file.size, &file.sha256, file.gzip);
            if *sizes.entry(file.content).or_insert(said) != said {
                return Err(format!(
                    "{path}: content {} is said to be two things",
                    file.content
                ));
            }
        }
        let missing = |path: &&String| !self.files.contains_key(*path);
        if let Some(page) = self.site.not_found.as_ref().filter(missing) {
            return Err(format!("not_found: {page} is none of the files"));
        }
        for (name, value) in &self.site.headers {
            if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
                return Err(format!("headers: {name} is no header"));
            }
        }
        Ok(())
    }
}

impl File {
    fn check(&self) -> Result<(), &'static str> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if self.sha256.len() != SHA256_HEX_CHARS || !self.sha256.bytes().all(is_hex) {
            return Err("sha256 is not 64 lower-case hex digits");
        }
        if self.gzip.is_some_and(|gzip| gzip >= self.size) {
            return Err("gzip is not smaller");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(files: &str, rest: &str) -> String {
        format!("{{\"format\":1,\"files\":{{{files}}}{rest}}}")
    }

    fn file(content: u32, size: u64, gzip: u64) -> String {
        let sha256 = "ab".repeat(32);
        format!("{{\"content\":{content},\"size\":{size},\"sha256\":\"{sha256}\",\"gzip\":{gzip}}}")
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index {
            format: FORMAT,
            site: Site {
                spa: true,
                not_found: Some("404.html".into()),
                headers: [("X-A".to_owned(), "b".to_owned())].into(),
            },
            files: [(
                "404.html".to_owned(),
                File {
                    content: 17,
                    size: 3,
                    sha256: "0f".repeat(32),
                    gzip: None,
                },
            )]
            .into(),
        };
        fs::write(
            folder.path().join(INDEX),
            serde_json::to_vec(&index).unwrap(),
        )
        .unwrap();
        assert_eq!(Index::read(folder.path()).unwrap(), index);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let (one, two) = (file(1, 9, 8), file(1, 10, 8));
        for (text, why) in [
            ("{}".to_owned(), "not understood"),
            ("{\"format\":2,\"other\":1}".to_owned(), "format 2"),
            (text(&format!("\"a\":{}", file(1, 9, 9)), ""), "not smaller"),
            (
                text(&format!("\"a\":{}", one.replace("ab", "AB")), ""),
                "hex",
            ),
            (text(&format!("\"a\":{one},\"b\":{two}"), ""), "two things"),
            (
                text("", ",\"site\":{\"not_found\":\"x\"}"),
                "none of the files",
            ),
            (
                text("", ",\"site\":{\"headers\":{\"a b\":\"c\"}}"),
                "no header",
            ),
            (
                text("", ",\"site\":{\"headers\":{\"a\":\"c\\n\"}}"),
                "no header",
            ),
        ] {
            let error = Index::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Index::parse(text(&format!("\"a\":{one},\"b\":{one}"), "").as_bytes()).is_ok());
    }

    #[test]
    fn a_folder_without_an_index_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = Index::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(INDEX), "{error}");
    }
}
