//! Several services that share the requests of one route.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::name;
use crate::problem::Problem;

/// Most services of one split.
pub const MAX_SPLIT: usize = 10;
/// Highest weight: shares of a thousandth can be said.
pub const MAX_WEIGHT: u32 = 1_000;

/// A service of the same environment, and how much of a route's requests it gets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Its name. One that is not there, or has nothing healthy, leaves its share to the others.
    pub service: String,
    /// 0 to 1000, of the sum of all; 0: nothing.
    pub weight: u32,
}

/// Whether a route's requests can be split so; an empty list splits nothing.
pub(super) fn check(split: &[Split]) -> Result<(), Problem> {
    if split.len() > MAX_SPLIT {
        let text = format!("{} services are too many", split.len());
        return Err(Problem::invalid("split", text).hint(format!("at most {MAX_SPLIT}")));
    }
    let mut seen = BTreeSet::new();
    for (number, it) in split.iter().enumerate() {
        name::check(&format!("split[{number}].service"), &it.service)?;
        let field = format!("split[{number}].weight");
        if it.weight > MAX_WEIGHT {
            let text = format!("{} is out of range", it.weight);
            return Err(Problem::invalid(field, text).hint(format!("0 to {MAX_WEIGHT}")));
        }
        if !seen.insert(&it.service) {
            let text = format!("`{}` is named twice", it.service);
            return Err(Problem::invalid("split", text).hint("one weight for each service"));
        }
    }
    if !split.is_empty() && split.iter().all(|it| it.weight == 0) {
        return Err(Problem::invalid("split", "nobody would get a request")
            .hint("a `weight` above 0 for one service, or leave `split` out"));
    }
    Ok(())
}

pub(super) fn bytes_of(split: &[Split]) -> usize {
    split.iter().map(|it| it.service.len()).sum()
}
