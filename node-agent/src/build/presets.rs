//! Static sites: which tools a folder's site is made with, and so how it is built and where its files are.
//! Pure: the folder is asked through closures.

use std::collections::BTreeMap;

use serde_json::Value;
use skep_model::build::StaticSite;
use skep_model::problem::{Code, Problem};

/// Image in which Node's tools run.
const NODE_IMAGE: &str = "node:22-alpine";

/// A tool that makes sites.
struct Preset {
    name: &'static str,
    /// The dependency in package.json that tells it.
    package: &'static str,
    /// Where it puts the files, unless its configuration says otherwise.
    output: &'static str,
    /// Its sites have routes of their own.
    spa: bool,
}

const fn preset(
    name: &'static str,
    package: &'static str,
    output: &'static str,
    spa: bool,
) -> Preset {
    Preset {
        name,
        package,
        output,
        spa,
    }
}

/// The first whose package is there: those that are built on others come before them.
const PRESETS: [Preset; 8] = [
    preset("Next.js export", "next", "out", false),
    preset("Angular", "@angular/core", "dist", true),
    preset("Astro", "astro", "dist", false),
    preset(
        "SvelteKit static",
        "@sveltejs/adapter-static",
        "build",
        false,
    ),
    preset("Vue CLI", "@vue/cli-service", "dist", true),
    preset("Create React App", "react-scripts", "build", true),
    preset(
        "Svelte (Vite)",
        "@sveltejs/vite-plugin-svelte",
        "dist",
        true,
    ),
    preset("Vite", "vite", "dist", true),
];

/// Lock file, how it installs, and how it runs a script.
const MANAGERS: [(&str, &str, &str); 5] = [
    (
        "pnpm-lock.yaml",
        "corepack enable && pnpm install --frozen-lockfile",
        "pnpm run build",
    ),
    (
        "yarn.lock",
        "corepack enable && yarn install --frozen-lockfile",
        "yarn run build",
    ),
    (
        "bun.lock",
        "npm install -g bun && bun install --frozen-lockfile",
        "bun run build",
    ),
    (
        "bun.lockb",
        "npm install -g bun && bun install --frozen-lockfile",
        "bun run build",
    ),
    ("package-lock.json", "npm ci", "npm run build"),
];

/// How a site is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SitePlan {
    /// What was found, for a person.
    pub(super) found: &'static str,
    /// Installs dependencies; none: nothing is to be installed.
    pub(super) install: Option<String>,
    /// Builds; none: the files are ready.
    pub(super) build: Option<String>,
    /// Where the files are.
    pub(super) output: String,
    pub(super) spa: bool,
    pub(super) not_found: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    /// In which image it is built.
    pub(super) image: String,
    /// Which image hands it out; none: the nodes' data planes do, without a container.
    pub(super) server: Option<String>,
}

impl SitePlan {
    /// One line that tells it.
    pub(super) fn line(&self) -> String {
        let steps = [&self.install, &self.build];
        let steps: Vec<&str> = steps.into_iter().flatten().map(String::as_str).collect();
        let how = match steps.is_empty() {
            true => "nothing to build".to_owned(),
            false => steps.join(" && "),
        };
        format!(
            "static: {}: {how}; files from ./{}",
            self.found, self.output
        )
    }
}

