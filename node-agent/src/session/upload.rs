//! Folders that clients stream to a build, fetched through the server.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use skep_model::id::UploadId;
use skep_model::problem::{Code, Problem};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;

use crate::build::Uploads;
use crate::servers::Servers;

/// Uploads as the servers relay them.
pub(crate) struct ServerUploads {
    /// Whom to ask.
    pub(crate) servers: Servers,
}

impl Uploads for ServerUploads {
    fn fetch(
        &self,
        upload: UploadId,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Problem>>, Problem>> {
        let mut client = AgentsClient::new(self.servers.channel());
        let request = v1::FetchUploadRequest {
            upload: id_bytes(upload.as_u128()),
        };
        async move {
            let chunks = client
                .fetch_upload(request)
                .await
                .map_err(lost)?
                .into_inner();
            let bytes =
                chunks.map(|chunk| chunk.map(|chunk| Bytes::from(chunk.data)).map_err(lost));
            Ok(bytes.boxed())
        }
        .boxed()
    }
}

fn lost(status: tonic::Status) -> Problem {
    Problem::new(
        Code::SourceFailed,
        format!("the uploaded folder did not arrive: {}", status.message()),
    )
    .hint("upload again: nothing of it is kept on the way")
}
