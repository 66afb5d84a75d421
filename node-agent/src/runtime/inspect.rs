//! Docker's answers, read: which allocation a container belongs to and where it is. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum,
};
use skep_model::id::{AllocationId, ServiceId};

use super::Error;
use super::container::{LABEL_ALLOCATION, LABEL_ATTEMPT, LABEL_GRANT, LABEL_INIT, LABEL_SERVICE};
use crate::clock;
use crate::plan::{Exit, Grant, Phase, Seen};
use crate::routes::Spot;

/// Which allocation's a container is, and its number there; none: not ours.
pub(crate) fn owner(labels: &HashMap<String, String>) -> Option<(AllocationId, u32)> {
    let allocation = labels.get(LABEL_ALLOCATION)?.parse().ok()?;
    // Without a number it is still ours, and the oldest.
    let attempt = labels.get(LABEL_ATTEMPT).and_then(|text| text.parse().ok());
    Some((allocation, attempt.unwrap_or(0)))
}

/// Which service's a container says that it is.
fn service(labels: &HashMap<String, String>) -> Option<ServiceId> {
    labels.get(LABEL_SERVICE)?.parse().ok()
}

/// Whether it ran, or runs, before an app's own container: one that is found was left behind, and is
/// put away like one that was never started.
fn is_init(labels: &HashMap<String, String>) -> bool {
    labels.contains_key(LABEL_INIT)
}

/// What a container says that it has for itself; one that says nothing has nothing.
fn granted(labels: &HashMap<String, String>) -> Grant {
    let text = labels.get(LABEL_GRANT);
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// An entry of a list; none: it does not say whose it is.
pub(super) fn summary(summary: &ContainerSummary) -> Option<(AllocationId, Seen)> {
    let (allocation, attempt) = owner(summary.labels.as_ref()?)?;
    let phase = match summary.state {
        _ if is_init(summary.labels.as_ref()?) => Phase::Created,
        Some(ContainerSummaryStateEnum::CREATED) => Phase::Created,
        _ => Phase::Exited(unseen_exit()),
    };
    let seen = Seen {
        id: summary.id.clone()?,
        attempt,
        phase,
        grant: granted(summary.labels.as_ref()?),
        service: service(summary.labels.as_ref()?),
    };
    Some((allocation, seen))
}

/// Whether a list's entry says too little.
pub(super) fn needs_details(summary: &ContainerSummary) -> bool {
    use ContainerSummaryStateEnum::{PAUSED, RESTARTING, RUNNING, STOPPING};
    matches!(
        summary.state,
        Some(RUNNING | PAUSED | RESTARTING | STOPPING)
    )
}

/// One container. An exit is told without its log and as not witnessed.
pub(super) fn detailed(response: &ContainerInspectResponse) -> Result<Seen, Error> {
    let lacks = |what| Error::Answer { what };
    let labels = response
        .config
        .as_ref()
        .and_then(|config| config.labels.as_ref());
    let (_, attempt) = labels.and_then(owner).ok_or(lacks("our labels"))?;
    let phase = match labels.is_some_and(is_init) {
        true => Phase::Created,
        false => state(response)?,
    };
    Ok(Seen {
        id: response.id.clone().ok_or(lacks("an id"))?,
        attempt,
        phase,
        grant: labels.map(granted).unwrap_or_default(),
        service: labels.and_then(service),
    })
}

/// Where a container is, whatever it is for.
pub(super) fn state(response: &ContainerInspectResponse) -> Result<Phase, Error> {
    let state = response.state.as_ref();
    let state = state.ok_or(Error::Answer { what: "a state" })?;
    Ok(phase(state, address(response)))
}

fn phase(state: &ContainerState, address: Option<IpAddr>) -> Phase {
    if state.running == Some(true) {
        let started = state.started_at.as_deref().and_then(clock::parse_ns);
        return Phase::Running {
            spot: address.map(Spot::At),
            pid: state
                .pid
                .and_then(|pid| u32::try_from(pid).ok())
                .unwrap_or(0),
            started_ms: started.map_or_else(clock::now_ms, |ns| ns / 1_000_000),
        };
    }
    if state.status == Some(ContainerStateStatusEnum::CREATED) {
        return Phase::Created;
    }
    let started = state.started_at.as_deref().and_then(clock::parse_ns);
    let finished = state.finished_at.as_deref().and_then(clock::parse_ns);
    let ran_ms = started
        .zip(finished)
        .map(|(from, to)| to.saturating_sub(from) / 1_000_000);
    Phase::Exited(Exit {
        code: state.exit_code.unwrap_or(-1),
        oom: state.oom_killed == Some(true),
        ran_ms,
        at_ms: finished.map_or_else(clock::now_ms, |ns| ns / 1_000_000),
        ..unseen_exit()
    })
}

fn unseen_exit() -> Exit {
    Exit {
        code: -1,
        oom: false,
        ran_ms: None,
        at_ms: 0,
        witnessed: false,
        tail: String::new(),
        usual: None,
    }
}

fn address(response: &ContainerInspectResponse) -> Option<IpAddr> {
    let networks = response.network_settings.as_ref()?.networks.as_ref()?;
    // By name, so that a container on several networks always gives the same answer.
    let mut names: Vec<_> = networks.keys().collect();
    names.sort_by_key(|name| (name.as_str() != "bridge", name.as_str()));
    names
        .into_iter()
        .filter_map(|name| networks[name].ip_address.as_deref())
        .find_map(|text| text.parse().ok())
}
