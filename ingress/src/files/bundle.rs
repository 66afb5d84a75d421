//! Opened bundles. A folder is opened when a table first names it; all routes that name it share what is known of it,
//! and it is forgotten when no table names it and no request is on it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use headers::ETag;
use http::header::{
    ACCEPT_RANGES, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

use super::body::Memory;
use super::find::{Fallback, Found, find};
use super::index::{Error, File, Index};
use super::keep::{Keep, keeps};

/// Digits of a SHA-256 that make a tag: 128 bits are never the same by accident.
const TAG_CHARS: usize = 32;
/// Of what nobody knows.
const UNKNOWN_KIND: &str = "application/octet-stream";
/// What says how an answer is framed, or which contents it has: a site cannot know.
const OURS: [HeaderName; 9] = [
    ACCEPT_RANGES,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    ETAG,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The bundles in use.
#[derive(Debug, Default)]
pub struct Bundles {
    open: Mutex<HashMap<Arc<Path>, Weak<Opened>>>,
    memory: Arc<Memory>,
    numbers: AtomicU64,
}

impl Bundles {
    /// The bundle in `folder`, opened unless it is in use already. Blocks on the disk.
    ///
    /// # Errors
    /// There is none, or none that this process reads.
    pub fn open(&self, folder: &Path) -> Result<Bundle, Error> {
        let mut open = self.open.lock();
        if let Some(known) = open.get(folder).and_then(Weak::upgrade) {
            return Ok(Bundle(known));
        }
        open.retain(|_, it| it.strong_count() > 0);
        let index = Index::read(folder)?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let opened = Opened::new(folder.into(), index, (number, Arc::clone(&self.memory)));
        let opened = Arc::new(opened);
        open.insert(Arc::clone(&opened.folder), Arc::downgrade(&opened));
        Ok(Bundle(opened))
    }
}

/// The files of a static site. Cheap to clone; equal where the folder is the same.
#[derive(Clone)]
pub struct Bundle(pub(super) Arc<Opened>);

/// What is known of a folder.
pub(super) struct Opened {
    pub(super) folder: Arc<Path>,
    /// Whose contents are in memory: no other bundle of this process has it.
    pub(super) number: u64,
    files: HashMap<String, Served>,
    fallback: Fallback,
    /// The site's own.
    pub(super) headers: HeaderMap,
    pub(super) memory: Arc<Memory>,
    /// It was said that files are missing.
    pub(super) is_told: AtomicBool,
}

/// A file as it is handed out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) content: u32,
    pub(super) size: u64,
    pub(super) tag: ETag,
    pub(super) gzip: Option<Gzipped>,
    pub(super) kind: HeaderValue,
    pub(super) keep: Keep,
}

/// The same, gzipped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gzipped {
    pub(super) size: u64,
    pub(super) tag: ETag,
}

impl Opened {
    fn new(folder: Arc<Path>, index: Index, (number, memory): (u64, Arc<Memory>)) -> Self {
        let keeps = keeps(index.files.keys());
        let served = |(path, file): (&String, &File)| {
            (path.clone(), Served::new(path, file, keeps[path.as_str()]))
        };
        Self {
            folder,
            number,
            files: index.files.iter().map(served).collect(),
            fallback: Fallback {
                spa: index.site.spa,
                not_found: index.site.not_found,
            },
            headers: own_headers(&index.site.headers),
            memory,
            is_told: AtomicBool::new(false),
        }
    }

    /// What a path of a request means.
    pub(super) fn find(&self, path: &str) -> Found<'_, Served> {
        find(&self.files, &self.fallback, path)
    }
}

impl Served {
    fn new(path: &str, file: &File, keep: Keep) -> Self {
        let digits = &file.sha256[..TAG_CHARS.min(file.sha256.len())];
        let tag = |suffix: &str| -> ETag {
            let tag = format!("\"{digits}{suffix}\"");
            tag.parse()
                .expect("hex digits and letters in quotes are a tag")
        };
        let gzipped = |size| Gzipped {
            size,
            tag: tag("-gz"),
        };
        Self {
            content: file.content,
            size: file.size,
            tag: tag(""),
            gzip: file.gzip.map(gzipped),
            kind: kind(path),
            keep,
        }
    }
}

/// As `Content-Type` says it. Text is UTF-8: all that builds sites writes that.
fn kind(path: &str) -> HeaderValue {
    let kind = mime_guess::from_path(path).first_raw();
    let kind = match kind {
        // One name for scripts (RFC 9239).
        Some("application/javascript") => "text/javascript",
        kind => kind.unwrap_or(UNKNOWN_KIND),
    };
    if !kind.starts_with("text/") {
        return HeaderValue::from_static(kind);
    }
    let text = format!("{kind}; charset=utf-8");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(kind))
}

fn own_headers(said: &BTreeMap<String, String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in said {
        // The index was checked: nothing is lost here but what is not the site's to say.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
            && !OURS.contains(&name)
        {
            headers.insert(name, value);
        }
    }
    headers
}

impl Bundle {
    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bundle").field(&self.0.folder).finish()
    }
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.0.folder == other.0.folder
    }
}

impl Eq for Bundle {}

impl PartialOrd for Bundle {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bundle {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.folder.cmp(&other.0.folder)
    }
}

impl Hash for Bundle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.folder.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_files() {
        for (path, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("app.js.map", "text/plain; charset=utf-8"),
            ("style.css", "text/css; charset=utf-8"),
            ("logo.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.woff2", "font/woff2"),
            ("data.json", "application/json"),
            ("site.webmanifest", "application/manifest+json"),
            ("CNAME", "application/octet-stream"),
        ] {
            assert_eq!(kind(path), expected, "{path}");
        }
    }

    #[test]
    fn a_folder_is_opened_once_and_forgotten_with_the_last_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |site: &str| {
            let text = format!("{{\"format\":1,\"files\":{{}},\"site\":{{{site}}}}}");
            std::fs::write(folder.path().join("index.json"), text).unwrap();
        };
        let bundles = Bundles::default();
        assert!(bundles.open(folder.path()).is_err());
        write("\"headers\":{\"X-A\":\"b\",\"content-length\":\"9\"}");
        let one = bundles.open(folder.path()).unwrap();
        assert_eq!(one.0.headers.len(), 1);
        write("");
        let other = bundles.open(folder.path()).unwrap();
        assert!(Arc::ptr_eq(&one.0, &other.0));
        drop((one, other));
        let anew = bundles.open(folder.path()).unwrap();
        assert!(anew.0.headers.is_empty());
        assert_eq!(bundles.open.lock().len(), 1);
    }
}
