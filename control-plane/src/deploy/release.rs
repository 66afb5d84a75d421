//! The release that a build makes: image, and the service's configuration at this moment.

use std::collections::BTreeMap;

use skep_model::deployment::{Built, Deployment, Origin};
use skep_model::id::DeploymentId;
use skep_model::image_push::Push;
use skep_model::manifest::Manifest;
use skep_model::problem::Problem;
use skep_model::service::{Image, Release, Service};
use skep_model::spec::{DEFAULT_PORT, ServiceSpec};
use skep_model::variable::{Variable, VariableInput};
use skep_proto::LEVEL_SCHEDULING;
use skep_state::State;

use super::site;
use crate::previews;
use crate::secrets::Secrets;
use crate::urls;
use crate::variables::Environment;

/// A release, the specification it was made with, and how its port was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The new release.
    pub release: Release,
    /// The service's specification after the app's own `skep.toml`.
    pub spec: ServiceSpec,
    /// For the timeline.
    pub step: String,
}

/// Makes the next release of `service` out of what was built.
///
/// # Errors
/// The app's `skep.toml` is not accepted, or names a host that is somebody else's.
pub fn resolve(
    view: &State,
    service: &Service,
    deployment: &Deployment,
    built: &Built,
    secrets: &Secrets,
) -> Result<Resolved, Problem> {
    // Of a stack's services its file says everything.
    let own_file = built.manifest.as_deref();
    let manifest = own_file
        .filter(|_| view.stack_around(service).is_none())
        .map(Manifest::parse)
        .transpose()?
        .unwrap_or_default();
    let mut spec = manifest.apply(&service.spec)?;
    // Here and not when it is live: the source is proven, and a next push to it may be just what
    // makes a release healthy that was not. Webhooks have to listen to that branch by then.
    spec.source = deployment.source.clone().or(spec.source);
    spec = previews::deployed(view, service, spec, built.image.bundle);
    spec.check_given()?;
    let spread = site::spread(view, service, (&mut spec, manifest.run.mode), &built.image)?;
    // The file may name hosts that are somebody else's: nothing of that is built into a release.
    view.check_routes(&Service {
        spec: spec.clone(),
        ..service.clone()
    })?;
    // What is set on the service wins over what the repository says: it may be a secret.
    let file_variables = of_file(&manifest, service, secrets);
    let (port, how) = choose_port(&spec, &built.exposed);
    let own = with_file(service, &spec, &file_variables);
    let variables = Environment::around(view, secrets, (&own, port)).resolve(&own)?;
    let number = service.last_release + 1;
    let release = Release {
        service: service.id,
        number,
        deployment: deployment.id,
        image: Image {
            pushed: deployment.push.as_ref().and_then(Push::by_digest),
            ..built.image.clone()
        },
        kind: spec.kind,
        port,
        command: spec.command.clone(),
        variables,
        resources: spec.resources,
        placement: spec.placement.clone(),
        container: spec.container.clone(),
        hooks: spec.hooks.clone(),
        health: spec.health.clone(),
        restart: spec.restart,
        stop_grace_ms: spec.stop_grace_ms,
        storage: spec.storage.clone(),
        commit: built.commit.clone(),
        created_ms: 0,
        branch: branch(deployment),
        public_url: urls::urls(view, &own).into_iter().next(),
        file_variables,
    };
    let release = understood_at(view.feature_level(), release);
    let how = if built.image.bundle {
        spread.to_owned()
    } else {
        how + spread
    };
    let step = format!(
        "release {number}: image {}{how}",
        short_digest(&built.image.digest)
    );
    Ok(Resolved {
        release,
        spec,
        step,
    })
}

/// What the app's own file says of variables. References in it are resolved with all others.
fn of_file(
    manifest: &Manifest,
    service: &Service,
    secrets: &Secrets,
) -> BTreeMap<String, Variable> {
    let seal = |(name, value): (&String, &String)| {
        let input = VariableInput {
            name: name.clone(),
            value: value.clone(),
            secret: false,
        };
        (name.clone(), secrets.seal_variable(service.id, &input))
    };
    manifest.env.iter().map(seal).collect()
}

/// The service with what its own file says beside what is set on it, which wins.
fn with_file(service: &Service, spec: &ServiceSpec, file: &BTreeMap<String, Variable>) -> Service {
    let mut variables = file.clone();
    variables.extend(service.variables.clone());
    Service {
        spec: spec.clone(),
        variables,
        ..service.clone()
    }
}

fn branch(deployment: &Deployment) -> Option<String> {
    match &deployment.origin {
        Origin::Git { branch, .. } | Origin::Pushed { branch, .. } => Some(branch.clone()),
        _ => None,
    }
}

