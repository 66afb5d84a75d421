//! The commands, one a module: from arguments to requests and back to text. Thin: what is decided,
//! the server decides.

pub(crate) mod again;
pub(crate) mod alloc;
pub(crate) mod attach;
pub(crate) mod audit;
pub(crate) mod autoscale;
pub(crate) mod backup;
pub(crate) mod bucket;
pub(crate) mod ca;
pub(crate) mod certificates;
pub(crate) mod completions;
pub(crate) mod context;
pub(crate) mod cp;
pub(crate) mod cron;
pub(crate) mod deploy;
pub(crate) mod deployments;
pub(crate) mod domains;
pub(crate) mod env;
pub(crate) mod exec;
pub(crate) mod forge;
pub(crate) mod gates;
pub(crate) mod git;
pub(crate) mod history;
pub(crate) mod host;
pub(crate) mod import;
pub(crate) mod inventory;
pub(crate) mod jobs;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod notify;
pub(crate) mod operator;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod port_forward;
pub(crate) mod preview;
pub(crate) mod project;
pub(crate) mod provider;
pub(crate) mod ps;
pub(crate) mod quota;
pub(crate) mod rebalance;
pub(crate) mod registry;
pub(crate) mod relax;
pub(crate) mod releases;
pub(crate) mod restore;
pub(crate) mod rm;
pub(crate) mod rollout;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod schema;
pub(crate) mod server;
pub(crate) mod smoke;
pub(crate) mod stack;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod tcp_ports;
pub(crate) mod template;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod up;
pub(crate) mod volume;
pub(crate) mod webhook;
pub(crate) mod why;

use std::future::Future;

use crate::args::{Cli, Command, PartCommand};
use crate::failure::{Failure, chain};
use crate::session::Session;
use crate::{dev, parts};

/// Runs what was typed.
///
/// # Errors
/// What the command says.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let session = Session::new(&cli.global);
    let session = &session;
    match cli.command {
        Command::Dev(args) => dev::run(&args, session),
        Command::Server(server::Command::Part(part)) => parts::server::run(part),
        Command::Server(server::Command::Recover(args)) => server::recover(&args, session),
        Command::Server(server::Command::History(command)) => wait(history::run(&command, session)),
        Command::Backup(command) if command.is_offline() => backup::look(&command, session),
        Command::Restore(args) => restore::run(&args, session),
        Command::Agent(part) => parts::agent::run(part),
        Command::Net(args) => parts::net::run(*args),
        Command::Login(args) => login::run(&args, session),
        Command::Context(command) => context::run(&command, session),
        Command::Schema(args) => {
            schema::run(&args, session);
            Ok(())
        }
        Command::Completions(args) => {
            completions::run(&args);
            Ok(())
        }
        Command::Man(args) => completions::man(&args),
        command => wait(async {
            let result = speak(command, session).await;
            session.keep_servers().await;
            result
        }),
    }
}

/// Runs a part until it is told to end.
///
/// # Errors
/// What the part says.
pub(crate) fn run_part(command: PartCommand) -> Result<(), Failure> {
    match command {
        PartCommand::Server(part) => parts::server::run(part),
        PartCommand::Agent(part) => parts::agent::run(part),
        PartCommand::Net(args) => parts::net::run(*args),
    }
}

