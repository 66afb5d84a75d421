//! What the API takes and gives, as clients import it. Plain data: nothing here decides.

mod autoscale;
mod ca;
mod certificate;
mod cluster;
mod deployment;
mod domain;
mod forge;
mod forge_app;
mod gate;
mod host;
mod job;
mod log;
mod network;
mod node_pool;
mod notify;
mod placement;
mod preview;
mod rebalance;
mod registry;
mod resize;
mod rollout;
mod sample;
mod server;
mod service;
mod settings;
pub mod shell;
mod stack;
mod tcp;
mod volume;

pub use crate::history::{AuditEntry, Event, EventKind};
pub use autoscale::{AdviceView, AutoscaleView, MeasuredTarget, PushRequest, PushView};
pub use ca::{CaPhase, CaStep, CaView, RotateCaRequest, TrustedCa, WaitingFor};
pub use certificate::{
    CertificateCounts, CertificateRequest, CertificatesView, DnsRequest, IssuerRequest, LocalCaView,
};
pub use cluster::{
    AdminRequest, AdminState, AuditView, FenceRequest, HistoryView, MetaRequest, MetaView,
    NodeCounts, NodeView, NodesView, RestoringView, StatusView,
};
pub use deployment::{
    AllocationView, AllocationsView, DeploymentRequest, DeploymentView, DeploymentsView,
    QuarantinedView, ReleaseView, ReleasesView,
};
pub use domain::{
    BaseDomainRequest, BaseDomainView, DomainProofRequest, DomainProofView, DomainRoute,
    DomainView, DomainsView,
};
pub use forge::{ForgeRequest, ForgeTestView, ForgeView, ForgesView};
pub use forge_app::{
    BrowserStepView, ForgeAppRequest, ForgeAppView, ForgeAppsView, InstallationView,
    RotateAppRequest,
};
pub use gate::{ApproveRequest, FrozenView, GatesRequest, GatesView, PinRequest};
pub use host::{
    HostDrainRequest, HostMaintenanceView, HostMemoryView, HostMoveView, HostPlanView, HostsView,
    PhysicalHostView,
};
pub use job::{CauseView, JobView, JobsView, RunRequest, ScheduleRequest, ScheduleView};
pub use log::{
    AppLine, EndView, HookEvent, HookReply, LogPage, LostLines, RepositoryWebhookRequest,
    RepositoryWebhookView, RepositoryWebhooksView, UploadView, WebhookView,
};
pub use network::{
    NetworkCheckView, NetworkNodeView, NetworkPairView, NetworkProblemView, NetworkView,
    OverlapView, PrivateEnvironmentView, PrivatePoolRequest, PrivatePoolView, PrivateServiceView,
};
pub(crate) use node_pool::stage;
pub use node_pool::{
    BackupBegunView, DepartedArchiveView, GuestArchiveView, GuestBackupsView, GuestView, HostView,
    IntroductionView, MachineStateView, NodePlanView, NodePoolRequest, NodePoolSizeRequest,
    NodePoolView, NodePoolsView, OrphanView, PoolBackupsView, ProgramGuestView, ProgramStateView,
    ProviderRequest, ProviderStateView, ProviderView, ProvidersView, RemovePoolBackupsRequest,
    RestoreRequest, RetireRequest,
};
pub use notify::{
    AttemptView, NotificationState, NotificationView, NotificationsView, OwnRequest,
    ReceiverRequest, ReceiverView, ReceiversView, RetryRequest,
};
pub use placement::{
    AllocationReason, NodeAnswer, PlanRequest, PlanView, PlannedEnd, PlannedStart, PlannedStep,
    WhyView,
};
pub use preview::{
    AllPreviewRulesView, CommentState, CommentView, ExtendRequest, PreviewRequest,
    PreviewRulesRequest, PreviewRulesView, PreviewServiceView, PreviewView, PreviewsView,
    PullRequestView,
};
pub use rebalance::{BegunView, MoveView, RebalanceRequest, RebalanceView};
pub use resize::{ResizePlanView, ResizeRequest};
pub use rollout::{
    ComparedCounts, ComparedView, ReleaseCounts, RolloutProgressView, RolloutRequest, RolloutView,
};
pub use sample::{
    AllocationSampleView, DetailView, NodeSampleView, SamplesView, ServiceSampleView,
};
pub use server::{
    GivenToken, OperatorRequest, OperatorView, ServerReport, ServerRole, ServerView, ServersView,
    TokenRequest, TokenView, TokensView,
};
pub use service::{
    AllocationCounts, EffectsView, KeepVariable, PatchSharedVariables, PatchVariables, PutService,
    ScaleRequest, ServiceState, ServiceView, ServicesView, SharedVariablesView, StackedView,
    VariableView, VariablesView,
};
pub use stack::{
    StackGoneView, StackReadingView, StackRemovals, StackServiceView, StackState, StackView,
    StacksView,
};

pub use registry::{
    ImagePushView, PushRegistryRequest, PushRegistryView, RegistriesView, RegistryRequest,
    WaitingPushView,
};
pub use settings::{PoolRequest, PoolsView, QuotaView, QuotasView, RelaxedRequest, UsedView};
pub use tcp::{TcpPortView, TcpPortsRequest, TcpPortsView};
pub use volume::{CloneRequest, SnapshotRequest, VolumeState, VolumeView, VolumesView};

use serde::{Deserialize, Serialize};
use skep_model::problem::{Code, Problem};
use utoipa::ToSchema;

/// The one shape of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The class: stable, made to be matched on.
    pub code: Code,
    /// One sentence for a person.
    pub message: String,
    /// The field at fault, as a path, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do, or what is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the same request may succeed later without a change.
    pub retryable: bool,
}

impl From<Problem> for ErrorBody {
    fn from(problem: Problem) -> Self {
        let Problem {
            code,
            message,
            field,
            hint,
        } = problem;
        Self {
            code,
            message,
            field,
            hint,
            retryable: code.is_retryable(),
        }
    }
}

impl From<ErrorBody> for Problem {
    fn from(body: ErrorBody) -> Self {
        let ErrorBody {
            code,
            message,
            field,
            hint,
            ..
        } = body;
        Self {
            code,
            message,
            field,
            hint,
        }
    }
}
