//! Numbers and times as people type them, as whole thousandths and milliseconds: exact, so that
//! what is printed reads back as the same value.

/// A decimal with at most three places, in thousandths.
pub(super) fn to_milli(text: &str) -> Option<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let dangling = text.ends_with('.') || whole.is_empty();
    if dangling || !digits(whole) || !digits(places) || places.len() > 3 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let places: u64 = format!("{places:0<3}").parse().ok()?;
    whole.checked_mul(1_000)?.checked_add(places)
}

/// Thousandths as the shortest decimal.
pub(super) fn from_milli(milli: u64) -> String {
    let (whole, places) = (milli / 1_000, milli % 1_000);
    if places == 0 {
        return whole.to_string();
    }
    let places = format!("{places:03}");
    format!("{whole}.{}", places.trim_end_matches('0'))
}

/// `250ms`, `15s`, `5m`, `1h`, or a bare unit (`min` of `4/min`), in ms.
pub(super) fn to_ms(text: &str) -> Option<u64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" | "sec" => 1_000,
        "m" | "min" => 60_000,
        "h" | "hour" => 3_600_000,
        _ => return None,
    };
    let number = if number.is_empty() {
        1_000
    } else {
        to_milli(number)?
    };
    let ms = number.checked_mul(unit_ms)?;
    ms.is_multiple_of(1_000).then_some(ms / 1_000)
}

/// The largest unit that divides it; a bare unit for one of it.
pub(super) fn from_ms(ms: u64) -> String {
    for (unit_ms, unit) in [(3_600_000, "hour"), (60_000, "min"), (1_000, "s")] {
        if ms == unit_ms {
            return unit.to_owned();
        }
    }
    for (unit_ms, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms > 0 && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}
