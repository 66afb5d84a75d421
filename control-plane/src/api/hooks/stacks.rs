//! What a delivery means for stacks: a push to the branch of one has its file read. What the file says is nothing that
//! a delivery is believed about.

use skep_forge::{Event, canonical};
use skep_model::id::WorkspaceId;
use skep_model::problem::Problem;
use skep_model::stack::Stack;
use skep_state::State;

use crate::api::App;
use crate::api::stacks::asked;
use crate::api::types::HookEvent;

/// Has the files of those stacks read that follow what was pushed to, and tells of it.
pub(super) async fn hear(
    app: &App,
    workspace: WorkspaceId,
    (repository, events): (&str, &[Event]),
) -> Result<Vec<HookEvent>, Problem> {
    let view = app.store.view();
    let mut told = Vec::new();
    for stack in view.stacks() {
        let is_ours = view.workspace_of(stack.environment) == Some(workspace)
            && canonical(&stack.settings.repository).as_deref() == Some(repository);
        let event = events
            .iter()
            .find(|event| is_ours && concerns(stack, event));
        let Some(event) = event else { continue };
        app.store.propose(asked(stack.environment)).await?;
        told.push(HookEvent {
            event: event.shown(),
            service: None,
            decision: format!("the stack of {} is read", named(&view, stack)),
            deployment: None,
            replayed: false,
        });
    }
    Ok(told)
}

fn concerns(stack: &Stack, event: &Event) -> bool {
    match event {
        Event::Push(push) => push.branch == stack.settings.branch,
        Event::Asked(_) => true,
        _ => false,
    }
}

fn named(view: &State, stack: &Stack) -> String {
    let environment = view.environment(stack.environment);
    let project = environment.and_then(|it| view.project(it.project));
    match (project, environment) {
        (Some(project), Some(environment)) => format!("{}/{}", project.name, environment.name),
        _ => stack.environment.to_string(),
    }
}
