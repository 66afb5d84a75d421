//! The bundles that a table names: opened before it is taken, as that waits for the disk.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use skep_ingress::files::{Bundle, Bundles};
use skep_proto::v1::NodeTable;

/// Those that can be opened, by folder.
pub(super) type Opened = HashMap<String, Bundle>;

/// Opens all that `message` names. One that cannot be opened is left out, and tried again with the next table. Blocks
/// on the disk.
pub(super) fn open(bundles: &Bundles, message: &NodeTable) -> Opened {
    let routes = message.routes.iter().chain(&message.ruled);
    let backends = routes.flat_map(|route| &route.backends);
    let backends = backends.map(|it| &it.files);
    let endpoints = message.endpoints.iter().map(|it| &it.files);
    let services = message.networks.iter().flat_map(|it| &it.services);
    let targets = services.flat_map(|it| &it.backends).map(|it| &it.files);
    let named: BTreeSet<&String> = backends.chain(endpoints).chain(targets).collect();
    let named = named.into_iter().filter(|folder| !folder.is_empty());
    let open = |folder: &String| match bundles.open(Path::new(folder)) {
        Ok(bundle) => Some((folder.clone(), bundle)),
        Err(error) => {
            let why = crate::error_chain(&error);
            tracing::error!(%folder, %why, "the files of a static site are not handed out");
            None
        }
    };
    named.filter_map(open).collect()
}