/// The plan for a folder whose files `read` gives.
///
/// # Errors
/// No tool is known of it, or its configuration makes no files; says what to set.
pub(super) fn plan(
    site: &StaticSite,
    read: impl Fn(&str) -> Option<String>,
) -> Result<SitePlan, Problem> {
    let package = read("package.json");
    let package = package
        .map(|text| serde_json::from_str::<Value>(&text))
        .transpose()
        .map_err(|error| {
            failed(
                format!("package.json cannot be read: {error}"),
                "correct it",
            )
        })?;
    let preset = package.as_ref().and_then(|it| {
        let has = |preset: &&Preset| depends(it, preset.package);
        PRESETS.iter().find(has)
    });
    let found = match (preset, &package) {
        (Some(preset), _) => preset.name,
        (None, Some(_)) if site.build.is_some() || has_build(package.as_ref()) => "package.json",
        _ => "plain files",
    };
    let is_plain = found == "plain files" && site.build.is_none();
    let manager = MANAGERS.iter().find(|(lock, ..)| read(lock).is_some());
    let (install, build) = match manager {
        _ if is_plain => (None, None),
        Some((_, install, build)) => (Some(*install), Some(*build)),
        None if package.is_some() => (Some("npm install"), Some("npm run build")),
        None => (None, None),
    };
    let output = match &site.output {
        Some(output) => output.clone(),
        None => output(preset, is_plain, &read)?,
    };
    if is_plain && site.output.is_none() && read("index.html").is_none() {
        return Err(failed(
            "no tool for static sites is known of this folder, and it has no index.html".to_owned(),
            "say `build` and `output` in [static] of skep.toml, or remove `builder = \"static\"`",
        ));
    }
    let said = |said: &Option<String>, found: Option<&str>| match said.as_deref() {
        Some("") => None,
        Some(said) => Some(said.to_owned()),
        None => found.map(str::to_owned),
    };
    let not_found = site.not_found.clone();
    Ok(SitePlan {
        found,
        install: said(&site.install, install),
        build: said(&site.build, build),
        output: output
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned(),
        // A page of the user's for what does not exist says that something may not exist.
        spa: site
            .spa
            .unwrap_or(not_found.is_none() && preset.is_some_and(|it| it.spa)),
        not_found,
        headers: site.headers.clone(),
        image: site.image.clone().unwrap_or_else(|| NODE_IMAGE.to_owned()),
        server: site.server.clone(),
    })
}

fn output(
    preset: Option<&Preset>,
    is_plain: bool,
    read: &impl Fn(&str) -> Option<String>,
) -> Result<String, Problem> {
    match preset.map(|preset| preset.name) {
        None if is_plain => Ok(".".to_owned()),
        None => Err(failed(
            "where the build puts its files is not known".to_owned(),
            "say `output` in [static] of skep.toml",
        )),
        Some("Angular") => angular(read),
        Some("Next.js export") if !exports(read) => Err(failed(
            "this Next.js app is a server: its configuration has no `output: 'export'`".to_owned(),
            "set it in next.config.js, or build the app by a Dockerfile or Nixpacks",
        )),
        Some(_) => Ok(preset.map_or("", |preset| preset.output).to_owned()),
    }
}

/// `dist/APP/browser`, or what angular.json says of the one app.
fn angular(read: &impl Fn(&str) -> Option<String>) -> Result<String, Problem> {
    let say = "say `output` in [static] of skep.toml, such as dist/APP/browser";
    let text = read("angular.json").unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let apps: Vec<(&String, &Value)> = config["projects"]
        .as_object()
        .into_iter()
        .flatten()
        .collect();
    let [(name, app)] = apps.as_slice() else {
        let text = format!("angular.json has {} projects", apps.len());
        return Err(failed(text, say));
    };
    let build = &app["architect"]["build"];
    let path = &build["options"]["outputPath"];
    let base = path.as_str().or_else(|| path["base"].as_str());
    let base = base.map_or_else(|| format!("dist/{name}"), str::to_owned);
    // Builders that also render on a server keep the two apart; the old one has one folder.
    let is_old = build["builder"].as_str() == Some("@angular-devkit/build-angular:browser");
    let browser = path["browser"].as_str().unwrap_or("browser");
    Ok(match is_old || browser.is_empty() {
        true => base,
        false => format!("{base}/{browser}"),
    })
}

fn exports(read: &impl Fn(&str) -> Option<String>) -> bool {
    let names = ["next.config.js", "next.config.mjs", "next.config.ts"];
    let texts = names.into_iter().filter_map(read);
    texts
        .map(|text| text.split_whitespace().collect::<String>())
        .any(|text| text.contains("output:'export'") || text.contains("output:\"export\""))
}

fn depends(package: &Value, name: &str) -> bool {
    let kinds = ["dependencies", "devDependencies"];
    kinds.iter().any(|kind| package[kind].get(name).is_some())
}

fn has_build(package: Option<&Value>) -> bool {
    package.is_some_and(|it| it["scripts"].get("build").is_some())
}

