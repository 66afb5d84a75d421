//! Which feature level a command needs. A cluster whose level is lower refuses it, so that servers of
//! two versions that run side by side never disagree about what a command did.

use skep_model::problem::{Code, Problem};
use skep_proto::LEVEL_SERVERS;
use skep_proto::v1;
use skep_proto::v1::command::Kind;

use crate::format::{FEATURE_LEVEL, is_of_next};
use crate::state::State;

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
    if has_new_field {
        of_kind.max(LEVEL_SERVERS)
    } else {
        of_kind
    }
}

/// What a command carries as its version.
pub(crate) fn version(kind: &Kind) -> u32 {
    match kind {
        // The level that the new cluster begins with: this build's.
        Kind::InitCluster(_) => FEATURE_LEVEL,
        // A build that does not know the new level must stop here, not pass over it.
        Kind::SetFeatureLevel(v1::SetFeatureLevel { level }) => (*level).max(FIRST),
        other if is_of_next(other) => FEATURE_LEVEL,
        other => needed(other),
    }
}

impl State {
    /// Whether the cluster's level allows this command. To be asked before a command is proposed: one
    /// that is in the log stops every server that does not know its level.
    ///
    /// # Errors
    /// Names the servers that hold the level back.
    pub fn check_command(&self, kind: &Kind) -> Result<(), Problem> {
        // The one begins a level, the other raises it and is judged where it is applied.
        if matches!(kind, Kind::InitCluster(_) | Kind::SetFeatureLevel(_)) {
            return Ok(());
        }
        let needed = version(kind);
        if needed <= self.feature_level() {
            return Ok(());
        }
        Err(self.below(describe(kind).0, needed))
    }

    /// Why something of the level `needed` is refused.
    pub(crate) fn below(&self, what: &str, needed: u32) -> Problem {
        let level = self.feature_level();
        let older: Vec<String> = self
            .servers()
            .filter(|server| server.feature_level < needed)
            .map(|server| format!("{} ({})", server.name, server.version))
            .collect();
        let why = match older[..] {
            [] => "its servers have not agreed on a higher one yet".to_owned(),
            [_] => format!("{} runs an older version", older[0]),
            _ => format!("{} run an older version", older.join(", ")),
        };
        let text = format!(
            "`{what}` needs feature level {needed}, and the cluster is at level {level}: {why}"
        );
        Problem::new(Code::Conflict, text)
            .hint("upgrade every server; the cluster then raises its level by itself")
    }
}
