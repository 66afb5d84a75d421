//! From other nodes into this node's store, and no further: of a bundle Docker needs to know nothing.

use std::fs::File;

use futures_util::future::try_join_all;
use skep_model::assignment::ImagePeer;
use skep_model::problem::{Code, Problem};
use skep_model::service::Image;

use super::Images;
use super::back::Givers;
use super::manifest::Part;
use super::pull::{disk, name_of, not_fetched};

/// An image whose blobs are all here.
pub(crate) struct Taken {
    /// Its configuration.
    pub(crate) config: Vec<u8>,
    /// Its layers, lowest first: open, so that no clean-up takes them away.
    pub(crate) layers: Vec<File>,
}

impl Images {
    /// Brings all blobs of an image into the store.
    ///
    /// # Errors
    /// Nobody has it, or the disk is full.
    pub(crate) async fn take(
        &self,
        image: &Image,
        (peers, workspace): Givers<'_>,
    ) -> Result<Taken, Problem> {
        match self.take_from(image, peers).await {
            Err(why) => {
                self.pull_back(image, workspace, why).await?;
                self.take_from(image, &[]).await
            }
            taken => taken,
        }
    }

    async fn take_from(&self, image: &Image, peers: &[ImagePeer]) -> Result<Taken, Problem> {
        let reference = &image.reference;
        let coming = self.expect(image, peers).await?;
        self.make_room(&coming.layers, reference).await?;
        let fetched = coming
            .layers
            .iter()
            .map(|layer| self.open(*layer, reference));
        let layers = try_join_all(fetched).await?;
        self.remember(coming.digest, reference, &name_of(reference))
            .await?;
        self.inner.grown.notify_one();
        Ok(Taken {
            config: coming.config_bytes,
            layers,
        })
    }

    async fn open(&self, layer: Part, reference: &str) -> Result<File, Problem> {
        let fetched = self.inner.fetcher.fetch(layer.digest).await;
        fetched.map_err(|error| not_fetched(reference, &error))?;
        let opened = self.inner.store.read(layer.digest).await;
        let opened = opened.map_err(|error| disk(reference, &error))?;
        opened.map(|(file, _)| file).ok_or_else(|| {
            let text = format!(
                "image `{reference}`: {} was cleaned up as it came",
                layer.digest
            );
            Problem::new(Code::ImageFailed, text).hint("this node's disk has too little room")
        })
    }
}
