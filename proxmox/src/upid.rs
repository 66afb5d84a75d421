//! The name of a task.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What a call that takes time answers with: `UPID:host:pid:pstart:starttime:type:id:user:`. It names the host that has the
/// task, which is the one to ask.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Upid(String);

impl Upid {
    fn part(&self, number: usize) -> &str {
        self.0.split(':').nth(number).unwrap_or_default()
    }

    /// The host that has it.
    pub fn host(&self) -> &str {
        self.part(1)
    }

    /// When it began, in seconds since 1970.
    pub fn start_s(&self) -> u64 {
        u64::from_str_radix(self.part(4), 16).unwrap_or_default()
    }

    /// What it does: `qmclone`, `vzstart`.
    pub fn kind(&self) -> &str {
        self.part(5)
    }

    /// Whether it does no more than to give high availability an order, which carries it out in its own time and is told of
    /// nowhere: `hastart`, `hastop`.
    pub fn is_order(&self) -> bool {
        matches!(self.kind(), "hastart" | "hastop")
    }

    /// What it is about: mostly a guest's number.
    pub fn about(&self) -> &str {
        self.part(6)
    }

    /// Whose it is: `user@realm`, with `!token` behind it.
    pub fn user(&self) -> &str {
        self.part(7)
    }

    /// The whole.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Upid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split(':').collect();
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        let is_upid = parts.len() == 9
            && parts[0] == "UPID"
            && !parts[1].is_empty()
            && parts[2..5].iter().all(|part| is_hex(part))
            && !parts[5].is_empty()
            && !parts[7].is_empty()
            && parts[8].is_empty();
        match is_upid {
            true => Ok(Self(text.to_owned())),
            false => {
                let shown: String = text.chars().take(80).collect();
                let text = format!("`{}` is not the name of a task", shown.escape_debug());
                Err(Error::invalid(text))
            }
        }
    }
}

impl TryFrom<String> for Upid {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Upid> for String {
    fn from(upid: Upid) -> Self {
        upid.0
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_recorded_name() {
        let text = "UPID:pve:00004675:0005B36F:6A4A8EED:qmcreate:9101:root@pam!sdk:";
        let upid: Upid = text.parse().expect("one");
        assert_eq!(
            (upid.host(), upid.kind(), upid.about(), upid.user()),
            ("pve", "qmcreate", "9101", "root@pam!sdk")
        );
        assert_eq!(upid.start_s(), 1_783_271_149);
        // About nothing, and after 136 years of ticks.
        let long = "UPID:pve:0004675A:10005B36F:6A4A8EED:vzdump::root@pam:";
        assert_eq!(long.parse::<Upid>().expect("one").about(), "");
        for odd in [
            "",
            "OK",
            "UPID:pve:1:2:3:x:1:root@pam",
            "UPID::1:2:3:x:1:root@pam:",
            "UPID:pve:1:z:3:x:1:u:",
        ] {
            odd.parse::<Upid>().expect_err(odd);
        }
    }
}
