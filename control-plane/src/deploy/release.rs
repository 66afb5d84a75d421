//! The release that a build makes: image, and the service's configuration at this moment.

use skep_model::deployment::{Built, Deployment};
use skep_model::id::DeploymentId;
use skep_model::manifest::Manifest;
use skep_model::problem::Problem;
use skep_model::service::{Release, Service};
use skep_model::spec::{DEFAULT_PORT, ServiceSpec};
use skep_model::variable::VariableInput;
use skep_state::State;

use crate::secrets::Secrets;

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
    let manifest = built
        .manifest
        .as_deref()
        .map(Manifest::parse)
        .transpose()?
        .unwrap_or_default();
    let mut spec = manifest.apply(&service.spec)?;
    // Here and not when it is live: the source is proven, and a next push to it may be just what
    // makes a release healthy that was not. Webhooks have to listen to that branch by then.
    spec.source = deployment.source.clone().or(spec.source);
    spec.check_given()?;
    // The file may name hosts that are somebody else's: nothing of that is built into a release.
    view.check_routes(&Service {
        spec: spec.clone(),
        ..service.clone()
    })?;
    // What is set on the service wins over what the repository says: it may be a secret.
    let mut variables = service.variables.clone();
    for (name, value) in &manifest.env {
        let input = VariableInput {
            name: name.clone(),
            value: value.clone(),
            secret: false,
        };
        variables
            .entry(name.clone())
            .or_insert_with(|| secrets.seal_variable(service.id, &input));
    }
    let (port, how) = choose_port(&spec, &built.exposed);
    let number = service.last_release + 1;
    let release = Release {
        service: service.id,
        number,
        deployment: deployment.id,
        image: built.image.clone(),
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

/// The release that has an old one's image and today's configuration.
pub fn renewed(service: &Service, deployment: DeploymentId, old: &Release) -> Release {
    let spec = &service.spec;
    Release {
        number: service.last_release + 1,
        deployment,
        kind: spec.kind,
        port: match spec.is_routed() {
            true => Some(spec.port.or(old.port).unwrap_or(DEFAULT_PORT)),
            false => spec.tcp.first().map(|tcp| tcp.port),
        },
        command: spec.command.clone(),
        variables: service.variables.clone(),
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
pub fn renew(service: &Service, deployment: &Deployment, old: &Release) -> Resolved {
    let release = renewed(service, deployment.id, old);
    let (spec, number) = (service.spec.clone(), release.number);
    let step = format!(
        "release {number}: the image of release {} with the configuration of now",
        old.number
    );
    Resolved {
        release,
        spec,
        step,
    }
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
