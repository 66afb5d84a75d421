//! Which pushes of its repository a service deploys, beside those of its branch: paths that count, tags.

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use crate::polling::{DEFAULT_POLL_MS, MAX_POLL_MS, MIN_POLL_MS};
use crate::problem::Problem;

/// Most patterns of one service.
pub const MAX_PATTERNS: usize = 100;
/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = 256;

/// What a push has to be, for the service to be deployed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Pushes {
    /// Files that count, relative to the repository, beside the service's own folder: as in `.gitignore`, `!`
    /// takes out, the last that matches wins. Empty: those of its folder, or all where it is the root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<String>,
    /// Tags of this pattern are deployed in place of the branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
    /// How often the repository is asked for what no forge has sent, in ms; 0: never. None: every 5 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_ms: Option<u64>,
    /// Whether the forge is told of deployments at their commits; none: it is, where there is a connection to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statuses: Option<bool>,
    /// A push is deployed when the forge's checks of its commit are green.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_for_ci: Option<WaitForCi>,
}

/// How long a deployment waits for the checks of its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WaitForCi {
    /// So long, in ms, after which it has failed.
    pub deadline_ms: u64,
}

/// How long checks are waited for where nothing is said, in ms.
pub const DEFAULT_CI_MS: u64 = 3_600_000;
/// Least and most, in ms.
pub const CI_MS: std::ops::RangeInclusive<u64> = 60_000..=86_400_000;

impl Default for WaitForCi {
    fn default() -> Self {
        Self {
            deadline_ms: DEFAULT_CI_MS,
        }
    }
}

impl Pushes {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.watch.is_empty()
            && self.tags.is_none()
            && self.poll_ms.is_none()
            && self.statuses.is_none()
            && self.wait_for_ci.is_none()
    }

    /// What every server agrees on.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), Problem> {
        if self.watch.len() > MAX_PATTERNS {
            let text = format!("more than {MAX_PATTERNS} patterns");
            return Err(Problem::invalid("pushes.watch", text));
        }
        let is_odd = |ms: &u64| *ms != 0 && !(MIN_POLL_MS..=MAX_POLL_MS).contains(ms);
        if let Some(ms) = self.poll_ms.filter(is_odd) {
            let text = format!("a repository is not asked every {ms} ms");
            return Err(Problem::invalid("pushes.poll_ms", text)
                .hint("from 10 s to a day: `poll = \"5m\"`; or `poll = \"never\"` (0)"));
        }
        if let Some(wait) = self
            .wait_for_ci
            .filter(|it| !CI_MS.contains(&it.deadline_ms))
        {
            let text = format!("checks are not waited for {} ms", wait.deadline_ms);
            return Err(Problem::invalid("pushes.wait_for_ci", text)
                .hint("from a minute to a day: `wait_for_ci = \"30m\"`; or `true`"));
        }
        let all = self.watch.iter().map(|text| ("pushes.watch", text));
        let tags = self.tags.iter().map(|text| ("pushes.tags", text));
        all.chain(tags).try_for_each(|(field, text)| {
            let is_sound = !text.trim_start_matches('!').is_empty()
                && text.len() <= MAX_PATTERN
                && !text.chars().any(char::is_control);
            match is_sound {
                true => Ok(()),
                false => Err(odd(field, text, "it is empty, too long or no text")),
            }
        })
    }

    /// Whether the forge is told of deployments at their commits.
    pub fn writes_back(&self) -> bool {
        self.statuses.unwrap_or(true)
    }

    /// The pause between two questions to the repository, in ms; none: it is never asked.
    pub fn poll_every_ms(&self) -> Option<u64> {
        Some(self.poll_ms.unwrap_or(DEFAULT_POLL_MS)).filter(|ms| *ms > 0)
    }

    /// What the library of patterns has to say.
    ///
    /// # Errors
    /// Names the field.
    pub fn check_given(&self) -> Result<(), Problem> {
        Paths::new("pushes.watch", &self.watch)?;
        self.tags
            .as_deref()
            .map_or(Ok(()), |tags| glob("pushes.tags", tags).map(|_| ()))
    }

    /// Whether tags of this name are deployed; none: the service deploys its branch. A pattern that this
    /// version cannot read matches nothing.
    pub fn takes_tag(&self, name: &str) -> Option<bool> {
        let pattern = self.tags.as_deref()?;
        Some(glob("pushes.tags", pattern).is_ok_and(|pattern| pattern.is_match(name)))
    }

    /// The paths that count for a service of this folder; none: all of them.
    ///
    /// # Errors
    /// A pattern that this version cannot read.
    pub fn paths(&self, directory: &str) -> Result<Option<Paths>, Problem> {
        let directory = directory.trim_matches('/').trim_start_matches("./");
        let own = Some(directory).filter(|it| !it.is_empty() && *it != ".");
        if own.is_none() && self.watch.is_empty() {
            return Ok(None);
        }
        let own = own.map(|it| format!("/{}/", globset::escape(it)));
        let all: Vec<String> = own.into_iter().chain(self.watch.iter().cloned()).collect();
        Paths::new("pushes.watch", &all).map(Some)
    }
}

/// Patterns of paths, as in `.gitignore`.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Whether it takes out, and what it matches.
    patterns: Vec<(bool, Vec<GlobMatcher>)>,
}

impl Paths {
    fn new(field: &str, patterns: &[String]) -> Result<Self, Problem> {
        let read = |text: &String| {
            let (is_out, text) = match text.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, text.as_str()),
            };
            Ok((is_out, matchers(field, text)?))
        };
        let patterns = patterns.iter().map(read).collect::<Result<_, Problem>>()?;
        Ok(Self { patterns })
    }

    /// Whether a file of this path counts. A list that begins by taking out takes out of all there is.
    pub fn has(&self, path: &str) -> bool {
        let begins_with_all = self.patterns.first().is_none_or(|(is_out, _)| *is_out);
        let last = self
            .patterns
            .iter()
            .rev()
            .find(|(_, any)| any.iter().any(|one| one.is_match(path)));
        last.map_or(begins_with_all, |(is_out, _)| !is_out)
    }
}

