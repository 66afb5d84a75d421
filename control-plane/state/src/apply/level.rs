//! Which feature level a command needs. A cluster whose level is lower refuses it, so that servers of
//! two versions that run side by side never disagree about what a command did.

use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::{LEVEL_JOBS, LEVEL_SCHEDULING, LEVEL_SERVERS};

use crate::format::{feature_level, is_of_next};
use crate::state::State;

/// The first level; whatever has no number of its own is of it.
pub(crate) const FIRST: u32 = 1;

/// Statuses of nodes that every version knows.
const STATUSES_BEFORE: u32 = 3;

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
        Kind::SetNodeAdmin(_) => ("set node administration", LEVEL_SCHEDULING),
        Kind::ScaleService(_) => ("scale service", LEVEL_SCHEDULING),
        Kind::PlanJobs(_) => ("plan jobs", LEVEL_JOBS),
        Kind::CreateJob(_) => ("create job", LEVEL_JOBS),
        Kind::CancelJob(_) => ("cancel job", LEVEL_JOBS),
        Kind::SetRebalance(_) => ("set rebalance", LEVEL_SCHEDULING),
        Kind::MoveAllocations(_) => ("move allocations", LEVEL_SCHEDULING),
        Kind::AdvanceRollout(_) => ("advance rollout", LEVEL_SCHEDULING),
        Kind::ControlRollout(_) => ("control rollout", LEVEL_SCHEDULING),
        Kind::SetScope(_) => ("set scope", LEVEL_SCHEDULING),
        Kind::PutPool(_) => ("put pool", LEVEL_SCHEDULING),
        Kind::RemovePool(_) => ("remove pool", LEVEL_SCHEDULING),
        Kind::PutRegistry(_) => ("put registry", LEVEL_SCHEDULING),
        Kind::RemoveRegistry(_) => ("remove registry", LEVEL_SCHEDULING),
        Kind::TakeSeat(_) => ("take seat", LEVEL_SCHEDULING),
        Kind::PruneClaims(_) => ("prune claims", LEVEL_SCHEDULING),
        Kind::SetBaseDomain(_) => ("set base domain", LEVEL_SCHEDULING),
        Kind::SetIssuer(_) => ("set issuer", LEVEL_SCHEDULING),
        Kind::SetAcmeAccount(_) => ("set ACME account", LEVEL_SCHEDULING),
        Kind::PutCertificate(_) => ("put certificate", LEVEL_SCHEDULING),
        Kind::NoteCertificate(_) => ("note certificate", LEVEL_SCHEDULING),
        Kind::RemoveCertificate(_) => ("remove certificate", LEVEL_SCHEDULING),
        Kind::PutChallenges(_) => ("put challenges", LEVEL_SCHEDULING),
        Kind::RemoveChallenges(_) => ("remove challenges", LEVEL_SCHEDULING),
        Kind::ForgetAcmeAccount(_) => ("forget ACME account", LEVEL_SCHEDULING),
        Kind::RenewCertificate(_) => ("renew certificate", LEVEL_SCHEDULING),
        Kind::PutDnsRecord(_) => ("put DNS record", LEVEL_SCHEDULING),
        Kind::RemoveDnsRecord(_) => ("remove DNS record", LEVEL_SCHEDULING),
        Kind::SetLocalCa(_) => ("set local CA", LEVEL_SCHEDULING),
        Kind::SetPrivatePool(_) => ("set private pool", LEVEL_SCHEDULING),
        Kind::SetTcpPorts(_) => ("set TCP ports", LEVEL_SCHEDULING),
        Kind::SetDomainProof(_) => ("set domain proof", LEVEL_SCHEDULING),
        Kind::TakeDelivery(_) => ("take delivery", LEVEL_SCHEDULING),
        Kind::PutHook(_) => ("put webhook", LEVEL_SCHEDULING),
        Kind::RemoveHook(_) => ("remove webhook", LEVEL_SCHEDULING),
        Kind::PutSharedVariables(_) => ("put shared variables", LEVEL_SCHEDULING),
        Kind::PutReceiver(_) => ("put receiver", LEVEL_SCHEDULING),
        Kind::RemoveReceiver(_) => ("remove receiver", LEVEL_SCHEDULING),
        Kind::AskNotification(_) => ("ask for a notification", LEVEL_SCHEDULING),
        Kind::PutForge(_) => ("put forge", LEVEL_SCHEDULING),
        Kind::RemoveForge(_) => ("remove forge", LEVEL_SCHEDULING),
        Kind::SettleForge(_) => ("settle what a forge was told", LEVEL_SCHEDULING),
        Kind::PassGate(_) => ("pass a gate", LEVEL_SCHEDULING),
        Kind::AwaitApproval(_) => ("await approval", LEVEL_SCHEDULING),
        Kind::ApproveDeployment(_) => ("approve deployment", LEVEL_SCHEDULING),
        Kind::PinService(_) => ("pin service", LEVEL_SCHEDULING),
        Kind::HearChecks(_) => ("hear of checks", LEVEL_SCHEDULING),
        Kind::SettleComment(_) => ("settle what a pull request was told", LEVEL_SCHEDULING),
        Kind::SettleShown(_) => ("settle what a forge shows", LEVEL_SCHEDULING),
        Kind::PutPushRegistry(_) => ("put push registry", LEVEL_SCHEDULING),
        Kind::RemovePushRegistry(_) => ("remove push registry", LEVEL_SCHEDULING),
        Kind::SettlePush(_) => ("settle a push", LEVEL_SCHEDULING),
        Kind::BeginPush(_) => ("begin a push", LEVEL_SCHEDULING),
        Kind::BeginForgeSetup(_) => ("begin the setup of a GitHub App", LEVEL_SCHEDULING),
        Kind::TakeForgeSetup(_) => ("take a step of its setup", LEVEL_SCHEDULING),
        Kind::PutForgeApp(_) => ("put GitHub App", LEVEL_SCHEDULING),
        Kind::RemoveForgeApp(_) => ("remove GitHub App", LEVEL_SCHEDULING),
        Kind::SetForgeInstallation(_) => ("set an installation", LEVEL_SCHEDULING),
        Kind::SettleNotification(_) => ("settle a notification", LEVEL_SCHEDULING),
        Kind::TakePolled(_) => ("take what was polled", LEVEL_SCHEDULING),
        Kind::SetPreviewRules(_) => ("set preview rules", LEVEL_SCHEDULING),
        Kind::RemovePreviewRules(_) => ("remove preview rules", LEVEL_SCHEDULING),
        Kind::MakePreview(_) => ("make preview", LEVEL_SCHEDULING),
        Kind::PushPreview(_) => ("push preview", LEVEL_SCHEDULING),
        Kind::EndPreview(_) => ("end preview", LEVEL_SCHEDULING),
        Kind::ForgetPreview(_) => ("forget preview", LEVEL_SCHEDULING),
        Kind::ExtendPreview(_) => ("extend preview", LEVEL_SCHEDULING),
        Kind::PushReferences(_) => ("push references", LEVEL_SCHEDULING),
        Kind::PutStack(_) => ("put stack", LEVEL_SCHEDULING),
        Kind::DropStack(_) => ("drop stack", LEVEL_SCHEDULING),
        Kind::AskStack(_) => ("ask for a stack's file", LEVEL_SCHEDULING),
        Kind::TakeReading(_) => ("take a reading", LEVEL_SCHEDULING),
        Kind::StepStack(_) => ("carry a stack out", LEVEL_SCHEDULING),
        Kind::PutProvider(_) => ("put provider", LEVEL_SCHEDULING),
        Kind::RemoveProvider(_) => ("remove provider", LEVEL_SCHEDULING),
        Kind::PutGuestPool(_) => ("put pool of guests", LEVEL_SCHEDULING),
        Kind::RemoveGuestPool(_) => ("remove pool of guests", LEVEL_SCHEDULING),
        Kind::ScaleGuestPool(_) => ("scale pool", LEVEL_SCHEDULING),
        Kind::DecideNodes(_) => ("decide on nodes of a pool", LEVEL_SCHEDULING),
        Kind::PlanGuest(_) => ("plan guest", LEVEL_SCHEDULING),
        Kind::NoteGuest(_) => ("note guest", LEVEL_SCHEDULING),
        Kind::RetireGuest(_) => ("retire guest", LEVEL_SCHEDULING),
        Kind::IntroduceGuest(_) => ("introduce guest", LEVEL_SCHEDULING),
        Kind::RestoreGuest(_) => ("restore guest", LEVEL_SCHEDULING),
        Kind::ResizeGuest(_) => ("resize guest", LEVEL_SCHEDULING),
        Kind::HastenResize(_) => ("hasten the resize of a guest", LEVEL_SCHEDULING),
        Kind::FinishResize(_) => ("finish the resize of a guest", LEVEL_SCHEDULING),
        Kind::ForgetGuest(_) => ("forget guest", LEVEL_SCHEDULING),
        Kind::SetHostMaintenance(_) => ("set host maintenance", LEVEL_SCHEDULING),
        Kind::EndHostMaintenance(_) => ("end host maintenance", LEVEL_SCHEDULING),
        Kind::FollowHostMaintenance(_) => ("follow host maintenance", LEVEL_SCHEDULING),
        Kind::FenceNode(_) => ("fence node", LEVEL_SCHEDULING),
        Kind::ReturnNode(_) => ("return node", LEVEL_SCHEDULING),
        Kind::NoteFencing(_) => ("note fencing", LEVEL_SCHEDULING),
        Kind::ForgetHolder(_) => ("forget a holder of pushes", LEVEL_SCHEDULING),
    }
}

