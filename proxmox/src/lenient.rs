//! Proxmox's types move between versions and calls: a number is a number here and text there, a boolean is 0, 1, "1", true
//! or nothing. These read all of them; what is absent, null or empty is none.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A whole number; a fraction is cut off.
pub(crate) fn integer<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(from)?;
    read(&value, |text| {
        let whole = text.parse::<u64>().ok();
        // Within 53 bits, as JSON's own numbers are.
        whole.or_else(|| {
            let number = text.parse::<f64>().ok()?;
            (0.0..9e15).contains(&number).then_some(number as u64)
        })
    })
}

/// Any number.
pub(crate) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let value = Value::deserialize(from)?;
    read(&value, |text| {
        text.parse().ok().filter(|number: &f64| number.is_finite())
    })
}

/// A boolean.
pub(crate) fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    let value = Value::deserialize(from)?;
    read(&value, |text| match text {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    })
}

/// Text, which may come as a number.
pub(crate) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let value = Value::deserialize(from)?;
    read(&value, |text| Some(text.to_owned()))
}

fn read<T, E: serde::de::Error>(
    value: &Value,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, E> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.trim().to_owned(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => return Err(E::custom("not one value")),
    };
    if text.is_empty() {
        return Ok(None);
    }
    parse(&text)
        .map(Some)
        .ok_or_else(|| E::custom(format!("`{text}` is not what is expected here")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, PartialEq, Deserialize)]
    struct All {
        #[serde(default, deserialize_with = "integer")]
        integer: Option<u64>,
        #[serde(default, deserialize_with = "number")]
        number: Option<f64>,
        #[serde(default, deserialize_with = "flag")]
        flag: Option<bool>,
        #[serde(default, deserialize_with = "text")]
        text: Option<String>,
    }

    #[test]
    fn whatever_proxmox_writes_is_read() {
        for (integer, number, flag, text) in [
            (json!(100), json!(0.5), json!(1), json!("x")),
            (json!("100"), json!("0.5"), json!("1"), json!("x")),
            (json!(100.0), json!("0.5"), json!(true), json!(" x ")),
        ] {
            let all = json!({"integer": integer, "number": number, "flag": flag, "text": text});
            let expected = All {
                integer: Some(100),
                number: Some(0.5),
                flag: Some(true),
                text: Some("x".to_owned()),
            };
            assert_eq!(
                serde_json::from_value::<All>(all.clone()).expect("read"),
                expected,
                "{all}"
            );
        }
        for nothing in [
            json!({}),
            json!({"integer": null, "number": "", "flag": "", "text": null}),
        ] {
            let all: All = serde_json::from_value(nothing).expect("read");
            assert_eq!(
                (all.integer, all.number, all.flag, all.text),
                (None, None, None, None)
            );
        }
        for odd in [
            json!({"integer": "many"}),
            json!({"integer": -1}),
            json!({"flag": "perhaps"}),
            json!({"text": []}),
            json!({"number": "NaN"}),
        ] {
            serde_json::from_value::<All>(odd.clone()).expect_err(&odd.to_string());
        }
    }
}