/// The commands that speak to a server.
async fn speak(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::run(args, session).await,
        Command::Deploy(args) => deploy::run(args, session).await,
        Command::Import(args) => import::run(args, session).await,
        Command::Redeploy(args) => again::redeploy(args, session).await,
        Command::Restart(args) => again::restart(args, session).await,
        Command::Rollback(args) => again::rollback(args, session).await,
        Command::Promote(args) => again::promote(args, session).await,
        Command::Gate(command) => gates::run(command, session).await,
        Command::Approve(args) => gates::approve(args, session).await,
        Command::Cancel(args) => gates::cancel(args, session).await,
        Command::Pin(args) => gates::pin(args, session).await,
        Command::Unpin(args) => gates::unpin(args, session).await,
        Command::Rollout(command) => rollout::run(command, session).await,
        Command::Scale(args) => scale::run(args, session).await,
        Command::Autoscale(command) => autoscale::run(command, session).await,
        Command::Stop(args) => stop::run(args, session).await,
        Command::Rm(args) => rm::run(args, session).await,
        Command::Status(args) => status::run(args, session).await,
        Command::Ps(args) => ps::run(args, session).await,
        Command::Why(args) => why::run(args, session).await,
        Command::Smoke(args) => smoke::run(args, session).await,
        Command::Inventory(args) => inventory::run(args, session).await,
        Command::Plan(args) => plan::run(args, session).await,
        Command::Diff(args) => project::diff(args, session).await,
        Command::Apply(args) => project::apply(args, session).await,
        Command::Export(args) => project::export(args, session).await,
        Command::Edit(args) => project::edit(args, session).await,
        Command::Template(command) => template::run(command, session).await,
        Command::Top(args) => top::run(args, session).await,
        Command::Logs(args) => logs::run(args, session).await,
        Command::Exec(args) => exec::run(args, session).await,
        Command::Attach(args) => attach::run(args, session).await,
        Command::Cp(args) => cp::run(args, session).await,
        Command::PortForward(args) => port_forward::run(args, session).await,
        Command::Run(args) => run::run(args, session).await,
        Command::Jobs(args) => jobs::run(args, session).await,
        Command::Cron(command) => cron::run(command, session).await,
        Command::Deployments(args) => deployments::run(args, session).await,
        Command::Releases(args) => releases::run(args, session).await,
        Command::Env(command) => env::run(command, session).await,
        Command::Webhook(command) => webhook::run(command, session).await,
        Command::Notify(command) => notify::run(command, session).await,
        Command::Preview(command) => preview::run(command, session).await,
        Command::Stack(command) => stack::run(command, session).await,
        Command::Rebalance(args) => rebalance::run(args, session).await,
        Command::Audit(args) => audit::run(args, session).await,
        Command::Pool(command) => pool::run(command, session).await,
        Command::Provider(command) => provider::run(command, session).await,
        Command::Certificates(command) => certificates::run(command, session).await,
        Command::Forge(command) => forge::run(command, session).await,
        Command::Git(command) => git::run(command, session).await,
        Command::Registry(command) => registry::run(command, session).await,
        Command::Bucket(command) => bucket::run(command, session).await,
        Command::Volume(command) => volume::run(command, session).await,
        Command::Domains(args) => domains::run(args, session).await,
        Command::TcpPorts(args) => tcp_ports::run(args, session).await,
        Command::Quota(command) => quota::run(command, session).await,
        Command::Relax(args) => relax::run(args, session).await,
        Command::Network(command) => network::run(command, session).await,
        Command::Node(command) => node::run(command, session).await,
        Command::Host(command) => host::run(command, session).await,
        Command::Token(command) => token::run(command, session).await,
        Command::Operator(command) => operator::run(command, session).await,
        Command::Ca(command) => ca::run(command, session).await,
        Command::Server(command) => server::run(command, session).await,
        Command::Servers => server::run(server::Command::Ls, session).await,
        Command::Backup(command) => backup::run(command, session).await,
        Command::Alloc(command) => alloc::run(command, session).await,
        Command::Dev(_)
        | Command::Restore(_)
        | Command::Agent(_)
        | Command::Net(_)
        | Command::Login(_)
        | Command::Schema(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Context(_) => unreachable!("run without a server by the caller"),
    }
}

/// Runs one conversation on this thread.
fn wait(conversation: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(chain(&error)))?;
    let result = runtime.block_on(conversation);
    // A packer that waits for a lost connection has nobody to tell.
    runtime.shutdown_background();
    result
}
