//! Which feature level a command needs. A cluster whose level is lower refuses it, so that servers of
//! two versions that run side by side never disagree about what a command did.

use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::{LEVEL_JOBS, LEVEL_SERVERS};

/// The first level; whatever has no number of its own is of it.
pub(crate) const FIRST: u32 = 1;

/// A command's name, for people and for keys, and the level at which its kind came to be.
pub(crate) fn describe(kind: &Kind) -> (&'static str, u32) {
    match kind {
        Kind::InitCluster(_) => ("init cluster", FIRST),
        Kind::EnsureEnvironment(_) => ("ensure environment", FIRST),
        Kind::PutService(_) => ("put service", FIRST),
        Kind::DropService(_) => ("drop service", FIRST),
        Kind::CreateDeployment(_) => ("create deployment", FIRST),
        Kind::AssignBuild(_) => ("assign build", FIRST),
        Kind::StartRollout(_) => ("start rollout", FIRST),
        Kind::FinishDeployment(_) => ("finish deployment", FIRST),
        Kind::NoteDeployment(_) => ("note deployment", FIRST),
        Kind::ApplyPlan(_) => ("apply plan", FIRST),
        Kind::Observe(_) => ("observe", FIRST),
        Kind::PutToken(_) => ("put token", FIRST),
        Kind::JoinNode(_) => ("join node", FIRST),
        Kind::UpdateNode(_) => ("update node", FIRST),
        Kind::SetNodeStatus(_) => ("set node status", FIRST),
        Kind::RemoveNode(_) => ("remove node", FIRST),
        Kind::JoinServer(_) => ("join server", LEVEL_SERVERS),
        Kind::UpdateServer(_) => ("update server", LEVEL_SERVERS),
        Kind::RemoveServer(_) => ("remove server", LEVEL_SERVERS),
        // What raises the level cannot wait for it.
        Kind::SetFeatureLevel(_) => ("set feature level", FIRST),
        Kind::SetNodeMeta(_) => ("set node metadata", LEVEL_SERVERS),
        Kind::RotateCa(_) => ("rotate CA", LEVEL_SERVERS),
        Kind::RemoveToken(_) => ("remove token", LEVEL_SERVERS),
        Kind::RaiseIncarnation(_) => ("raise incarnation", LEVEL_SERVERS),
        Kind::SettleQuarantine(_) => ("settle quarantine", LEVEL_SERVERS),
        Kind::PlanJobs(_) => ("plan jobs", LEVEL_JOBS),
        Kind::CreateJob(_) => ("create job", LEVEL_JOBS),
        Kind::CancelJob(_) => ("cancel job", LEVEL_JOBS),
    }
}

/// The level that this very command needs: that of its kind, or of a newer field in it.
pub(crate) fn needed(kind: &Kind) -> u32 {
    let has_new_field = match kind {
        Kind::InitCluster(message) => message.server.is_some(),
        Kind::Observe(message) => message.quarantine.is_some(),
        Kind::PutToken(message) => message
            .token
            .as_ref()
            .is_some_and(|token| token.role != 0 || !token.note.is_empty()),
        _ => false,
    };
    let (_, of_kind) = describe(kind);
    if says_jobs(kind) {
        of_kind.max(LEVEL_JOBS)
    } else if has_new_field {
        of_kind.max(LEVEL_SERVERS)
    } else {
        of_kind
    }
}

/// Whether the command carries what came with [`LEVEL_JOBS`].
fn says_jobs(kind: &Kind) -> bool {
    let has_run = |spec: &Option<v1::ServiceSpec>| spec.as_ref().is_some_and(|s| s.run.is_some());
    match kind {
        Kind::PutService(message) => message.service.as_ref().is_some_and(|s| has_run(&s.spec)),
        Kind::StartRollout(message) => has_run(&message.spec),
        Kind::ApplyPlan(message) => message.starts.iter().any(|start| !start.job.is_empty()),
        Kind::Observe(message) => message.allocations.iter().any(|seen| {
            seen.observed
                .as_ref()
                .is_some_and(|observed| observed.exit_code.is_some())
        }),
        _ => false,
    }
}

/// What a command carries as its version.
pub(crate) fn version(kind: &Kind) -> u32 {
    match kind {
        // The level that the new cluster begins with: this build's.
        Kind::InitCluster(_) => skep_proto::FEATURE_LEVEL,
        // A build that does not know the new level must stop here, not pass over it.
        Kind::SetFeatureLevel(v1::SetFeatureLevel { level }) => (*level).max(FIRST),
        other => needed(other),
    }
}

pub(crate) fn refusal(what: &str, needed: u32, level: u32) -> Problem {
    let text = format!(
        "`{what}` needs feature level {needed}, and the cluster is at level {level}: a server still runs an older version"
    );
    Problem::new(Code::Conflict, text)
        .hint("upgrade every server; the cluster then raises its level by itself")
}
