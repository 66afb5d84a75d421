//! The fewest and the most replicas at a moment: the service's own bounds, and the schedules that
//! are open. The ceiling wins over a floor above it, and the service's `max` over everything.

use skep_model::autoscale::Autoscale;

/// Bounds at a moment, and the schedule that set each, by its place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) floor: u32,
    pub(super) ceiling: u32,
    pub(super) floor_by: Option<usize>,
    pub(super) ceiling_by: Option<usize>,
}

pub(super) fn bounds(spec: &Autoscale, now_ms: u64) -> Bounds {
    let mut bounds = Bounds {
        floor: spec.min.max(1),
        ceiling: spec.max.max(1),
        floor_by: None,
        ceiling_by: None,
    };
    for (number, window) in spec.schedules.iter().enumerate() {
        if !window.is_open(now_ms) {
            continue;
        }
        // Equal counts too: an open floor keeps a service awake even if it asks for no more.
        if let Some(min) = window.min
            && (min > bounds.floor || (min == bounds.floor && bounds.floor_by.is_none()))
        {
            (bounds.floor, bounds.floor_by) = (min, Some(number));
        }
        if let Some(max) = window.max
            && max < bounds.ceiling
        {
            (bounds.ceiling, bounds.ceiling_by) = (max.max(1), Some(number));
        }
    }
    bounds.floor = bounds.floor.min(bounds.ceiling);
    bounds
}
