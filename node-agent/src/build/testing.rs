//! What the tests of builds have in common.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use skep_model::id::{ClusterId, NodeId, UploadId};
use skep_model::problem::{Code, Problem};

use super::{Env, UploadStream, Uploads};
use crate::runtime::transport::Socket;

/// Uploads that are these parts.
pub(super) struct Ready(pub(super) Vec<Result<Bytes, Problem>>);

impl Uploads for Ready {
    fn fetch(&self, _: UploadId) -> BoxFuture<'static, Result<UploadStream, Problem>> {
        let parts = self.0.clone();
        Box::pin(async move { Ok(stream::iter(parts).boxed()) })
    }
}

/// Uploads that nobody sends.
pub(super) struct Gone;

impl Uploads for Gone {
    fn fetch(&self, _: UploadId) -> BoxFuture<'static, Result<UploadStream, Problem>> {
        let problem = Problem::new(Code::SourceFailed, "the upload is gone: upload again");
        Box::pin(async move { Err(problem) })
    }
}

/// An environment without a Docker daemon.
pub(super) fn env(work_dir: &Path, uploads: Arc<dyn Uploads>) -> Env {
    let socket = work_dir.join("no-docker.sock");
    // The client wants a socket to exist when it is made; nothing listens on it.
    drop(std::os::unix::net::UnixListener::bind(&socket));
    let path = socket.to_string_lossy().into_owned();
    Env {
        docker: bollard::Docker::connect_with_unix(&path, 5, bollard::API_DEFAULT_VERSION)
            .expect("a client"),
        socket: Socket::new(&socket),
        cluster: ClusterId::from_u128(1),
        node: NodeId::from_u128(2),
        work_dir: work_dir.to_owned(),
        copies: super::Copies::new(work_dir.join("copies")),
        stores: super::Stores::new(work_dir.join("pushed")),
        uploads,
        images: None,
        logins: Default::default(),
        tools: Default::default(),
    }
}

/// A gzip-compressed tar of `folder`, in small pieces.
pub(super) fn packed(folder: &Path) -> Vec<Result<Bytes, Problem>> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    super::context::pack(folder, &mut gzip).expect("packed");
    let bytes = gzip.finish().expect("compressed");
    bytes
        .chunks(100)
        .map(|part| Ok(Bytes::copy_from_slice(part)))
        .collect()
}
