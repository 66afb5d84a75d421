//! Providers that are no Proxmox cluster: a program in this server's folder, and machines that exist. Runs no program.

use std::path::PathBuf;

use skep_model::guest_pool::PoolGuest;
use skep_model::pool::{Machine, Program};
use skep_model::problem::Problem;
use skep_model::provider::{Way, WayKind};
use skep_pools::exec;
use skep_state::State;

use super::super::App;
use super::super::types::{
    MachineStateView, ProgramGuestView, ProgramStateView, ProviderRequest, ProviderStateView,
};

/// What a request says of a program or of machines; none: it speaks of a Proxmox cluster.
///
/// # Errors
/// It says several at once.
pub(super) fn said(request: &ProviderRequest) -> Result<Option<Way>, Problem> {
    let is_proxmox = !request.endpoints.is_empty()
        || request.trust.is_some()
        || request.token_id.is_some()
        || request.secret.is_some();
    let has_machines = !request.machines.is_empty();
    let twice = |field: &'static str| {
        let text = "a provider is one thing: a Proxmox cluster, a program, or a list of machines";
        Problem::invalid(field, text).hint("each of them is a provider with a name of its own")
    };
    match &request.program {
        Some(_) if is_proxmox || has_machines => Err(twice("program")),
        Some(program) => Ok(Some(Way::Exec(program.clone()))),
        None if has_machines && is_proxmox => Err(twice("machines")),
        None if has_machines => Ok(Some(Way::Static(request.machines.clone()))),
        None => Ok(None),
    }
}

/// The program, as this server would run it.
///
/// # Errors
/// Why it would not.
pub(super) async fn find(app: &App, program: &Program) -> Result<PathBuf, Problem> {
    let found = exec::find(app.programs.as_deref(), &program.file).await;
    found.map_err(|misplaced| {
        let hint = match misplaced {
            exec::Misplaced::NoFolder => {
                "give each server a folder of root's with the programs that it may run, and start it with \
                 --provider-programs DIR (SKEP_PROVIDER_PROGRAMS)"
            }
            _ => {
                "each server needs it: a regular file, executable, root's or the server's own user's, and so is the folder; \
                 neither writable by others"
            }
        };
        Problem::invalid("program.file", misplaced.to_string()).hint(hint)
    })
}

/// How a program stands on this server, and what it is at.
pub(super) async fn program(
    app: &App,
    view: &State,
    (name, program): (&str, &Program),
) -> ProviderStateView {
    let found = exec::find(app.programs.as_deref(), &program.file).await;
    let (path, problem) = match found {
        Ok(path) => (Some(path.display().to_string()), None),
        Err(misplaced) => (None, Some(misplaced.to_string())),
    };
    let server = view.server(app.own.neighbours.own());
    let leads = app.store.consensus().group().borrow().is_leader;
    let guests = guests_of(view, name).map(|one| ProgramGuestView {
        name: one.guest.name(),
        pool: one.pool.clone(),
        phase: one.guest.phase,
        problem: one.guest.problem.clone(),
    });
    ProviderStateView {
        kind: WayKind::Exec,
        program: Some(ProgramStateView {
            program: program.clone(),
            server: server.map(|it| it.name.clone()).unwrap_or_default(),
            leads,
            path,
            problem,
            guests: guests.collect(),
        }),
        ..nothing()
    }
}

/// Which machines are there, and who has them.
pub(super) fn list(view: &State, (name, machines): (&str, &[Machine])) -> ProviderStateView {
    let shown = machines.iter().map(|machine| {
        let taken = guests_of(view, name)
            .find(|one| one.guest.host.as_deref() == Some(machine.name.as_str()));
        MachineStateView {
            machine: machine.clone(),
            guest: taken.map(|one| one.guest.name()),
            pool: taken.map(|one| one.pool.clone()),
            phase: taken.map(|one| one.guest.phase),
        }
    });
    let mut machines: Vec<MachineStateView> = shown.collect();
    machines.sort_by(|a, b| a.machine.name.cmp(&b.machine.name));
    ProviderStateView {
        kind: WayKind::Static,
        machines,
        ..nothing()
    }
}

fn guests_of<'a>(view: &'a State, provider: &'a str) -> impl Iterator<Item = &'a PoolGuest> {
    let is_its = move |pool: &str| {
        let pool = view.guest_pool(pool);
        pool.is_some_and(|it| it.provider == provider)
    };
    view.guests()
        .map(|one| &**one)
        .filter(move |one| is_its(&one.pool))
}

/// What is not asked shows nothing.
fn nothing() -> ProviderStateView {
    ProviderStateView {
        kind: WayKind::Exec,
        program: None,
        machines: Vec::new(),
        version: String::new(),
        missing: Vec::new(),
        hosts: Vec::new(),
        orphans: Vec::new(),
    }
}