/// The level that this very command needs: that of its kind, or of a newer field in it.
pub(crate) fn needed(kind: &Kind) -> u32 {
    let of_fields = match kind {
        Kind::InitCluster(message) => servers_if(message.server.is_some()),
        Kind::Observe(message) => {
            let images = message.builds.iter().filter_map(built_image);
            of_images(images).max(servers_if(message.quarantine.is_some()))
        }
        Kind::PutToken(message) => {
            let token = message.token.as_ref();
            servers_if(token.is_some_and(|token| token.role != 0 || !token.note.is_empty()))
        }
        Kind::PutService(message) => {
            let spec = message.service.as_ref().and_then(|it| it.spec.as_ref());
            spec.map_or(FIRST, of_spec)
        }
        Kind::StartRollout(message) => {
            let spec = message.spec.as_ref().map_or(FIRST, of_spec);
            let release = message.release.as_ref();
            let image = release.and_then(|release| release.image.as_ref());
            spec.max(of_images(image.into_iter()))
                .max(release.map_or(FIRST, of_release))
        }
        Kind::JoinNode(message) => {
            let facts = message.node.as_ref().and_then(|it| it.facts.as_ref());
            facts.map_or(FIRST, of_facts)
        }
        Kind::SetNodeStatus(message) => {
            let is_old = message.status <= STATUSES_BEFORE && message.witnesses.is_empty();
            match is_old {
                true => FIRST,
                false => LEVEL_SCHEDULING,
            }
        }
        Kind::UpdateNode(message) => message.facts.as_ref().map_or(FIRST, of_facts),
        _ => FIRST,
    };
    let (_, of_kind) = describe(kind);
    let of_jobs = if says_jobs(kind) { LEVEL_JOBS } else { FIRST };
    of_kind.max(of_fields).max(of_jobs)
}

