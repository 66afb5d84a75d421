//! `[source]`: which pushes of its repository deploy the app, and what is fetched of it.

use std::time::Duration;

use humantime_serde::re::humantime;
use serde::{Deserialize, Serialize};

use super::set;
use crate::build::Fetch;
use crate::pushes::{Pushes, WaitForCi};

/// The repository is not asked.
const NEVER: &str = "never";

/// `[source]`. Who may read the repository is not for the app's own file to say: it is not there yet when that is
/// needed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SourceTable {
    /// Patterns of files that count: replaces all that were said.
    pub watch: Option<Vec<String>>,
    /// Pattern of tags that are deployed in place of the branch; empty: the branch again.
    pub tags: Option<String>,
    /// How often the repository is asked for what no forge has sent.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub poll: Option<Poll>,
    /// Whether the forge is told of deployments at their commits.
    pub statuses: Option<bool>,
    /// Whether, and how long, a push waits for the checks of its commit at the forge.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<CiWait>))]
    pub wait_for_ci: Option<Checks>,
    /// Submodules too.
    pub submodules: Option<bool>,
    /// Git LFS too.
    pub lfs: Option<bool>,
}

/// A pause in ms, as people write it: `5m`; `never` is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Poll(u64);

impl Poll {
    pub(super) fn of(ms: u64) -> Self {
        Self(ms)
    }
}

impl TryFrom<String> for Poll {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == NEVER {
            return Ok(Self(0));
        }
        let pause = humantime::parse_duration(&text).map_err(|error| {
            format!(
                "`{}`: {error}; for example 5m, or never",
                text.escape_debug()
            )
        })?;
        match u64::try_from(pause.as_millis()) {
            Ok(ms) if ms > 0 => Ok(Self(ms)),
            _ => Err("from 10s to 1d, or never".to_owned()),
        }
    }
}

impl From<Poll> for String {
    fn from(Poll(ms): Poll) -> Self {
        match ms {
            0 => NEVER.to_owned(),
            ms => humantime::format_duration(Duration::from_millis(ms)).to_string(),
        }
    }
}

/// Whether checks are waited for, and how long, in ms: `true`, `false` or `30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CiWait", into = "CiWait")]
pub struct Checks(Option<WaitForCi>);

/// Whether checks are waited for: `true`, `false`, or how long: `30m`.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged, expecting = "true, false or a time such as \"30m\"")]
enum CiWait {
    Whether(bool),
    For(String),
}

impl Checks {
    pub(super) fn of(wait: WaitForCi) -> Self {
        Self(Some(wait))
    }
}

impl TryFrom<CiWait> for Checks {
    type Error = String;

    fn try_from(written: CiWait) -> Result<Self, String> {
        let text = match written {
            CiWait::Whether(waits) => return Ok(Self(waits.then(WaitForCi::default))),
            CiWait::For(text) => text,
        };
        let time = humantime::parse_duration(&text).map_err(|error| {
            format!(
                "`{}`: {error}; for example 30m, or true",
                text.escape_debug()
            )
        })?;
        let deadline_ms = u64::try_from(time.as_millis()).map_err(|_| "from 1m to 1d")?;
        Ok(Self(Some(WaitForCi { deadline_ms })))
    }
}

impl From<Checks> for CiWait {
    fn from(Checks(wait): Checks) -> Self {
        match wait {
            None => Self::Whether(false),
            Some(wait) if wait == WaitForCi::default() => Self::Whether(true),
            Some(WaitForCi { deadline_ms }) => {
                let time = Duration::from_millis(deadline_ms);
                Self::For(humantime::format_duration(time).to_string())
            }
        }
    }
}

impl SourceTable {
    pub(super) fn apply(&self, (pushes, fetch): (&mut Pushes, &mut Fetch)) {
        set(&mut pushes.watch, self.watch.clone());
        if let Some(tags) = &self.tags {
            pushes.tags = Some(tags.clone()).filter(|tags| !tags.is_empty());
        }
        if let Some(Poll(ms)) = self.poll {
            pushes.poll_ms = Some(ms);
        }
        if self.statuses.is_some() {
            pushes.statuses = self.statuses;
        }
        if let Some(Checks(wait)) = self.wait_for_ci {
            pushes.wait_for_ci = wait;
        }
        set(&mut fetch.submodules, self.submodules);
        set(&mut fetch.lfs, self.lfs);
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::Manifest;
    use crate::spec::ServiceSpec;

    #[test]
    fn what_the_file_says_is_in_force_and_what_it_does_not_say_stays() {
        let read = |text: &str, base: &ServiceSpec| {
            let manifest = Manifest::parse(text).expect("accepted");
            manifest.apply(base).expect("accepted").pushes
        };
        let both = "[source]\nwatch = [\"api/**\", \"!**/*.md\"]\ntags = \"v*\"\n";
        let base = ServiceSpec {
            pushes: read(both, &ServiceSpec::default()),
            ..ServiceSpec::default()
        };
        assert_eq!(base.pushes.watch, ["api/**", "!**/*.md"]);
        assert_eq!(base.pushes.tags.as_deref(), Some("v*"));
        assert_eq!(read("", &base), base.pushes);
        let cleared = read("[source]\nwatch = []\ntags = \"\"\n", &base);
        assert!(cleared.is_empty(), "{cleared:?}");
        let polled = |text: &str| read(&format!("[source]\npoll = \"{text}\"\n"), &base).poll_ms;
        assert_eq!([polled("90s"), polled("never")], [Some(90_000), Some(0)]);
        assert!(base.pushes.writes_back());
        let quiet = read("[source]\nstatuses = false\n", &base);
        assert!(!quiet.writes_back());
        let waits = |text: &str| {
            let pushes = read(&format!("[source]\nwait_for_ci = {text}\n"), &base);
            pushes.wait_for_ci.map(|it| it.deadline_ms)
        };
        assert_eq!(
            [waits("true"), waits("false"), waits("\"30m\"")],
            [Some(3_600_000), None, Some(1_800_000)]
        );
        for odd in [
            "wait_for_ci = \"1s\"",
            "wait_for_ci = \"long\"",
            "wait_for_ci = 30",
            "poll = \"1s\"",
            "poll = \"often\"",
            "poll = \"0s\"",
            "poll = \"2d\"",
            "watch = [\"[\"]",
            "tags = \"{\"",
            "branch = \"main\"",
        ] {
            assert!(
                Manifest::parse(&format!("[source]\n{odd}\n")).is_err(),
                "{odd}"
            );
        }
    }
}
