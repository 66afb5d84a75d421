//! Which file a path of a request means. Pure; as nginx's `try_files $uri $uri.html $uri/index.html` has it,
//! which served these sites before: what worked goes on working.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;

/// A folder's own page.
const PAGE: &str = "index.html";

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a, T> {
    /// This file.
    File(&'a T),
    /// Nothing, and the site has this page to say so.
    Lost(&'a T),
    /// Nothing.
    Nothing,
}

/// How a site wants what is not there.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    /// Pages that are not there are the first page.
    pub(super) spa: bool,
    /// The page that goes with a 404.
    pub(super) not_found: Option<String>,
}

/// What `path`, as it stands in a request, means among `files`.
pub(super) fn find<'a, T>(
    files: &'a HashMap<String, T>,
    fallback: &Fallback,
    path: &str,
) -> Found<'a, T> {
    let normal = normal(path);
    let file = normal.as_ref().and_then(|normal| normal.file(files));
    let page = || {
        let is_page = normal.as_ref().is_some_and(|it| is_page(&it.path));
        files.get(PAGE).filter(|_| fallback.spa && is_page)
    };
    let lost = || files.get(fallback.not_found.as_ref()?);
    match file.or_else(page) {
        Some(file) => Found::File(file),
        None => lost().map_or(Found::Nothing, Found::Lost),
    }
}

/// A path as names are: decoded, without empty segments and such of dots.
#[derive(Debug, PartialEq, Eq)]
struct Normal {
    /// Without a leading or trailing `/`.
    path: String,
    /// It ended in `/`, or is the root.
    is_folder: bool,
}

/// None: it is no text, or leaves the root.
fn normal(path: &str) -> Option<Normal> {
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    let mut segments: Vec<&str> = Vec::new();
    let mut is_folder = true;
    for segment in decoded.split('/') {
        is_folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            name => segments.push(name),
        }
    }
    Some(Normal {
        path: segments.join("/"),
        is_folder,
    })
}

impl Normal {
    fn file<'a, T>(&self, files: &'a HashMap<String, T>) -> Option<&'a T> {
        let path = &self.path;
        if self.is_folder {
            return match path.is_empty() {
                true => files.get(PAGE),
                false => files.get(&format!("{path}/{PAGE}")),
            };
        }
        let exact = files.get(path);
        exact
            .or_else(|| files.get(&format!("{path}.html")))
            .or_else(|| files.get(&format!("{path}/{PAGE}")))
    }
}

/// Whether a browser would show what is there, rather than load it for a page: after a deployment a page that is
/// still open asks for scripts that are gone, and one that gets HTML for a script says nothing that helps.
fn is_page(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((_, extension)) = name.rsplit_once('.') else {
        return true;
    };
    // A dot in a name is no extension: `/users/jane.doe`, `/docs/v1.2`.
    let kind = mime_guess::from_ext(extension).first_raw();
    kind.is_none_or(|kind| kind == "text/html")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn files() -> HashMap<String, String> {
        let names = [
            "index.html",
            "404.html",
            "about.html",
            "docs/index.html",
            "docs/a b.html",
            "assets/app.js",
            "both.html",
            "both/index.html",
            "ä.txt",
        ];
        names.map(|it| (it.to_owned(), it.to_owned())).into()
    }

    fn found(spa: bool, not_found: Option<&str>, path: &str) -> String {
        let fallback = Fallback {
            spa,
            not_found: not_found.map(str::to_owned),
        };
        match find(&files(), &fallback, path) {
            Found::File(name) => name.clone(),
            Found::Lost(name) => format!("404 {name}"),
            Found::Nothing => "404".to_owned(),
        }
    }

    #[test]
    fn as_nginx_did() {
        for (path, expected) in [
            ("/", "index.html"),
            ("//", "index.html"),
            ("/index.html", "index.html"),
            ("/index", "index.html"),
            ("/about", "about.html"),
            ("/about.html", "about.html"),
            ("/about/", "404"),
            ("/about.html/", "404"),
            ("/docs", "docs/index.html"),
            ("/docs/", "docs/index.html"),
            ("/docs/.", "docs/index.html"),
            ("/docs/a%20b", "docs/a b.html"),
            ("/docs//a%20b.html", "docs/a b.html"),
            ("/docs/../about", "about.html"),
            ("/docs%2f..%2Fabout", "about.html"),
            ("/both", "both.html"),
            ("/both/", "both/index.html"),
            ("/%C3%A4.txt", "ä.txt"),
            ("/assets", "404"),
            ("/assets/APP.js", "404"),
            ("/..", "404"),
            ("/../index.html", "404"),
            ("/%2e%2e/index.html", "404"),
            ("/%ff", "404"),
            ("/%00", "404"),
            ("/index.html%00.js", "404"),
            ("*", "404"),
        ] {
            assert_eq!(found(false, None, path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_not_there() {
        for (path, plain, spa) in [
            ("/users/7", "404 404.html", "index.html"),
            ("/users/7/", "404 404.html", "index.html"),
            ("/users/jane.doe", "404 404.html", "index.html"),
            ("/docs/v1.2", "404 404.html", "index.html"),
            ("/old.html", "404 404.html", "index.html"),
            ("/assets/old.js", "404 404.html", "404 404.html"),
            ("/assets/old.js.map", "404 404.html", "404 404.html"),
            ("/old.css", "404 404.html", "404 404.html"),
            ("/old.PNG", "404 404.html", "404 404.html"),
            ("/../x", "404 404.html", "404 404.html"),
            ("/assets/app.js", "assets/app.js", "assets/app.js"),
        ] {
            assert_eq!(found(false, Some("404.html"), path), plain, "{path}");
            assert_eq!(found(true, Some("404.html"), path), spa, "{path}");
        }
        assert_eq!(found(false, Some("gone.html"), "/x"), "404");
    }

    proptest! {
        #[test]
        fn every_path_means_something_of_the_site_or_nothing(
            path in "(/|%2[eEfF]|\\.|\\.\\.|%|%[0-9a-f]{2}|[a-z]{1,3}|docs|about|index.html|\\PC){0,12}",
            spa: bool,
        ) {
            let files = files();
            let fallback = Fallback { spa, not_found: None };
            if let Found::File(name) = find(&files, &fallback, &path) {
                prop_assert!(files.contains_key(name));
                if let Some(normal) = normal(&path).filter(|_| !spa) {
                    prop_assert!(name.starts_with(&normal.path), "{} for {}", name, path);
                }
            }
        }
    }
}
