//! What every command gets: how to print, and how to reach the server that is meant.

use crate::args::Global;
use crate::client::Client;
use crate::context::{Context, Contexts};
use crate::failure::Failure;
use crate::output::Output;

/// One run of the command line.
pub(crate) struct Session {
    /// Where to print, and in which form.
    pub(crate) out: Output,
    context: Option<String>,
}

impl Session {
    /// The session that the global options describe.
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            out: Output::new(global.json),
            context: global.context.clone(),
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

    /// A client for the server of that context. Connects at the first request.
    ///
    /// # Errors
    /// As [`Session::context`].
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(self.context()?)?)
    }
}
