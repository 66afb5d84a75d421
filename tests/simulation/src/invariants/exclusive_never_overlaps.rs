//! Two leaders that schedule from older views never start two allocations where one is wanted:
//! the plan that comes second is refused.

use super::{Applied, Held, broken};

pub(crate) fn applied(applied: &Applied<'_>) -> Held {
    if applied.live > 1 {
        return broken(
            "exclusive-never-overlaps",
            format!(
                "{} allocations of an exclusive service live at index {}",
                applied.live, applied.position.index
            ),
        );
    }
    Ok(())
}
