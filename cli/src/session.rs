//! What every command gets: how to print, and how to reach the cluster that is meant.

use std::sync::OnceLock;

use skep_control_plane::api::types::ServersView;

use crate::args::Global;
use crate::client::Client;
use crate::commands::server;
use crate::context::{Context, Contexts};
use crate::failure::Failure;
use crate::output::Output;

/// One run of the command line.
pub(crate) struct Session {
    /// Where to print, and in which form.
    pub(crate) out: Output,
    context: Option<String>,
    /// Made for the command, once.
    client: OnceLock<(Context, Client)>,
}

impl Session {
    /// The session that the global options describe.
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            out: Output::new(global.json),
            context: global.context.clone(),
            client: OnceLock::new(),
        }
    }

    /// The context that is meant: `--context`, else the current one.
    ///
    /// # Errors
    /// There is none, or the file cannot be read.
    pub(crate) fn context(&self) -> Result<Context, Failure> {
        let contexts = Contexts::load()?;
        Ok(contexts.pick(self.context.as_deref())?.clone())
    }

    /// A client for the servers of that context. Connects at the first request.
    ///
    /// # Errors
    /// As [`Session::context`].
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        if let Some((_, client)) = self.client.get() {
            return Ok(client.clone());
        }
        let context = self.context()?;
        let client = Client::new(context.clone())?;
        // Nobody else makes one meanwhile: a command runs on one thread.
        let _ = self.client.set((context, client.clone()));
        Ok(client)
    }

    /// Keeps the list of servers for the next command, where the one at hand is not right any more.
    /// Nobody asked for it: what goes wrong here is not told.
    pub(crate) async fn keep_servers(&self) {
        let Some((context, client)) = self.client.get().filter(|(_, it)| it.is_outdated()) else {
            return;
        };
        let asked = client.get::<ServersView>("/v1/servers");
        let Ok(Ok(view)) = tokio::time::timeout(server::QUIET_DEADLINE, asked).await else {
            return;
        };
        let servers = server::urls(&view);
        // A file in a folder of the user's own: a moment on the disk.
        let _ = Contexts::update(|contexts| {
            contexts.keep_servers(context, servers);
            Ok(())
        });
    }
}
