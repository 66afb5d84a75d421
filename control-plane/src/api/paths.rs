//! Every path of the API, and what each asks of whoever calls it.

use axum::Json;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Action, protected, public};
use super::{App, Document, Here};
use super::{
    allocations, app_logs, autoscale, backup, ca, certificates, deployment_logs, deployments,
    domains, fencing, forges, gates, git, github, guest_backups, guest_resize, health, hooks,
    hosts, introductions, jobs, local_ca, metrics, network, node_pools, nodes, notify, placement,
    pool_backups, previews, proof, providers, rebalance, registries, rollouts, samples, servers,
    services, settings, shared_variables, shells, stacks, tcp_ports, tokens, uploads, variables,
    volumes,
};

/// Every route with what it asks of the caller: a route is registered by `protected` with its action
/// or by `public`, and there is no third way.
pub(super) fn assemble(app: &App) -> OpenApiRouter<App> {
    let deployments = deployment_routes(app);
    let cluster = cluster_routes(app);
    service_routes(app)
        .merge(deployments)
        .merge(cluster)
        .merge(server_routes(app))
        .merge(autoscale_routes(app))
        .merge(job_routes(app))
        .merge(settings_routes(app))
        .merge(shell_routes(app))
        .merge(volume_routes(app))
        .routes(public(routes!(openapi_json)))
        .routes(public(routes!(health::healthz)))
        .routes(public(routes!(health::health)))
        .routes(public(routes!(health::v1_health)))
        .routes(public(routes!(health::readyz)))
        .routes(public(routes!(metrics::metrics)))
        .routes(public(routes!(hooks::receive)))
        .routes(public(routes!(hooks::receive_repository)))
        .routes(public(routes!(hooks::receive_app)))
        .routes(public(routes!(github::make)))
        .routes(public(routes!(github::made)))
        .routes(public(routes!(github::installed)))
        .merge(repository_hook_routes(app))
        .merge(receiver_routes(app))
        .merge(preview_routes(app))
        .merge(stack_routes(app))
        .merge(forge_routes(app))
        .merge(git_routes(app))
}

/// What git speaks, at paths of its own.
fn git_routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(protected(app, Action::ReadPushed, routes!(git::refs)))
        .routes(protected(app, Action::PushGit, routes!(git::receive)))
}

fn preview_routes(app: &App) -> OpenApiRouter<App> {
    let (read, set) = (Action::ReadPreviews, Action::SetPreview);
    let rules = Action::SetPreviewRules;
    OpenApiRouter::new()
        .routes(protected(app, read, routes!(previews::list)))
        .routes(protected(app, read, routes!(previews::get)))
        .routes(protected(app, set, routes!(previews::create)))
        .routes(protected(app, set, routes!(previews::extend)))
        .routes(protected(app, set, routes!(previews::remove)))
        .routes(protected(app, read, routes!(previews::list_rules)))
        .routes(protected(app, rules, routes!(previews::put_rules)))
        .routes(protected(app, rules, routes!(previews::remove_rules)))
}

fn stack_routes(app: &App) -> OpenApiRouter<App> {
    let (read, set) = (Action::ReadStacks, Action::SetStack);
    OpenApiRouter::new()
        .routes(protected(app, read, routes!(stacks::list)))
        .routes(protected(app, read, routes!(stacks::get)))
        .routes(protected(app, set, routes!(stacks::put)))
        .routes(protected(app, set, routes!(stacks::sync)))
        .routes(protected(app, set, routes!(stacks::removals)))
        .routes(protected(app, set, routes!(stacks::remove)))
}

fn repository_hook_routes(app: &App) -> OpenApiRouter<App> {
    let set = Action::SetRepositoryWebhook;
    OpenApiRouter::new()
        .routes(protected(
            app,
            Action::ReadRepositoryWebhooks,
            routes!(hooks::list_repositories),
        ))
        .routes(protected(app, set, routes!(hooks::put_repository)))
        .routes(protected(app, set, routes!(hooks::remove_repository)))
}

fn receiver_routes(app: &App) -> OpenApiRouter<App> {
    let (read, set) = (Action::ReadReceivers, Action::SetReceiver);
    let send = Action::SendNotification;
    OpenApiRouter::new()
        .routes(protected(app, read, routes!(notify::list)))
        .routes(protected(app, read, routes!(notify::show)))
        .routes(protected(app, set, routes!(notify::put)))
        .routes(protected(app, set, routes!(notify::remove)))
        .routes(protected(app, send, routes!(notify::test)))
        .routes(protected(app, send, routes!(notify::retry)))
}

