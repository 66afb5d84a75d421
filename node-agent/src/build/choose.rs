//! Which builder makes the image. Pure: what is in the folder is asked through a closure.

use skep_model::problem::{Code, Problem};
use skep_model::spec::{Builder, ServiceSpec};

/// The Dockerfile when nobody names another.
pub const DEFAULT_DOCKERFILE: &str = "Dockerfile";

/// What the user said: `skep.toml` before the service's own setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Explicit builder.
    pub builder: Option<Builder>,
    /// Explicit path of the Dockerfile.
    pub dockerfile: Option<String>,
    /// Something is said of a static site.
    pub site: bool,
}

impl Wish {
    /// What a service and its app's own file say together.
    pub fn of(spec: &ServiceSpec) -> Self {
        Self {
            builder: spec.builder.clone(),
            dockerfile: spec.dockerfile.clone(),
            site: !spec.site.is_silent(),
        }
    }
}

/// The builder, and the rule that chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What builds.
    pub builder: Builder,
    /// Path of the Dockerfile inside the folder; empty where none is used.
    pub dockerfile: String,
    /// The rule, for a person.
    pub why: String,
}

impl Choice {
    /// One line that tells it: `builder: Dockerfile (found ./Dockerfile)`.
    pub fn line(&self) -> String {
        let name = match &self.builder {
            Builder::Dockerfile => "Dockerfile",
            Builder::Image => "image",
            Builder::Nixpacks => "Nixpacks",
            Builder::Static => "static",
            Builder::Exec(name) => name,
        };
        format!("builder: {name} ({})", self.why)
    }
}

/// For a folder: the explicit builder, else the Dockerfile that is there, else a static site where something
/// is said of one, else Nixpacks. Whether the node has what was chosen, it knows itself.
///
/// # Errors
/// The builder cannot work on this folder; says what to add.
pub fn for_folder(wish: &Wish, has_file: impl Fn(&str) -> bool) -> Result<Choice, Problem> {
    let dockerfile = wish.dockerfile.as_deref().unwrap_or(DEFAULT_DOCKERFILE);
    let dockerfile = dockerfile.trim_start_matches("./");
    let is_there = has_file(dockerfile);
    let with = |why: String| Choice {
        builder: Builder::Dockerfile,
        dockerfile: dockerfile.to_owned(),
        why,
    };
    let without = |builder: Builder, why: &str| Choice {
        builder,
        dockerfile: String::new(),
        why: why.to_owned(),
    };
    match &wish.builder {
        Some(Builder::Dockerfile) if is_there => Ok(with(format!("as set, ./{dockerfile}"))),
        Some(Builder::Dockerfile) => Err(no_dockerfile(dockerfile)),
        None if is_there => Ok(with(format!("found ./{dockerfile}"))),
        None if wish.dockerfile.is_some() => Err(no_dockerfile(dockerfile)),
        Some(Builder::Image) => Err(Problem::new(
            Code::BuildFailed,
            "the builder is set to `image`, but the source is a folder",
        )
        .at("builder")
        .hint("remove `builder`, or deploy the image itself: skep deploy --image NAME")),
        Some(builder) => Ok(without(builder.clone(), "as set")),
        None if wish.site => Ok(without(
            Builder::Static,
            "[static] is set, and no ./Dockerfile",
        )),
        None => Ok(without(Builder::Nixpacks, "no ./Dockerfile")),
    }
}

/// For a ready image: there is nothing else to do with it, whatever the service says.
pub fn for_image(explicit: Option<&Builder>) -> Choice {
    let why = match explicit {
        Some(Builder::Image) => "as set",
        _ => "the deployment names an image",
    };
    Choice {
        builder: Builder::Image,
        dockerfile: String::new(),
        why: why.to_owned(),
    }
}

fn no_dockerfile(path: &str) -> Problem {
    Problem::new(
        Code::BuildFailed,
        format!(
            "no Dockerfile found: there is no file ./{} in the app's folder",
            path.escape_debug()
        ),
    )
    .at("dockerfile")
    .hint(
        "add one, say where it is by `dockerfile = \"path\"` in skep.toml, \
         or deploy a ready image: skep deploy --image NAME",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(builder: Option<Builder>, dockerfile: Option<&str>, files: &[&str]) -> String {
        let wish = Wish {
            builder,
            dockerfile: dockerfile.map(str::to_owned),
            site: files.contains(&"[static]"),
        };
        match for_folder(&wish, |path| files.contains(&path)) {
            Ok(choice) => format!("{} -> {}", choice.line(), choice.dockerfile),
            Err(problem) => problem.message,
        }
    }

    #[test]
    fn the_rules_in_their_order() {
        use Builder::{Dockerfile, Exec, Image, Nixpacks, Static};
        let cases = [
            (
                None,
                None,
                &["Dockerfile"][..],
                "builder: Dockerfile (found ./Dockerfile) -> Dockerfile",
            ),
            (
                None,
                Some("./ops/web.df"),
                &["Dockerfile", "ops/web.df"],
                "builder: Dockerfile (found ./ops/web.df) -> ops/web.df",
            ),
            (
                Some(Dockerfile),
                None,
                &["Dockerfile"],
                "builder: Dockerfile (as set, ./Dockerfile) -> Dockerfile",
            ),
            // The one that was named, never another in its place.
            (
                None,
                Some("web.df"),
                &["Dockerfile"],
                "no Dockerfile found: there is no file ./web.df in the app's folder",
            ),
            (
                Some(Dockerfile),
                None,
                &[],
                "no Dockerfile found: there is no file ./Dockerfile in the app's folder",
            ),
            (
                None,
                None,
                &["package.json"],
                "builder: Nixpacks (no ./Dockerfile) -> ",
            ),
            (
                None,
                None,
                &["package.json", "[static]"],
                "builder: static ([static] is set, and no ./Dockerfile) -> ",
            ),
            (
                None,
                None,
                &["Dockerfile", "[static]"],
                "builder: Dockerfile (found ./Dockerfile) -> Dockerfile",
            ),
            (
                Some(Static),
                None,
                &["Dockerfile"],
                "builder: static (as set) -> ",
            ),
            (
                Some(Exec("bazel".to_owned())),
                None,
                &["Dockerfile"],
                "builder: bazel (as set) -> ",
            ),
            // What is explicit beats what is found.
            (
                Some(Image),
                None,
                &["Dockerfile"],
                "the builder is set to `image`, but the source is a folder",
            ),
            (
                Some(Nixpacks),
                None,
                &["Dockerfile"],
                "builder: Nixpacks (as set) -> ",
            ),
        ];
        for (builder, dockerfile, files, expected) in cases {
            assert_eq!(
                choose(builder.clone(), dockerfile, files),
                expected,
                "{builder:?} {dockerfile:?} {files:?}"
            );
        }
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        for builder in [Builder::Dockerfile, Builder::Image] {
            let wish = Wish {
                builder: Some(builder),
                ..Wish::default()
            };
            let problem = for_folder(&wish, |_| false).expect_err("nothing to build");
            assert_eq!(problem.code, Code::BuildFailed);
            assert!(
                problem
                    .hint
                    .is_some_and(|hint| hint.contains("skep deploy --image"))
            );
        }
    }

    #[test]
    fn an_image_needs_no_builder() {
        assert_eq!(
            for_image(None).line(),
            "builder: image (the deployment names an image)"
        );
        assert_eq!(
            for_image(Some(&Builder::Image)).line(),
            "builder: image (as set)"
        );
    }
}
