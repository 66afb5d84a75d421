//! Static sites: built by their own tools in one image, of which another one takes nothing but the files: a
//! bundle, that is released, kept and rolled back like any app and needs no container. Where the app names a web
//! server, the files end up in that one's image.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use futures_util::future::BoxFuture;
use skep_ingress::files::Site;
use skep_model::problem::{Code, Problem};

use super::super::presets::{self, SitePlan};
use super::super::{folder, say};
use super::{Builder, Job, Made, Recipe, no_secrets};
use crate::bundles;

/// What is made for Docker, inside the folder that it gets.
const FOLDER: &str = ".skep";
const DOCKERFILE: &str = ".skep/Dockerfile";
const CONFIGURATION: &str = ".skep/site.conf";
/// Where nginx has its files.
const ROOT: &str = "/usr/share/nginx/html";
/// Where the site is built.
const WORK: &str = "/site";
/// Of a file that tells which tool it is.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A site of files.
pub(super) struct StaticSite;

impl Builder for StaticSite {
    fn make<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Made, Problem>> {
        Box::pin(async move {
            no_secrets(job, "a static site")?;
            let (folder, site) = (job.folder.to_owned(), job.spec.site.clone());
            let plan = move || presets::plan(&site, |path| text_of(&folder, path));
            let plan = folder::blocking(plan).await?;
            say(job.lines, plan.line()).await;
            let labels = labels(&plan);
            let (folder, hold) = (job.folder.to_owned(), job.work.hold());
            folder::blocking(move || {
                let _hold = hold;
                write(&folder, &plan)
            })
            .await?;
            Ok(Made::Recipe(Recipe {
                dockerfile: DOCKERFILE.to_owned(),
                kept: FOLDER.to_owned(),
                args: job.spec.build.args.clone(),
                labels,
                ..Recipe::default()
            }))
        })
    }
}