fn forge_routes(app: &App) -> OpenApiRouter<App> {
    let (read, set) = (Action::ReadForges, Action::SetForge);
    OpenApiRouter::new()
        .routes(protected(app, read, routes!(forges::list)))
        .routes(protected(app, read, routes!(forges::show)))
        .routes(protected(app, set, routes!(forges::put)))
        .routes(protected(app, set, routes!(forges::remove)))
        .routes(protected(app, set, routes!(forges::test)))
        .routes(protected(app, read, routes!(github::list)))
        .routes(protected(app, read, routes!(github::show)))
        .routes(protected(app, set, routes!(github::create)))
        .routes(protected(app, set, routes!(github::install)))
        .routes(protected(app, set, routes!(github::rotate)))
        .routes(protected(app, set, routes!(github::remove)))
}

fn service_routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(protected(
            app,
            Action::ReadServices,
            routes!(services::list),
        ))
        .routes(protected(app, Action::ReadServices, routes!(services::get)))
        .routes(protected(app, Action::PutService, routes!(services::put)))
        .routes(protected(
            app,
            Action::RemoveService,
            routes!(services::remove),
        ))
        .routes(protected(app, Action::StopService, routes!(services::stop)))
        .routes(protected(
            app,
            Action::ScaleService,
            routes!(services::scale),
        ))
        .routes(protected(
            app,
            Action::PlanService,
            routes!(placement::why_service),
        ))
        .routes(protected(
            app,
            Action::PlanService,
            routes!(placement::plan_service),
        ))
        .routes(protected(
            app,
            Action::ReadVariables,
            routes!(variables::list),
        ))
        .routes(protected(
            app,
            Action::ChangeVariables,
            routes!(variables::patch),
        ))
        .routes(protected(
            app,
            Action::ReadVariables,
            routes!(shared_variables::list),
        ))
        .routes(protected(
            app,
            Action::ChangeVariables,
            routes!(shared_variables::patch),
        ))
        .routes(protected(
            app,
            Action::ReadServices,
            routes!(deployments::releases),
        ))
        .routes(protected(app, Action::ReadLogs, routes!(app_logs::read)))
        .routes(protected(app, Action::ReadWebhook, routes!(hooks::show)))
        .routes(protected(
            app,
            Action::RotateWebhook,
            routes!(hooks::rotate),
        ))
}

fn deployment_routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(protected(
            app,
            Action::DeployService,
            routes!(deployments::create),
        ))
        .routes(protected(
            app,
            Action::ReadDeployments,
            routes!(deployments::list),
        ))
        .routes(protected(
            app,
            Action::ReadDeployments,
            routes!(deployments::get),
        ))
        .routes(protected(
            app,
            Action::CancelDeployment,
            routes!(deployments::cancel),
        ))
        .routes(protected(
            app,
            Action::ApproveDeployment,
            routes!(gates::approve),
        ))
        .routes(protected(app, Action::PinService, routes!(gates::pin)))
        .routes(protected(app, Action::PinService, routes!(gates::unpin)))
        .routes(protected(app, Action::ReadDeployments, routes!(gates::get)))
        .routes(protected(app, Action::SetGates, routes!(gates::patch)))
        .routes(protected(
            app,
            Action::ReadDeployments,
            routes!(gates::get_workspace),
        ))
        .routes(protected(
            app,
            Action::SetGates,
            routes!(gates::patch_workspace),
        ))
        .routes(protected(
            app,
            Action::ReadDeployments,
            routes!(rollouts::get),
        ))
        .routes(protected(
            app,
            Action::ControlRollout,
            routes!(rollouts::control),
        ))
        .routes(protected(
            app,
            Action::ReadLogs,
            routes!(deployment_logs::read),
        ))
        .routes(protected(app, Action::UploadSource, routes!(uploads::put)))
}

