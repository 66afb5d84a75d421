//! What a push means for its service: pure. The rules are those of pushes that forges tell of (`skep-forge`).

use skep_forge::{Commit, Push, Repository, Rules, Tag, Verdict};
use skep_model::deployment::Origin;
use skep_model::problem::{Code, Problem};
use skep_model::pushed::{Pushed, Update, branch_of};
use skep_model::service::Service;
use skep_model::spec::Source;

/// What is before the name of a tag.
const TAGS: &str = "refs/tags/";

/// What is deployed of a push, and what else is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Meaning {
    /// What is deployed; none: nothing.
    pub(crate) origin: Option<Origin>,
    /// For whoever pushes.
    pub(crate) remarks: Vec<String>,
}

/// The same updates, from where the references are: what was not told to a client, it cannot name.
///
/// # Errors
/// Another push was first.
pub(crate) fn from_where_they_are(
    pushed: &Pushed,
    told: &std::collections::BTreeMap<&str, &str>,
    updates: &[Update],
) -> Result<Vec<Update>, Problem> {
    let from = |update: &Update| {
        let is = pushed.references.get(&update.name);
        let is = is.map(|of| of.commit.clone());
        let is_untold = update.old.is_none() && !told.contains_key(update.name.as_str());
        if is != update.old && !is_untold {
            let text = format!("another push to `{}` was first", update.name);
            return Err(Problem::new(Code::Conflict, text)
                .hint("nothing of yours was taken: push again, with + or --force if you mean it"));
        }
        Ok(Update {
            old: is,
            ..update.clone()
        })
    };
    updates.iter().map(from).collect()
}

/// What these updates mean for a service.
pub(crate) fn meaning(service: &Service, updates: &[Update]) -> Meaning {
    let mut meaning = Meaning::default();
    let (own, directory) = match &service.spec.source {
        Some(
            Source::Pushed { branch, directory }
            | Source::Git {
                branch, directory, ..
            },
        ) => (Some(branch.as_str()), directory.as_str()),
        _ => (None, ""),
    };
    // Where nobody has said so, the first branch is it.
    let first = updates.iter().find_map(|update| {
        let branch = branch_of(&update.name)?;
        update.new.as_ref().map(|_| branch)
    });
    let Some(branch) = own.or(first) else {
        return meaning;
    };
    let rules = Rules {
        branch,
        directory,
        pushes: &service.spec.pushes,
    };
    for update in updates {
        let shown = branch_of(&update.name).unwrap_or(&update.name);
        let Some(commit) = &update.new else {
            let what = format!("{shown} is removed here; what runs goes on running");
            meaning.remarks.push(what);
            continue;
        };
        match of_update(&rules, update, commit) {
            Verdict::Deploy(_) => {
                meaning.origin = Some(Origin::Pushed {
                    branch: shown.trim_start_matches(TAGS).to_owned(),
                    commit: commit.clone(),
                    directory: directory.to_owned(),
                });
            }
            Verdict::Skip(why) | Verdict::Untouched(why) => {
                meaning.remarks.push(format!("{shown} is stored: {why}"));
            }
        }
    }
    meaning
}

fn of_update(rules: &Rules<'_>, update: &Update, commit: &str) -> Verdict {
    let Some(after) = Commit::new(commit) else {
        return Verdict::Skip("its commit is none".to_owned());
    };
    match branch_of(&update.name) {
        // Which files changed is not known before it is checked out: that deploys.
        Some(branch) => rules.of_push(&Push {
            repository: Repository::default(),
            branch: branch.to_owned(),
            before: update.old.as_deref().and_then(Commit::new),
            after,
            forced: false,
            commits: Vec::new(),
            lists_all: false,
            is_complete: false,
            head_message: None,
            pusher: None,
        }),
        None => rules.of_tag(&Tag {
            repository: Repository::default(),
            name: update.name.trim_start_matches(TAGS).to_owned(),
            commit: after,
            message: None,
        }),
    }
}