fn text_of(folder: &Path, path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let file = folder::open(folder, path)?.ok()?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// In place of what the app may have of that name, be it a link.
fn write(folder: &Path, plan: &SitePlan) -> Result<(), Problem> {
    let failed = |error: std::io::Error| {
        Problem::new(
            Code::Internal,
            format!("the site's Dockerfile cannot be written: {error}"),
        )
    };
    let place = folder.join(FOLDER);
    folder::clear(&place).map_err(failed)?;
    std::fs::create_dir(&place).map_err(failed)?;
    std::fs::write(folder.join(DOCKERFILE), dockerfile(plan)).map_err(failed)?;
    std::fs::write(folder.join(CONFIGURATION), configuration(plan)).map_err(failed)
}

/// The commands are the user's: they run as they would in a Dockerfile.
fn dockerfile(plan: &SitePlan) -> String {
    let output = plan.output.trim_start_matches('.');
    let output = output.trim_start_matches('/');
    let steps = [&plan.install, &plan.build];
    let steps: Vec<&String> = steps.into_iter().flatten().collect();
    let mut text = String::new();
    // Writing into a string cannot fail.
    if !steps.is_empty() {
        let _ = writeln!(
            text,
            "FROM {} AS files\nWORKDIR {WORK}\nCOPY . .",
            plan.image
        );
        for step in &steps {
            let _ = writeln!(text, "RUN {step}");
        }
    } else if let Some(server) = &plan.server {
        let _ = writeln!(text, "FROM {server} AS files\nCOPY . {WORK}");
        let _ = writeln!(
            text,
            "RUN cd {WORK} && rm -rf {FOLDER} skep.toml Dockerfile .dockerignore .git"
        );
    }
    match &plan.server {
        Some(server) => {
            let _ = writeln!(text, "FROM {server}");
            let _ = writeln!(text, "COPY {CONFIGURATION} /etc/nginx/conf.d/default.conf");
            let _ = writeln!(text, "COPY --from=files {WORK}/{output} {ROOT}");
        }
        None if steps.is_empty() => {
            let _ = writeln!(text, "FROM scratch\nCOPY ./{output} /");
        }
        None => {
            let _ = writeln!(text, "FROM scratch\nCOPY --from=files {WORK}/{output} /");
        }
    }
    let _ = writeln!(text, "EXPOSE 80");
    text
}

/// What tells the nodes how to hand the files out; nothing where a server does.
fn labels(plan: &SitePlan) -> BTreeMap<String, String> {
    if plan.server.is_some() {
        return BTreeMap::new();
    }
    let site = Site {
        spa: plan.spa,
        not_found: plan.not_found.clone(),
        headers: plan.headers.clone(),
    };
    let text = serde_json::to_string(&site).expect("plain data");
    [(bundles::LABEL.to_owned(), text)].into()
}

/// For nginx. Nothing that is written here can leave its place: the model has checked it.
fn configuration(plan: &SitePlan) -> String {
    let mut text = format!(
        "server {{\n  listen 80;\n  root {ROOT};\n  index index.html;\n  absolute_redirect off;\n"
    );
    for (name, value) in &plan.headers {
        let _ = writeln!(text, "  add_header {name} \"{value}\" always;");
    }
    if let Some(page) = &plan.not_found {
        let _ = writeln!(text, "  error_page 404 /{page};");
    }
    let last = if plan.spa { "/index.html" } else { "=404" };
    let _ = writeln!(
        text,
        "  location / {{\n    try_files $uri $uri.html $uri/index.html {last};\n  }}\n}}"
    );
    text
}

#[cfg(test)]
mod tests {
    use skep_model::build;

    use super::*;

    fn plan(change: impl Fn(&mut build::StaticSite)) -> SitePlan {
        let mut site = build::StaticSite {
            output: Some("dist".into()),
            ..build::StaticSite::default()
        };
        change(&mut site);
        presets::plan(&site, |_| None).expect("planned")
    }

    #[test]
    fn a_built_site_has_two_stages_and_ready_files_are_cleaned() {
        let served = |it: &mut build::StaticSite| it.server = Some("nginx:1.27-alpine".into());
        let built = dockerfile(&plan(|it| {
            served(it);
            it.build = Some("make".into());
        }));
        assert_eq!(
            built,
            "FROM node:22-alpine AS files\nWORKDIR /site\nCOPY . .\nRUN make\nFROM nginx:1.27-alpine\n\
             COPY .skep/site.conf /etc/nginx/conf.d/default.conf\n\
             COPY --from=files /site/dist /usr/share/nginx/html\nEXPOSE 80\n"
        );
        let ready = plan(|it| {
            served(it);
            it.output = Some(".".into());
        });
        assert!(labels(&ready).is_empty());
        let ready = dockerfile(&ready);
        assert!(ready.contains("rm -rf .skep skep.toml"), "{ready}");
        assert!(ready.contains("COPY --from=files /site/ /usr"), "{ready}");
    }

    #[test]
    fn a_bundle_is_the_files_alone() {
        let built = dockerfile(&plan(|it| it.build = Some("make".into())));
        assert_eq!(
            built,
            "FROM node:22-alpine AS files\nWORKDIR /site\nCOPY . .\nRUN make\nFROM scratch\n\
             COPY --from=files /site/dist /\nEXPOSE 80\n"
        );
        let ready = plan(|it| {
            it.output = Some(".".into());
            it.not_found = Some("404.html".into());
        });
        assert_eq!(dockerfile(&ready), "FROM scratch\nCOPY ./ /\nEXPOSE 80\n");
        let label = &labels(&ready)[bundles::LABEL];
        let site: Site = serde_json::from_str(label).expect("as it was written");
        assert_eq!(site.not_found.as_deref(), Some("404.html"));
    }

    #[test]
    fn the_server_does_what_the_site_wants() {
        let site = configuration(&plan(|it| {
            it.not_found = Some("404.html".into());
            it.headers = [("X-Frame-Options".to_owned(), "DENY".to_owned())].into();
        }));
        for part in [
            "add_header X-Frame-Options \"DENY\" always;",
            "error_page 404 /404.html;",
            "try_files $uri $uri.html $uri/index.html =404;",
        ] {
            assert!(site.contains(part), "{site}");
        }
        let app = configuration(&plan(|it| it.spa = Some(true)));
        assert!(app.contains("$uri/index.html /index.html;"), "{app}");
    }
}
