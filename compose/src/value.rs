//! The file as a tree: what YAML says, with merge keys and anchors resolved, keys in the order of the file.
//! Knows nothing of Compose.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use skep_model::problem::Problem;

/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// One node of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A number, as it prints.
    Number(String),
    /// Text.
    Text(String),
    /// `- a`.
    List(Vec<Value>),
    /// `a: b`.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// What it is, in the words of reports.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Flag(_) => "true or false",
            Self::Number(_) => "number",
            Self::Text(_) => "text",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }
}

/// Reads the text of a file.
///
/// # Errors
/// Not YAML, a key said twice, several documents, or larger than a file of this kind ever is.
pub(crate) fn read(text: &str) -> Result<Value, Problem> {
    if text.len() as u64 > MAX_BYTES {
        let text = format!("larger than {MAX_BYTES} bytes");
        return Err(Problem::invalid("file", text));
    }
    // As Compose's own reader has it: `on` and `no` are texts, and 0440 is octal.
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        legacy_octal_numbers: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let text = format!("not YAML as Compose has it: {error}");
        Problem::invalid("file", text).hint("`docker compose config` says more about the same file")
    })
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("YAML")
    }

    fn visit_bool<E>(self, it: bool) -> Result<Value, E> {
        Ok(Value::Flag(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Value, E> {
        Ok(Value::Number(it.to_string()))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Value, E> {
        Ok(Value::Number(it.to_string()))
    }

    fn visit_i128<E>(self, it: i128) -> Result<Value, E> {
        Ok(Value::Number(it.to_string()))
    }

    fn visit_u128<E>(self, it: u128) -> Result<Value, E> {
        Ok(Value::Number(it.to_string()))
    }

    fn visit_f64<E>(self, it: f64) -> Result<Value, E> {
        Ok(Value::Number(it.to_string()))
    }

    fn visit_str<E>(self, it: &str) -> Result<Value, E> {
        Ok(Value::Text(it.to_owned()))
    }

    fn visit_string<E>(self, it: String) -> Result<Value, E> {
        Ok(Value::Text(it))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = from.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = from.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_reads_as_compose_has_it() {
        let text = "x-a: &a {restart: always, user: root}\nservices:\n  web:\n    <<: *a\n    user: app\n    mode: 0440\n";
        let Value::Map(top) = read(text).expect("read") else {
            panic!("a map");
        };
        let Value::Map(services) = &top[1].1 else {
            panic!("a map");
        };
        let Value::Map(web) = &services[0].1 else {
            panic!("a map");
        };
        let find = |key: &str| {
            let mut found = web.iter().filter(|(name, _)| name == key);
            let value = found.next().map(|(_, value)| value.clone());
            assert!(found.next().is_none(), "{key} once");
            value
        };
        assert_eq!(find("restart"), Some(Value::Text("always".into())));
        assert_eq!(find("user"), Some(Value::Text("app".into())));
        assert_eq!(find("<<"), None);
    }

    #[test]
    fn scalars_are_what_compose_takes_them_for() {
        let number = |text: &str| Value::Number(text.to_owned());
        let text = |text: &str| Value::Text(text.to_owned());
        for (said, wanted) in [
            ("0440", number("288")),
            ("'0440'", text("0440")),
            ("1.10", number("1.1")),
            ("\"1.10\"", text("1.10")),
            ("-1", number("-1")),
            ("true", Value::Flag(true)),
            ("no", text("no")),
            ("on", text("on")),
            ("22:22", text("22:22")),
            ("2024-01-01", text("2024-01-01")),
            ("~", Value::Null),
            ("", Value::Null),
            ("''", text("")),
        ] {
            let map = read(&format!("a: {said}\n")).expect(said);
            assert_eq!(map, Value::Map(vec![("a".to_owned(), wanted)]), "{said}");
        }
    }

    #[test]
    fn what_is_not_one_file_is_refused() {
        for (text, part) in [
            ("a: 1\na: 2\n", "duplicate"),
            ("a: [1\n", "line"),
            ("a: 1\n---\nb: 2\n", "document"),
            ("a: *nowhere\n", "anchor"),
        ] {
            let problem = read(text).expect_err(text);
            let told = problem.message.to_lowercase();
            assert!(told.contains(part), "{text}: {told}");
        }
        // Each anchor is ten of the one before it: the parser's budget ends that.
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..9 {
            let before = vec![format!("*a{}", n - 1); 10].join(", ");
            bomb.push_str(&format!("a{n}: &a{n} [{before}]\n"));
        }
        assert!(read(&bomb).is_err());
    }
}