fn cluster_routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(protected(
            app,
            Action::ReadServices,
            routes!(allocations::list),
        ))
        .routes(protected(app, Action::ReadServices, routes!(samples::list)))
        .routes(protected(
            app,
            Action::SettleQuarantine,
            routes!(allocations::adopt),
        ))
        .routes(protected(
            app,
            Action::SettleQuarantine,
            routes!(allocations::dismiss),
        ))
        .routes(protected(app, Action::ReadCluster, routes!(nodes::list)))
        .routes(protected(app, Action::RemoveNode, routes!(nodes::remove)))
        .routes(protected(app, Action::ReadCluster, routes!(hosts::list)))
        .routes(protected(app, Action::DrainHost, routes!(hosts::drain)))
        .routes(protected(app, Action::DrainHost, routes!(hosts::undrain)))
        .routes(protected(app, Action::CreateToken, routes!(tokens::create)))
        .routes(protected(app, Action::ReadTokens, routes!(tokens::list)))
        .routes(protected(app, Action::RevokeToken, routes!(tokens::revoke)))
        .routes(protected(
            app,
            Action::SetNodeMeta,
            routes!(nodes::put_meta),
        ))
        .routes(protected(
            app,
            Action::SetNodeAdmin,
            routes!(nodes::put_admin),
        ))
        .routes(protected(
            app,
            Action::ReadCluster,
            routes!(rebalance::show),
        ))
        .routes(protected(app, Action::Rebalance, routes!(rebalance::put)))
        .routes(protected(app, Action::Rebalance, routes!(rebalance::run)))
        .merge(network_routes(app))
        .routes(protected(app, Action::ReadStatus, routes!(nodes::status)))
        .routes(protected(app, Action::ReadAudit, routes!(nodes::audit)))
}

fn network_routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(protected(app, Action::ReadCluster, routes!(network::show)))
        .routes(protected(
            app,
            Action::CheckNetwork,
            routes!(network::check),
        ))
        .routes(protected(
            app,
            Action::SetPrivatePool,
            routes!(network::put_pool),
        ))
}

fn autoscale_routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(protected(
            app,
            Action::ReadServices,
            routes!(autoscale::show),
        ))
        .routes(protected(
            app,
            Action::ChangeAutoscale,
            routes!(autoscale::put),
        ))
        .routes(protected(
            app,
            Action::ChangeAutoscale,
            routes!(autoscale::remove),
        ))
        .routes(protected(
            app,
            Action::PushMetrics,
            routes!(autoscale::push),
        ))
}

fn job_routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(protected(app, Action::ReadServices, routes!(jobs::list)))
        .routes(protected(app, Action::ReadServices, routes!(jobs::get)))
        .routes(protected(app, Action::RunJob, routes!(jobs::run)))
        .routes(protected(app, Action::CancelJob, routes!(jobs::cancel)))
        .routes(protected(
            app,
            Action::ChangeSchedule,
            routes!(jobs::change_schedule),
        ))
}

fn settings_routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(protected(
            app,
            Action::ReadServices,
            routes!(settings::quotas),
        ))
        .routes(protected(
            app,
            Action::SetQuota,
            routes!(settings::put_quota),
        ))
        .routes(protected(
            app,
            Action::SetQuota,
            routes!(settings::put_workspace_quota),
        ))
        .routes(protected(
            app,
            Action::SetRelaxed,
            routes!(settings::put_relaxed),
        ))
        .routes(protected(
            app,
            Action::SetRelaxed,
            routes!(settings::put_workspace_relaxed),
        ))
        .routes(protected(app, Action::ReadServices, routes!(domains::list)))
        .routes(protected(
            app,
            Action::ReadServices,
            routes!(domains::get_base),
        ))
        .routes(protected(app, Action::ReadCluster, routes!(tcp_ports::get)))
        .routes(protected(app, Action::SetTcpPorts, routes!(tcp_ports::put)))
        .routes(protected(app, Action::ReadCluster, routes!(proof::get)))
        .routes(protected(app, Action::SetDomainProof, routes!(proof::put)))
        .routes(protected(
            app,
            Action::SetBaseDomain,
            routes!(domains::put_base),
        ))
        .routes(protected(
            app,
            Action::ReadCluster,
            routes!(settings::pools),
        ))
        .routes(protected(app, Action::SetPool, routes!(settings::put_pool)))
        .routes(protected(
            app,
            Action::SetPool,
            routes!(settings::remove_pool),
        ))
        .routes(protected(
            app,
            Action::ReadCluster,
            routes!(registries::list),
        ))
        .routes(protected(
            app,
            Action::SetRegistry,
            routes!(registries::put),
        ))
        .routes(protected(
            app,
            Action::SetRegistry,
            routes!(registries::remove),
        ))
        .merge(push_registry_routes(app))
        .merge(node_pool_routes(app))
        .merge(certificate_routes(app))
}

