//! `[build]`, `[nixpacks]`, `[static]` and `[source]`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Size, millis, parse_cpu, set};
use crate::build::{Build, Nixpacks, StaticSite};
use crate::problem::Problem;

/// `[build]`. A list or table replaces all that was said of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BuildTable {
    /// Stage of the Dockerfile.
    pub target: Option<String>,
    /// Values for `ARG`.
    pub args: Option<BTreeMap<String, String>>,
    /// Variables that steps may mount.
    pub secrets: Option<BTreeSet<String>>,
    /// When it is given up.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub timeout: Option<Duration>,
    /// Memory of each step.
    pub memory: Option<Size>,
    /// CPU of each step, as in `[resources]`.
    pub cpu: Option<String>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

impl BuildTable {
    pub(super) fn apply(&self, to: &mut Build) -> Result<(), Problem> {
        to.target = self.target.clone().or(to.target.take());
        set(&mut to.args, self.args.clone());
        set(&mut to.secrets, self.secrets.clone());
        set(&mut to.timeout_ms, self.timeout.map(millis));
        set(&mut to.memory_bytes, self.memory.map(|size| size.as_u64()));
        let cpu = self.cpu.as_deref();
        let cpu = cpu.map(|text| parse_cpu("build.cpu", text)).transpose()?;
        set(&mut to.cpu_millis, cpu);
        set(&mut to.pids, self.pids);
        Ok(())
    }
}

/// `[nixpacks]`. A list or table replaces all that was said of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NixpacksTable {
    /// Replaces the install command.
    pub install: Option<String>,
    /// Replaces the build command.
    pub build: Option<String>,
    /// Replaces the start command.
    pub start: Option<String>,
    /// Further nix packages.
    pub packages: Option<Vec<String>>,
    /// Further Debian packages.
    pub apt: Option<Vec<String>>,
    /// Versions of languages.
    pub versions: Option<BTreeMap<String, String>>,
}

impl NixpacksTable {
    pub(super) fn apply(&self, to: &mut Nixpacks) {
        to.install = self.install.clone().or(to.install.take());
        to.build = self.build.clone().or(to.build.take());
        to.start = self.start.clone().or(to.start.take());
        set(&mut to.packages, self.packages.clone());
        set(&mut to.apt, self.apt.clone());
        set(&mut to.versions, self.versions.clone());
    }
}

/// `[static]`. A table replaces all that was said of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct StaticTable {
    /// Replaces the install command.
    pub install: Option<String>,
    /// Replaces the build command.
    pub build: Option<String>,
    /// Folder with what was built.
    pub output: Option<String>,
    /// The app has routes of its own.
    pub spa: Option<bool>,
    /// File for what does not exist.
    pub not_found: Option<String>,
    /// Headers of every answer.
    pub headers: Option<BTreeMap<String, String>>,
    /// Image in which it is built.
    pub image: Option<String>,
    /// Image of the web server.
    pub server: Option<String>,
}

impl StaticTable {
    pub(super) fn apply(&self, to: &mut StaticSite) {
        to.install = self.install.clone().or(to.install.take());
        to.build = self.build.clone().or(to.build.take());
        to.output = self.output.clone().or(to.output.take());
        to.spa = self.spa.or(to.spa);
        to.not_found = self.not_found.clone().or(to.not_found.take());
        set(&mut to.headers, self.headers.clone());
        to.image = self.image.clone().or(to.image.take());
        to.server = self.server.clone().or(to.server.take());
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::Manifest;
    use crate::spec::ServiceSpec;

    #[test]
    fn builds_are_described_in_the_units_that_people_write() {
        let text = r#"
            builder = "nixpacks"
            [build]
            target = "web"
            args = { VERSION = "1" }
            secrets = ["NPM_TOKEN"]
            timeout = "20m"
            memory = "1GiB"
            cpu = "1.5"
            pids = 500
            [nixpacks]
            start = "node server.js"
            packages = ["ffmpeg"]
            apt = ["libpq-dev"]
            versions = { node = "20" }
            [static]
            output = "dist"
            spa = true
            headers = { "X-Frame-Options" = "DENY" }
            [source]
            submodules = true
            lfs = true
        "#;
        let manifest = Manifest::parse(text).expect("accepted");
        let spec = manifest.apply(&ServiceSpec::default()).expect("units");
        let build = &spec.build;
        assert_eq!(
            (build.timeout_ms, build.memory_bytes, build.cpu_millis),
            (1_200_000, 1 << 30, 1_500)
        );
        assert_eq!((build.pids, build.target.as_deref()), (500, Some("web")));
        assert_eq!(spec.nixpacks.versions["node"], "20");
        assert_eq!(spec.site.spa, Some(true));
        assert!(spec.fetch.submodules && spec.fetch.lfs);
        // A file that says nothing of it leaves it as it is on the service.
        let silent = Manifest::parse("replicas = 2").expect("accepted");
        let again = silent.apply(&spec).expect("units");
        assert_eq!(
            (again.build, again.nixpacks, again.site, again.fetch),
            (spec.build, spec.nixpacks, spec.site, spec.fetch)
        );
        for (wrong, field) in [
            ("[build]\ntimeout = \"3h\"", "build.timeout_ms"),
            ("[build]\ncpu = \"lots\"", "build.cpu"),
            (
                "[nixpacks]\nversions = { cobol = \"1\" }",
                "nixpacks.versions",
            ),
            ("[static]\noutput = \"/etc\"", "static.output"),
        ] {
            let problem = Manifest::parse(wrong).expect_err(wrong);
            assert_eq!(problem.field.as_deref(), Some(field), "{problem}");
        }
        let problem = Manifest::parse("builder = \"magic\"").expect_err("no builder");
        assert!(problem.to_string().contains("exec:NAME"), "{problem}");
        Manifest::parse("[source]\nssh_key = \"K\"").expect_err("the service's to say");
    }
}