/// One pattern: where it has no `/` but at its end it matches at any depth; what it matches is a file, or a
/// folder with all that is in it.
fn matchers(field: &str, text: &str) -> Result<Vec<GlobMatcher>, Problem> {
    let folder = text.strip_suffix('/').filter(|rest| !rest.is_empty());
    let bare = folder.unwrap_or(text);
    let rooted = bare.strip_prefix('/').unwrap_or(bare);
    let is_anywhere = !bare.contains('/');
    let path = match is_anywhere {
        true => format!("**/{rooted}"),
        false => rooted.to_owned(),
    };
    let inside = glob(field, &format!("{path}/**"))?;
    match folder {
        Some(_) => Ok(vec![inside]),
        None => Ok(vec![glob(field, &path)?, inside]),
    }
}

fn glob(field: &str, pattern: &str) -> Result<GlobMatcher, Problem> {
    let built = GlobBuilder::new(pattern).literal_separator(true).build();
    built
        .map(|glob| glob.compile_matcher())
        .map_err(|error| odd(field, pattern, &error.kind().to_string()))
}

fn odd(field: &str, pattern: &str, why: &str) -> Problem {
    let shown: String = pattern.chars().take(60).collect();
    let text = format!("`{}` is not a pattern: {why}", shown.escape_debug());
    Problem::invalid(field, text)
        .hint("as in .gitignore: `api/**`, `*.sql`, `!docs/`; for tags `v*`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushes(watch: &[&str]) -> Pushes {
        Pushes {
            watch: watch.iter().map(|&text| text.to_owned()).collect(),
            ..Pushes::default()
        }
    }

    #[test]
    fn paths_count_as_gitignore_would_have_it() {
        // Patterns, folder, files that count, files that do not.
        let cases: [(&[&str], &str, &str, &str); 11] = [
            (&["api/**"], "", "api/a api/b/c", "web/a apis/a xapi/a"),
            (
                &["api/**", "!**/*.md"],
                "",
                "api/a",
                "api/a.md api/b/c.md README.md",
            ),
            (&["!docs/"], "", "api/a README.md doc", "docs/a a/docs/b"),
            (&["*.sql"], "", "a.sql deep/down/a.sql", "a.sqlx sql"),
            (&["/*.toml"], "", "Cargo.toml", "api/Cargo.toml"),
            (&["libs"], "", "libs libs/a x/libs/b", "lib libsx"),
            (&["api/*"], "", "api/a api/b/c", "api"),
            (&["!*.md", "KEEP.md"], "", "KEEP.md a a/KEEP.md", "a.md"),
            (&[], "app", "app/a app/b/c", "a apps/a x/app/a"),
            (&["libs/**"], "app", "app/a libs/b", "web/a"),
            (&["!**/*.md"], "./app/", "app/a", "app/a.md web/a"),
        ];
        for (watch, folder, counts, others) in cases {
            let paths = pushes(watch).paths(folder).expect("patterns");
            let paths = paths.expect("not all");
            for file in counts.split(' ') {
                assert!(paths.has(file), "{watch:?} {folder} {file}");
            }
            for file in others.split(' ') {
                assert!(!paths.has(file), "{watch:?} {folder} {file}");
            }
        }
        assert!(pushes(&[]).paths("").expect("none").is_none());
        assert!(pushes(&[]).paths(".").expect("none").is_none());
        // A folder's name is no pattern.
        let odd = pushes(&[]).paths("a[b]*").expect("escaped").expect("one");
        assert!(odd.has("a[b]*/x") && !odd.has("ab/x"));
    }

    #[test]
    fn tags_match_whole_names() {
        let tagged = |pattern: &str, name: &str| {
            let tags = Some(pattern.to_owned());
            let pushes = Pushes {
                tags,
                ..Pushes::default()
            };
            pushes.takes_tag(name)
        };
        assert_eq!(tagged("v*", "v1.2"), Some(true));
        assert_eq!(tagged("v*", "xv1"), Some(false));
        assert_eq!(tagged("v[0-9]*", "vx"), Some(false));
        assert_eq!(tagged("v*", "v1/rc"), Some(false));
        assert_eq!(tagged("{a,b}-*", "b-1"), Some(true));
        assert_eq!(Pushes::default().takes_tag("v1"), None);
    }

    #[test]
    fn odd_patterns_are_refused_with_their_field() {
        for odd in ["", "!", "a\nb", "[", "a{b", &"x".repeat(300)] {
            let given = pushes(&[odd]);
            let refused = given.check().and_then(|()| given.check_given());
            let problem = refused.expect_err(odd);
            assert_eq!(problem.field.as_deref(), Some("pushes.watch"), "{odd}");
            assert!(problem.hint.is_some());
        }
        let tags = Pushes {
            tags: Some(String::new()),
            ..Pushes::default()
        };
        assert!(tags.check().is_err());
        for (ms, is_good) in [
            (0, true),
            (1, false),
            (9_999, false),
            (10_000, true),
            (MAX_POLL_MS + 1, false),
        ] {
            let given = Pushes {
                poll_ms: Some(ms),
                ..Pushes::default()
            };
            assert_eq!(given.check().is_ok(), is_good, "{ms}");
        }
        let many = vec!["a".to_owned(); MAX_PATTERNS + 1];
        let many = Pushes {
            watch: many,
            ..Pushes::default()
        };
        assert!(many.check().is_err());
    }
}
