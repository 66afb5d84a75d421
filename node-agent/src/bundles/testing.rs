//! Bundles for tests.

use std::fs::File;
use std::io::{Seek as _, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use skep_ingress::files::{Index, Site};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::unpack;

/// Who makes a layer.
pub(super) type Layer = Builder<GzEncoder<File>>;

/// A layer of what `fill` puts into it.
pub(super) fn layer(fill: impl FnOnce(&mut Layer)) -> File {
    let file = tempfile::tempfile().expect("a file");
    let mut layer = Builder::new(GzEncoder::new(file, Compression::fast()));
    fill(&mut layer);
    let packed = layer.into_inner().expect("packed");
    let mut file = packed.finish().expect("packed");
    file.flush().expect("written");
    file.rewind().expect("a file");
    file
}

/// Adds one entry, whatever its name.
pub(super) fn add(layer: &mut Layer, name: &str, (kind, link): (EntryType, &str), text: &[u8]) {
    let mut header = Header::new_gnu();
    let bytes = &mut header.as_old_mut().name;
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    if !link.is_empty() {
        header.set_link_name_literal(link).expect("a link");
    }
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    layer.append(&header, text).expect("appended");
}

/// Adds a file.
pub(super) fn file(layer: &mut Layer, name: &str, text: &[u8]) {
    add(layer, name, (EntryType::Regular, ""), text);
}

/// A site that was unpacked.
pub(super) fn unpacked(files: &[(&str, &str)]) -> (TempDir, Index) {
    let folder = tempfile::tempdir().expect("a folder");
    let layer = layer(|layer| {
        for (name, text) in files {
            file(layer, name, text.as_bytes());
        }
    });
    let unpacked = unpack(vec![layer], Site::default(), folder.path()).expect("unpacked");
    (folder, unpacked.index)
}
