//! What a registry has, as it comes: manifests by digest, blobs into a writer. Their sums are looked at by whoever keeps
//! them.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::bucket::Object;
use super::*;
use crate::images::back::Failed;
use crate::images::manifest::Part;
use crate::images::store::Writer;

impl Remote {
    /// A manifest by its digest, which it has.
    ///
    /// # Errors
    /// It is not there, or another one is.
    pub(crate) async fn manifest_bytes(&self, digest: Digest) -> Result<Bytes, Error> {
        let answer = match &self.objects {
            Some(objects) => objects.get(&self.http, Object::Manifest(digest)).await?,
            None => self.manifest(Method::GET, &digest.to_string()).await?,
        };
        let bytes = self.http.read(answer).await?;
        let found = Digest::of(&bytes);
        match found == digest {
            true => Ok(bytes),
            false => Err(Error::Digest {
                found: found.to_string(),
                wanted: digest,
            }),
        }
    }

    /// Copies a blob into a writer, and no more of it than its manifest says.
    ///
    /// # Errors
    /// The registry does not give all of it, or the disk is full.
    pub(in crate::images) async fn copy_blob(
        &self,
        part: Part,
        writer: &mut Writer,
    ) -> Result<(), Failed> {
        let mut answer = self.blob(part.digest).await?;
        let mut written = 0;
        loop {
            let frame = timeout(self.http.silence, answer.body_mut().frame()).await;
            let frame = frame.map_err(|_| Error::Silent(self.http.silence))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| Error::Unreachable(error.to_string()))?;
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            written += bytes.len() as u64;
            if written > part.size {
                break;
            }
            writer.write(&bytes).await.map_err(Failed::Store)?;
        }
        if written != part.size {
            let text = format!(
                "it gave {written} bytes of {}, which has {}",
                part.digest, part.size
            );
            return Err(Error::Odd(text).into());
        }
        writer.flush().await.map_err(Failed::Store)
    }

    /// A blob, from where the registry sends whoever asks for it.
    async fn blob(&self, digest: Digest) -> Result<Response<Incoming>, Error> {
        if let Some(objects) = &self.objects {
            return objects.get(&self.http, Object::Blob(digest)).await;
        }
        let mut url = self.url(&format!("blobs/{digest}"));
        for _ in 0..REDIRECTS_MAX {
            let answer = self
                .call(Call {
                    method: Method::GET,
                    url: url.clone(),
                    headers: &[],
                    payload: Payload::None,
                })
                .await?;
            match answer.status() {
                StatusCode::OK => return Ok(answer),
                StatusCode::NOT_FOUND => return Err(Error::Missing(digest.to_string())),
                status if status.is_redirection() => url = place(&url, answer.headers())?,
                _ => return Err(self.odd(answer).await),
            }
        }
        Err(Error::Odd(format!(
            "{digest} is sent on more than {REDIRECTS_MAX} times"
        )))
    }
}
