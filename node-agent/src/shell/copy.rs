//! Files of a container, as tars that Docker makes and unpacks: it alone resolves paths there, and
//! never leaves the container's root.

use std::io;
use std::time::Duration;

use bollard::container::PathStatResponse;
use bollard::errors::Error;
use bollard::query_parameters::{
    ContainerArchiveInfoOptions, DownloadFromContainerOptions, UploadToContainerOptions,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::wire::{Inbox, Input, Wire};
use super::{begun, refused};
use crate::runtime::{self, Runtime};

/// A look at a path.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Chunks between the stream and Docker.
const CHUNKS: usize = 2;
/// Go's bit of a folder in a file's mode, as Docker sends it.
const GO_MODE_DIR: u32 = 1 << 31;

/// Sends a file or folder.
pub(super) async fn out(
    runtime: &Runtime,
    (container, path): (&str, &str),
    wire: &Wire,
) -> Result<(), Problem> {
    let found = look(runtime, container, path).await?;
    let Some(found) = found else {
        let text = format!("there is no `{}` in the container", path.escape_debug());
        return Err(Problem::new(Code::NotFound, text).at("path"));
    };
    // Of the root, and of a path that ends in a dot, the entries have no common name.
    let name = Some(found.name).filter(|name| !matches!(name.as_str(), "" | "/" | "." | ".."));
    begun(wire, name).await?;
    let options = DownloadFromContainerOptions {
        path: path.to_owned(),
    };
    let docker = runtime.docker();
    let mut chunks = std::pin::pin!(docker.download_from_container(container, Some(options)));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|source| failed("read the files", source))?;
        wire.data(chunk, false).await?;
    }
    Ok(())
}

/// Unpacks what comes. Only an announced end is one: of what breaks off, Docker keeps what was whole.
pub(super) async fn into(
    runtime: &Runtime,
    (container, path): (&str, &str),
    wire: &Wire,
    mut inbox: Inbox,
) -> Result<(), Problem> {
    let (folder, name) = target(runtime, container, path).await?;
    begun(wire, name).await?;
    let (chunks, body) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
    let options = UploadToContainerOptions {
        path: folder,
        no_overwrite_dir_non_dir: Some("1".to_owned()),
        copy_uidgid: None,
    };
    let body = bollard::body_try_stream(ReceiverStream::new(body));
    let docker = runtime.docker();
    let unpacked = docker.upload_to_container(container, Some(options), body);
    let pass = async {
        while let Some(input) = inbox.next().await {
            match input {
                Input::Data(data) => {
                    let bytes = data.len();
                    if chunks.send(Ok(data)).await.is_err() {
                        // Docker has stopped reading: its answer says why.
                        break;
                    }
                    wire.release(bytes).await?;
                }
                Input::Eof => {
                    drop(chunks);
                    return Ok(());
                }
                Input::Resize(_) => {}
            }
        }
        // A tar that ends too early may look whole: this one must not.
        let _ = chunks.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
        Ok::<(), Problem>(())
    };
    let (passed, unpacked) = tokio::join!(pass, unpacked);
    unpacked.map_err(|source| failed("write the files", source))?;
    passed
}

/// The folder to unpack in, and the name that the first entry is to have; none: it keeps its own.
async fn target(
    runtime: &Runtime,
    container: &str,
    path: &str,
) -> Result<(String, Option<String>), Problem> {
    let found = look(runtime, container, path).await?;
    let is_folder = found
        .as_ref()
        .is_some_and(|found| found.file_mode & GO_MODE_DIR != 0);
    // A link may lead to a folder: with a slash behind it, Docker follows it.
    let is_folder = is_folder
        || (found.is_some()
            && look(runtime, container, &format!("{path}/"))
                .await?
                .is_some());
    if is_folder {
        return Ok((path.to_owned(), None));
    }
    let absent = |path: &str| {
        let text = format!(
            "there is no folder `{}` in the container",
            path.escape_debug()
        );
        Problem::new(Code::NotFound, text)
            .at("path")
            .hint("copy into a folder that exists, or name a file in one")
    };
    match path.rsplit_once('/') {
        Some((parent, name)) if !name.is_empty() => {
            let parent = format!("{parent}/");
            if look(runtime, container, &parent).await?.is_none() {
                return Err(absent(&parent));
            }
            Ok((parent, Some(name.to_owned())))
        }
        _ => Err(absent(path)),
    }
}

/// What a path is; none: nothing.
async fn look(
    runtime: &Runtime,
    container: &str,
    path: &str,
) -> Result<Option<PathStatResponse>, Problem> {
    const WHAT: &str = "look at the path";
    let options = ContainerArchiveInfoOptions {
        path: path.to_owned(),
    };
    let docker = runtime.docker();
    let asked = docker.get_container_archive_info(container, Some(options));
    match timeout(CALL_TIMEOUT, asked).await {
        Ok(Ok(found)) => Ok(Some(found)),
        // Not a folder, though a slash says so, is told as a bad request.
        Ok(Err(Error::DockerResponseServerError {
            status_code: 400 | 404,
            ..
        })) => Ok(None),
        Ok(Err(source)) => Err(failed(WHAT, source)),
        Err(_) => {
            let (action, limit) = (WHAT, CALL_TIMEOUT);
            Err(refused(WHAT, &runtime::Error::Timeout { action, limit }))
        }
    }
}

fn failed(action: &'static str, source: Error) -> Problem {
    refused(action, &runtime::Error::Docker { action, source })
}