/// Without what servers of an older level would not keep.
fn understood_at(level: u32, release: Release) -> Release {
    if level >= LEVEL_SCHEDULING {
        return release;
    }
    Release {
        branch: None,
        public_url: None,
        file_variables: BTreeMap::new(),
        ..release
    }
}

/// The release that has an old one's image and today's configuration; references are as they were said.
pub fn renewed(service: &Service, deployment: DeploymentId, old: &Release) -> Release {
    let spec = &service.spec;
    Release {
        service: service.id,
        number: service.last_release + 1,
        deployment,
        kind: spec.kind,
        port: match spec.is_routed() {
            true => Some(spec.port.or(old.port).unwrap_or(DEFAULT_PORT)),
            false => spec.tcp.first().map(|tcp| tcp.port),
        },
        command: spec.command.clone(),
        variables: with_file(service, spec, &old.file_variables).variables,
        resources: spec.resources,
        placement: spec.placement.clone(),
        container: spec.container.clone(),
        hooks: spec.hooks.clone(),
        health: spec.health.clone(),
        restart: spec.restart,
        stop_grace_ms: spec.stop_grace_ms,
        storage: spec.storage.clone(),
        ..old.clone()
    }
}

/// The image of an old release with today's configuration.
///
/// # Errors
/// A variable refers to what does not exist.
pub fn renew(
    view: &State,
    secrets: &Secrets,
    (service, deployment): (&Service, &Deployment),
    old: &Release,
) -> Result<Resolved, Problem> {
    let service = &Service {
        spec: previews::deployed(view, service, service.spec.clone(), old.image.bundle),
        ..service.clone()
    };
    let mut release = renewed(service, deployment.id, old);
    let own = with_file(service, &service.spec, &old.file_variables);
    release.variables = Environment::around(view, secrets, (&own, release.port)).resolve(&own)?;
    release.public_url = urls::urls(view, service).into_iter().next();
    let release = understood_at(view.feature_level(), release);
    let (mut spec, number) = (service.spec.clone(), release.number);
    let spread = site::spread(view, service, (&mut spec, None), &old.image)?;
    let of = match old.service == service.id {
        true => String::new(),
        false => view.service(old.service).map_or_else(String::new, |other| {
            let path = view.path_of(other);
            path.map_or_else(String::new, |path| format!(" of {}", path.environment))
        }),
    };
    let step = format!(
        "release {number}: the image of release {}{of} with the configuration of now{spread}",
        old.number
    );
    Ok(Resolved {
        release,
        spec,
        step,
    })
}

/// The port and, for the timeline, where it comes from.
fn choose_port(spec: &ServiceSpec, exposed: &[u16]) -> (Option<u16>, String) {
    if !spec.is_routed() {
        // A worker's connections come to the port of its first route: that decides when it is fit for them.
        let port = spec.tcp.first().map(|tcp| tcp.port);
        let step = port.map(|port| format!(", port {port} of its first TCP route"));
        return (port, step.unwrap_or_default());
    }
    match (spec.port, exposed) {
        (Some(port), _) => (Some(port), format!(", port {port} as configured")),
        (None, [port]) => (
            Some(*port),
            format!(", port {port} from the image's EXPOSE"),
        ),
        (None, []) => (
            Some(DEFAULT_PORT),
            format!(", port {DEFAULT_PORT} since the image exposes none"),
        ),
        (None, several) => {
            let list: Vec<String> = several.iter().map(u16::to_string).collect();
            (
                Some(DEFAULT_PORT),
                format!(
                    ", port {DEFAULT_PORT} since the image exposes several ({})",
                    list.join(", ")
                ),
            )
        }
    }
}

/// The first twelve characters behind `sha256:`, as Docker shows them.
fn short_digest(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::spec::ServiceType;

    #[test]
    fn explicit_then_single_expose_then_default() {
        let web = |port| ServiceSpec {
            port,
            ..ServiceSpec::default()
        };
        assert_eq!(choose_port(&web(Some(3000)), &[80]).0, Some(3000));
        assert_eq!(choose_port(&web(None), &[80]).0, Some(80));
        assert_eq!(choose_port(&web(None), &[]).0, Some(8080));
        let (port, how) = choose_port(&web(None), &[80, 443]);
        assert_eq!(port, Some(8080));
        assert!(how.contains("80, 443"));
        let worker = ServiceSpec {
            kind: ServiceType::Worker,
            ..ServiceSpec::default()
        };
        assert_eq!(choose_port(&worker, &[80]).0, None);
    }
}