fn failed(text: String, hint: &str) -> Problem {
    Problem::new(Code::BuildFailed, text)
        .at("static")
        .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(site: &StaticSite, files: &[(&str, &str)]) -> String {
        let read = |path: &str| {
            let file = files.iter().find(|(name, _)| *name == path);
            file.map(|(_, text)| (*text).to_owned())
        };
        match plan(site, read) {
            Ok(plan) => {
                let spa = if plan.spa { "; spa" } else { "" };
                format!("{}{spa}", plan.line().trim_start_matches("static: "))
            }
            Err(problem) => problem.message,
        }
    }

    fn of(package: &str) -> String {
        format!(r#"{{"devDependencies":{{"{package}":"1"}}}}"#)
    }

    #[test]
    fn tools_are_known_by_what_they_leave_in_a_folder() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 12] = [
            (
                "react-scripts",
                &[],
                "Create React App: npm install && npm run build; files from ./build; spa",
            ),
            (
                "vite",
                &[("package-lock.json", "")],
                "Vite: npm ci && npm run build; files from ./dist; spa",
            ),
            (
                "@vue/cli-service",
                &[("yarn.lock", "")],
                "Vue CLI: corepack enable && yarn install --frozen-lockfile && yarn run build; files from ./dist; spa",
            ),
            (
                "astro",
                &[("pnpm-lock.yaml", "")],
                "Astro: corepack enable && pnpm install --frozen-lockfile && pnpm run build; files from ./dist",
            ),
            (
                "@sveltejs/adapter-static",
                &[],
                "SvelteKit static: npm install && npm run build; files from ./build",
            ),
            (
                "@sveltejs/vite-plugin-svelte",
                &[],
                "Svelte (Vite): npm install && npm run build; files from ./dist; spa",
            ),
            (
                "next",
                &[("next.config.mjs", "export default { output : 'export' }")],
                "Next.js export: npm install && npm run build; files from ./out",
            ),
            (
                "next",
                &[("next.config.js", "module.exports = {}")],
                "this Next.js app is a server: its configuration has no `output: 'export'`",
            ),
            (
                "@angular/core",
                &[(
                    "angular.json",
                    r#"{"projects":{"shop":{"architect":{"build":{"builder":"@angular/build:application"}}}}}"#,
                )],
                "Angular: npm install && npm run build; files from ./dist/shop/browser; spa",
            ),
            (
                "@angular/core",
                &[(
                    "angular.json",
                    r#"{"projects":{"shop":{"architect":{"build":{"builder":"@angular-devkit/build-angular:browser","options":{"outputPath":"dist/old"}}}}}}"#,
                )],
                "Angular: npm install && npm run build; files from ./dist/old; spa",
            ),
            ("@angular/core", &[], "angular.json has 0 projects"),
            (
                "left-pad",
                &[("index.html", "")],
                "plain files: nothing to build; files from ./.",
            ),
        ];
        for (package, files, expected) in cases {
            let package = of(package);
            let mut all = vec![("package.json", package.as_str())];
            all.extend(files);
            assert_eq!(planned(&StaticSite::default(), &all), expected);
        }
    }

    #[test]
    fn what_is_said_comes_before_what_is_found() {
        let site = StaticSite {
            install: Some(String::new()),
            build: Some("make site".into()),
            output: Some("./public/".into()),
            ..StaticSite::default()
        };
        assert_eq!(
            planned(&site, &[]),
            "plain files: make site; files from ./public"
        );
        let vite = of("vite");
        let site = StaticSite {
            not_found: Some("404.html".into()),
            output: Some("www".into()),
            ..StaticSite::default()
        };
        assert_eq!(
            planned(&site, &[("package.json", &vite)]),
            "Vite: npm install && npm run build; files from ./www"
        );
        assert_eq!(
            planned(&StaticSite::default(), &[]),
            "no tool for static sites is known of this folder, and it has no index.html"
        );
        assert!(planned(&StaticSite::default(), &[("package.json", "{")]).contains("package.json"));
        let script = r#"{"scripts":{"build":"x"}}"#;
        assert_eq!(
            planned(&StaticSite::default(), &[("package.json", script)]),
            "where the build puts its files is not known"
        );
    }
}
