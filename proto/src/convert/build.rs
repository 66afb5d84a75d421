//! What is said about builds. The default of each is no message: such bytes are those of an older level.

use skep_model::assignment::BuildVariable;
use skep_model::build::{Build, Builder, Fetch, Nixpacks, StaticSite};

use super::{Error, error};
use crate::v1;

/// The stored number of a program of the node; its name is beside it.
const EXEC: u32 = 5;

/// The stored number, and the name of the node's program where it is one. 0: none is said.
pub(crate) fn builder_out(builder: Option<&Builder>) -> (u32, String) {
    let number = match builder {
        None => 0,
        Some(Builder::Dockerfile) => 1,
        Some(Builder::Image) => 2,
        Some(Builder::Nixpacks) => 3,
        Some(Builder::Static) => 4,
        Some(Builder::Exec(_)) => EXEC,
    };
    let program = builder.and_then(Builder::program).unwrap_or_default();
    (number, program.to_owned())
}

pub(crate) fn builder_in(number: u32, program: String) -> Result<Option<Builder>, Error> {
    Ok(Some(match number {
        0 => return Ok(None),
        1 => Builder::Dockerfile,
        2 => Builder::Image,
        3 => Builder::Nixpacks,
        4 => Builder::Static,
        EXEC if !program.is_empty() => Builder::Exec(program),
        _ => return Err(error("builder")),
    }))
}

pub(crate) fn build_out(build: &Build) -> Option<v1::BuildSpec> {
    (!build.is_silent()).then(|| v1::BuildSpec {
        target: build.target.clone(),
        args: build.args.clone(),
        secrets: build.secrets.iter().cloned().collect(),
        timeout_ms: build.timeout_ms,
        memory_bytes: build.memory_bytes,
        cpu_millis: build.cpu_millis,
        pids: build.pids,
    })
}

pub(crate) fn build_in(message: Option<v1::BuildSpec>) -> Build {
    message.map_or_else(Build::default, |message| Build {
        target: message.target,
        args: message.args,
        secrets: message.secrets.into_iter().collect(),
        timeout_ms: message.timeout_ms,
        memory_bytes: message.memory_bytes,
        cpu_millis: message.cpu_millis,
        pids: message.pids,
    })
}

pub(crate) fn nixpacks_out(nixpacks: &Nixpacks) -> Option<v1::NixpacksSpec> {
    (!nixpacks.is_silent()).then(|| v1::NixpacksSpec {
        install: nixpacks.install.clone(),
        build: nixpacks.build.clone(),
        start: nixpacks.start.clone(),
        packages: nixpacks.packages.clone(),
        apt: nixpacks.apt.clone(),
        versions: nixpacks.versions.clone(),
    })
}

pub(crate) fn nixpacks_in(message: Option<v1::NixpacksSpec>) -> Nixpacks {
    message.map_or_else(Nixpacks::default, |message| Nixpacks {
        install: message.install,
        build: message.build,
        start: message.start,
        packages: message.packages,
        apt: message.apt,
        versions: message.versions,
    })
}

pub(crate) fn site_out(site: &StaticSite) -> Option<v1::StaticSpec> {
    (!site.is_silent()).then(|| v1::StaticSpec {
        install: site.install.clone(),
        build: site.build.clone(),
        output: site.output.clone(),
        spa: site.spa,
        not_found: site.not_found.clone(),
        headers: site.headers.clone(),
        image: site.image.clone(),
        server: site.server.clone(),
    })
}

pub(crate) fn site_in(message: Option<v1::StaticSpec>) -> StaticSite {
    message.map_or_else(StaticSite::default, |message| StaticSite {
        install: message.install,
        build: message.build,
        output: message.output,
        spa: message.spa,
        not_found: message.not_found,
        headers: message.headers,
        image: message.image,
        server: message.server,
    })
}

pub(crate) fn fetch_out(fetch: &Fetch) -> Option<v1::FetchSpec> {
    (!fetch.is_silent()).then(|| v1::FetchSpec {
        submodules: fetch.submodules,
        lfs: fetch.lfs,
        ssh_key: fetch.ssh_key.clone(),
        known_hosts: fetch.known_hosts.clone(),
        token: fetch.token.clone(),
        user: fetch.user.clone(),
    })
}

pub(crate) fn fetch_in(message: Option<v1::FetchSpec>) -> Fetch {
    message.map_or_else(Fetch::default, |message| Fetch {
        submodules: message.submodules,
        lfs: message.lfs,
        ssh_key: message.ssh_key,
        known_hosts: message.known_hosts,
        token: message.token,
        user: message.user,
    })
}

pub(crate) fn variable_out(variable: &BuildVariable) -> v1::BuildVariable {
    v1::BuildVariable {
        name: variable.name.clone(),
        value: variable.value.clone(),
        secret: variable.secret,
    }
}

pub(crate) fn variable_in(message: v1::BuildVariable) -> BuildVariable {
    BuildVariable {
        name: message.name,
        value: message.value,
        secret: message.secret,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use skep_model::spec::ServiceSpec;

    use super::*;

    /// Something in every field.
    fn spec() -> ServiceSpec {
        let text = |text: &str| Some(text.to_owned());
        let one = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        ServiceSpec {
            builder: Some(Builder::Exec("bazel".into())),
            build: Build {
                target: text("web"),
                args: one("A", "1"),
                secrets: ["S".to_owned()].into(),
                timeout_ms: 1,
                memory_bytes: 2,
                cpu_millis: 3,
                pids: 4,
            },
            nixpacks: Nixpacks {
                install: text("i"),
                build: text("b"),
                start: text("s"),
                packages: vec!["p".into()],
                apt: vec!["a".into()],
                versions: one("node", "20"),
            },
            site: StaticSite {
                install: text("i"),
                build: text("b"),
                output: text("o"),
                spa: Some(false),
                not_found: text("n"),
                headers: one("H", "v"),
                image: text("node"),
                server: text("nginx"),
            },
            fetch: Fetch {
                submodules: true,
                lfs: true,
                ssh_key: text("K"),
                known_hosts: text("h"),
                token: text("T"),
                user: text("u"),
            },
            ..ServiceSpec::default()
        }
    }

    #[test]
    fn nothing_is_lost_and_silence_takes_no_bytes() {
        let bytes = v1::ServiceSpec::from(&spec()).encode_to_vec();
        let message = v1::ServiceSpec::decode(&*bytes).expect("decodes");
        assert_eq!(ServiceSpec::try_from(message), Ok(spec()));
        let silent = v1::ServiceSpec::from(&ServiceSpec::default());
        assert!(silent.build.is_none() && silent.nixpacks.is_none());
        assert!(silent.site.is_none() && silent.fetch.is_none());
    }

    #[test]
    fn the_numbers_of_builders_are_for_ever() {
        for (number, word) in [
            (1, "dockerfile"),
            (2, "image"),
            (3, "nixpacks"),
            (4, "static"),
        ] {
            let builder = builder_in(number, String::new()).expect("known");
            assert_eq!(builder.expect("said").to_string(), word);
        }
        assert_eq!(builder_in(0, String::new()), Ok(None));
        assert!(builder_in(5, String::new()).is_err() && builder_in(6, "x".into()).is_err());
    }
}