fn servers_if(has_new_field: bool) -> u32 {
    if has_new_field { LEVEL_SERVERS } else { FIRST }
}

fn of_spec(spec: &v1::ServiceSpec) -> u32 {
    // Older versions refuse a surge of none, and know one way for a release to take over.
    let stops_first = spec.update.is_some_and(|update| update.max_surge == 0);
    let confines = spec.container.is_some()
        || spec.hooks.is_some()
        || spec.pull != 0
        || spec.storage.is_some()
        || !spec.routes.is_empty()
        || !spec.tcp.is_empty();
    if spec.autoscale.is_some() || spec.rollout.is_some() || stops_first || confines {
        return LEVEL_SCHEDULING;
    }
    let asks = spec.health.as_ref().map_or(FIRST, of_health);
    asks.max(of_placing(spec.placement.as_ref(), spec.resources.as_ref()))
}

fn of_release(release: &v1::Release) -> u32 {
    let is_told_more = release.branch.is_some()
        || release.public_url.is_some()
        || !release.file_variables.is_empty();
    let confines = release.container.is_some() || release.hooks.is_some();
    if confines || release.storage.is_some() || is_told_more {
        return LEVEL_SCHEDULING;
    }
    let asks = release.health.as_ref().map_or(FIRST, of_health);
    asks.max(of_placing(
        release.placement.as_ref(),
        release.resources.as_ref(),
    ))
}

fn of_health(health: &v1::Health) -> u32 {
    let probes = health.startup.is_some() || health.liveness.is_some();
    if probes || health.check.is_some() || health.port.is_some() {
        LEVEL_SCHEDULING
    } else {
        FIRST
    }
}

fn of_placing(placement: Option<&v1::Placement>, resources: Option<&v1::Resources>) -> u32 {
    let asks_more = resources.is_some_and(|it| it.memory_limit_bytes != 0 || it.disk_bytes != 0);
    if placement.is_some() || asks_more {
        LEVEL_SCHEDULING
    } else {
        FIRST
    }
}

/// Older versions know images as a registry's, or as one node's alone.
fn of_images<'a>(mut images: impl Iterator<Item = &'a v1::Image>) -> u32 {
    match images.any(|image| image.shared) {
        true => LEVEL_SCHEDULING,
        false => FIRST,
    }
}

fn built_image(build: &v1::BuildObservation) -> Option<&v1::Image> {
    match build.outcome.as_ref()?.kind.as_ref()? {
        v1::build_outcome::Kind::Built(built) => built.image.as_ref(),
        v1::build_outcome::Kind::Failed(_) => None,
    }
}

fn of_facts(facts: &v1::Facts) -> u32 {
    let has_storage = facts.storage
        || !facts.volumes.is_empty()
        || !facts.host_paths.is_empty()
        || !facts.shared_storage.is_empty();
    let says_more = facts.private_network || facts.machine.is_some();
    let offers_more = !facts.devices.is_empty()
        || !facts.image_address.is_empty()
        || !facts.mesh_address.is_empty();
    if says_more || offers_more || has_storage || !facts.meta.is_empty() {
        LEVEL_SCHEDULING
    } else {
        FIRST
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
        Kind::InitCluster(_) => feature_level(),
        // A build that does not know the new level must stop here, not pass over it.
        Kind::SetFeatureLevel(v1::SetFeatureLevel { level }) => (*level).max(FIRST),
        other if is_of_next(other) => feature_level(),
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
