//! What can be asked for, one by one, and what of that changes something.

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $word:literal $kind:ident),+ $(,)?) => {
        /// What is asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Action {
            $($(#[$doc])* $name),+
        }

        impl Action {
            /// The word, as the audit trail writes it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word),+
                }
            }

            /// Whether it changes something: then it is audited, and finished even if the caller
            /// hangs up.
            pub const fn is_write(self) -> bool {
                match self {
                    $(Self::$name => actions!(@ $kind)),+
                }
            }

            /// Whether it is about the asked server itself, and answered from what it knows.
            pub const fn is_local(self) -> bool {
                match self {
                    $(Self::$name => actions!(! $kind)),+
                }
            }

            /// Whether git asks: it sends the token as a password, and shows plain text.
            pub const fn is_git(self) -> bool {
                matches!(self, Self::ReadPushed | Self::PushGit)
            }

            /// Whether its body is taken in as it comes, under deadlines of its own.
            pub const fn is_stream(self) -> bool {
                matches!(self, Self::UploadSource | Self::PushGit)
            }

            /// Whether it opens a shell, whose handler audits when it begins and when it ends;
            /// whoever is refused one is audited, too.
            pub const fn is_shell(self) -> bool {
                match self {
                    $(Self::$name => actions!(# $kind)),+
                }
            }
        }
    };
    (@ write) => { true };
    (@ $other:ident) => { false };
    (! local) => { true };
    (! $other:ident) => { false };
    (# shell) => { true };
    (# $other:ident) => { false };
}

actions! {
    /// See services, releases and allocations.
    ReadServices = "read_services" read,
    /// Create or change a service.
    PutService = "put_service" write,
    /// Remove a service.
    RemoveService = "remove_service" write,
    /// Stop a service.
    StopService = "stop_service" write,
    /// Change the number of a service's allocations.
    ScaleService = "scale_service" write,
    /// Give a service an autoscaler, change it, take it away.
    ChangeAutoscale = "change_autoscale" write,
    /// Push numbers that a service is scaled by: many a minute, so they are not audited.
    PushMetrics = "push_metrics" read,
    /// Run a job of a service.
    RunJob = "run_job" write,
    /// Cancel a job.
    CancelJob = "cancel_job" write,
    /// Pause or resume a schedule.
    ChangeSchedule = "change_schedule" write,
    /// See variables; never secrets.
    ReadVariables = "read_variables" read,
    /// Set and unset variables.
    ChangeVariables = "change_variables" write,
    /// Ask where a service could run, and what a change of it would do.
    PlanService = "plan_service" read,
    /// Deploy, redeploy, restart, roll back.
    DeployService = "deploy_service" write,
    /// See what can be pushed on.
    ReadPushed = "read_pushed" read,
    /// Push a branch or a tag with git.
    PushGit = "push_git" write,
    /// See deployments.
    ReadDeployments = "read_deployments" read,
    /// Say yes to a deployment that waits for that.
    ApproveDeployment = "approve_deployment" write,
    /// Keep a service as it is, and take that back.
    PinService = "pin_service" write,
    /// Say what holds deployments up.
    SetGates = "set_gates" write,
    /// Cancel a deployment.
    CancelDeployment = "cancel_deployment" write,
    /// Pause, resume, promote or abort a rollout.
    ControlRollout = "control_rollout" write,
    /// Send the folder of a deployment.
    UploadSource = "upload_source" write,
    /// Read build logs and app logs.
    ReadLogs = "read_logs" read,
    /// Run a command in a running container.
    Exec = "exec" shell,
    /// See what a running container writes, as it writes it.
    Attach = "attach" shell,
    /// Read files of a running container.
    CopyOut = "copy_out" shell,
    /// Write files into a running container.
    CopyIn = "copy_in" shell,
    /// Connect to any port of a running container.
    ForwardPort = "forward_port" shell,
    /// See where a service's webhook is.
    ReadWebhook = "read_webhook" read,
    /// See which repositories have a webhook.
    ReadRepositoryWebhooks = "read_repository_webhooks" read,
    /// Make, renew and remove the webhook of a repository.
    SetRepositoryWebhook = "set_repository_webhook" write,
    /// Make a service's webhook secret.
    RotateWebhook = "rotate_webhook" write,
    /// See forge connections; never their tokens.
    ReadForges = "read_forges" read,
    /// Make, try and remove forge connections.
    SetForge = "set_forge" write,
    /// See receivers of notifications, and what they were told; never their secrets.
    ReadReceivers = "read_receivers" read,
    /// Make, change and remove receivers of notifications.
    SetReceiver = "set_receiver" write,
    /// Send a receiver a test, or what it was told again.
    SendNotification = "send_notification" write,
    /// See previews, and what environments say of them; never secrets.
    ReadPreviews = "read_previews" read,
    /// Make, prolong and remove previews.
    SetPreview = "set_preview" write,
    /// Say what an environment's previews are like.
    SetPreviewRules = "set_preview_rules" write,
    /// See which environments follow a Compose file, and what came of it.
    ReadStacks = "read_stacks" read,
    /// Let an environment follow a Compose file, change and end that, approve what it removes.
    SetStack = "set_stack" write,
    /// See nodes.
    ReadCluster = "read_cluster" read,
    /// See how the servers do, with or without a leader.
    ReadStatus = "read_status" local,
    /// Remove a node.
    RemoveNode = "remove_node" write,
    /// Change a node's metadata.
    SetNodeMeta = "set_node_meta" write,
    /// Cordon, drain, or take a node back.
    SetNodeAdmin = "set_node_admin" write,
    /// Empties a physical host, or takes it back.
    DrainHost = "drain_host" write,
    /// Set how the cluster is rebalanced, and begin moves.
    Rebalance = "rebalance" write,
    /// Say what a workspace or an environment may have.
    SetQuota = "set_quota" write,
    /// Say whether constraints of an environment are preferences.
    SetRelaxed = "set_relaxed" write,
    /// Say what the generated names of an environment end in.
    SetBaseDomain = "set_base_domain" write,
    /// Say which ports services may have for connections.
    SetTcpPorts = "set_tcp_ports" write,
    /// Say whether projects prove that domains are theirs.
    SetDomainProof = "set_domain_proof" write,
    /// Let all nodes dial one another.
    CheckNetwork = "check_network" read,
    /// Choose from where private addresses are given.
    SetPrivatePool = "set_private_pool" write,
    /// Change the policy of a pool.
    SetPool = "set_pool" write,
    /// Say how a provider that makes guests is reached.
    SetProvider = "set_provider" write,
    /// Make, change, scale, renew and remove pools that make their nodes.
    SetNodePool = "set_node_pool" write,
    /// Remove copies of guests that have left their pool.
    RemovePoolBackups = "remove_pool_backups" write,
    /// Have a node of a pool removed with its guest, or replaced.
    RetireNode = "retire_node" write,
    /// Make the text that has a machine join as a guest's node, with a join token.
    IntroduceGuest = "introduce_guest" write,
    /// Copy a node's guest.
    BackUpNode = "back_up_node" write,
    /// Have a node's guest become an older copy of itself.
    RestoreNode = "restore_node" write,
    /// Give a node's guest another size.
    ResizeNode = "resize_node" write,
    /// Confirm that a lost node is dead, so that what it ran goes on elsewhere.
    FenceNode = "fence_node" write,
    /// Change as whom nodes pull from a registry.
    SetRegistry = "set_registry" write,
    /// Say where the workspace's images are pushed.
    SetPushRegistry = "set_push_registry" write,
    /// Upload, renew or remove a certificate of apps.
    SetCertificate = "set_certificate" write,
    /// Say who issues certificates for apps.
    SetIssuer = "set_issuer" write,
    /// See volumes and their sizes.
    ReadVolumes = "read_volumes" read,
    /// Delete a volume or a snapshot.
    RemoveVolume = "remove_volume" write,
    /// Keep what a volume holds.
    SnapshotVolume = "snapshot_volume" write,
    /// Make a volume out of another.
    CloneVolume = "clone_volume" write,
    /// Remove a server.
    RemoveServer = "remove_server" write,
    /// Hand leadership to another server.
    TransferLeader = "transfer_leader" write,
    /// See the join tokens that are good, without their secrets.
    ReadTokens = "read_tokens" read,
    /// Make a join token.
    CreateToken = "create_token" write,
    /// Revoke a join token.
    RevokeToken = "revoke_token" write,
    /// Sign an operator's certificate.
    CreateOperator = "create_operator" write,
    /// Take a backup of everything.
    CreateBackup = "create_backup" read,
    /// Adopt or dismiss what is in quarantine.
    SettleQuarantine = "settle_quarantine" write,
    /// Replace the cluster's CA.
    RotateCa = "rotate_ca" write,
    /// Read the audit trail.
    ReadAudit = "read_audit" read,
    /// Read the server's metrics.
    ReadMetrics = "read_metrics" read,
}