fn node_pool_routes(app: &App) -> OpenApiRouter<App> {
    let read = Action::ReadCluster;
    let (provider, pool) = (Action::SetProvider, Action::SetNodePool);
    OpenApiRouter::new()
        .routes(protected(app, read, routes!(providers::list)))
        .routes(protected(app, read, routes!(providers::state)))
        .routes(protected(app, provider, routes!(providers::put)))
        .routes(protected(app, provider, routes!(providers::remove)))
        .routes(protected(app, read, routes!(node_pools::list)))
        .routes(protected(app, read, routes!(node_pools::get)))
        .routes(protected(app, read, routes!(node_pools::plan_pool)))
        .routes(protected(app, pool, routes!(node_pools::put)))
        .routes(protected(app, pool, routes!(node_pools::scale)))
        .routes(protected(app, pool, routes!(node_pools::upgrade)))
        .routes(protected(app, pool, routes!(node_pools::remove)))
        .routes(protected(app, read, routes!(pool_backups::list)))
        .routes(protected(
            app,
            Action::RemovePoolBackups,
            routes!(pool_backups::remove),
        ))
        .routes(protected(
            app,
            Action::RetireNode,
            routes!(node_pools::retire),
        ))
        .routes(protected(
            app,
            Action::IntroduceGuest,
            routes!(introductions::introduce),
        ))
        .routes(protected(app, read, routes!(guest_backups::list)))
        .routes(protected(
            app,
            Action::BackUpNode,
            routes!(guest_backups::begin),
        ))
        .routes(protected(
            app,
            Action::RestoreNode,
            routes!(guest_backups::restore),
        ))
        .routes(protected(
            app,
            Action::ResizeNode,
            routes!(guest_resize::resize),
        ))
        .routes(protected(app, Action::FenceNode, routes!(fencing::fence)))
}

fn push_registry_routes(app: &App) -> OpenApiRouter<App> {
    let (read, set) = (Action::ReadCluster, Action::SetPushRegistry);
    OpenApiRouter::new()
        .routes(protected(app, read, routes!(registries::show_push)))
        .routes(protected(app, set, routes!(registries::put_push)))
        .routes(protected(app, set, routes!(registries::remove_push)))
}

fn certificate_routes(app: &App) -> OpenApiRouter<App> {
    let set = Action::SetCertificate;
    OpenApiRouter::new()
        .routes(protected(
            app,
            Action::ReadCluster,
            routes!(certificates::list),
        ))
        .routes(protected(app, set, routes!(certificates::put)))
        .routes(protected(app, set, routes!(certificates::remove)))
        .routes(protected(app, set, routes!(certificates::renew)))
        .routes(protected(
            app,
            Action::SetIssuer,
            routes!(certificates::put_issuer),
        ))
        .routes(protected(
            app,
            Action::SetIssuer,
            routes!(certificates::remove_issuer),
        ))
        .routes(protected(app, Action::ReadCluster, routes!(local_ca::get)))
        .routes(protected(app, Action::SetIssuer, routes!(local_ca::make)))
        .routes(protected(app, Action::SetIssuer, routes!(local_ca::remove)))
}

fn shell_routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(protected(app, Action::Exec, routes!(shells::exec)))
        .routes(protected(app, Action::Attach, routes!(shells::attach)))
        .routes(protected(app, Action::CopyOut, routes!(shells::copy_out)))
        .routes(protected(app, Action::CopyIn, routes!(shells::copy_in)))
        .routes(protected(
            app,
            Action::ForwardPort,
            routes!(shells::forward),
        ))
}

fn volume_routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(protected(app, Action::ReadVolumes, routes!(volumes::list)))
        .routes(protected(
            app,
            Action::RemoveVolume,
            routes!(volumes::remove),
        ))
        .routes(protected(
            app,
            Action::SnapshotVolume,
            routes!(volumes::snapshot),
        ))
        .routes(protected(app, Action::CloneVolume, routes!(volumes::clone)))
}

fn server_routes(app: &App) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(protected(app, Action::ReadStatus, routes!(servers::report)))
        .routes(protected(app, Action::ReadStatus, routes!(servers::list)))
        .routes(protected(
            app,
            Action::RemoveServer,
            routes!(servers::remove),
        ))
        .routes(protected(
            app,
            Action::TransferLeader,
            routes!(servers::transfer),
        ))
        .routes(protected(app, Action::ReadStatus, routes!(ca::get)))
        .routes(protected(app, Action::RotateCa, routes!(ca::rotate)))
        .routes(protected(
            app,
            Action::CreateOperator,
            routes!(tokens::create_operator),
        ))
        .routes(protected(
            app,
            Action::CreateBackup,
            routes!(backup::create),
        ))
}

/// The OpenAPI document of this server.
#[utoipa::path(get, path = "/openapi.json", tag = "health", operation_id = "openapi",
    responses((status = 200, body = serde_json::Value)))]
async fn openapi_json(Here(app): Here) -> Json<OpenApi> {
    Json(app.document.get().cloned().unwrap_or_default())
}
