//! The leader's autoscaling: every period it takes in what was measured of each service that has an
//! autoscaler, asks for a decision, and proposes it; of one that sleeps whenever anything was measured. What it remembers is lost with leadership: the next
//! leader holds until it knows as much.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_model::autoscale::{Autoscale, Metric};
use skep_model::id::ServiceId;
use skep_model::service::{MAX_SCALING_REASON, Service};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_scheduler::autoscale::advice::{self, Advice};
use skep_scheduler::autoscale::usage::Usage;
use skep_scheduler::autoscale::{Decision, History, Sample, decide};
use skep_state::State;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::history::AuditEntry;
use crate::samples::{MAX_WINDOW, ServiceSample};
use crate::scaling::Thought;
use crate::scaling::measure::{Crew, Measured, Moment, measure};
use crate::store::now_ms;

/// How often there is a decision, and over how much of the past each takes its rates: the period of the
/// agents' readings, so that nothing is counted twice and chance is judged by what there was.
const PERIOD: Duration = Duration::from_secs(2);
/// What was measured longer ago is not shown as what is.
const FRESH_MS: u64 = 60_000;
/// As whom its changes are in the audit trail.
const PRINCIPAL: &str = "autoscaler";
/// Usage is taken in so often: what is recommended follows days, not seconds.
const USAGE_PERIOD_MS: u64 = 60_000;
/// Requests are changed at most so often.
const APPLY_PERIOD_MS: u64 = 3_600_000;

/// What is remembered of one service.
#[derive(Default)]
struct Memory {
    history: History,
    usage: Usage,
    used_ms: u64,
    applied_ms: u64,
    /// End of the requests that were taken in, ms since the epoch.
    counted_ms: u64,
    newest: BTreeMap<Metric, Sample>,
}

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut memories: BTreeMap<ServiceId, Memory> = BTreeMap::new();
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    parts.scaling.retain(|_| false);
    let mut learned = parts.samples.learned();
    loop {
        let is_period = tokio::select! {
            _ = tick.tick() => true,
            Ok(()) = learned.changed() => false,
            () = token.cancelled() => return,
        };
        learned.mark_unchanged();
        if !is_period {
            wake(parts, &mut memories).await;
            continue;
        }
        let view = parts.store.view();
        let services: Vec<&Service> = view
            .services()
            .map(|it| &**it)
            .filter(|it| is_scaled(it))
            .collect();
        memories.retain(|id, _| view.service(*id).is_some_and(|it| is_scaled(it)));
        parts.scaling.retain(|id| {
            memories.contains_key(&id)
                || view
                    .service(id)
                    .is_some_and(|it| it.spec.autoscale.is_some())
        });
        if services.is_empty() {
            continue;
        }
        let ids = services.iter().map(|service| service.id);
        // None: the samples do not know yet that this server leads.
        let Some(samples) = parts.samples.of_services(&view, ids, PERIOD) else {
            continue;
        };
        for (service, sample) in services.into_iter().zip(samples) {
            let memory = memories.entry(service.id).or_default();
            look(parts, &view, (service, &sample), memory).await;
        }
    }
}

/// Looks at the services that sleep and are asked for: whoever waits does not wait for a period.
async fn wake(parts: &Parts, memories: &mut BTreeMap<ServiceId, Memory>) {
    let view = parts.store.view();
    let asleep = view.services().map(|it| &**it);
    let asleep: Vec<&Service> = asleep
        .filter(|it| it.is_asleep() && is_scaled(it))
        .collect();
    if asleep.is_empty() {
        return;
    }
    let ids = asleep.iter().map(|service| service.id);
    let Some(samples) = parts.samples.of_services(&view, ids, PERIOD) else {
        return;
    };
    for (service, sample) in asleep.into_iter().zip(samples) {
        if sample.in_flight.is_some_and(|count| count > 0) {
            let memory = memories.entry(service.id).or_default();
            look(parts, &view, (service, &sample), memory).await;
        }
    }
}

/// Whether somebody decides how many there are of it.
fn is_scaled(service: &Service) -> bool {
    service.spec.autoscale.is_some()
        && !service.stopped
        && !service.removing
        && service.target().is_some()
}

async fn look(
    parts: &Parts,
    view: &State,
    (service, sample): (&Service, &ServiceSample),
    memory: &mut Memory,
) {
    let Some(autoscale) = &service.spec.autoscale else {
        return;
    };
    let now_ms = now_ms();
    let measured = memory.take_in(parts, (view, service, autoscale), sample, now_ms);
    let observed = measured.observed;
    let decision = decide(autoscale, &observed, &memory.history, now_ms);
    if decision.is_change() && !carry_out(parts, view, service, &decision).await {
        // Something changed meanwhile: the next look decides anew.
        return;
    }
    memory.history.record(autoscale, &observed, &decision);
    let advice = memory.advise(parts, view, service, now_ms);
    if let Some(advice) = advice.as_ref().filter(|advice| advice.apply)
        && now_ms.saturating_sub(memory.applied_ms) >= APPLY_PERIOD_MS
        && resize(parts, view, service, advice).await
    {
        memory.applied_ms = now_ms;
    }
    let thought = Thought {
        decision,
        measured: memory.newest(autoscale),
        advice,
    };
    parts.scaling.think(service.id, thought);
}

