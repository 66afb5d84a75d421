//! Files of static sites, handed out by this process itself: no container, no web server beside it. The agent has
//! unpacked them into a folder; what a path means, what clients may keep and how contents go out is decided here.

mod answer;
mod body;
mod bundle;
mod conditions;
mod find;
mod index;
mod keep;

pub(crate) use body::Body;
pub use bundle::{Bundle, Bundles};
pub use index::{
    Error, FORMAT, File, INDEX, Index, MAX_INDEX_BYTES, Site, content_name, gzip_name,
};
