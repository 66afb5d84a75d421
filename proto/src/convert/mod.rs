//! The only conversions between messages and `skep-model`. Into a message never fails; out of one
//! fails with the field's name: bytes from disk or wire are checked here and nowhere else.

mod autoscale;
mod build;
mod certificate;
mod container;
mod deployment;
mod entity;
mod forge;
mod forge_app;
mod guest;
mod image_push;
mod job;
mod machine;
mod maintenance;
mod network;
mod network_check;
mod node;
mod notify;
mod placement;
mod polling;
mod preview;
mod probe;
mod pushed;
mod rebalance;
mod registry;
mod rollout;
mod route;
pub mod sample;
mod server;
mod settings;
mod shell;
mod spec;
mod stack;
mod storage;
mod tcp;
mod volume;
mod webhook;
mod work;

use skep_model::id::NodeId;
use skep_model::problem::{Code, Problem};

pub use guest::note_out;
pub use polling::{found_in, found_out};
pub use probe::{reaches, reaches_of};
pub use pushed::holders_in;
pub use registry::{registry_in, registry_out};
pub use route::{rules_in, rules_out};
pub use tcp::door_in;

use crate::v1;

/// A message that does not mean anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}` is missing or out of range")]
pub struct Error {
    /// The field at fault.
    pub field: &'static str,
}

/// Text of another machine, no longer than this.
pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

pub(crate) fn error(field: &'static str) -> Error {
    Error { field }
}

/// An id as 16 big-endian bytes.
pub fn id_bytes(bits: u128) -> Vec<u8> {
    bits.to_be_bytes().to_vec()
}

/// The bits of an id.
///
/// # Errors
/// Not 16 bytes.
pub fn id_bits(field: &'static str, bytes: &[u8]) -> Result<u128, Error> {
    <[u8; 16]>::try_from(bytes)
        .map(u128::from_be_bytes)
        .map_err(|_| error(field))
}

/// Ids of nodes.
///
/// # Errors
/// One of them is not 16 bytes.
pub fn node_ids(messages: &[Vec<u8>]) -> Result<Vec<NodeId>, Error> {
    let ids = messages.iter().map(|bytes| id_bits("witnesses", bytes));
    ids.map(|bits| bits.map(NodeId::from_u128)).collect()
}

/// The same where 0 stands for none: empty.
pub fn optional_id_bytes(bits: u128) -> Vec<u8> {
    match bits {
        0 => Vec::new(),
        bits => id_bytes(bits),
    }
}

/// The bits of an id that may be missing; 0: it is.
///
/// # Errors
/// Neither empty nor 16 bytes.
pub fn optional_id_bits(field: &'static str, bytes: &[u8]) -> Result<u128, Error> {
    match bytes {
        [] => Ok(0),
        bytes => id_bits(field, bytes),
    }
}

/// An id out of a message's bytes: `id!(NodeId, message.node)`.
macro_rules! id {
    ($type:ty, $message:ident . $field:ident) => {
        <$type>::from_u128($crate::convert::id_bits(
            stringify!($field),
            &$message.$field,
        )?)
    };
}
pub(crate) use id;

/// A field that must be there: `need!(message.target)`.
macro_rules! need {
    ($message:ident . $field:ident) => {
        $message
            .$field
            .ok_or($crate::convert::error(stringify!($field)))?
            .try_into()?
    };
}
pub(crate) use need;

/// Position in the type's `ALL`, plus one.
pub fn enum_number<T: PartialEq>(all: &[T], value: &T) -> u32 {
    let position = all.iter().position(|other| other == value);
    // A value that its own list lacks would be a fault of the list, found by its tests: 0 is refused
    // on reading.
    position.map_or(0, |at| at as u32 + 1)
}

/// The value at a position of `ALL`.
///
/// # Errors
/// 0, or a number that this build does not know.
pub fn enum_value<T: Copy>(field: &'static str, all: &[T], number: u32) -> Result<T, Error> {
    let at = (number as usize).checked_sub(1).ok_or(error(field))?;
    all.get(at).copied().ok_or(error(field))
}

pub(crate) fn port(field: &'static str, number: Option<u32>) -> Result<Option<u16>, Error> {
    number
        .map(|n| u16::try_from(n).map_err(|_| error(field)))
        .transpose()
}

/// Port numbers, each of which must be one.
pub(crate) fn ports(numbers: &[u32]) -> Result<Vec<u16>, Error> {
    let ports = numbers.iter().map(|number| u16::try_from(*number));
    ports.collect::<Result<_, _>>().map_err(|_| error("ports"))
}

impl From<&Problem> for v1::Problem {
    fn from(problem: &Problem) -> Self {
        Self {
            code: enum_number(&Code::ALL, &problem.code),
            message: problem.message.clone(),
            field: problem.field.clone(),
            hint: problem.hint.clone(),
        }
    }
}

impl TryFrom<v1::Problem> for Problem {
    type Error = Error;

    fn try_from(message: v1::Problem) -> Result<Self, Error> {
        Ok(Self {
            // A code of a newer build still is a problem worth showing.
            code: enum_value("code", &Code::ALL, message.code).unwrap_or(Code::Internal),
            message: message.message,
            field: message.field,
            hint: message.hint,
        })
    }
}

pub(crate) fn problem(message: Option<v1::Problem>) -> Result<Option<Problem>, Error> {
    message.map(Problem::try_from).transpose()
}

#[cfg(test)]
mod tests;
