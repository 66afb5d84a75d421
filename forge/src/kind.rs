//! Which forge made a delivery, and where each says what. By headers alone: nothing of a body is read.

use std::fmt;

use http::HeaderMap;

/// Who makes deliveries of its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forge {
    /// Forgejo, as at Codeberg.
    Forgejo,
    /// Gitea.
    Gitea,
    /// Gogs.
    Gogs,
    /// GitHub, and whoever signs as it does.
    GitHub,
    /// GitLab.
    GitLab,
    /// Bitbucket Cloud.
    BitbucketCloud,
    /// Bitbucket Data Center.
    BitbucketDataCenter,
    /// Anything that signs the small JSON of [`crate::Asked`]: a script, a CI.
    Generic,
}

impl Forge {
    /// Every forge, in the order of detection: Forgejo sends the headers of Gitea, Gogs and GitHub too, and
    /// Gitea those of Gogs and GitHub.
    pub const ALL: [Self; 8] = [
        Self::Forgejo,
        Self::Gitea,
        Self::Gogs,
        Self::GitHub,
        Self::GitLab,
        Self::BitbucketCloud,
        Self::BitbucketDataCenter,
        Self::Generic,
    ];

    /// The word, as keys of deliveries have it: never renamed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forgejo => "forgejo",
            Self::Gitea => "gitea",
            Self::Gogs => "gogs",
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::BitbucketCloud => "bitbucket",
            Self::BitbucketDataCenter => "bitbucket-dc",
            Self::Generic => "generic",
        }
    }

    /// The header that names the event.
    pub const fn event_header(self) -> &'static str {
        match self {
            Self::Forgejo => "x-forgejo-event",
            Self::Gitea => "x-gitea-event",
            Self::Gogs => "x-gogs-event",
            Self::GitHub => "x-github-event",
            Self::GitLab => "x-gitlab-event",
            Self::BitbucketCloud | Self::BitbucketDataCenter => "x-event-key",
            Self::Generic => "x-skep-event",
        }
    }

    /// The headers that may hold a delivery's id; the first that is there counts. What names a webhook and not
    /// a delivery (`X-Gitlab-Webhook-UUID`, `X-Hook-UUID`) is not among them.
    pub const fn delivery_headers(self) -> &'static [&'static str] {
        match self {
            Self::Forgejo => &["x-forgejo-delivery", "x-gitea-delivery"],
            Self::Gitea => &["x-gitea-delivery"],
            Self::Gogs => &["x-gogs-delivery"],
            Self::GitHub => &["x-github-delivery"],
            Self::GitLab => &["idempotency-key", "webhook-id", "x-gitlab-event-uuid"],
            Self::BitbucketCloud => &["x-request-uuid"],
            Self::BitbucketDataCenter => &["x-request-id"],
            Self::Generic => &["x-skep-delivery"],
        }
    }

    /// The headers that may hold a signature of the body; the first that is there counts.
    pub(crate) const fn signature_headers(self) -> &'static [&'static str] {
        match self {
            Self::Forgejo => &[
                "x-forgejo-signature",
                "x-gitea-signature",
                "x-hub-signature-256",
            ],
            Self::Gitea => &["x-gitea-signature", "x-hub-signature-256"],
            Self::Gogs => &["x-gogs-signature"],
            Self::GitHub => &["x-hub-signature-256"],
            Self::GitLab => &["webhook-signature"],
            Self::BitbucketCloud | Self::BitbucketDataCenter => {
                &["x-hub-signature", "x-hub-signature-256"]
            }
            Self::Generic => &["x-skep-signature"],
        }
    }
}

impl fmt::Display for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forgejo => "Forgejo",
            Self::Gitea => "Gitea",
            Self::Gogs => "Gogs",
            Self::GitHub => "GitHub",
            Self::GitLab => "GitLab",
            Self::BitbucketCloud => "Bitbucket Cloud",
            Self::BitbucketDataCenter => "Bitbucket Data Center",
            Self::Generic => "a signed request",
        })
    }
}

/// Who made the delivery with these headers.
pub fn detect(headers: &HeaderMap) -> Forge {
    let has = |names: &[&str]| names.iter().any(|name| headers.contains_key(*name));
    if has(&["x-forgejo-event", "x-forgejo-signature"]) {
        Forge::Forgejo
    } else if has(&["x-gitea-event", "x-gitea-signature"]) {
        Forge::Gitea
    } else if has(&["x-gogs-event", "x-gogs-signature"]) {
        Forge::Gogs
    } else if has(&["x-github-event", "x-github-delivery", "x-hub-signature-256"])
        && !has(&["x-event-key"])
    {
        Forge::GitHub
    } else if has(&["x-gitlab-event", "x-gitlab-token", "x-gitlab-instance"]) {
        Forge::GitLab
    } else if let Some(key) = value(headers, "x-event-key") {
        bitbucket(key, headers)
    } else {
        Forge::Generic
    }
}

