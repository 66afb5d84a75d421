//! How long clients may keep a file without asking again. Pure.
//!
//! "For ever" cannot be taken back: a file that says it and changes under its name stays old in browsers until
//! someone empties their caches, while one that could have said it and does not costs a request that is answered
//! with 304. So a name has to look like a hash of the contents beyond doubt:
//!
//! - it lies below `_next/static/` or `_app/immutable/`, where the tools put nothing else; or
//! - one of the parts of its name (between `.` and `-`, the last one apart) is 8 or more digits of lower-case hex
//!   in which letters and digits change places at least twice: `1a2b3c4d`, not `cafe2024`, not `20240115`; or
//! - before its extensions it ends in 8 letters, digits or `_` behind a `-` or `.`, with a capital and a digit,
//!   in which letters and digits change places at least twice and no three lower-case letters follow each other:
//!   `B8s_x2Kd`, `LKJ2H3AB`, not `Web3Page`, not `iPhone15`; or
//! - it lies in a folder where every name ends in 8 letters, digits, `_` or `-` behind a `-` or `.`, and at least one
//!   of them, and one in four, is beyond doubt: half of what Vite makes has no digit in it.
//!
//! Pages are asked for each time, whatever they are called.

use std::collections::{BTreeMap, HashMap};

use http::HeaderValue;

/// Where tools put nothing whose contents can change.
const FIXED: [&str; 2] = ["_next/static/", "_app/immutable/"];
/// Tools cut hashes to no less.
const HASH_CHARS: usize = 8;
/// One in so many names of a folder is beyond doubt, or none is taken for a hash that is not.
const SURE_IN: usize = 4;

/// How long a file may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// A page: what it shows is asked for each time.
    Page,
    /// Asked for each time, and the same for all.
    Asked,
    /// Another file would have another name.
    Forever,
}

impl Keep {
    /// As `Cache-Control` says it.
    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Page => "no-cache",
            Self::Asked => "public, max-age=0, must-revalidate",
            Self::Forever => "public, max-age=31536000, immutable",
        })
    }
}

/// What is known of a folder's names.
#[derive(Debug, Default)]
struct Folder {
    names: usize,
    sure: usize,
    /// Names that do not even look like one.
    others: usize,
}

impl Folder {
    fn is_of_hashes(&self) -> bool {
        self.others == 0 && self.sure > 0 && self.sure * SURE_IN >= self.names
    }
}

/// How long each of a site's files may be kept.
pub(super) fn keeps<'a>(paths: impl Iterator<Item = &'a String> + Clone) -> HashMap<&'a str, Keep> {
    let mut folders: BTreeMap<&str, Folder> = BTreeMap::new();
    for path in paths.clone() {
        let (folder, name) = split(path);
        let folder = folders.entry(folder).or_default();
        folder.names += 1;
        folder.sure += usize::from(is_sure(name));
        folder.others += usize::from(last_eight(name).is_none());
    }
    let keep = |path: &'a String| {
        let (folder, name) = split(path);
        let is_fixed = FIXED.iter().any(|fixed| is_below(path, fixed));
        let keep = match () {
            () if is_page(name) => Keep::Page,
            () if is_fixed || is_sure(name) || folders[folder].is_of_hashes() => Keep::Forever,
            () => Keep::Asked,
        };
        (path.as_str(), keep)
    };
    paths.map(keep).collect()
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn is_below(path: &str, folder: &str) -> bool {
    path.starts_with(folder) || path.contains(&format!("/{folder}"))
}

fn is_page(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|it| it.eq_ignore_ascii_case("html") || it.eq_ignore_ascii_case("htm"))
}

fn is_sure(name: &str) -> bool {
    let Some((stem, _)) = name.rsplit_once('.') else {
        return false;
    };
    stem.split(['.', '-']).any(is_hex_hash) || last_eight(name).is_some_and(is_mixed_hash)
}

/// The 8 characters before the extensions, where they stand alone and may be of a hash.
fn last_eight(name: &str) -> Option<&str> {
    let mut stem = name.rsplit_once('.')?.0;
    // `app-B8s_x2Kd.js.map`: what is shorter is an extension, too.
    while let Some((rest, extension)) = stem.rsplit_once('.')
        && extension.len() < HASH_CHARS
    {
        stem = rest;
    }
    let (rest, eight) = stem.split_at_checked(stem.len().checked_sub(HASH_CHARS)?)?;
    let is_of_hash = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (rest.ends_with(['-', '.']) && eight.bytes().all(is_of_hash)).then_some(eight)
}