impl Memory {
    /// Takes in what is known now.
    fn take_in(
        &mut self,
        parts: &Parts,
        (view, service, autoscale): (&State, &Service, &Autoscale),
        sample: &ServiceSample,
        now_ms: u64,
    ) -> Measured {
        let targets = || autoscale.targets.iter().map(|target| &target.metric);
        let pushed = targets().filter_map(|metric| {
            let pushed = parts.scaling.pushed(service.id, metric)?;
            Some((metric.clone(), pushed))
        });
        let pushed: Vec<_> = pushed.collect();
        let moment = Moment {
            now_ms,
            span_ms: millis(PERIOD),
            counted_ms: self.counted_ms,
        };
        let measured = measure(&Crew::of(view, service), (sample, &pushed), moment);
        self.counted_ms = measured.counted_ms;
        for (metric, sample) in &measured.samples {
            // A pushed number is measured once, however often it is looked at.
            let known = self.newest.insert(metric.clone(), *sample);
            if known.is_none_or(|known| known.at_ms < sample.at_ms) {
                self.history.observe(autoscale, metric, sample);
            }
        }
        measured
    }

    /// What each target was measured at last, where that is not long ago.
    fn newest(&self, autoscale: &Autoscale) -> Vec<(Metric, Option<u64>)> {
        let now_ms = now_ms();
        let value = |metric: &Metric| {
            let newest = self.newest.get(metric)?;
            let is_fresh = now_ms.saturating_sub(newest.at_ms) < FRESH_MS;
            is_fresh.then_some(newest.total_milli)
        };
        let targets = autoscale.targets.iter().map(|target| &target.metric);
        targets
            .map(|metric| (metric.clone(), value(metric)))
            .collect()
    }

    /// What the requests should be, by what was used so far.
    fn advise(
        &mut self,
        parts: &Parts,
        view: &State,
        service: &Service,
        now_ms: u64,
    ) -> Option<Advice> {
        let sizing = service.spec.autoscale.as_ref()?.sizing.as_ref()?;
        if now_ms.saturating_sub(self.used_ms) >= USAGE_PERIOD_MS {
            self.used_ms = now_ms;
            let sample = parts.samples.of_service(view, service.id, MAX_WINDOW);
            for one in sample.iter().flat_map(|sample| &sample.allocations) {
                if let (Some(cpu), Some(memory)) = (one.cpu_millis, one.memory_bytes) {
                    self.usage.observe(now_ms, cpu, memory);
                }
            }
        }
        advice::advise(sizing, &self.usage, &service.spec.resources, now_ms)
    }
}

/// Proposes a decision; false: it was not accepted.
async fn carry_out(parts: &Parts, view: &State, service: &Service, decision: &Decision) -> bool {
    let mut reason = decision.why();
    if reason.len() > MAX_SCALING_REASON {
        let end = reason.floor_char_boundary(MAX_SCALING_REASON);
        reason.truncate(end);
    }
    let command = v1::ScaleService {
        service: id_bytes(service.id.as_u128()),
        expected_generation: service.generation,
        replicas: decision.to,
        reason,
    };
    if let Err(problem) = parts.store.propose(Kind::ScaleService(command)).await {
        tracing::debug!(service = service.name, %problem, "a service was not scaled: looked at again");
        return false;
    }
    tracing::info!(service = service.name, %decision, "scaled");
    note(
        parts,
        view,
        service,
        ("scale_service", decision.to_string()),
    );
    true
}

/// Makes the advised requests those of the next release; false: it was not accepted.
async fn resize(parts: &Parts, view: &State, service: &Service, advice: &Advice) -> bool {
    let mut resized = service.clone();
    let resources = &mut resized.spec.resources;
    resources.cpu_millis = advice.cpu_millis.1;
    resources.memory_bytes = advice.memory_bytes.1;
    // A limit is never below its request.
    if resources.cpu_limit_millis != 0 {
        resources.cpu_limit_millis = resources.cpu_limit_millis.max(resources.cpu_millis);
    }
    if resources.memory_limit_bytes != 0 {
        resources.memory_limit_bytes = resources.memory_limit_bytes.max(resources.memory_bytes);
    }
    let command = v1::PutService {
        service: Some((&resized).into()),
        expected_generation: service.generation,
    };
    match parts.store.propose(Kind::PutService(command)).await {
        Ok(_) => {
            tracing::info!(service = service.name, %advice, "requests changed for the next release");
            note(parts, view, service, ("put_service", advice.to_string()));
            true
        }
        Err(problem) => {
            tracing::debug!(service = service.name, %problem, "requests were not changed");
            false
        }
    }
}

fn note(parts: &Parts, view: &State, service: &Service, (action, outcome): (&str, String)) {
    let path = view.path_of(service).map_or_else(String::new, |path| {
        format!(
            "projects/{}/environments/{}/services/{}",
            path.project, path.environment, path.service
        )
    });
    parts.history.audit(AuditEntry {
        at_ms: now_ms(),
        principal: PRINCIPAL.to_owned(),
        action: action.to_owned(),
        resource: path,
        outcome,
    });
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
