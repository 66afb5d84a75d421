//! From a service's specification to that of its copy in a preview. Pure, and the same when it is done twice: an
//! app's own `skep.toml` is read for each deployment, and says what production should be.

use crate::autoscale::{Autoscale, ScaleToZero};
use crate::build::Fetch;
use crate::container::Container;
use crate::health::Health;
use crate::rollout::Policy;
use crate::run::Mode;
use crate::spec::ServiceSpec;

/// What is special about copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// How long nothing is asked of it until it sleeps, in ms; 0: it never does.
    pub idle_ms: u64,
    /// Strangers wrote what is deployed.
    pub is_fork: bool,
}

/// The specification of a copy.
pub fn adapted(base: &ServiceSpec, copied: Copied) -> ServiceSpec {
    let mut spec = base.clone();
    // What is due by the clock (mails, invoices) is production's alone; by hand it can be tried.
    spec.run.paused |= spec.run.mode == Mode::Cron;
    // Each host and each entry belongs to one service.
    spec.domains.clear();
    spec.routes.retain(|route| route.host.is_none());
    if spec.port.is_none() && !spec.is_routed() {
        // References to its port go on to work.
        spec.port = spec.tcp.first().map(|tcp| tcp.port);
    }
    spec.tcp.clear();
    if base.takes_traffic() && !spec.takes_traffic() {
        // Nothing connects to it from outside: it is fit when it runs.
        spec.health = Health::default();
        spec.hooks.pre_stop = None;
    }
    spec.replicas = spec.replicas.min(1);
    spec.rollout = Policy::default();
    spec.autoscale = sleeping(&spec, copied.idle_ms);
    // What production has on its nodes.
    spec.storage.host_paths.clear();
    spec.pushes.tags = None;
    // A preview is there to be looked at while checks run.
    spec.pushes.wait_for_ci = None;
    if copied.is_fork {
        // These name variables that a stranger's code is not given, or trust it more than others.
        spec.storage.secrets.clear();
        spec.build.secrets.clear();
        spec.fetch = Fetch::default();
        spec.container = Container::default();
        spec.pushes.poll_ms = Some(0);
    }
    spec
}

/// At most one replica, and none while nothing is asked of it.
fn sleeping(spec: &ServiceSpec, idle_ms: u64) -> Option<Autoscale> {
    let can_sleep = spec.is_routed() && spec.run.mode == Mode::Service && !spec.storage.is_bound();
    (can_sleep && idle_ms > 0).then(|| Autoscale {
        min: 1,
        max: 1,
        scale_to_zero: Some(ScaleToZero { idle_ms }),
        ..Autoscale::default()
    })
}