fn is_hex_hash(part: &str) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    part.len() >= HASH_CHARS && part.bytes().all(is_hex) && changes(part) >= 2
}

fn is_mixed_hash(part: &str) -> bool {
    let bytes = part.as_bytes();
    let is_word = |three: &[u8]| three.iter().all(u8::is_ascii_lowercase);
    bytes.iter().any(u8::is_ascii_uppercase)
        && bytes
            .iter()
            .all(|it| it.is_ascii_alphanumeric() || *it == b'_')
        && changes(part) >= 2
        && !bytes.windows(3).any(is_word)
}

/// How often letters and digits change places.
fn changes(part: &str) -> usize {
    let pairs = part.as_bytes().windows(2);
    let is_change = |pair: &&[u8]| pair[0].is_ascii_digit() != pair[1].is_ascii_digit();
    pairs.filter(is_change).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(path: &str) -> Keep {
        let path = path.to_owned();
        keeps(std::iter::once(&path))[path.as_str()]
    }

    #[test]
    fn names_that_are_hashes_beyond_doubt() {
        for path in [
            "assets/index-B8s_x2Kd.js",
            "assets/index-B8s_x2Kd.js.map",
            "static/js/main.1a2b3c4d.js",
            "static/js/main.1a2b3c4d.chunk.js",
            "static/js/main.1a2b3c4d.js.LICENSE.txt",
            "css/site.min.9f86d081884c7d659a2feaa0c55ad015.css",
            "app-LKJ2H3AB.js",
            "static/media/5c9a81f2d4b7e6a0.woff2",
            "_next/static/chunks/webpack.js",
            "docs/_next/static/xyz/_buildManifest.js",
            "_app/immutable/entry/start.js",
        ] {
            assert_eq!(keep(path), Keep::Forever, "{path}");
        }
    }

    #[test]
    fn names_that_could_be_anything() {
        for path in [
            "app.js",
            "robots.txt",
            "favicon.ico",
            "assets/hero-version2.png",
            "img/photo-iphone15pro.jpg",
            "img/case-iPhone15.png",
            "img/hero-Web3Page.png",
            "img/icon-DarkMode.svg",
            "report-20240115.pdf",
            "menu-cafe2024.pdf",
            "facade-deadbeef.jpg",
            "jquery-3.7.1.min.js",
            "backup-2024-01-15.tar.gz",
            "_nuxt/builds/latest.json",
            "my_next/static/app.js",
            "1a2b3c4d",
            "nodots-B8s_x2Kd",
            "app.1a2b3c4d",
            "ä-ääää.png",
        ] {
            assert_eq!(keep(path), Keep::Asked, "{path}");
        }
        for path in [
            "index.html",
            "a/B.HTM",
            "page-1a2b3c4d.html",
            "_next/static/a.html",
        ] {
            assert_eq!(keep(path), Keep::Page, "{path}");
        }
    }

    #[test]
    fn a_folder_of_hashes_vouches_for_its_names() {
        let keep = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|it| (*it).to_owned()).collect();
            keeps(paths.iter())[paths[0].as_str()]
        };
        let doubtful = "assets/index-DkfJwQab.js";
        assert_eq!(keep(&[doubtful]), Keep::Asked);
        assert_eq!(
            keep(&[doubtful, "assets/index-B8s_x2Kd.css"]),
            Keep::Forever
        );
        assert_eq!(
            keep(&[doubtful, "assets/a-D-x8K_fa.css", "assets/b-B8s_x2Kd.js"]),
            Keep::Forever
        );
        assert_eq!(
            keep(&[doubtful, "assets/index-B8s_x2Kd.css", "assets/logo.svg"]),
            Keep::Asked
        );
        assert_eq!(keep(&[doubtful, "other/index-B8s_x2Kd.css"]), Keep::Asked);
        let mut many = vec![doubtful, "assets/b-B8s_x2Kd.js"];
        many.extend([
            "assets/c-Portrait.jpg",
            "assets/d-DarkMode.svg",
            "assets/e-Download.png",
        ]);
        assert_eq!(keep(&many), Keep::Asked);
    }
}
