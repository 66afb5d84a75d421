//! Previews: environments that come and go with pull requests. `meaning` decides what a pull request means, `make`
//! writes the whole of a preview down; what is special about what is deployed there is here. Proposes nothing.

mod make;
mod meaning;

use skep_model::preview::adapted;
use skep_model::service::Service;
use skep_model::spec::ServiceSpec;
use skep_state::State;

pub(crate) use make::{Head, Wish, make, pushed};
pub(crate) use meaning::{Heard, Meaning, meaning, repository};

/// What of a specification holds where the service is part of a preview: an app's own file says what production
/// should be. Until the service is live for the first time, what fills the preview runs as its release phase.
/// Files that nodes hand out themselves (`is_bundle`) have no replicas, and none that sleeps.
pub(crate) fn deployed(
    view: &State,
    service: &Service,
    spec: ServiceSpec,
    is_bundle: bool,
) -> ServiceSpec {
    let Some(preview) = view.preview_around(service) else {
        return spec;
    };
    let mut spec = adapted(&spec, preview.copied());
    spec.autoscale = spec.autoscale.filter(|_| !is_bundle);
    let seed = preview.seed.as_ref();
    let Some(seed) = seed.filter(|seed| seed.service == service.name) else {
        return spec;
    };
    if service.live.is_none() {
        spec.hooks.release.clone_from(&seed.command);
    } else if spec.hooks.release == seed.command {
        let base = view.service_named(preview.base, &service.name);
        spec.hooks.release = base.map_or_else(Vec::new, |base| base.spec.hooks.release.clone());
    }
    spec
}

#[cfg(test)]
mod tests;
