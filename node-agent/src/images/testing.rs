//! What the tests of images have in common.

use super::digest::Digest;

/// An image of one layer.
pub(super) struct Image {
    pub(super) layer: Vec<u8>,
    pub(super) config: Vec<u8>,
    pub(super) manifest: Vec<u8>,
}

/// The image whose layer is this.
pub(super) fn image(layer: &[u8]) -> Image {
    let layer_digest = Digest::of(layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}}}}"#
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","size":{},"digest":"{}"}},
        "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":{},"digest":"{layer_digest}"}}]}}"#,
        config.len(),
        Digest::of(config.as_bytes()),
        layer.len()
    );
    Image {
        layer: layer.to_vec(),
        config: config.into_bytes(),
        manifest: manifest.into_bytes(),
    }
}
