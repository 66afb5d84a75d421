//! Files of static sites, handed out by this process itself: no container, no web server beside it.

mod index;

pub use index::{
    Error, FORMAT, File, INDEX, Index, MAX_INDEX_BYTES, Site, content_name, gzip_name,
};
