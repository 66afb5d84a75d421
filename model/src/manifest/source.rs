//! `[source]`: which pushes of its repository deploy the app, and what is fetched of it.

use serde::{Deserialize, Serialize};

use super::set;
use crate::build::Fetch;
use crate::pushes::Pushes;

/// `[source]`. Who may read the repository is not for the app's own file to say: it is not there yet when that is
/// needed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceTable {
    /// Patterns of files that count: replaces all that were said.
    pub watch: Option<Vec<String>>,
    /// Pattern of tags that are deployed in place of the branch; empty: the branch again.
    pub tags: Option<String>,
    /// Submodules too.
    pub submodules: Option<bool>,
    /// Git LFS too.
    pub lfs: Option<bool>,
}

impl SourceTable {
    pub(super) fn apply(&self, (pushes, fetch): (&mut Pushes, &mut Fetch)) {
        set(&mut pushes.watch, self.watch.clone());
        if let Some(tags) = &self.tags {
            pushes.tags = Some(tags.clone()).filter(|tags| !tags.is_empty());
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
        for odd in ["watch = [\"[\"]", "tags = \"{\"", "branch = \"main\""] {
            assert!(
                Manifest::parse(&format!("[source]\n{odd}\n")).is_err(),
                "{odd}"
            );
        }
    }
}
