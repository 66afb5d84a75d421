//! Storage of hosts, and what is on it.

use bytes::Bytes;
use serde::Deserialize;

use crate::error::Error;
use crate::lenient;
use crate::request::{Call, File, Method, Request};
use crate::rows::Rows;
use crate::upid::Upid;

/// A storage as a host sees it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Storage {
    /// Its name.
    pub storage: String,
    /// `zfspool`, `lvmthin`, `dir`, `rbd`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// `images,rootdir,iso`.
    #[serde(default)]
    pub content: String,
    /// Whether hosts share it: a guest on it moves without its disks.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub shared: Option<bool>,
    /// Whether it can be used now.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub active: Option<bool>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub total: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub used: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub avail: Option<u64>,
}

/// Something on a storage.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Volume {
    /// `local:iso/seed-5001.iso`.
    pub volid: String,
    /// `iso`, `images`, `backup`.
    #[serde(default)]
    pub content: String,
    /// Whose it is, where it is a guest's.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub vmid: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub size: Option<u64>,
    /// When it was made, seconds since 1970.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub ctime: Option<u64>,
    /// Text for people.
    #[serde(default, deserialize_with = "lenient::text")]
    pub notes: Option<String>,
    /// Whether nobody may remove it.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub protected: Option<bool>,
}

/// `GET /nodes/{node}/storage`: storage of a host that can hold something now: `images`, `rootdir`, `iso`, `backup`.
/// `Datastore.Audit` of each.
pub fn list(host: &str, content: Option<&str>) -> Call<Rows<Storage>> {
    let request = Request::new(Method::Get, &["nodes", host, "storage"])
        .with_some("content", content)
        .with("enabled", 1);
    Call::reading(request, Rows::read)
}

/// `GET /nodes/{node}/storage/{storage}/content`: what is on one. `Datastore.Audit`.
pub fn content(host: &str, storage: &str, content: Option<&str>) -> Call<Rows<Volume>> {
    let request = Request::new(Method::Get, &["nodes", host, "storage", storage, "content"])
        .with_some("content", content);
    Call::reading(request, Rows::read)
}

/// `POST /nodes/{node}/storage/{storage}/upload`: puts an ISO there, under a name that ends with `.iso`.
/// `Datastore.AllocateTemplate`.
///
/// # Errors
/// The name is more than a name.
pub fn upload_iso(host: &str, storage: &str, name: &str, iso: Bytes) -> Result<Call<Upid>, Error> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.ends_with(".iso") || name.starts_with('.') || !name.bytes().all(is_plain) {
        return Err(Error::invalid(format!(
            "`{}` is not a file's name that ends with .iso",
            name.escape_debug()
        )));
    }
    let path = ["nodes", host, "storage", storage, "upload"];
    let mut request = Request::new(Method::Post, &path).with("content", "iso");
    request.file = Some(File {
        name: name.to_owned(),
        content: iso,
    });
    Ok(Call::new(request))
}

/// `DELETE /nodes/{node}/storage/{storage}/content/{volume}`. `Datastore.Allocate`, or `Datastore.AllocateSpace` of what is
/// one's guest's.
pub fn remove(host: &str, storage: &str, volid: &str) -> Call<Option<Upid>> {
    let path = ["nodes", host, "storage", storage, "content", volid];
    Call::new(Request::new(Method::Delete, &path))
}
