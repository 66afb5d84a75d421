//! How much of each fault a run does: a fixed sample in `make test`, all of it in `make chaos`.

/// Whether `SKEP_CHAOS=full` was asked for.
pub fn is_full() -> bool {
    std::env::var("SKEP_CHAOS").is_ok_and(|value| value == "full")
}

/// `sample`, or `full` where all of it was asked for.
pub fn count(sample: u32, full: u32) -> u32 {
    if is_full() { full } else { sample }
}
