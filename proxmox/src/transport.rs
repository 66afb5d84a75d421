//! The seam between what is asked and how it gets there.

use std::future::Future;

use bytes::Bytes;

/// What came back, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP's status.
    pub status: u16,
    /// The reason phrase: hosts before 8.4 say there, and nowhere else, what is wrong.
    pub reason: String,
    /// The body; JSON, plain text or nothing.
    pub body: Bytes,
}

/// Nothing came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request has reached nobody: it can be made again.
    #[error("{0}")]
    NotSent(String),
    /// It may have been carried out.
    #[error("{0}")]
    Unknown(String),
}

/// Carries requests to a Proxmox cluster. The URI of a request has no host: the transport knows them.
pub trait Transport: Send + Sync {
    /// Carries one.
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> impl Future<Output = Result<Reply, Failure>> + Send;
}
