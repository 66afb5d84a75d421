//! Amounts as Compose writes them.

use std::time::Duration;

/// `512m`, `1.5gb`, `64KiB`, `1024`: every unit is a power of 1024, as it is for Docker.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = lower.split_at(end.unwrap_or(lower.len()));
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    let bytes = number * (1_u64 << shift) as f64;
    // Far below what a u64 holds: the cast cannot cut.
    (0.0..1e18).contains(&bytes).then_some(bytes as u64)
}

/// `1m30s`, in ms.
pub(crate) fn millis(text: &str) -> Option<u64> {
    let time: Duration = humantime::parse_duration(text).ok()?;
    u64::try_from(time.as_millis()).ok()
}

/// `0.5` cores, in thousandths.
pub(crate) fn cpu_millis(text: &str) -> Option<u32> {
    let cores: f64 = text.parse().ok()?;
    // In range, so the cast cannot cut.
    (0.0..=10_000.0)
        .contains(&cores)
        .then(|| (cores * 1_000.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_those_of_docker() {
        for (text, wanted) in [
            ("1024", Some(1_024)),
            ("0", Some(0)),
            ("50M", Some(50 << 20)),
            ("1.5gb", Some(3 << 29)),
            ("64 KiB", Some(64 << 10)),
            ("2g", Some(2 << 30)),
            ("", None),
            ("m", None),
            ("1x", None),
            ("-1", None),
            ("1e30", None),
            ("99999999t", None),
        ] {
            assert_eq!(bytes(text), wanted, "{text}");
        }
        assert_eq!(
            (millis("1m30s"), millis("500ms"), millis("x")),
            (Some(90_000), Some(500), None)
        );
        assert_eq!(
            (cpu_millis("0.5"), cpu_millis("nan"), cpu_millis("-1")),
            (Some(500), None, None)
        );
    }
}
