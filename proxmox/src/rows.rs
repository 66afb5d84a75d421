//! Lists: one row that cannot be read does not hide the others.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// A list of Proxmox's.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows<T> {
    /// What could be read, in Proxmox's order.
    pub rows: Vec<T>,
    /// What could not.
    pub odd: Vec<Odd>,
}

/// A row that could not be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Odd {
    /// The row.
    pub row: Value,
    /// What is wrong with it.
    pub why: String,
}

impl<T: DeserializeOwned> Rows<T> {
    /// Of an array, of which these rows are read; nothing is no row.
    pub(crate) fn read_where(value: Value, is_meant: fn(&Value) -> bool) -> Result<Self, String> {
        let all = match value {
            Value::Null => Vec::new(),
            Value::Array(all) => all,
            other => return Err(format!("a list is expected, not {}", kind_of(&other))),
        };
        let mut read = Self {
            rows: Vec::with_capacity(all.len()),
            odd: Vec::new(),
        };
        for row in all.into_iter().filter(is_meant) {
            match serde_json::from_value(row.clone()) {
                Ok(row) => read.rows.push(row),
                Err(error) => read.odd.push(Odd {
                    row,
                    why: error.to_string(),
                }),
            }
        }
        Ok(read)
    }

    /// Of an array.
    pub(crate) fn read(value: Value) -> Result<Self, String> {
        Self::read_where(value, |_| true)
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
