//! Commands applied to the state. Every rule that must hold whoever proposes is checked here; what
//! is refused changes nothing.

mod certificate;
mod cluster;
mod delivery;
mod deployment;
mod fencing;
mod forge;
mod forge_app;
mod gate;
mod guest;
mod host;
mod image_push;
mod job;
mod level;
mod node;
mod notify;
mod plan;
mod preview;
mod pushed;
mod quarantine;
mod rebalance;
mod registry;
mod resize;
mod rollout;
mod server;
mod service;
mod settings;
mod stack;
mod token;
mod variables;
mod webhook;

use prost::Message as _;
use skep_model::id::ServiceId;
use skep_model::problem::{Code, Problem};
use skep_proto::convert::{self, id_bits};
use skep_proto::v1::command::Kind;
use skep_proto::{LEVEL_SCHEDULING, LEVEL_SERVERS, v1};

use crate::answer::{Outcome, Repeat, Reply};
use crate::change::Change;
use crate::format::format;
use crate::keys::{DIGEST_BYTES, KEY_BYTES, Tag, Verdict};
use crate::state::State;

/// An applied command: what to answer, and what changed.
#[derive(Debug)]
pub struct Applied {
    /// For the proposer.
    pub outcome: Outcome,
    /// Whether that is this command's outcome, or an earlier one's.
    pub repeat: Repeat,
    /// For the feed; empty when the command was refused.
    pub changes: Vec<Change>,
    /// Set when the command was written by a newer version, so that this build cannot know what it
    /// does: whoever applies must stop here, or this server's state would part from the others'.
    pub is_newer: bool,
}

impl Applied {
    fn refused(problem: Problem) -> Self {
        Self::of(Err(problem))
    }

    fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            repeat: Repeat::First,
            changes: Vec::new(),
            is_newer: false,
        }
    }
}

/// What makes sending a command twice harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Of a caller, for a request of its own; remembered for a day.
    Caller {
        /// Names the request.
        key: [u8; KEY_BYTES],
        /// What the request was: the same key for another one is refused.
        digest: [u8; DIGEST_BYTES],
    },
    /// Of a server, for its own retries within seconds.
    Own {
        /// Drawn at random.
        key: [u8; KEY_BYTES],
        /// Index of a state before the command was first sent, that many commands were not yet in.
        since: u64,
    },
}

/// Encodes a command of this build's format.
pub fn command(time_ms: u64, kind: Kind) -> Vec<u8> {
    v1::Command {
        version: level::version(&kind),
        time_ms,
        kind: Some(kind),
        ..v1::Command::default()
    }
    .encode_to_vec()
}

/// An encoded command that has no key yet, with one. A cluster below [`LEVEL_SERVERS`] passes the key
/// over.
pub fn with_key(mut command: Vec<u8>, key: Key) -> Vec<u8> {
    let mut fields = v1::Command::default();
    match key {
        Key::Caller { key, digest } => {
            fields.key = key.to_vec();
            fields.digest = digest.to_vec();
        }
        Key::Own { key, since } => {
            fields.key = key.to_vec();
            fields.since = since;
        }
    }
    // Protobuf: the fields of two messages, one after the other, are one message.
    command.extend(fields.encode_to_vec());
    command
}

/// A short name of the command, the same in every version.
pub fn name(kind: &Kind) -> &'static str {
    level::describe(kind).0
}

/// Whether the rule of this kind refuses only before it writes anything, so that it needs no copy of the
/// state to fall back on. A copy shares everything, and makes each later write copy what it touches:
/// those kinds that come by the thousand do without.
fn checks_first(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Observe(_)
            | Kind::UpdateNode(_)
            | Kind::SetNodeStatus(_)
            | Kind::SetNodeMeta(_)
            | Kind::SetNodeAdmin(_)
            | Kind::JoinNode(_)
    )
}

/// Collects the changes of one command; handed down to the rule of its kind.
pub(crate) struct Context<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) changes: Vec<Change>,
}