/// Both name their events in the same header: the names differ, and where they do not, other headers do.
fn bitbucket(key: &str, headers: &HeaderMap) -> Forge {
    const DATA_CENTER: [&str; 5] = [
        "pr:",
        "mirror:",
        "diagnostics:",
        "project:",
        "repo:refs_changed",
    ];
    if key == "repo:push" || key.starts_with("pullrequest:") {
        return Forge::BitbucketCloud;
    }
    let is_data_center = DATA_CENTER.iter().any(|prefix| key.starts_with(prefix));
    let has_uuid = headers.contains_key("x-hook-uuid") || headers.contains_key("x-request-uuid");
    match is_data_center || !has_uuid {
        true => Forge::BitbucketDataCenter,
        false => Forge::BitbucketCloud,
    }
}

/// The event that the headers name.
pub fn event_name(forge: Forge, headers: &HeaderMap) -> Option<&str> {
    value(headers, forge.event_header())
}

/// The id of the delivery: the same again when a forge delivers it again.
pub fn delivery_id(forge: Forge, headers: &HeaderMap) -> Option<&str> {
    let names = forge.delivery_headers().iter();
    names.filter_map(|name| value(headers, name)).next()
}

/// A header of text that is not empty.
pub(crate) fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(names: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        names.iter().map(pair).collect()
    }

    const GITHUB: [(&str, &str); 2] = [("x-github-event", "push"), ("x-github-delivery", "gh")];
    const GOGS: [(&str, &str); 2] = [("x-gogs-event", "push"), ("x-gogs-delivery", "go")];
    const GITEA: [(&str, &str); 2] = [("x-gitea-event", "push"), ("x-gitea-delivery", "gt")];
    const FORGEJO: [(&str, &str); 2] = [("x-forgejo-event", "push"), ("x-forgejo-delivery", "fj")];

    #[test]
    fn who_sends_everybodys_headers_is_known_by_its_own() {
        let all = [&FORGEJO[..], &GITEA, &GOGS, &GITHUB];
        let wanted = [
            (Forge::Forgejo, "fj"),
            (Forge::Gitea, "gt"),
            (Forge::Gogs, "go"),
            (Forge::GitHub, "gh"),
        ];
        for (skipped, (forge, id)) in wanted.into_iter().enumerate() {
            let sent = headers(&all[skipped..].concat());
            assert_eq!(detect(&sent), forge);
            assert_eq!(delivery_id(forge, &sent), Some(id));
            assert_eq!(event_name(forge, &sent), Some("push"));
        }
    }

    /// Headers, whose they are, the delivery's id.
    type Case = (
        &'static [(&'static str, &'static str)],
        Forge,
        Option<&'static str>,
    );

    #[test]
    fn each_forge_is_known_by_what_it_sends() {
        let cases: [Case; 12] = [
            (
                &[
                    ("x-gitlab-event", "Push Hook"),
                    ("x-gitlab-webhook-uuid", "w"),
                    ("x-gitlab-event-uuid", "e"),
                ],
                Forge::GitLab,
                Some("e"),
            ),
            (
                &[("x-gitlab-token", "t"), ("idempotency-key", "k")],
                Forge::GitLab,
                Some("k"),
            ),
            (
                &[("x-gitlab-event", "x"), ("webhook-id", "i")],
                Forge::GitLab,
                Some("i"),
            ),
            (
                &[
                    ("x-event-key", "repo:push"),
                    ("x-request-uuid", "u"),
                    ("x-hook-uuid", "h"),
                ],
                Forge::BitbucketCloud,
                Some("u"),
            ),
            (
                &[("x-event-key", "pullrequest:created")],
                Forge::BitbucketCloud,
                None,
            ),
            (
                &[("x-event-key", "repo:fork"), ("x-hook-uuid", "h")],
                Forge::BitbucketCloud,
                None,
            ),
            (
                &[("x-event-key", "repo:refs_changed"), ("x-request-id", "r")],
                Forge::BitbucketDataCenter,
                Some("r"),
            ),
            (
                &[("x-event-key", "pr:opened"), ("x-hub-signature", "s")],
                Forge::BitbucketDataCenter,
                None,
            ),
            (
                &[("x-event-key", "diagnostics:ping")],
                Forge::BitbucketDataCenter,
                None,
            ),
            (
                &[("x-event-key", "repo:push"), ("x-hub-signature-256", "s")],
                Forge::BitbucketCloud,
                None,
            ),
            (&[("x-hub-signature-256", "sha256=00")], Forge::GitHub, None),
            (&[("x-skep-delivery", "d")], Forge::Generic, Some("d")),
        ];
        for (sent, forge, id) in cases {
            let sent = headers(sent);
            assert_eq!(detect(&sent), forge, "{sent:?}");
            assert_eq!(delivery_id(forge, &sent), id, "{sent:?}");
        }
    }
}
