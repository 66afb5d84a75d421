//! How allocations of one service lie over the values of an attribute: evenly, by shares, or at
//! most so many on each. Owns the text forms.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{as_text, check_key, check_value};
use crate::problem::Problem;

/// Spread over the values of an attribute: `zone`, `zone max-skew 1`, `zone a=60%,b=40%`. Nodes
/// without the attribute count as one value of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Spread {
    /// The attribute: `node.name`, `host`, `zone`, ...
    pub key: String,
    /// Wanted shares by value, in percent; values that are not named share the rest evenly. Empty:
    /// all the same.
    pub percent: BTreeMap<String, u32>,
    /// How many more than the least (with shares: than its share) a value may have; none: as even
    /// as there is room for.
    pub max_skew: Option<u32>,
}

/// At most so many allocations of a service per value of an attribute: `1 per host`. Nodes without
/// the attribute count as one value of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MaxPer {
    /// The attribute: `node.name`, `host`, `zone`, ...
    pub key: String,
    /// How many, at least 1.
    pub count: u32,
}

as_text!(Spread, MaxPer);

impl Spread {
    /// Checks key, shares and skew.
    ///
    /// # Errors
    /// Says what is accepted.
    pub fn check(&self) -> Result<(), Problem> {
        check_key(&self.key)?;
        self.percent.keys().try_for_each(|value| {
            check_value(value)?;
            let has_sign = value.contains(['=', '%']) || value.contains(char::is_whitespace);
            if has_sign {
                let text = format!("`{}` cannot be given a share", value.escape_debug());
                return Err(Problem::invalid("value", text).hint("a value without spaces, = and %"));
            }
            Ok(())
        })?;
        let total: u64 = self.percent.values().map(|share| u64::from(*share)).sum();
        if total > 100 || self.percent.values().any(|share| *share == 0) {
            let text = format!("the shares add up to {total}%");
            return Err(
                Problem::invalid("percent", text).hint("at least 1% each, at most 100% together")
            );
        }
        if self.max_skew == Some(0) {
            let text = "a skew of 0 cannot be kept";
            return Err(Problem::invalid("max-skew", text).hint("1 or more, or leave it out"));
        }
        Ok(())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        for (index, (value, share)) in self.percent.iter().enumerate() {
            let mark = if index == 0 { " " } else { "," };
            write!(f, "{mark}{value}={share}%")?;
        }
        match self.max_skew {
            Some(skew) => write!(f, " max-skew {skew}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Spread {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let bad = || {
            let text = format!("`{}` is not a spread", text.escape_debug());
            Problem::invalid("spread", text).hint(
                "an attribute, and shares or a skew where wanted: `zone a=60%,b=40% max-skew 1`",
            )
        };
        let mut words = text.split_whitespace().peekable();
        let mut spread = Self {
            key: words.next().ok_or_else(bad)?.to_owned(),
            percent: BTreeMap::new(),
            max_skew: None,
        };
        if let Some(shares) = words.next_if(|word| word.contains('=')) {
            for share in shares.split(',') {
                let (value, share) = share.split_once('=').ok_or_else(bad)?;
                let share = share.strip_suffix('%').unwrap_or(share);
                let share = share.parse().map_err(|_| bad())?;
                if spread.percent.insert(value.to_owned(), share).is_some() {
                    return Err(bad());
                }
            }
        }
        if words.next_if(|word| *word == "max-skew").is_some() {
            let skew = words.next().and_then(|word| word.parse().ok());
            spread.max_skew = Some(skew.ok_or_else(bad)?);
        }
        if words.next().is_some() {
            return Err(bad());
        }
        spread.check()?;
        Ok(spread)
    }
}

impl MaxPer {
    /// Checks key and count.
    ///
    /// # Errors
    /// Says what is accepted.
    pub fn check(&self) -> Result<(), Problem> {
        check_key(&self.key)?;
        if self.count == 0 {
            return Err(Problem::invalid("count", "none at all is no limit").hint("1 or more"));
        }
        Ok(())
    }
}

impl fmt::Display for MaxPer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.count, self.key)
    }
}

impl FromStr for MaxPer {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let parsed = match words[..] {
            [count, "per", key] => count.parse().ok().map(|count| Self {
                // As people say it; every node has its name.
                key: if key == "node" { "node.name" } else { key }.to_owned(),
                count,
            }),
            _ => None,
        };
        let limit = parsed.ok_or_else(|| {
            let text = format!("`{}` is not a limit", text.escape_debug());
            Problem::invalid("max_per", text).hint("for example `1 per node` or `2 per host`")
        })?;
        limit.check()?;
        Ok(limit)
    }
}