impl State {
    /// Applies the command at `index`. A command that is refused or damaged changes nothing but the
    /// index, the cluster's time, and that its key is remembered.
    pub fn apply(&mut self, index: u64, bytes: &[u8]) -> Applied {
        self.index = index;
        let message = match v1::Command::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                let text = format!("the command does not decode: {error}");
                return Applied::refused(Problem::new(Code::Internal, text));
            }
        };
        if message.version > format() {
            let text = format!(
                "the command has format {}, this build applies up to {}: start the newer version of skep",
                message.version,
                format()
            );
            return Applied {
                is_newer: true,
                ..Applied::refused(Problem::new(Code::Internal, text))
            };
        }
        let level = self.feature_level();
        let (what, is_gated) = match &message.kind {
            Some(kind @ (Kind::InitCluster(_) | Kind::SetFeatureLevel(_))) => {
                (level::describe(kind).0, false)
            }
            Some(kind) => (level::describe(kind).0, true),
            None => ("unknown", true),
        };
        if is_gated && message.version > level {
            return Applied::refused(self.below(what, message.version));
        }
        self.time_ms = self.time_ms.max(message.time_ms);
        let tag = match Tag::of(&message) {
            // Before that level nobody remembered keys.
            _ if level < LEVEL_SERVERS => None,
            Ok(tag) => tag,
            Err(problem) => return Applied::refused(problem),
        };
        match tag.as_ref().map(|tag| self.keys.judge(tag)) {
            None | Some(Verdict::New) => {}
            Some(Verdict::Seen(outcome)) => {
                return Applied {
                    repeat: Repeat::Replayed,
                    ..Applied::of(outcome)
                };
            }
            Some(Verdict::TooLate) => {
                let text = "it is not known any more whether this command was obeyed before";
                return Applied {
                    repeat: Repeat::TooLate,
                    ..Applied::refused(Problem::new(Code::Timeout, text))
                };
            }
        }
        let (outcome, changes) = self.obey(message);
        if let Some(tag) = tag {
            self.keys.remember(&tag, index, self.time_ms, &outcome);
        }
        Applied {
            changes,
            ..Applied::of(outcome)
        }
    }

    fn obey(&mut self, message: v1::Command) -> (Outcome, Vec<Change>) {
        let unknown = || Problem::new(Code::Internal, "the command is of no known kind");
        let Some(kind) = message.kind else {
            return (Err(unknown()), Vec::new());
        };
        let (level, needed) = (self.feature_level(), level::needed(&kind));
        if needed > level && !matches!(kind, Kind::InitCluster(_)) {
            let problem = self.below(name(&kind), needed);
            return (Err(problem), Vec::new());
        }
        if checks_first(&kind) {
            return self.run(kind, message.version);
        }
        // Other rules write to a copy (O(1)): one that refuses half-way leaves nothing behind.
        let mut next = self.clone();
        let (outcome, changes) = next.run(kind, message.version);
        if outcome.is_err() {
            return (outcome, Vec::new());
        }
        *self = next;
        (outcome, changes)
    }

    fn run(&mut self, kind: Kind, version: u32) -> (Outcome, Vec<Change>) {
        let mut context = Context {
            state: self,
            changes: Vec::new(),
        };
        let outcome = context.run(kind, version);
        (outcome, context.changes)
    }
}