/// What the service comes from, once this was deployed.
pub(crate) fn source_after(service: &Service, origin: &Origin) -> Option<Source> {
    let Origin::Pushed {
        branch, directory, ..
    } = origin
    else {
        return None;
    };
    let own = service.spec.source.as_ref().and_then(Source::branch);
    Some(Source::Pushed {
        // A tag is no branch.
        branch: own.unwrap_or(branch).to_owned(),
        directory: directory.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use skep_model::id::{EnvironmentId, NodeId, ServiceId};
    use skep_model::pushed::Reference;
    use skep_model::pushes::Pushes;
    use skep_model::spec::ServiceSpec;

    use super::*;

    fn service(source: Option<Source>, tags: Option<&str>) -> Service {
        let spec = ServiceSpec {
            source,
            pushes: Pushes {
                tags: tags.map(str::to_owned),
                ..Pushes::default()
            },
            ..ServiceSpec::default()
        };
        Service {
            id: ServiceId::from_u128(1),
            environment: EnvironmentId::from_u128(2),
            name: "web".into(),
            spec,
            variables: Default::default(),
            webhook_secret: None,
            live: None,
            rollout: None,
            progress: Default::default(),
            last_release: 0,
            stopped: false,
            removing: false,
            generation: 1,
            scaling: Default::default(),
            pinned: None,
            created_ms: 0,
        }
    }

    fn id(letter: char) -> String {
        letter.to_string().repeat(40)
    }

    /// `main`, `-dev` for one that is removed, `v1!` for a tag.
    fn updates(names: &[&str]) -> Vec<Update> {
        let update = |name: &&str| {
            let is_removed = name.starts_with('-');
            let name = name.trim_start_matches('-');
            Update {
                name: match name.strip_suffix('!') {
                    Some(tag) => format!("refs/tags/{tag}"),
                    None => format!("refs/heads/{name}"),
                },
                old: is_removed.then(|| id('a')),
                new: (!is_removed).then(|| id('b')),
            }
        };
        names.iter().map(update).collect()
    }

    #[test]
    fn the_service_s_branch_deploys_and_the_first_becomes_it() {
        let pushed = |branch: &str| {
            Some(Source::Pushed {
                branch: branch.to_owned(),
                directory: "app".into(),
            })
        };
        let git = Some(Source::Git {
            repository: "https://forge.test/a".into(),
            branch: "main".into(),
            directory: String::new(),
        });
        type Case<'a> = (
            Option<Source>,
            Option<&'a str>,
            &'a [&'a str],
            Option<&'a str>,
            &'a str,
        );
        let cases: [Case<'_>; 9] = [
            (None, None, &["main"], Some("main"), ""),
            (None, None, &["dev"], Some("dev"), ""),
            (
                None,
                None,
                &["dev", "main"],
                Some("dev"),
                "main is stored: the service deploys `dev`, not `main`",
            ),
            (pushed("main"), None, &["main"], Some("main"), ""),
            (
                pushed("main"),
                None,
                &["dev"],
                None,
                "dev is stored: the service deploys `main`, not `dev`",
            ),
            (git, None, &["main"], Some("main"), ""),
            (
                pushed("main"),
                None,
                &["-main"],
                None,
                "main is removed here; what runs goes on running",
            ),
            (
                pushed("main"),
                Some("v*"),
                &["main", "v1!"],
                Some("v1"),
                "main is stored: the service deploys tags `v*`, not a branch",
            ),
            (None, None, &["v1!"], None, ""),
        ];
        for (source, tags, names, deployed, remark) in cases {
            let found = meaning(&service(source, tags), &updates(names));
            let branch = found.origin.as_ref().map(|origin| match origin {
                Origin::Pushed { branch, commit, .. } if *commit == id('b') => branch.as_str(),
                other => panic!("{other:?}"),
            });
            assert_eq!(
                (branch, found.remarks.join("; ").as_str()),
                (deployed, remark),
                "{names:?}"
            );
        }
        let its = service(pushed("main"), Some("v*"));
        let origin = meaning(&its, &updates(&["v1!"])).origin.expect("deployed");
        assert_eq!(source_after(&its, &origin), pushed("main"));
    }

    #[test]
    fn who_saw_something_else_comes_too_late_and_who_saw_nothing_does_not() {
        let reference = Reference {
            commit: id('a'),
            holders: [NodeId::from_u128(1)].into(),
        };
        let pushed = Pushed {
            service: ServiceId::from_u128(1),
            references: [("refs/heads/main".to_owned(), reference)].into(),
        };
        let told = BTreeMap::from([("refs/heads/main", "a")]);
        let untold = BTreeMap::new();
        let push = |old: Option<char>| Update {
            name: "refs/heads/main".into(),
            old: old.map(id),
            new: Some(id('c')),
        };
        let seen = |told, old| {
            let found = from_where_they_are(&pushed, told, &[push(old)]);
            found.map(|all| all[0].old.clone())
        };
        assert_eq!(seen(&told, Some('a')), Ok(Some(id('a'))));
        assert_eq!(seen(&untold, None), Ok(Some(id('a'))));
        for (told, old) in [(&told, None), (&told, Some('b')), (&untold, Some('b'))] {
            assert_eq!(seen(told, old).expect_err("late").code, Code::Conflict);
        }
    }
}
