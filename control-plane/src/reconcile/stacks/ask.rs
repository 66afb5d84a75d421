//! One stack's file, read by a node: asked for in rounds, until nothing that it names is missing. Decides nothing.

use std::collections::BTreeMap;

use skep_model::assignment::BuildVariable;
use skep_model::id::{EnvironmentId, NodeId};
use skep_model::polling::{Ask, MAX_READS, Read, Seen, Tip, Want, Wanted};
use skep_model::problem::{Code, Problem};
use skep_model::stack::Stack;
use skep_model::variable::VariableInput;
use skep_state::State;
use tokio::task::JoinSet;

use super::Parts;
use crate::agents::relay::Relay;
use crate::secrets::Secrets;
use crate::stacks::due::{self, Memory};
use crate::stacks::{File, Understood, understand};

/// Rounds of one question: the file, what it names, what that names; and one for a push in between.
const ROUNDS: usize = 5;

/// A question that was answered, or not.
pub(super) struct Asked {
    pub(super) environment: EnvironmentId,
    /// Of the settings by which it was asked.
    pub(super) generation: u64,
    /// As the stack's `asked` was then.
    pub(super) asked: u64,
    pub(super) heard: Heard,
}

/// What came of it.
pub(super) enum Heard {
    /// No answer.
    Nothing,
    /// The commit that was seen is still the newest.
    Known(String),
    /// Nothing to carry out.
    Trouble {
        commit: Option<String>,
        problem: Problem,
    },
    /// This.
    File(Box<File>),
}

/// Begins to read a stack's file in a task of its own; false: there is no node to ask.
pub(super) fn begin(
    parts: &Parts,
    view: &State,
    (stack, memory): (&Stack, Memory),
    asks: &mut JoinSet<Asked>,
) -> bool {
    let Some(node) = due::node_for(view, stack, memory) else {
        return false;
    };
    let shared = opened(view, &parts.secrets, stack.environment);
    let unless = stack.seen.clone().filter(|_| due::is_poll(stack, memory));
    let (relay, stack) = (parts.relay.clone(), stack.clone());
    asks.spawn(async move {
        let heard = match shared {
            Ok(shared) => read(&relay, (node, &stack), &shared, unless).await,
            Err(problem) => Heard::Trouble {
                commit: None,
                problem,
            },
        };
        Asked {
            environment: stack.environment,
            generation: stack.generation,
            asked: stack.asked,
            heard,
        }
    });
    true
}

/// What the environment's services share: a file's own variables.
fn opened(
    view: &State,
    secrets: &Secrets,
    environment: EnvironmentId,
) -> Result<BTreeMap<String, VariableInput>, Problem> {
    let shared = view.shared_variables(environment);
    let open = |(name, variable): (&String, &skep_model::variable::Variable)| {
        let input = VariableInput {
            name: name.clone(),
            value: secrets.open_shared(environment, name, variable)?,
            secret: variable.secret,
        };
        Ok((name.clone(), input))
    };
    shared.variables.iter().map(open).collect()
}

async fn read(
    relay: &Relay,
    (node, stack): (NodeId, &Stack),
    shared: &BTreeMap<String, VariableInput>,
    unless: Option<String>,
) -> Heard {
    let trouble = |commit, problem| Heard::Trouble { commit, problem };
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let mut commit = String::new();
    for _ in 0..ROUNDS {
        let more = match understand(&stack.settings, shared, (&commit, &seen)) {
            Ok(Understood::More(more)) => more,
            Ok(Understood::File(file)) => return Heard::File(file),
            Err(problem) => return trouble(Some(commit), problem),
        };
        // All of them again: so they are of one commit, whatever was pushed meanwhile.
        let mut paths: Vec<String> = seen.into_keys().chain(more).collect();
        paths.sort();
        paths.dedup();
        if paths.len() > MAX_READS {
            let text = format!("the file names more than {MAX_READS} files and folders");
            return trouble(Some(commit), Problem::invalid("services", text));
        }
        let ask = question(stack, shared, paths.clone(), unless.clone());
        let tip = match relay.ask_source(node, ask).await {
            None => return Heard::Nothing,
            Some(Err(problem)) => return trouble(None, problem),
            Some(Ok(tips)) => tips.into_iter().next().flatten(),
        };
        let Some(tip) = tip else {
            return trouble(None, gone(stack));
        };
        if unless.as_ref() == Some(&tip.commit) {
            return Heard::Known(tip.commit);
        }
        let Tip {
            commit: its, files, ..
        } = tip;
        if files.len() != paths.len() {
            let text =
                "the agent of the node that was asked is too old to read a file of a repository";
            let problem = Problem::new(Code::SourceFailed, text);
            return trouble(
                None,
                problem.hint("install the cluster's version of Skep there"),
            );
        }
        seen = paths.into_iter().zip(files).collect();
        commit = its;
    }
    let text = "the repository is pushed to faster than its file can be read";
    match understand(&stack.settings, shared, (&commit, &seen)) {
        Ok(Understood::File(file)) => Heard::File(file),
        Ok(Understood::More(_)) => trouble(None, Problem::new(Code::Busy, text)),
        Err(problem) => trouble(Some(commit), problem),
    }
}

/// As whom the repository is asked: its login, and the variables that this names and no others.
fn question(
    stack: &Stack,
    shared: &BTreeMap<String, VariableInput>,
    paths: Vec<String>,
    unless: Option<String>,
) -> Ask {
    let settings = &stack.settings;
    let named = [&settings.fetch.ssh_key, &settings.fetch.token];
    let variables = named.into_iter().flatten().filter_map(|name| {
        let input = shared.get(name)?;
        Some(BuildVariable {
            name: name.clone(),
            value: input.value.clone(),
            secret: true,
        })
    });
    Ask {
        repository: settings.repository.clone(),
        fetch: settings.fetch.clone(),
        variables: variables.collect(),
        wants: vec![Want {
            of: Wanted::Branch(settings.branch.clone()),
            since: None,
        }],
        read: Some(Read { paths, unless }),
    }
}

fn gone(stack: &Stack) -> Problem {
    let text = format!("the repository has no branch `{}`", stack.settings.branch);
    Problem::new(Code::SourceFailed, text)
        .at("branch")
        .hint("push it, or follow another one: skep stack connect --branch NAME")
}
