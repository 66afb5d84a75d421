//! One node for people: its machine, and what to fix.

use skep_control_plane::api::types::NodeView;
use skep_model::machine::Guest;
use skep_model::node::{Facts, NodeStatus};

use super::table;
use super::time::bytes;
use super::view::node_state;

/// How much memory a node has; said honestly where nobody knows.
pub(super) fn memory(facts: &Facts) -> String {
    match facts.machine.memory_unknown {
        true => "unknown".to_owned(),
        false => bytes(facts.memory_bytes),
    }
}

/// What it runs in, and whether there is something to fix.
pub(super) fn machine(facts: &Facts) -> String {
    let guest = facts.machine.guest.map_or("-", Guest::word);
    match facts.machine.warnings.len() {
        0 => guest.to_owned(),
        1 => format!("{guest} (1 warning)"),
        count => format!("{guest} ({count} warnings)"),
    }
}

/// Which path told that it is lost: its own silence, or other nodes.
fn judged_by(view: &NodeView) -> String {
    match (view.status, &view.witnesses[..]) {
        (NodeStatus::Lost, []) => "nothing was heard of it for too long".to_owned(),
        (NodeStatus::Lost, by) => format!(
            "{}: its machine does not answer them any more",
            by.join(", ")
        ),
        _ => "its agent".to_owned(),
    }
}

/// Whether what ran there is known to have ended.
fn fencing(view: &NodeView) -> String {
    match (&view.fenced, &view.fencing_waits, view.status) {
        (Some(fenced), ..) => format!("fenced by {}: {}", fenced.by, fenced.why),
        (None, Some(why), _) => format!("not confirmed dead: {why}"),
        (None, None, NodeStatus::Lost) => "not confirmed dead".to_owned(),
        _ => match view.incarnation {
            0 => "never fenced".to_owned(),
            times => format!("back; fenced {times} times so far"),
        },
    }
}

/// The size that its guest was given apart from its pool's recipe, and how far that is.
fn own_size(view: &NodeView) -> String {
    let own = view.own_size.map(|size| size.to_string());
    match (own, &view.resizing) {
        (None, _) => "-".to_owned(),
        (Some(own), None) => own,
        (Some(own), Some(stage)) => format!("{own}: {stage}"),
    }
}

/// The copy that its guest becomes.
fn becomes(view: &NodeView) -> String {
    view.restoring.as_ref().map_or_else(
        || "-".to_owned(),
        |it| match it.back {
            true => format!("{}: its disks are back, it is started", it.archive),
            false => it.archive.clone(),
        },
    )
}

/// What to do where a guest does not become the copy that was named.
pub(crate) fn another_copy(node: &str) -> String {
    format!(
        "`skep node backups {node}` lists its copies, `skep node restore {node} --from ARCHIVE` takes another one instead"
    )
}

/// A fact a line, then the warnings with what to do.
pub(crate) fn show(view: &NodeView) -> String {
    let (facts, machine) = (&view.facts, &view.facts.machine);
    let some = |text: &str| match text {
        "" => "-".to_owned(),
        text => text.to_owned(),
    };
    let cgroups = match machine.cgroup_version {
        0 => String::new(),
        version => format!(", cgroup v{version}"),
    };
    let rows = [
        ("node", view.name.clone()),
        ("id", view.id.to_string()),
        ("status", node_state(view)),
        ("judged by", judged_by(view)),
        ("fencing", fencing(view)),
        ("shared storage", some(&facts.shared_storage.join(", "))),
        ("host name", some(&facts.hostname)),
        (
            "runs in",
            machine.guest.map_or("not known", Guest::word).to_owned(),
        ),
        ("maker", some(&machine.vendor)),
        (
            "SMBIOS uuid",
            some(machine.uuid.as_deref().unwrap_or_default()),
        ),
        ("MAC", some(&machine.macs.join(", "))),
        ("architecture", some(&facts.architecture)),
        ("kernel", format!("{}{cgroups}", facts.kernel)),
        ("CPU", format!("{}m", facts.cpu_millis)),
        ("memory", memory(facts)),
        ("disk", bytes(facts.disk_bytes)),
        ("own size", own_size(view)),
        ("becomes", becomes(view)),
        ("Docker", some(&facts.docker_version)),
        ("storage", some(&machine.storage_driver)),
        ("agent", some(&facts.agent_version)),
    ];
    let mut lines = vec![table::facts(&rows)];
    let problem = view.restoring.as_ref().and_then(|it| it.problem.as_ref());
    if let Some(problem) = problem {
        lines.push(format!("warning: its guest does not get on: {problem}"));
        lines.push(format!("  {}", another_copy(&view.name)));
    }
    for warning in &machine.warnings {
        lines.push(format!("warning: {}", warning.text));
        lines.push(format!("  {}", warning.fix));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::machine::{Machine, Warning};

    #[test]
    fn unknown_memory_is_said_and_warnings_are_counted() {
        let mut facts = Facts {
            memory_bytes: 1 << 30,
            ..Facts::default()
        };
        assert_eq!(
            (memory(&facts).as_str(), machine(&facts).as_str()),
            ("1.0 GiB", "-")
        );
        let warning = Warning {
            text: "t".into(),
            fix: "f".into(),
        };
        facts.machine = Machine {
            guest: Some(Guest::Lxc),
            memory_unknown: true,
            warnings: vec![warning],
            ..Machine::default()
        };
        assert_eq!(
            (memory(&facts).as_str(), machine(&facts).as_str()),
            ("unknown", "LXC (1 warning)")
        );
    }
}
