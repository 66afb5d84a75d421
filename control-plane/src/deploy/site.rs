//! Releases that are files alone: static sites, which the nodes hand out themselves.

use skep_model::problem::Problem;
use skep_model::rollout::Strategy;
use skep_model::run::Mode;
use skep_model::service::{Image, Service};
use skep_model::spec::ServiceSpec;
use skep_state::State;

/// A site of files is on every node unless somebody says how many there are to be: it takes nothing but disk, and
/// a node that has it asks no other one. What has become an app again runs as often as is said. Gives what is to
/// be told of it.
///
/// # Errors
/// Something is to run beside the files.
pub(super) fn spread(
    view: &State,
    service: &Service,
    (spec, said): (&mut ServiceSpec, Option<Mode>),
    image: &Image,
) -> Result<&'static str, Problem> {
    if image.bundle {
        check(spec)?;
    }
    if said.is_some() {
        return Ok("");
    }
    let before = service.target();
    let before = before.and_then(|target| view.release(service.id, target.release));
    let was_site = before.is_some_and(|release| release.image.bundle);
    let is_one = spec.replicas == 1 && spec.rollout.strategy == Strategy::Rolling;
    match (image.bundle, spec.run.mode) {
        (true, Mode::Service) if is_one => {
            spec.run.mode = Mode::System;
            Ok(", files on every node")
        }
        (false, Mode::System) if was_site => {
            spec.run.mode = Mode::Service;
            Ok(", no longer on every node")
        }
        _ => Ok(""),
    }
}

/// Of files nothing runs.
fn check(spec: &ServiceSpec) -> Result<(), Problem> {
    let runs = [
        ("command", !spec.command.is_empty()),
        ("hooks", spec.hooks != Default::default()),
        ("volumes", spec.storage != Default::default()),
        ("tcp", !spec.tcp.is_empty()),
        ("autoscale", spec.autoscale.is_some()),
        ("type", !spec.is_routed()),
    ];
    match runs.iter().find(|(_, is_said)| *is_said) {
        None => Ok(()),
        Some((field, _)) => {
            let text = "a static site is files alone: there is no container that could have this";
            Err(Problem::invalid(*field, text).hint(
                "leave it out, or name a web server in [static]: server = \"nginx:1.27-alpine\"",
            ))
        }
    }
}