impl Context<'_> {
    fn run(&mut self, kind: Kind, version: u32) -> Outcome {
        match kind {
            Kind::InitCluster(message) => self.init_cluster(message, version),
            Kind::EnsureEnvironment(message) => self.ensure_environment(message),
            Kind::PutService(message) => self.put_service(message),
            Kind::DropService(message) => self.drop_service(&message),
            Kind::ScaleService(message) => self.scale_service(message),
            Kind::CreateDeployment(message) => self.create_deployment(message),
            Kind::TakeDelivery(message) => self.take_delivery(message),
            Kind::TakePolled(message) => self.take_polled(message),
            Kind::PutHook(message) => self.put_hook(message),
            Kind::RemoveHook(message) => self.remove_hook(&message),
            Kind::AssignBuild(message) => self.assign_build(message),
            Kind::StartRollout(message) => self.start_rollout(message),
            Kind::FinishDeployment(message) => self.finish_deployment(message),
            Kind::NoteDeployment(message) => self.note_deployment(message),
            Kind::ApplyPlan(message) => self.apply_plan(message),
            Kind::Observe(message) => self.observe(message),
            Kind::PutToken(message) => self.put_token(message),
            Kind::JoinNode(message) => self.join_node(message),
            Kind::UpdateNode(message) => self.update_node(message),
            Kind::SetNodeStatus(message) => self.set_node_status(&message),
            Kind::RemoveNode(message) => self.remove_node(&message),
            Kind::JoinServer(message) => self.join_server(message),
            Kind::UpdateServer(message) => self.update_server(message),
            Kind::RemoveServer(message) => self.remove_server(&message),
            Kind::SetFeatureLevel(message) => self.set_feature_level(&message),
            Kind::SetNodeMeta(message) => self.set_node_meta(message),
            Kind::SetNodeAdmin(message) => self.set_node_admin(&message),
            Kind::RotateCa(message) => self.rotate_ca(message),
            Kind::RemoveToken(message) => self.remove_token(&message),
            Kind::RaiseIncarnation(message) => self.raise_incarnation(message),
            Kind::SettleQuarantine(message) => self.settle_quarantine(&message),
            Kind::PlanJobs(message) => self.plan_jobs(message),
            Kind::CreateJob(message) => self.create_job(message),
            Kind::CancelJob(message) => self.cancel_job(&message),
            Kind::SetRebalance(message) => self.set_rebalance(&message),
            Kind::MoveAllocations(message) => self.move_allocations(&message),
            Kind::AdvanceRollout(message) => self.advance_rollout(message),
            Kind::ControlRollout(message) => self.control_rollout(&message),
            Kind::SetScope(message) => self.set_scope(message),
            Kind::PutPool(message) => self.put_pool(message),
            Kind::RemovePool(message) => self.remove_pool(&message),
            Kind::PutRegistry(message) => self.put_registry(message),
            Kind::RemoveRegistry(message) => self.remove_registry(&message),
            Kind::TakeSeat(message) => self.take_seat(&message),
            Kind::FenceNode(message) => self.fence_node(message),
            Kind::ReturnNode(message) => self.return_node(&message),
            Kind::NoteFencing(message) => self.note_fencing(message),
            Kind::PruneClaims(_) => self.prune_claims(),
            Kind::SetBaseDomain(message) => self.set_base_domain(message),
            Kind::SetIssuer(message) => self.set_issuer(message),
            Kind::SetAcmeAccount(message) => self.set_acme_account(message),
            Kind::PutCertificate(message) => self.put_certificate(message),
            Kind::NoteCertificate(message) => self.note_certificate(message),
            Kind::RemoveCertificate(message) => self.remove_certificate(&message),
            Kind::PutChallenges(message) => self.put_challenges(message),
            Kind::RemoveChallenges(message) => self.remove_challenges(&message),
            Kind::PutDnsRecord(message) => self.put_dns_record(message),
            Kind::SetLocalCa(message) => self.set_local_ca(message),
            Kind::RemoveDnsRecord(message) => self.remove_dns_record(message),
            Kind::ForgetAcmeAccount(message) => self.forget_acme_account(&message),
            Kind::RenewCertificate(message) => self.renew_certificate(&message),
            Kind::SetPrivatePool(message) => self.set_private_pool(&message),
            Kind::SetTcpPorts(message) => self.set_tcp_ports(message),
            Kind::SetDomainProof(message) => self.set_domain_proof(&message),
            Kind::PutSharedVariables(message) => self.put_shared_variables(message),
            Kind::PutReceiver(message) => self.put_receiver(message),
            Kind::RemoveReceiver(message) => self.remove_receiver(&message),
            Kind::AskNotification(message) => self.ask_notification(message),
            Kind::SettleNotification(message) => self.settle_notification(message),
            Kind::SetPreviewRules(message) => self.set_preview_rules(message),
            Kind::RemovePreviewRules(message) => self.remove_preview_rules(&message),
            Kind::MakePreview(message) => self.make_preview(message),
            Kind::PushPreview(message) => self.push_preview(message),
            Kind::EndPreview(message) => self.end_preview(message),
            Kind::ForgetPreview(message) => self.forget_preview(&message),
            Kind::ExtendPreview(message) => self.extend_preview(&message),
            Kind::PutForge(message) => self.put_forge(message),
            Kind::RemoveForge(message) => self.remove_forge(&message),
            Kind::SettleForge(message) => self.settle_forge(message),
            Kind::PassGate(message) => self.pass_gate(message),
            Kind::AwaitApproval(message) => self.await_approval(message),
            Kind::ApproveDeployment(message) => self.approve_deployment(message),
            Kind::PinService(message) => self.pin_service(message),
            Kind::HearChecks(message) => self.hear_checks(&message),
            Kind::PushReferences(message) => self.push_references(message),
            Kind::ForgetHolder(message) => self.forget_holder(&message),
            Kind::SettleComment(message) => self.settle_comment(message),
            Kind::SettleShown(message) => self.settle_shown(message),
            Kind::PutPushRegistry(message) => self.put_push_registry(message),
            Kind::RemovePushRegistry(message) => self.remove_push_registry(&message),
            Kind::SettlePush(message) => self.settle_push(message),
            Kind::BeginPush(message) => self.begin_push(message),
            Kind::PutStack(message) => self.put_stack(message),
            Kind::DropStack(message) => self.drop_stack(&message),
            Kind::AskStack(message) => self.ask_stack(&message),
            Kind::TakeReading(message) => self.take_reading(message),
            Kind::StepStack(message) => self.step_stack(message),
            Kind::BeginForgeSetup(message) => self.begin_forge_setup(message),
            Kind::TakeForgeSetup(message) => self.take_forge_setup(&message),
            Kind::PutForgeApp(message) => self.put_forge_app(message),
            Kind::RemoveForgeApp(message) => self.remove_forge_app(&message),
            Kind::SetForgeInstallation(message) => self.set_forge_installation(message),
            Kind::PutProvider(message) => self.put_provider(message),
            Kind::RemoveProvider(message) => self.remove_provider(&message),
            Kind::PutGuestPool(message) => self.put_guest_pool(message),
            Kind::RemoveGuestPool(message) => self.remove_guest_pool(&message),
            Kind::ScaleGuestPool(message) => self.scale_guest_pool(&message),
            Kind::DecideNodes(message) => self.decide_nodes(message),
            Kind::PlanGuest(message) => self.plan_guest(&message),
            Kind::NoteGuest(message) => self.note_guest(message),
            Kind::RetireGuest(message) => self.retire_guest(&message),
            Kind::IntroduceGuest(message) => self.introduce_guest(message),
            Kind::RestoreGuest(message) => self.restore_guest(message),
            Kind::ResizeGuest(message) => self.resize_guest(&message),
            Kind::HastenResize(message) => self.hasten_resize(&message),
            Kind::FinishResize(message) => self.finish_resize(&message),
            Kind::ForgetGuest(message) => self.forget_guest(&message),
            Kind::SetHostMaintenance(message) => self.set_host_maintenance(&message),
            Kind::EndHostMaintenance(message) => self.end_host_maintenance(&message),
            Kind::FollowHostMaintenance(message) => self.follow_host_maintenance(&message),
        }
    }

    /// The same, for what changed of a service as it is in the state: what has no routes changes none.
    /// Every session would have to be told of the table otherwise, for each of a fleet's workers.
    pub(crate) fn touch_routes_of(&mut self, service: ServiceId) {
        self.touch_names_of(service);
        let service = self.state.service(service);
        let is_routed = service.is_none_or(|service| service.spec.takes_traffic());
        // Servers that are older than the level count every change.
        if is_routed || self.state.feature_level() < LEVEL_SCHEDULING {
            self.touch_routes();
        }
    }

    /// What others of its environment know of a service changed.
    pub(crate) fn touch_names_of(&mut self, service: ServiceId) {
        let environment = self.state.service(service).map(|of| of.environment);
        if let Some(environment) = environment
            && self.state.feature_level() >= LEVEL_SCHEDULING
            && !self.changes.contains(&Change::Names(environment))
        {
            self.changes.push(Change::Names(environment));
        }
    }

    /// The route table has a new revision: the index of this command.
    pub(crate) fn touch_routes(&mut self) {
        if self.state.routes_revision != self.state.index {
            self.state.routes_revision = self.state.index;
            self.changes.push(Change::Routes);
        }
    }
}

/// A message as its model type; a message without meaning is refused by its field's name.
pub(crate) fn understood<M, T>(message: M) -> Result<T, Problem>
where
    T: TryFrom<M, Error = convert::Error>,
{
    T::try_from(message).map_err(|error| {
        Problem::new(
            Code::Internal,
            format!("the command does not make sense: {error}"),
        )
    })
}

pub(crate) fn bits(field: &'static str, bytes: &[u8]) -> Result<u128, Problem> {
    id_bits(field, bytes).map_err(|_| missing(field))
}

pub(crate) fn missing(field: &'static str) -> Problem {
    Problem::new(Code::Internal, "the command does not make sense").at(field)
}

pub(crate) fn not_found(what: &str, id: impl std::fmt::Display) -> Problem {
    Problem::new(Code::NotFound, format!("there is no {what} {id}"))
}

pub(crate) fn changed_meanwhile(what: &str) -> Problem {
    Problem::new(Code::Conflict, format!("the {what} was changed meanwhile"))
        .hint("read it again and repeat the change")
}
