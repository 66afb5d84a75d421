//! What is different where machines come from a program, or exist: how they come and go, in words. Changes nothing.

use skep_model::guest_pool::{GuestPool, PoolGuest};
use skep_model::node::NodeStatus;
use skep_model::pool::{Machine, Phase, Program};
use skep_model::problem::{Code, Problem};
use skep_model::provider::{Provider, Way};
use skep_pools::{ENV_FILE, exec};
use skep_state::State;

use super::super::App;
use super::super::types::{GuestView, NodePlanView};
use crate::guests::plan::COMING_MAX;

/// Machines that exist are made by no recipe, so none of them is of an older one.
pub(super) fn check_upgrade(provider: &Provider, pool: &GuestPool) -> Result<(), Problem> {
    if !matches!(provider.way, Way::Static(_)) {
        return Ok(());
    }
    let text = format!(
        "the machines of the pool `{}` exist: no recipe makes them",
        pool.name
    );
    Err(Problem::new(Code::Conflict, text)
        .at("pool")
        .hint("`skep node replace NODE` has another machine of the list take a node's place"))
}

/// Machines that a program would be asked for.
pub(super) async fn asked(app: &App, program: &Program, lacking: usize) -> NodePlanView {
    let step = format!(
        "`{}` is asked for a machine, which it tells how to join",
        program.file
    );
    let found = exec::find(app.programs.as_deref(), &program.file).await;
    NodePlanView {
        steps: vec![step; lacking.min(COMING_MAX)],
        against: found
            .err()
            .map(|it| it.to_string())
            .into_iter()
            .filter(|_| lacking > 0)
            .collect(),
    }
}

/// Machines that would be taken.
pub(super) fn taken(
    view: &State,
    (provider, list): (&str, &[Machine]),
    lacking: usize,
) -> NodePlanView {
    let free = free(view, provider, list);
    let steps = free.iter().take(lacking.min(COMING_MAX)).map(|machine| {
        format!(
            "`{}` ({}) is taken; a person tells it how to join: `skep node introduction {}`",
            machine.name, machine.address, machine.name
        )
    });
    NodePlanView {
        steps: steps.collect(),
        against: lacking_of(list, free.len(), lacking).into_iter().collect(),
    }
}

/// What is against so many more, where not as many machines are free.
pub(super) fn lacking(
    view: &State,
    (provider, list): (&str, &[Machine]),
    wanted: usize,
) -> Option<String> {
    lacking_of(list, free(view, provider, list).len(), wanted)
}

fn lacking_of(list: &[Machine], free: usize, wanted: usize) -> Option<String> {
    (free < wanted).then(|| {
        format!(
            "of {} machines of the list {free} are free: the rest waits until `skep provider set` names more",
            list.len()
        )
    })
}

/// Those that no guest has, in the order in which they are taken.
fn free<'a>(view: &State, provider: &str, list: &'a [Machine]) -> Vec<&'a Machine> {
    let is_taken = |machine: &Machine| {
        view.guests().any(|one| {
            let pool = view.guest_pool(&one.pool);
            one.guest.host.as_ref() == Some(&machine.name)
                && pool.is_some_and(|pool| pool.provider == provider)
        })
    };
    let mut free: Vec<&Machine> = list.iter().filter(|it| !is_taken(it)).collect();
    free.sort_by_key(|machine| &machine.name);
    free
}

/// How a machine that exists is left.
pub(super) fn parting(one: &PoolGuest) -> String {
    let machine = one.guest.host.as_deref().unwrap_or("the machine");
    format!(
        "{machine} stays as it is, with its agent: end it there (`systemctl disable --now skep-agent; rm -r {ENV_FILE} \
         /var/lib/skep/agent`), then the node is removed and the machine is free again"
    )
}

/// Where nothing is left to do but for people, that is said.
pub(super) fn add_parting(view: &State, pool: &GuestPool, shown: &mut [GuestView]) {
    for one in view.guests_of(&pool.name) {
        let node = one.node.and_then(|id| view.node(id));
        let runs = node.is_some_and(|node| node.status == NodeStatus::Ready);
        if one.guest.phase != Phase::Gone || one.guest.host.is_none() || !runs {
            continue;
        }
        let is_static = view
            .provider(&pool.provider)
            .is_some_and(|it| matches!(it.way, Way::Static(_)));
        let guest = shown.iter_mut().find(|it| it.id == one.guest.id);
        if let (Some(guest), true) = (guest, is_static) {
            guest.problem = Some(format!("it is drained: {}", parting(one)));
        }
    }
}
