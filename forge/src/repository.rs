//! One name for a repository, however it is written: `host/owner/name`. Pure text, nothing is asked.

use url::Url;

use crate::event::{Event, Repository};

/// The one name of a repository behind this URL: http(s), ssh or `user@host:path`. Ports, users, `.git` and the
/// case of letters say nothing: a forge listens on several ports, and none has two repositories that differ in
/// case alone. None: it is a path on some machine, or no URL.
pub fn canonical(text: &str) -> Option<String> {
    let (host, path) = place(text)?;
    Some(format!("{host}/{path}").to_lowercase())
}

/// The host of a repository's forge, in small letters, and the repository's path there as it is written:
/// `owner/name`. None: as of [`canonical`].
pub fn place(text: &str) -> Option<(String, String)> {
    let text = text.trim();
    let (host, path) = match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https" | "ssh" | "git" | "git+ssh") => {
            (url.host_str()?.to_owned(), url.path().to_owned())
        }
        // `host:path` would be a scheme and a path.
        _ if !text.contains("://") => {
            let (host, path) = text.split_once(':')?;
            let host = host.rsplit('@').next().unwrap_or(host);
            (host.to_owned(), path.to_owned())
        }
        _ => return None,
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    // Bitbucket Data Center has it over http alone.
    let path = path.strip_prefix("scm/").unwrap_or(path).trim_matches('/');
    let is_odd = |c: char| c == ':' || c.is_whitespace() || c.is_control();
    let is_sound =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(is_odd);
    let is_host = !host.is_empty() && !host.contains(['/', '\\', ' ']);
    let is_named = is_host && path.contains('/') && path.split('/').all(is_sound);
    is_named.then(|| (host.to_lowercase(), path.to_owned()))
}

/// Whether an event is of the repository of this one name; none: it does not say. A forge may know itself by
/// another host than those who clone from it: owner and name are enough, where the rest is proved by a signature.
pub fn is_of(event: &Event, canonical_name: &str) -> Option<bool> {
    let repository = match event {
        Event::Push(push) => &push.repository,
        Event::Tag(tag) => &tag.repository,
        Event::BranchDeleted(gone) | Event::TagDeleted(gone) => &gone.repository,
        Event::Change(change) => &change.repository,
        Event::Checks(reported) => &reported.repository,
        Event::Ping | Event::Asked(_) | Event::Other(_) => return None,
    };
    let Repository {
        full_name,
        http_url,
        ssh_url,
        ..
    } = repository;
    let urls = [http_url, ssh_url].into_iter().flatten();
    let urls: Vec<String> = urls.filter_map(|url| canonical(url)).collect();
    if full_name.is_empty() && urls.is_empty() {
        return None;
    }
    let tail = canonical_name.split_once('/').map(|(_, path)| path);
    let is_named = !full_name.is_empty() && tail == Some(&full_name.to_lowercase());
    Some(is_named || urls.iter().any(|url| url == canonical_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Gone;

    #[test]
    fn one_repository_has_one_name() {
        let cases = [
            ("https://forge.test/team/shop.git", "forge.test/team/shop"),
            (
                "https://user:token@Forge.test:8443/Team/shop/",
                "forge.test/team/shop",
            ),
            ("http://forge.test/team/shop.git/", "forge.test/team/shop"),
            (
                "ssh://git@forge.test:2222/team/shop.git",
                "forge.test/team/shop",
            ),
            ("git@forge.test:team/shop.git", "forge.test/team/shop"),
            ("forge.test:team/shop", "forge.test/team/shop"),
            ("git@forge.test:/team/shop.git", "forge.test/team/shop"),
            ("https://forge.test/a/b/c/shop", "forge.test/a/b/c/shop"),
            (
                "https://forge.test/scm/proj/shop.git",
                "forge.test/proj/shop",
            ),
            (
                "ssh://git@forge.test:7999/proj/shop.git",
                "forge.test/proj/shop",
            ),
            ("http://[::1]:3000/team/shop.git", "[::1]/team/shop"),
            (
                "https://forge.test/team/shop.git?x=1#y",
                "forge.test/team/shop",
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(canonical(text).as_deref(), Some(wanted), "{text}");
        }
        let place = place("git@Forge.test:Team/Shop.git");
        assert_eq!(place, Some(("forge.test".into(), "Team/Shop".into())));
        for odd in [
            "",
            "/srv/git/shop.git",
            "./shop",
            "shop",
            "file:///srv/git/team/shop.git",
            "https://forge.test",
            "https://forge.test/shop",
            "git@forge.test:",
            "git@forge.test:team/../shop",
            "ext::sh -c x/y",
        ] {
            assert_eq!(canonical(odd), None, "{odd}");
        }
    }

    #[test]
    fn an_event_is_of_its_repository_or_does_not_say() {
        let event = |full_name: &str, http: Option<&str>, ssh: Option<&str>| {
            Event::BranchDeleted(Gone {
                repository: Repository {
                    full_name: full_name.into(),
                    http_url: http.map(str::to_owned),
                    ssh_url: ssh.map(str::to_owned),
                    ..Repository::default()
                },
                name: "x".into(),
            })
        };
        let name = "forge.test/team/shop";
        let cases = [
            (event("", None, None), None),
            (Event::Ping, None),
            (event("team/shop", None, None), Some(true)),
            (
                event("Team/Shop", Some("http://inside:3000/team/shop.git"), None),
                Some(true),
            ),
            (
                event("", None, Some("git@forge.test:team/shop.git")),
                Some(true),
            ),
            (
                event(
                    "team/other",
                    Some("https://forge.test/team/other.git"),
                    None,
                ),
                Some(false),
            ),
            (event("shop", None, None), Some(false)),
        ];
        for (event, wanted) in cases {
            assert_eq!(is_of(&event, name), wanted, "{event:?}");
        }
    }
}
